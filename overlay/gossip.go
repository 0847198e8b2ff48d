package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// Heard is what a gateway said of its links, as it travelled.
type Heard struct {
	From    crdt.NodeID
	Version uint64 // grows with every saying of one gateway
	Value   []byte // shared: not changed
}

// saying is what a gateway tells the others: the links that it measured, and which of them it wants watched by BFD, to which
// both ends must agree.
type saying struct {
	row   path.Row
	watch []label.Label
}

// ErrSaying says that what a gateway told cannot be read.
var ErrSaying = errors.New("links of a gateway cannot be read")

// maxWatch bounds the wishes of one saying.
const maxWatch = 64

// encode is a count, that many labels in two bytes each, and the row.
func (s saying) encode() []byte {
	watch := s.watch[:min(len(s.watch), maxWatch)]
	out := []byte{byte(len(watch))}
	for _, l := range watch {
		out = binary.BigEndian.AppendUint16(out, uint16(l))
	}
	row, _ := path.EncodeRow(s.row) // of too many links the best are kept
	return append(out, row...)
}

func decodeSaying(b []byte) (saying, error) {
	if len(b) == 0 || int(b[0]) > maxWatch || len(b) < 1+2*int(b[0]) {
		return saying{}, fmt.Errorf("%w: %d bytes", ErrSaying, len(b))
	}
	n := int(b[0])
	var s saying
	for i := range n {
		l := label.Label(binary.BigEndian.Uint16(b[1+2*i:]))
		if !l.Valid() {
			return saying{}, fmt.Errorf("%w: label %d", ErrSaying, l)
		}
		s.watch = append(s.watch, l)
	}
	row, err := path.DecodeRow(b[1+2*n:])
	if err != nil {
		return saying{}, fmt.Errorf("%w: %w", ErrSaying, err)
	}
	s.row = row
	return s, nil
}

// sayings keeps what was heard, decoded once for each version: the planner knows a row again by its memory.
type sayings struct {
	heard map[crdt.NodeID]heardSaying
}

type heardSaying struct {
	saying
	version uint64
}

// take replaces all that was heard. What cannot be read counts as not said; its errors come back, at most one a gateway.
func (s *sayings) take(all []Heard) (errs []error) {
	next := make(map[crdt.NodeID]heardSaying, len(all))
	for _, h := range all {
		old, ok := s.heard[h.From]
		if ok && old.version == h.Version {
			next[h.From] = old
			continue
		}
		got, err := decodeSaying(h.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h.From.Short(), err))
			continue
		}
		next[h.From] = heardSaying{got, h.Version}
	}
	s.heard = next
	return errs
}

// rows are those that gateways said of themselves: nobody speaks for another.
func (s *sayings) rows(t topology) []path.Row {
	var out []path.Row
	each(t, func(n Node) {
		if h, ok := s.heard[n.ID]; ok && h.row.From == n.Label {
			out = append(out, h.row)
		}
	})
	return out
}

// watchers are the gateways that want their link to l watched.
func (s *sayings) watchers(t topology, l label.Label) []label.Label {
	var out []label.Label
	each(t, func(n Node) {
		for _, w := range s.heard[n.ID].watch {
			if w == l {
				out = append(out, n.Label)
			}
		}
	})
	return out
}

// offers are the gateways that tell of a link to l: over it they may send what is for others.
func (s *sayings) offers(t topology, l label.Label) map[label.Label]bool {
	out := map[label.Label]bool{}
	each(t, func(n Node) {
		for _, link := range s.heard[n.ID].row.Links {
			if link.To == l {
				out[n.Label] = true
			}
		}
	})
	return out
}

// each calls f for every gateway of the other sites.
func each(t topology, f func(Node)) {
	for _, s := range t.others {
		for _, n := range s.gateways {
			f(n)
		}
	}
}
