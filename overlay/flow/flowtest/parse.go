package flowtest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is one flow, read.
type rule struct {
	table    int
	priority int
	match    []condition
	actions  []action
	text     string
}

type condition struct {
	f           field
	value, mask wide
}

// action is one step of a rule; which fields count depends on kind.
type action struct {
	kind     string // resubmit, set, move, learn, larger, output, outputTo, inPort, group
	table    int
	from, to part
	value    wide
	n        uint64 // port, group or size
	learn    []learned
	priority int
}

// learned is one part of a learn action: from is copied into a match, a load, or names the port to put out to.
type learned struct {
	kind     string // match, load, output
	from, to part
}

// Switch is a bridge's tables. Groups choose by Live.
type Switch struct {
	tables map[int][]*rule // the highest priority first
	groups map[uint64][]bucket
	Live   func(port uint16) bool // nil: all ports live
}

type bucket struct {
	watch   uint16
	actions []action
}

// Parse reads flows and groups: lines as flow.Flow.Text and flow.Group.Text give them, or as dump-flows and dump-groups do.
func Parse(flows, groups []string) (*Switch, error) {
	s := &Switch{tables: map[int][]*rule{}, groups: map[uint64][]bucket{}}
	for _, line := range flows {
		if !strings.Contains(line, "actions=") {
			continue // the heading of a dump
		}
		r, err := parseFlow(line)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, line)
		}
		s.add(r)
	}
	for _, line := range groups {
		if !strings.Contains(line, "group_id=") {
			continue
		}
		if err := s.parseGroup(line); err != nil {
			return nil, fmt.Errorf("%w in %s", err, line)
		}
	}
	return s, nil
}

// add puts a rule in, in place of one with the same match.
func (s *Switch) add(r *rule) {
	t := s.tables[r.table]
	for i, old := range t {
		if old.priority == r.priority && slices.Equal(old.match, r.match) {
			t[i] = r
			return
		}
	}
	i, _ := slices.BinarySearchFunc(t, r, func(a, b *rule) int { return cmp.Or(cmp.Compare(b.priority, a.priority), -1) })
	s.tables[r.table] = slices.Insert(t, i, r)
}

func parseFlow(line string) (*rule, error) {
	r := &rule{priority: 32768, text: strings.TrimSpace(line)}
	head, tail, _ := strings.Cut(line, "actions=")
	for _, word := range strings.FieldsFunc(head, func(c rune) bool { return c == ',' || c == ' ' }) {
		k, v, _ := strings.Cut(word, "=")
		var err error
		switch k {
		case "table":
			r.table, err = strconv.Atoi(v)
		case "priority":
			r.priority, err = strconv.Atoi(v)
		case "cookie", "duration", "n_packets", "n_bytes", "idle_age", "hard_age", "importance", "idle_timeout", "hard_timeout", "send_flow_rem", "reset_counts":
		default:
			err = r.parseMatch(k, v)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(r.match, func(a, b condition) int { return cmp.Compare(a.f, b.f) })
	var err error
	r.actions, err = parseActions(strings.TrimSpace(tail))
	return r, err
}

var protocols = map[string][2]uint64{
	"arp": {0x0806}, "ip": {0x0800}, "ipv6": {0x86dd}, "icmp6": {0x86dd, 58}, "udp": {0x0800, 17}, "udp6": {0x86dd, 17}, "igmp": {0x0800, 2},
}

func (r *rule) parseMatch(k, v string) error {
	if p, ok := protocols[k]; ok {
		r.match = append(r.match, condition{ethType, wide{lo: p[0]}, ones(16)})
		if p[1] != 0 {
			r.match = append(r.match, condition{ipProto, wide{lo: p[1]}, ones(8)})
		}
		return nil
	}
	n, ok := names[k]
	if !ok {
		return fmt.Errorf("flowtest: unknown match %q", k)
	}
	value, mask, err := masked(v, n.width)
	r.match = append(r.match, condition{n.f, value, mask})
	return err
}

// split cuts at commas that stand in no parentheses.
func split(s string) []string {
	var out []string
	depth, start := 0, 0
	for i, c := range s {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func parseActions(s string) ([]action, error) {
	var out []action
	for _, text := range split(s) {
		if text == "drop" || text == "" {
			continue
		}
		a, err := parseAction(text)
		if err != nil {
			return nil, fmt.Errorf("%w: action %q", err, text)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseAction(s string) (a action, err error) {
	arrow := func(s string) (string, string) {
		from, to, _ := strings.Cut(s, "->")
		return from, to
	}
	name, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "LOCAL":
		return action{kind: "output", n: Local}, nil
	case s == "IN_PORT":
		return action{kind: "inPort"}, nil
	case strings.HasPrefix(s, "resubmit(,"):
		a.kind = "resubmit"
		a.table, err = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(s, "resubmit(,"), ")"))
	case strings.HasPrefix(s, "learn("):
		return parseLearn(strings.TrimSuffix(strings.TrimPrefix(s, "learn("), ")"))
	case strings.HasPrefix(s, "check_pkt_larger("):
		size, to := arrow(strings.TrimPrefix(s, "check_pkt_larger("))
		a.kind = "larger"
		if a.n, err = strconv.ParseUint(strings.TrimSuffix(size, ")"), 10, 16); err == nil {
			a.to, err = parsePart(to)
		}
	case name == "set_field":
		a.kind = "set"
		from, to := arrow(rest)
		if a.to, err = parsePart(to); err != nil {
			return a, err
		}
		var mask wide
		if a.value, mask, err = masked(from, a.to.width()); err != nil {
			return a, err
		}
		return narrow(a, mask)
	case name == "load":
		a.kind = "set"
		from, to := arrow(rest)
		if a.value, err = value(from); err == nil {
			a.to, err = parsePart(to)
		}
	case name == "move":
		a.kind = "move"
		from, to := arrow(rest)
		if a.from, err = parsePart(from); err == nil {
			a.to, err = parsePart(to)
		}
		if err == nil && a.from.width() != a.to.width() {
			err = fmt.Errorf("flowtest: widths differ")
		}
	case name == "group":
		a.kind = "group"
		a.n, err = strconv.ParseUint(rest, 0, 32)
	case name == "output":
		a.kind = "output"
		if a.n, err = strconv.ParseUint(rest, 0, 16); err != nil {
			a.kind = "outputTo"
			a.from, err = parsePart(rest)
		}
	default:
		err = fmt.Errorf("flowtest: unknown action")
	}
	return a, err
}

// narrow makes a set_field with a mask of one run of bits a load of these.
func narrow(a action, mask wide) (action, error) {
	from := 0
	for mask.right(from).lo&1 == 0 {
		if from++; from > a.to.to {
			return a, fmt.Errorf("flowtest: empty mask")
		}
	}
	width := 0
	for mask.right(from+width).lo&1 == 1 {
		width++
	}
	if mask != ones(width).left(from) {
		return a, fmt.Errorf("flowtest: mask with holes")
	}
	a.value = a.value.right(from)
	a.to.from, a.to.to = from, from+width-1
	return a, nil
}

func parseLearn(s string) (action, error) {
	a := action{kind: "learn", priority: 32768}
	for _, word := range split(s) {
		k, v, _ := strings.Cut(word, "=")
		var err error
		switch {
		case k == "table":
			a.table, err = strconv.Atoi(v)
		case k == "priority":
			a.priority, err = strconv.Atoi(v)
		case k == "cookie":
		case strings.HasPrefix(word, "load:"):
			from, to, _ := strings.Cut(strings.TrimPrefix(word, "load:"), "->")
			err = a.addLearned("load", from, to)
		case strings.HasPrefix(word, "output:"):
			from := strings.TrimPrefix(word, "output:")
			err = a.addLearned("output", from, from)
		default:
			err = a.addLearned("match", v, k)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *action) addLearned(kind, from, to string) error {
	l := learned{kind: kind}
	var err error
	if l.from, err = parsePart(from); err == nil {
		l.to, err = parsePart(to)
	}
	a.learn = append(a.learn, l)
	return err
}

func (s *Switch) parseGroup(line string) error {
	head, rest, _ := strings.Cut(line, "bucket=")
	var id uint64
	for _, word := range strings.FieldsFunc(head, func(c rune) bool { return c == ',' || c == ' ' }) {
		k, v, _ := strings.Cut(word, "=")
		var err error
		switch {
		case k == "group_id":
			id, err = strconv.ParseUint(v, 0, 32)
		case k == "type" && v != "ff" && v != "fast_failover":
			err = fmt.Errorf("flowtest: group of type %s", v)
		}
		if err != nil {
			return err
		}
	}
	var buckets []bucket
	for _, text := range strings.Split(rest, "bucket=") {
		var b bucket
		head, actions, _ := strings.Cut(text, "actions=")
		for _, word := range strings.Split(head, ",") {
			if port, ok := strings.CutPrefix(word, "watch_port:"); ok {
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					return err
				}
				b.watch = uint16(n)
			}
		}
		var err error
		if b.actions, err = parseActions(strings.TrimRight(strings.TrimSpace(actions), ",")); err != nil {
			return err
		}
		buckets = append(buckets, b)
	}
	s.groups[id] = buckets
	return nil
}
