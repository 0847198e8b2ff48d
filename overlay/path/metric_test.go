package path

import (
	"math"
	"testing"
	"time"
)

func TestLinkCost(t *testing.T) {
	c := Default()
	p := c.prices()
	ms := func(rtt float64, loss float64) half {
		return halfOf(&Link{RTT: time.Duration(rtt * float64(time.Millisecond)), Loss: loss, Up: true})
	}
	for _, tt := range []struct {
		a, b half
		want float64 // ms
	}{
		{ms(10, 0), ms(10, 0), 10},
		{ms(10, 0), ms(14, 0), 12},
		{ms(10, 0), 0, 10},
		{ms(10, 0), ms(0, 0), 10},
		{ms(0.01, 0), 0, 0.1}, // nothing is free
		{ms(0, 0), 0, 500},
		{ms(3000, 0), ms(700, 0), 500}, // congested links look alike
		{ms(100, 0.5), ms(100, 0), 300},
		{ms(100, 0), ms(100, 0.5), 300},
		{ms(100, 0.5), ms(100, 0.5), 625 - 0.1},
		{ms(100, 1), ms(100, 1), 800},
		{ms(100, math.NaN()), 0, 100},
	} {
		if got := float64(p.link(tt.a, tt.b)) / 10; math.Abs(got-tt.want) > 0.15 {
			t.Errorf("%x and %x cost %v ms, want %v", tt.a, tt.b, got, tt.want)
		}
	}
	if most := 4*cost(linkMax+dampedCost)<<tieBits + 3*transitMax<<tieBits + 1<<tieBits; most >= none {
		t.Errorf("the dearest path costs %d, which is no path", most)
	}
}

func TestRTTCode(t *testing.T) {
	last := uint16(0)
	for d := time.Duration(0); d < 2*rttMax; d += d/5000 + time.Microsecond {
		c := rttCode(d)
		back := time.Duration(rttTicks(c)) * tick
		if c < last || rttCode(back) != c {
			t.Fatalf("%v: code %d after %d, which is %v, of code %d", d, c, last, back, rttCode(back))
		}
		last = c
	}
	if last != rttCodeMax {
		t.Errorf("the highest code is %d, not %d", last, rttCodeMax)
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for i, change := range []func(*Config){
		func(c *Config) { c.Saturation = time.Second }, func(c *Config) { c.TransitPrice = 0 },
		func(c *Config) { c.DetourShare = math.NaN() }, func(c *Config) { c.SmallMargin = 0.2 },
		func(c *Config) { c.Confirm = 0 }, func(c *Config) { c.HoldMax = time.Second },
		func(c *Config) { c.DampForget = 0 }, func(c *Config) { c.LossPrice = -1 }, func(c *Config) { c.MarginMin = 0 },
	} {
		c := Default()
		if change(&c); c.Validate() == nil {
			t.Errorf("change %d is accepted", i)
		}
	}
}
