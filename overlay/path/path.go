// Package path decides over which gateways a gateway sends to every other one, from what all gateways measured of their
// links. It is pure: rows and the time are handed in, a table comes out; probing, gossip and flows are their callers'.
//
//	p := path.New(path.Default())
//	table, again := p.Plan(path.Input{Self: 1, Gateways: gateways, Rows: rows}, now) // at every change, and at again
//	for _, site := range table.Sites { … } // gateway, transit gateways, backup and MTU for every other site
//
// The sender chooses the whole way, of at most label.MaxTransit gateways between. No two tables can make a loop whatever
// they say, since the label's budget ends it; what is decided here is how short paths are and how seldom they change.
// Three transit gateways are what that takes: over uniformly random RTTs of 20 gateways the 95th percentile of the
// stretch is 1.99 with one, 1.26 with two, 1.00 with three.
//
// A link costs what its RTT is, up to a limit above which all are as bad (so that a queue can drain, after RFC 9616 and
// Jonglez, Boutier, Chroboczek: A delay-based routing metric, arXiv 1403.3488), and more for loss; a transit gateway has
// a price. A better path is taken when its gain is large and confirmed, or small and lasting, and then kept for a while;
// a path that fails is left at once; links and paths that fail again and again come back later each time (as routes do
// by RFC 2439). A path's backup is the cheapest of those that share least with it: no link between two sites that the path
// has a link between, whichever of their gateways it ends at, and no transit gateway, where there is such a one. From equal inputs at equal times all gateways draw equal conclusions, and the two ends of a pair choose
// one path, since both directions of a link cost the same and ties are broken by what belongs to the link.
package path

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"vcpeer/overlay/label"
)

// Kind is how a link carries frames.
type Kind uint8

const (
	GRE    Kind = iota // in clear text
	Sealed             // encrypted
	Stream             // encrypted, over a stream: what is lost or late holds up all that comes after it
)

func (k Kind) String() string { return [...]string{"GRE", "sealed", "sealed stream"}[k] }

// Link is what one gateway measured of its link to another.
type Link struct {
	To   label.Label
	RTT  time.Duration // the least of the last window; 0: not measured
	Loss float64       // 0 to 1, of the last window, on the way to To alone, so that one-way loss is seen
	MTU  int           // the largest inner IP packet that passed, bytes; 0: unknown
	Kind Kind
	Up   bool
}

// Row is what one gateway says of its links, sorted by To, each gateway once.
type Row struct {
	From  label.Label
	Links []Link
}

// Gateway is a gateway that takes part.
type Gateway struct {
	Label     label.Label
	Site      string
	NoTransit bool // paths may end here but not lead through
}

// Input is all that a table depends on besides the time and what was decided before. Order does not matter.
type Input struct {
	Self     label.Label // not among Gateways: the table is empty
	Gateways []Gateway   // each label once
	// Rows has at most one for each gateway; what it says of others than Gateways counts for nothing. The planner keeps
	// Links and takes the same memory for the same row, which is what makes planning cheap: never write to Links that
	// were handed in, make new ones.
	Rows       []Row
	SealedOnly bool // between sites, only encrypted links count
}

// Path is a way to one gateway.
type Path struct {
	Dst  label.Label   // 0: there is no path
	Via  []label.Label // transit gateways in order; empty: direct
	RTT  time.Duration // sum over the links of the mean of what both ends measured; 0: some link is not measured
	MTU  int           // largest inner IP packet, bytes; 0: unknown for some link
	Cost time.Duration // what paths are compared by: RTT, loss, transit
}

// Exists tells a path from none.
func (p Path) Exists() bool { return p.Dst != 0 }

// First is the gateway that frames are handed to.
func (p Path) First() label.Label {
	if len(p.Via) > 0 {
		return p.Via[0]
	}
	return p.Dst
}

func (p Path) String() string {
	if !p.Exists() {
		return "none"
	}
	var b strings.Builder
	for _, l := range p.Via {
		b.WriteString(l.String() + ">")
	}
	b.WriteString(p.Dst.String())
	if p.RTT == 0 {
		return b.String() + " unmeasured"
	}
	return b.String() + " " + p.RTT.Round(tick).String()
}

// Cause is why a choice is what it is.
type Cause uint8

const (
	First   Cause = iota // there was no path before
	Better               // than the one before
	Failed               // the one before did
	Settled              // the best of the first seconds, when all is followed
)

func (c Cause) String() string {
	return [...]string{"first path", "better than before", "the path before failed", "settled at the start"}[c]
}

// Choice is the path to a gateway.
type Choice struct {
	Path
	Direct   time.Duration // RTT of the direct link; 0: unknown, or not usable
	Backup   Path          // for failover on the spot: its first link is another, and it shares least with Path; may be none
	Since    time.Time
	Cause    Cause
	Switches int // since the gateway was first seen
}

// SiteChoice is the path to a site: to which of its gateways, and how.
type SiteChoice struct {
	Site string
	Path
	Since    time.Time
	Cause    Cause
	Switches int // of gateways; Choice counts those of the path to it
}

// Table is a plan. It never changes once returned, and its paths share memory with no later one.
type Table struct {
	Choices []Choice     // by Dst: all other gateways that can be reached
	Sites   []SiteChoice // by Site: all other sites that can be reached
}

// To returns the choice for a gateway; false: it cannot be reached.
func (t Table) To(dst label.Label) (Choice, bool) {
	i, ok := slices.BinarySearchFunc(t.Choices, dst, func(c Choice, l label.Label) int { return cmp.Compare(c.Dst, l) })
	if !ok {
		return Choice{}, false
	}
	return t.Choices[i], true
}

// Site returns the choice for a site; false: it cannot be reached.
func (t Table) Site(name string) (SiteChoice, bool) {
	i, ok := slices.BinarySearchFunc(t.Sites, name, func(c SiteChoice, s string) int { return strings.Compare(c.Site, s) })
	if !ok {
		return SiteChoice{}, false
	}
	return t.Sites[i], true
}
