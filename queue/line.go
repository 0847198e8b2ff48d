package queue

import (
	"iter"
	"slices"
	"sort"
)

// line is an ordered set of job numbers that stays fast with a million of them: blocks of bounded size, so that a
// change anywhere moves little memory. The zero value is empty.
type line struct {
	blocks [][]Seq // none empty; ascending within and across
	n      int
}

const lineBlock = 512

func (l *line) len() int { return l.n }

// first returns the lowest number; false if l is empty.
func (l *line) first() (Seq, bool) {
	if len(l.blocks) == 0 {
		return 0, false
	}
	return l.blocks[0][0], true
}

// block returns the block where s is or belongs: the first whose last number is not below s, else the last.
func (l *line) block(s Seq) int {
	i := sort.Search(len(l.blocks), func(i int) bool { b := l.blocks[i]; return b[len(b)-1] >= s })
	return min(i, len(l.blocks)-1)
}

func (l *line) add(s Seq) {
	if len(l.blocks) == 0 {
		l.blocks, l.n = [][]Seq{{s}}, 1
		return
	}
	i := l.block(s)
	b := l.blocks[i]
	at, found := slices.BinarySearch(b, s)
	if found {
		return
	}
	l.n++
	if len(b) < lineBlock {
		l.blocks[i] = slices.Insert(b, at, s)
		return
	}
	// A full block splits where s comes, so that numbers which only rise leave full blocks behind.
	tail := append([]Seq{s}, b[at:]...)
	l.blocks[i] = b[:at:at]
	if at == 0 {
		l.blocks[i] = tail[:1:1]
		tail = tail[1:]
	}
	l.blocks = slices.Insert(l.blocks, i+1, tail)
}

func (l *line) remove(s Seq) {
	if len(l.blocks) == 0 {
		return
	}
	i := l.block(s)
	at, found := slices.BinarySearch(l.blocks[i], s)
	if !found {
		return
	}
	l.n--
	if at == 0 {
		l.blocks[i] = l.blocks[i][1:]
	} else {
		l.blocks[i] = slices.Delete(l.blocks[i], at, at+1)
	}
	if len(l.blocks[i]) == 0 {
		l.blocks = slices.Delete(l.blocks, i, i+1)
	}
}

// all yields the numbers in ascending order. l must not change meanwhile.
func (l *line) all() iter.Seq[Seq] {
	return func(yield func(Seq) bool) {
		for _, b := range l.blocks {
			for _, s := range b {
				if !yield(s) {
					return
				}
			}
		}
	}
}
