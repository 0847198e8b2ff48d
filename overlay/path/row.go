package path

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"vcpeer/overlay/label"
)

// RowMax is the most bytes that a row takes: what fits a gossip record. With links to gateways whose labels lie close, of
// one kind and MTU, it holds 1,000.
const RowMax = 3500

// rowVersion is the first byte of a row.
const rowVersion = 1

// A row is its version, From, the flags and the MTU that most links have, then for each link by To
//
//	uvarint  (To - previous To - 1) * 2, plus 1 if flags and MTU follow because they are others
//	uint16   RTT, see rttCode
//	[byte    flags: loss in sixteenths 0-3, up 4, sealed 5, over a stream 6]
//	[uvarint MTU]
//
// which is 3 bytes for a usual link next to another, 4 in a row of few links.
const (
	flagUp     = 1 << 4
	flagSealed = 1 << 5
	flagStream = 1 << 6
	flagsAll   = 1<<7 - 1
	mtuMax     = 1<<16 - 1
)

// traits is what many links of a row have in common.
type traits struct {
	flags byte
	mtu   int
}

func (t traits) compare(u traits) int {
	return cmp.Or(cmp.Compare(t.mtu, u.mtu), cmp.Compare(t.flags, u.flags))
}

func traitsOf(l *Link) traits {
	t := traits{flags: lossStep(l.Loss), mtu: max(0, min(l.MTU, mtuMax))}
	if l.Up {
		t.flags |= flagUp
	}
	switch l.Kind {
	case Sealed:
		t.flags |= flagSealed
	case Stream:
		t.flags |= flagSealed | flagStream
	}
	return t
}

// kind undoes what traitsOf makes of a link's.
func (t traits) kind() Kind {
	switch t.flags & (flagSealed | flagStream) {
	case flagSealed:
		return Sealed
	case flagSealed | flagStream:
		return Stream
	}
	return GRE
}

// EncodeRow returns r as it travels, at most RowMax bytes, and how many links were left out for that: those with the
// highest RTT, and before them those not measured. RTTs are rounded to one part in 2,048, loss to sixteenths. Links that
// cannot be, to r.From or to no gateway, are left out without count. r is not changed; its Links need no order.
func EncodeRow(r Row) (b []byte, left int) {
	links := slices.DeleteFunc(slices.Clone(r.Links), func(l Link) bool { return !l.To.Valid() || l.To == r.From })
	byTo := func(a, b Link) int { return cmp.Compare(a.To, b.To) }
	slices.SortStableFunc(links, byTo)
	links = slices.CompactFunc(links, func(a, b Link) bool { return a.To == b.To })
	all := len(links)
	b = encodeRow(r.From, links)
	if len(b) <= RowMax {
		return b, 0
	}
	slices.SortStableFunc(links, func(a, b Link) int { // unmeasured: the unsigned form of -1 is the highest
		return cmp.Compare(uint64(max(a.RTT, 0)-1), uint64(max(b.RTT, 0)-1))
	})
	for len(b) > RowMax {
		drop := max(1, (len(b)-RowMax)/maxLinkBytes)
		links = links[:len(links)-drop]
		kept := slices.Clone(links)
		slices.SortFunc(kept, byTo)
		b = encodeRow(r.From, kept)
	}
	return b, all - len(links)
}

// maxLinkBytes is the most that a link takes.
const maxLinkBytes = 3 + 2 + 1 + 3

func encodeRow(from label.Label, links []Link) []byte {
	count := map[traits]int{}
	for i := range links {
		count[traitsOf(&links[i])]++
	}
	usual, most := traits{flags: flagUp}, 0
	for t, n := range count {
		if n > most || n == most && t.compare(usual) < 0 {
			usual, most = t, n
		}
	}
	b := make([]byte, 0, 8+4*len(links))
	b = append(b, rowVersion)
	b = binary.AppendUvarint(b, uint64(from))
	b = append(b, usual.flags)
	b = binary.AppendUvarint(b, uint64(usual.mtu))
	prev := -1
	for i := range links {
		l, t := &links[i], traitsOf(&links[i])
		head := uint64(int(l.To)-prev-1) << 1
		if t != usual {
			head |= 1
		}
		b = binary.AppendUvarint(b, head)
		b = binary.BigEndian.AppendUint16(b, rttCode(l.RTT))
		if t != usual {
			b = append(b, t.flags)
			b = binary.AppendUvarint(b, uint64(t.mtu))
		}
		prev = int(l.To)
	}
	return b
}

// DecodeRow undoes EncodeRow. The row is sorted, names only gateways that can be, and shares no memory with b; more than
// RowMax bytes are refused unread.
func DecodeRow(b []byte) (Row, error) {
	if len(b) > RowMax {
		return Row{}, fmt.Errorf("path: row of %d bytes: at most %d are taken", len(b), RowMax)
	}
	d := decoder{b: b}
	if v := d.byte(); v != rowVersion && !d.short {
		return Row{}, fmt.Errorf("path: row of version %d: this node knows %d", v, rowVersion)
	}
	r := Row{From: label.Label(d.uvarint(uint64(label.Last)))}
	usual := d.traits()
	prev := -1
	if !d.bad() && len(d.b) > 0 {
		r.Links = make([]Link, 0, len(d.b)/3)
	}
	for !d.bad() && len(d.b) > 0 {
		head := d.uvarint(2*uint64(label.Last) + 1)
		to, code, t := prev+1+int(head>>1), d.uint16(), usual
		if head&1 != 0 {
			t = d.traits()
		}
		if code > rttCodeMax || to > int(label.Last) || !label.Label(to).Valid() || label.Label(to) == r.From {
			d.wrong = true
		}
		r.Links = append(r.Links, Link{
			To: label.Label(to), RTT: time.Duration(rttTicks(code)) * tick, Loss: float64(t.flags&15) / 16, MTU: t.mtu,
			Kind: t.kind(), Up: t.flags&flagUp != 0,
		})
		prev = to
	}
	switch {
	case d.short:
		return Row{}, fmt.Errorf("path: row of %d bytes: cut short", len(b))
	case d.wrong || !r.From.Valid():
		return Row{}, fmt.Errorf("path: row of %d bytes: a value that cannot be at byte %d", len(b), len(b)-len(d.b))
	}
	return r, nil
}

// decoder reads values from b; after the first that is missing or cannot be, all are zero.
type decoder struct {
	b            []byte
	short, wrong bool
}

func (d *decoder) bad() bool { return d.short || d.wrong }

func (d *decoder) take(n int) []byte {
	if d.bad() || len(d.b) < n {
		d.short = d.short || !d.wrong
		return make([]byte, n)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }

// uvarint reads a number of at most limit, in the only form that EncodeRow gives it.
func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n == 0 {
		d.short = d.short || !d.wrong
	} else if n < 0 || v > limit || n != max(1, (bits.Len64(v)+6)/7) {
		d.wrong = d.wrong || !d.short
	}
	if d.bad() {
		return 0
	}
	d.take(n)
	return v
}

func (d *decoder) traits() (t traits) {
	t.flags = d.byte()
	t.mtu = int(d.uvarint(mtuMax))
	if t.flags&^flagsAll != 0 || t.flags&(flagSealed|flagStream) == flagStream {
		d.wrong = d.wrong || !d.short
	}
	return t
}

// Changes of RTT that others are told of: a tenth, or 2 ms where that is less, but not what a datapath in user space adds
// by chance.
const (
	tellShare = 10
	tellAbove = 2 * time.Millisecond
	tellLeast = 300 * time.Microsecond
)

// Significant reports whether new differs from old, the row last gossiped, in anything that others should know: a link
// that came, went, failed or recovered, its kind, its MTU, a class of loss (none, some, much, most), or its RTT. Both are
// sorted by To.
func Significant(old, new Row) bool {
	return Reshaped(old, new) || !slices.EqualFunc(old.Links, new.Links, func(a, b Link) bool {
		return lossClass(a.Loss) == lossClass(b.Loss) && !moved(a.RTT, b.RTT)
	})
}

// Reshaped reports whether new differs from old in what a link is and not only in how good it is: one came, went, failed or
// recovered, was measured for the first time, or its kind or MTU is another.
func Reshaped(old, new Row) bool {
	return old.From != new.From || !slices.EqualFunc(old.Links, new.Links, func(a, b Link) bool {
		return a.To == b.To && a.Up == b.Up && a.Kind == b.Kind && a.MTU == b.MTU && (a.RTT == 0) == (b.RTT == 0)
	})
}

func moved(a, b time.Duration) bool {
	return (b - a).Abs() > max(tellLeast, min(a/tellShare, tellAbove))
}

func lossClass(loss float64) int {
	switch s := lossStep(loss); {
	case s == 0:
		return 0
	case s <= 2:
		return 1
	case s <= 6:
		return 2
	default:
		return 3
	}
}
