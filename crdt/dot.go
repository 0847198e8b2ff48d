package crdt

import (
	"bytes"
	"cmp"
	"slices"
)

// Dot identifies one change: the Seq-th of Author, counted from 1.
type Dot struct {
	Author NodeID
	Seq    uint64
}

// Compare orders dots by author, then sequence number.
func (d Dot) Compare(e Dot) int {
	return cmp.Or(bytes.Compare(d.Author[:], e.Author[:]), cmp.Compare(d.Seq, e.Seq))
}

// Context says what an author had seen: for each dot all changes of its author up to and with it. It lists only what
// neither the author's earlier batches nor another entry already imply (a batch carries its own context along), so it
// stays short however many authors there are. Sorted, one entry for each author, in a well-formed batch.
type Context []Dot

// sortContext puts c in order.
func sortContext(c Context) { slices.SortFunc(c, Dot.Compare) }
