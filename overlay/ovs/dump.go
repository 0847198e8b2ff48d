package ovs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rule is a flow as a bridge holds it, in the words in which ovs-ofctl prints it, which need not be those it was given.
type Rule struct {
	Table    uint8
	Priority uint16
	Cookie   uint64
	Match    string // "ip,in_port=3"; empty: everything
	Actions  string
	Packets  uint64
	Bytes    uint64
	Age      time.Duration
	Rest     string // timeouts and flags, as printed
}

// place is what makes two rules the same entry of a table, of which the later replaces the earlier.
func (r Rule) place() string { return fmt.Sprintf("%d %d %s", r.Table, r.Priority, r.Match) }

// same reports whether two rules do the same to the same frames.
func (r Rule) same(o Rule) bool { return r.Actions == o.Actions && r.place() == o.place() }

const defaultPriority = 32768 // what ovs-ofctl leaves out

// parseDump reads what `ovs-ofctl --no-names dump-flows` prints. go-openvswitch's reader is not used: it fails on
// actions we need (group, dec_ttl, goto_table, controller, learn, check_pkt_larger) and drops matches.
func parseDump(out string) ([]Rule, error) {
	var rules []Rule
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "ST_FLOW reply") {
			continue
		}
		r, err := parseRule(line)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// parseRule reads one line: statistics separated by ", ", flags by blanks, then the match, then the actions.
func parseRule(line string) (Rule, error) {
	head, actions, ok := cutActions(line)
	if !ok {
		return Rule{}, fmt.Errorf("ovs: flow %q: no actions", line)
	}
	r := Rule{Priority: defaultPriority, Actions: actions}
	var rest []string
	for field := range strings.SplitSeq(head, ", ") {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch key {
		case "cookie":
			r.Cookie, err = strconv.ParseUint(value, 0, 64)
		case "table":
			err = parseTable(&r, value)
		case "n_packets":
			r.Packets, err = strconv.ParseUint(value, 10, 64)
		case "n_bytes":
			r.Bytes, err = strconv.ParseUint(value, 10, 64)
		case "duration":
			r.Age, err = time.ParseDuration(value)
		case "idle_timeout", "hard_timeout", "importance", "idle_age", "hard_age":
			rest = append(rest, field)
		default: // the last: flags and match
			for word := range strings.FieldsSeq(field) {
				if isFlag(word) {
					rest = append(rest, word)
				} else {
					err = parseMatch(&r, word)
				}
			}
		}
		if err != nil {
			return Rule{}, fmt.Errorf("ovs: flow %q: %s: %w", line, field, err)
		}
	}
	r.Rest = strings.Join(rest, " ")
	return r, nil
}

// parseMods reads what `ovs-ofctl --no-names parse-flows` prints: flows as they would be sent to a bridge, and so in the
// words in which a dump will show them.
func parseMods(out string) ([]Rule, error) {
	var rules []Rule
	for line := range strings.Lines(out) {
		_, flow, ok := strings.Cut(strings.TrimSpace(line), ": ADD ")
		if !ok || !strings.HasPrefix(line, "OFPT_FLOW_MOD") {
			continue
		}
		head, actions, ok := cutActions(flow)
		if !ok {
			return nil, fmt.Errorf("ovs: flow %q: no actions", flow)
		}
		r := Rule{Priority: defaultPriority, Actions: actions}
		for word := range strings.FieldsSeq(head) {
			key, value, _ := strings.Cut(word, ":")
			var err error
			switch key {
			case "table":
				err = parseTable(&r, value)
			case "cookie":
				r.Cookie, err = strconv.ParseUint(value, 0, 64)
			case "pri":
				err = parsePriority(&r, value)
			case "idle", "hard", "buf", "out_port", "importance":
			default:
				if !isFlag(word) {
					err = parseMatch(&r, word)
				}
			}
			if err != nil {
				return nil, fmt.Errorf("ovs: flow %q: %s: %w", flow, word, err)
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// cutActions splits a flow at its own actions; those inside of actions (learn, clone) come later in the line.
func cutActions(line string) (head, actions string, ok bool) {
	if actions, ok = strings.CutPrefix(line, "actions="); ok {
		return "", actions, true
	}
	head, actions, ok = strings.Cut(line, " actions=")
	return strings.TrimSuffix(head, ","), actions, ok
}

func parseMatch(r *Rule, word string) error {
	if first, rest, _ := strings.Cut(word, ","); strings.HasPrefix(first, "priority=") {
		r.Match = rest
		return parsePriority(r, strings.TrimPrefix(first, "priority="))
	}
	r.Match = word
	return nil
}

func parsePriority(r *Rule, value string) error {
	v, err := strconv.ParseUint(value, 10, 16)
	r.Priority = uint16(v)
	return err
}

func parseTable(r *Rule, value string) error {
	v, err := strconv.ParseUint(value, 10, 8)
	r.Table = uint8(v)
	return err
}

func isFlag(word string) bool {
	switch word {
	case "send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts", "no_readonly_table":
		return true
	}
	return false
}

// group is one as a bridge holds it.
type group struct {
	id   uint32
	text string // without the numbers that Open vSwitch gives to buckets
}

// parseGroups reads what `ovs-ofctl --no-names dump-groups` prints.
func parseGroups(out string) ([]group, error) {
	var groups []group
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "GROUP_DESC reply") {
			continue
		}
		first, _, _ := strings.Cut(line, ",")
		id, err := strconv.ParseUint(strings.TrimPrefix(first, "group_id="), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("ovs: group %q: %w", line, err)
		}
		groups = append(groups, group{id: uint32(id), text: withoutBucketIDs(line)})
	}
	return groups, nil
}

func withoutBucketIDs(text string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(text, "bucket=bucket_id:")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteString("bucket=")
		_, text, _ = strings.Cut(after, ",")
	}
}

// groupsOf names the groups that actions send frames to.
func groupsOf(actions string) (ids []uint32) {
	for {
		_, after, ok := strings.Cut(actions, "group:")
		if !ok {
			return ids
		}
		end := strings.IndexFunc(after, func(c rune) bool { return c < '0' || c > '9' })
		if end < 0 {
			end = len(after)
		}
		if id, err := strconv.ParseUint(after[:end], 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
		actions = after[end:]
	}
}
