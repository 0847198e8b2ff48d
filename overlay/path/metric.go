package path

import (
	"math/bits"
	"time"

	"vcpeer/overlay/label"
)

// unit is what costs are counted in: measurements through a datapath in user space are not truer than that.
const unit = 100 * time.Microsecond

// Limits in units: four links and three transit gateways stay below none, whatever they are.
const (
	linkMax    = 8000 // the most that a link costs
	dampedCost = 8000 // what a link that flaps costs more
	transitMax = 500
)

// What a link costs more that is a stream: an eighth, and 2 ms. Through a relay it takes as long as the way over that relay's
// gateway by two links that are none, which is the better one, and by as much as a better path has to be; see Config.Margin.
const (
	streamShare = 8
	streamPrice = 20
)

// cost is a cost in units, shifted, above a sum of 12-bit ties. Ties belong to links, so that of paths that cost the same
// both ends take one, yet not all pairs the one through the lowest label.
type cost uint32

const (
	tieBits      = 14
	none    cost = 1 << 30 // and anything above: no path. Two may be added
)

func (c cost) units() int { return int(c >> tieBits) }

func (c cost) duration() time.Duration { return time.Duration(c.units()) * unit }

func costOf(d time.Duration) cost { return cost((d+unit/2)/unit) << tieBits }

// tie draws 12 bits from the two ends of a link, in any order.
func tie(a, b label.Label) cost {
	x := uint32(min(a, b))<<14 | uint32(max(a, b))
	x *= 0x9e3779b1
	x = (x ^ x>>15) * 0x85ebca6b
	return cost((x ^ x>>13) * 0xc2b2ae35 >> 20)
}

// half is one end's word on a link, as rough as the codec makes it: the end that measured and those that read of it reckon
// with the same. 0: no word.
type half uint32

// Above the RTT code and the loss in sixteenths:
const (
	halfUp half = 1 << (20 + iota)
	halfSealed
	halfStream
	halfKnown
	halfNew    // the graph's mark: to be settled
	halfUsable // the graph's, on the word of the lower slot: the link was usable when last settled
)

const halfMarks = halfNew | halfUsable

func halfOf(l *Link) half {
	h := halfKnown | half(rttCode(l.RTT)) | half(lossStep(l.Loss))<<16
	if l.Up {
		h |= halfUp
	}
	if l.Kind != GRE {
		h |= halfSealed
	}
	if l.Kind == Stream {
		h |= halfStream
	}
	return h
}

func (h half) known() bool  { return h&halfKnown != 0 }
func (h half) down() bool   { return h&(halfKnown|halfUp) == halfKnown }
func (h half) sealed() bool { return h&halfSealed != 0 }
func (h half) stream() bool { return h&halfStream != 0 }
func (h half) rtt() uint32  { return rttTicks(uint16(h)) } // in ticks; 0: not measured
func (h half) loss() uint32 { return uint32(h>>16) & 15 }

// usable reports whether some end knows the link and none calls it down.
func usable(a, b half) bool { return (a | b).known() && !a.down() && !b.down() }

// sealed reports whether no end calls the link clear text.
func sealed(a, b half) bool {
	return (a.sealed() || !a.known()) && (b.sealed() || !b.known())
}

// ticksBetween is the mean of what both ends measured, or what one did.
func ticksBetween(a, b half) uint32 {
	switch ra, rb := a.rtt(), b.rtt(); {
	case ra == 0:
		return rb
	case rb == 0:
		return ra
	default:
		return (ra + rb + 1) / 2
	}
}

// prices is Config in units.
type prices struct {
	saturation uint32 // also what a link costs that is not measured
	loss       uint32
	transit    cost
	detour     float64
}

func (c *Config) prices() prices {
	return prices{
		saturation: uint32(costOf(c.Saturation).units()), loss: uint32(c.LossPrice / unit),
		transit: costOf(c.TransitPrice), detour: c.DetourShare,
	}
}

// link returns the units that a usable link costs: its RTT for every time that a packet must be sent till it arrives, and
// back, and the price of loss.
func (p *prices) link(a, b half) uint32 {
	u := p.saturation
	if t := ticksBetween(a, b); t > 0 {
		u = min(max((t+5)/10, 1), p.saturation)
	}
	if la, lb := a.loss(), b.loss(); la|lb != 0 {
		arrives := (16 - la) * (16 - lb) // of 256
		lost := 256 - arrives
		u = u*256/arrives + p.loss*lost/256*lost/256
	}
	if a.stream() || b.stream() {
		u += u/streamShare + streamPrice
	}
	return min(u, linkMax)
}

// whole returns what a path costs whose links and transit gateways cost c, with via gateways between.
func (p *prices) whole(c cost, via int) cost {
	if via == 0 || c >= none {
		return c
	}
	return c + cost(float64(c.units())*p.detour+0.5)<<tieBits
}

// RTTs travel and are reckoned with in ticks of 10 µs as numbers of 11 digits and an exponent: exact up to 20 ms, to one
// part in 2,048 above.
const (
	tick   = 10 * time.Microsecond
	rttMax = time.Minute
)

func rttCode(d time.Duration) uint16 {
	if d <= 0 {
		return 0
	}
	t := uint32(max(1, (min(d, rttMax)+tick/2)/tick))
	e := max(0, bits.Len32(t)-11)
	return uint16(uint32(e)<<10 + (t+1<<e>>1)>>e)
}

// rttTicks undoes rttCode; a code above all that it returns counts as the highest.
func rttTicks(code uint16) uint32 {
	if code < 2048 {
		return uint32(code)
	}
	code = min(code, rttCodeMax)
	e := code>>10 - 1
	return uint32(code-e<<10) << e
}

var rttCodeMax = rttCode(rttMax)

// lossStep returns sixteenths, at most 15.
func lossStep(loss float64) uint8 {
	if !(loss > 0) {
		return 0
	}
	return uint8(min(loss*16+0.5, 15))
}
