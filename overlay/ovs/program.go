package ovs

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	library "github.com/digitalocean/go-openvswitch/ovs"

	"vcpeer/overlay/flow"
)

// Changes is what Program did.
type Changes struct {
	Added, Deleted               int // flows
	Repaired                     int // flows of which somebody had changed what they do
	GroupsWritten, GroupsDeleted int
	Read                         bool // the bridge was read, not trusted to be as it was left
}

// None reports whether nothing had to be done.
func (c Changes) None() bool {
	c.Read = false
	return c == Changes{}
}

// memory is what Program knows of a bridge since it last read or wrote it.
type memory struct {
	valid  bool
	epoch  uint64            // the watcher's, when it was read
	read   time.Time         // when it was read
	flows  map[uint64][]Rule // with our magic, by cookie; a zero Rule: as written, not read since
	groups map[uint32]string
	// normal is how Open vSwitch prints the wanted flow with a cookie.
	normal map[uint64]Rule
	// wrote is what was last given for a group; echo is how it was printed then, "" until it is read.
	wrote, echo map[uint32]string
	// tried counts repairs since the flow last looked as it ought to.
	tried map[uint64]int
}

// patience is how many repairs in a row may not help before what is printed counts as right, and normal as mistaken.
const patience = 3

// Program makes the flows and groups of a bridge what is wanted: new groups first, then all flows in one atomic bundle,
// then groups that nothing uses any more. A frame meets the old flows or the new ones, never none. Flows without
// flow.Magic are left alone, unless they stand in the place of a wanted one (same table, priority and match). Groups have no
// owner: those that are not wanted go, unless a flow of somebody else uses them.
//
// What nothing happened to since it was read (Config.Recheck ago at most) is not read again, so that one new flow costs one
// bundle of one. ErrNotRunning: nobody serves the bridge. After any error nothing is remembered, and the next call starts
// from what is there.
func (s *Switch) Program(ctx context.Context, bridge string, want flow.Tables) (Changes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[bridge]
	if b == nil {
		return Changes{}, fmt.Errorf("ovs: bridge %s: Ensure has not made it", bridge)
	}
	b.begin()
	changes, err := s.program(ctx, b, want)
	if err != nil {
		b.memory.valid = false
	}
	b.end(len(want.Flows), err == nil)
	return changes, err
}

func (s *Switch) program(ctx context.Context, b *bridge, want flow.Tables) (Changes, error) {
	m := &b.memory
	var changes Changes
	if !b.trusted(s.cfg.Recheck) {
		if err := s.recall(ctx, b, want); err != nil {
			return changes, err
		}
		changes.Read = true
	}
	groups := m.staleGroups(want)
	changes.GroupsWritten = len(groups)
	if err := s.writeGroups(ctx, b.name, groups); err != nil {
		return changes, err
	}
	for _, g := range groups {
		m.groups[g.ID], m.wrote[g.ID], m.echo[g.ID] = g.Text(), g.Text(), ""
	}

	d := m.compare(want, s.cfg.Leave)
	changes.Added, changes.Deleted, changes.Repaired = len(d.add), len(d.remove), len(d.repair)
	if d.len() > 0 {
		if err := s.bundle(ctx, b.name, d.fill); err != nil {
			return changes, err
		}
		m.record(d)
	}

	unused, err := s.unusedGroups(ctx, b, want)
	if err != nil {
		return changes, err
	}
	changes.GroupsDeleted = len(unused)
	if err := s.deleteGroups(ctx, b.name, unused); err != nil {
		return changes, err
	}
	for _, id := range unused {
		delete(m.groups, id)
		delete(m.wrote, id)
		delete(m.echo, id)
	}
	return changes, nil
}

// trusted reports whether the bridge is as Program left it, as far as anybody can know.
func (b *bridge) trusted(longest time.Duration) bool {
	return b.memory.valid && b.up.Load() && b.epoch.Load() == b.memory.epoch && !b.touched.Load() &&
		time.Since(b.memory.read) < longest
}

// Dump returns all flows of a bridge, those of others too, as ovs-ofctl prints them.
func (s *Switch) Dump(ctx context.Context, bridge string) ([]Rule, error) {
	return s.dump(ctx, bridge, "")
}

func (s *Switch) dump(ctx context.Context, bridge, match string) ([]Rule, error) {
	args := []string{flowVersion, "--no-names", "dump-flows", bridge}
	if match != "" {
		args = append(args, match)
	}
	out, err := s.ofctl(ctx, "", bridge, args...)
	if err != nil {
		return nil, err
	}
	return parseDump(out)
}

// recall reads a bridge, and learns how wanted flows that are there already ought to look.
func (s *Switch) recall(ctx context.Context, b *bridge, want flow.Tables) error {
	m := &b.memory
	epoch := b.epoch.Load()
	b.touched.Store(false) // what is touched while it is read is read again next time
	rules, err := s.dump(ctx, b.name, fmt.Sprintf("cookie=%#x/%#x", uint64(flow.Magic)<<48, flow.CookieMask))
	if err != nil {
		return err
	}
	out, err := s.ofctl(ctx, "", b.name, groupVersion, "--no-names", "dump-groups", b.name)
	if err != nil {
		return err
	}
	groups, err := parseGroups(out)
	if err != nil {
		return err
	}
	if m.normal == nil {
		m.normal, m.tried = map[uint64]Rule{}, map[uint64]int{}
		m.wrote, m.echo = map[uint32]string{}, map[uint32]string{}
	}
	m.flows, m.groups = map[uint64][]Rule{}, map[uint32]string{}
	for _, r := range rules {
		m.flows[r.Cookie] = append(m.flows[r.Cookie], r)
	}
	for _, g := range groups {
		m.groups[g.id] = g.text
		if m.echo[g.id] == "" && m.wrote[g.id] != "" {
			m.echo[g.id] = g.text
		}
	}
	if err := s.normalise(ctx, b, want.Flows); err != nil {
		return err
	}
	m.valid, m.epoch, m.read = true, epoch, time.Now()
	return nil
}

// normalise asks ovs-ofctl how it would print those flows that are there and of which this is not known; no bridge is
// involved.
func (s *Switch) normalise(ctx context.Context, b *bridge, flows []flow.Flow) error {
	m := &b.memory
	normal := make(map[uint64]Rule, len(flows))
	var ask strings.Builder
	for _, f := range flows {
		c := f.Cookie()
		if r, ok := m.normal[c]; ok {
			normal[c] = r
		} else if len(m.flows[c]) > 0 {
			fmt.Fprintf(&ask, "cookie=%#x,%s\n", c, f.Text())
		}
	}
	m.normal = normal
	maps.DeleteFunc(m.tried, func(c uint64, _ int) bool { _, ok := normal[c]; return !ok })
	if ask.Len() == 0 {
		return nil
	}
	out, err := s.ofctl(ctx, ask.String(), b.name, flowVersion, "--no-names", "parse-flows", "-")
	if err != nil {
		return err
	}
	rules, err := parseMods(out)
	if err != nil {
		return err
	}
	for _, r := range rules {
		m.normal[r.Cookie] = r
	}
	return nil
}

// difference is what a bundle has to do. add and repair are the wanted flows; first and remove are cookies.
type difference struct {
	first       []uint64 // deleted before the adds: several rules, or one in the wrong place, had the cookie of a wanted flow
	add, repair []flow.Flow
	remove      []uint64
}

func (d difference) len() int { return len(d.first) + len(d.add) + len(d.repair) + len(d.remove) }

// compare finds what is missing, what somebody changed, and what is stale.
func (m *memory) compare(want flow.Tables, leave []uint64) (d difference) {
	wanted := make(map[uint64]bool, len(want.Flows))
	for _, f := range want.Flows {
		c := f.Cookie()
		wanted[c] = true
		have := m.flows[c]
		normal, known := m.normal[c]
		switch {
		case len(have) == 0:
			d.add = append(d.add, f)
		case len(have) == 1 && have[0].same(normal):
			delete(m.tried, c)
		case len(have) == 1 && (have[0].Actions == "" || !known):
		case len(have) == 1 && m.tried[c] >= patience:
			m.normal[c] = have[0]
		default:
			if len(have) > 1 || have[0].place() != normal.place() {
				d.first = append(d.first, c)
			}
			d.repair = append(d.repair, f)
		}
	}
	for c := range m.flows {
		if !wanted[c] && !slices.Contains(leave, c) {
			d.remove = append(d.remove, c)
		}
	}
	slices.Sort(d.remove)
	return d
}

// fill writes a difference as the lines of a bundle: what replaces comes before what is deleted. In a bundle all happens
// at once, so that not even the deletions of first leave a gap.
func (d difference) fill(tx *library.FlowTransaction) {
	byCookie := func(c uint64) *library.MatchFlow { return &library.MatchFlow{Table: library.AnyTable, Cookie: c} }
	for _, c := range d.first {
		tx.Delete(byCookie(c))
	}
	for _, f := range slices.Concat(d.add, d.repair) {
		lf := &library.Flow{
			Table: int(f.Table), Priority: int(f.Priority), Cookie: f.Cookie(), Actions: []library.Action{words(f.Actions)},
		}
		if f.Match != "" {
			lf.Matches = []library.Match{words(f.Match)}
		}
		tx.Add(lf)
	}
	for _, c := range d.remove {
		tx.Delete(byCookie(c))
	}
}

// record remembers that a difference was done.
func (m *memory) record(d difference) {
	for _, f := range slices.Concat(d.add, d.repair) {
		m.flows[f.Cookie()] = []Rule{{}}
	}
	for _, f := range d.repair {
		m.tried[f.Cookie()]++
	}
	for _, c := range d.remove {
		delete(m.flows, c)
	}
}

// staleGroups are the wanted ones that are not there as wanted.
func (m *memory) staleGroups(want flow.Tables) (stale []flow.Group) {
	for _, g := range want.Groups {
		have, ok := m.groups[g.ID]
		text := g.Text()
		if ok && (have == text || m.wrote[g.ID] == text && m.echo[g.ID] == have) {
			continue
		}
		stale = append(stale, g)
	}
	return stale
}

// unusedGroups are those that are there, not wanted, and in no flow of somebody else.
func (s *Switch) unusedGroups(ctx context.Context, b *bridge, want flow.Tables) (unused []uint32, err error) {
	for id := range b.memory.groups {
		if _, ok := slices.BinarySearchFunc(want.Groups, id, func(g flow.Group, id uint32) int { return cmp.Compare(g.ID, id) }); !ok {
			unused = append(unused, id)
		}
	}
	if len(unused) == 0 {
		return nil, nil
	}
	rules, err := s.Dump(ctx, b.name) // deleting a group deletes the flows that use it
	if err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	for _, r := range rules {
		for _, id := range groupsOf(r.Actions) {
			used[id] = true
		}
	}
	unused = slices.DeleteFunc(unused, func(id uint32) bool { return used[id] })
	slices.Sort(unused)
	return unused, nil
}

// writeGroups makes or changes groups in one bundle, which the library cannot.
func (s *Switch) writeGroups(ctx context.Context, bridge string, groups []flow.Group) error {
	var lines strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&lines, "group add_or_mod %s\n", g.Text())
	}
	return s.groupBundle(ctx, bridge, lines.String())
}

func (s *Switch) deleteGroups(ctx context.Context, bridge string, ids []uint32) error {
	var lines strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&lines, "group delete group_id=%d\n", id)
	}
	return s.groupBundle(ctx, bridge, lines.String())
}

func (s *Switch) groupBundle(ctx context.Context, bridge, lines string) error {
	if lines == "" {
		return nil
	}
	_, err := s.ofctl(ctx, lines, bridge, groupVersion, "bundle", bridge, "-")
	return err
}
