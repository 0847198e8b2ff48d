package flow

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Flow is one rule of a table, in the words of ovs-ofctl(8). Two flows with equal Table, Priority and Match are the same
// rule.
type Flow struct {
	Table    uint8
	Priority uint16 // never 0 by accident: what a dump leaves out is 32768
	Match    string // "dl_type=0x88b5,in_port=3"; empty: everything
	Actions  string // "drop", "set_field:…->tun_id,output:2"
}

// Group is a set of buckets of which a datapath picks by itself, in the words of ovs-ofctl(8).
type Group struct {
	ID      uint32
	Type    string   // "ff": the first bucket that lives
	Buckets []string // "watch_port:5,actions=output:5"
}

// Magic stands in the upper 16 bits of the cookie of every flow of ours; flows with other cookies are somebody else's.
const Magic = 0x7663 // "vc"

// CookieMask selects the magic in a cookie.
const CookieMask uint64 = 0xffff << 48

// Cookie names a flow by all that it says: equal cookies, equal flows. The upper 16 bits are Magic.
func (f Flow) Cookie() uint64 {
	sum := sha256.Sum256([]byte(f.Text()))
	return uint64(Magic)<<48 | binary.BigEndian.Uint64(sum[:])>>16
}

// Text is the flow without its cookie, as ovs-ofctl takes it.
func (f Flow) Text() string {
	match := f.Match
	if match != "" {
		match = "," + match
	}
	return fmt.Sprintf("table=%d,priority=%d%s,actions=%s", f.Table, f.Priority, match, f.Actions)
}

// Text is the group as ovs-ofctl takes it.
func (g Group) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "group_id=%d,type=%s", g.ID, g.Type)
	for _, bucket := range g.Buckets {
		b.WriteString(",bucket=" + bucket)
	}
	return b.String()
}

// Tables is all that a bridge is to hold. Flows are sorted and each rule stands once; groups are sorted by ID.
type Tables struct {
	Flows  []Flow
	Groups []Group
}

// sort brings tables into the one order that equal inputs give.
func (t *Tables) sort() {
	slices.SortFunc(t.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Match, b.Match),
			cmp.Compare(a.Actions, b.Actions))
	})
	slices.SortFunc(t.Groups, func(a, b Group) int { return cmp.Compare(a.ID, b.ID) })
}
