package main

import (
	"context"
	"fmt"
	"time"

	"vcpeer/deploy/lab"
)

// Four networks of three nodes each. All links between two nodes of one network have a round trip of 10 ms, so that the
// way is direct, and over the third when that is cut. v and u are one cluster, but far from each other.
const failoverLab = `
name: failover
sites:
  v1: {args: [--protect, "4"]}
  v2: {args: [--protect, "4"]}
  v3: {args: [--protect, "4"]}
  u1: {args: [--protect, "0"]}
  u2: {args: [--protect, "0"]}
  u3: {args: [--protect, "0"]}
  s1: {start: no}
  s2: {start: no}
  s3: {start: no}
  d1: {start: no}
  d2: {start: no}
  d3: {start: no}
links:
  default: delay=100ms
  v1<>v2: delay=5ms
  v1<>v3: delay=5ms
  v2<>v3: delay=5ms
  u1<>u2: delay=5ms
  u1<>u3: delay=5ms
  u2<>u3: delay=5ms
  s1<>s2: delay=5ms
  s1<>s3: delay=5ms
  s2<>s3: delay=5ms
  d1<>d2: delay=5ms
  d1<>d3: delay=5ms
  d2<>d3: delay=5ms
`

// directWithin is a round trip that only the direct way has.
const directWithin = 16 * time.Millisecond

// pair is two nodes between which the link is cut.
type pair struct {
	name     string
	a, b     string // sites
	from, to string // addresses
	cuts     int    // at most so many
	here     *station
	there    *station
	outages  []time.Duration
	none     int // cuts after which nothing came
}

// measureFailover cuts the direct link of a pair in each network at the same moment, with a packet every 2 ms on its way,
// and notes for how long what was sent got lost.
func measureFailover(ctx context.Context, b *bench) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := b.up(ctx, "failover", failoverLab, nil)
	if err != nil {
		return err
	}
	defer l.Down()
	pairs, err := b.failoverPairs(ctx, l)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if p.here, err = newStation(ctx, l, p.a+"-1", p.from); err != nil {
			return err
		}
		if p.there, err = newStation(ctx, l, p.b+"-1", p.to); err != nil {
			return err
		}
		go p.here.stream(ctx, isStream, p.to, 2*time.Millisecond)
		go p.here.stream(ctx, isAsked, p.to, 100*time.Millisecond)
	}
	for round := range b.cuts {
		now := pairs[:0:0]
		for _, p := range pairs {
			if round < p.cuts {
				now = append(now, p)
			}
		}
		if err := cutAll(ctx, l, now); err != nil {
			return err
		}
	}
	for _, p := range pairs {
		b.row("cut to new way: "+p.name, "%s%s", spread(p.outages), never(p.none))
	}
	return nil
}

func never(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d more without a new way within %v", n, newWayWithin)
}

func (b *bench) failoverPairs(ctx context.Context, l *lab.Lab) ([]*pair, error) {
	at, err := addresses(ctx, l, 5, "v1-1", "v2-1", "u1-1", "u2-1")
	if err != nil {
		return nil, err
	}
	pairs := []*pair{
		{name: "vcpeer, protected", a: "v1", b: "v2", from: at["v1-1"], to: at["v2-1"], cuts: b.cuts},
		{name: "vcpeer, not protected", a: "u1", b: "u2", from: at["u1-1"], to: at["u2-1"], cuts: b.cuts},
	}
	if why := missing(map[string]string{"babeld": "babeld"}); why != "" {
		b.row("babeld", "not measured: %s", why)
		return pairs, nil
	}
	for _, k := range []struct {
		site, name, options string
		cuts                int
	}{
		{"s", "babeld, hello every 200 ms", "hello-interval 0.2 update-interval 1", b.cuts},
		{"d", "babeld, defaults", "", min(2, b.cuts)},
	} {
		m := mesh{l, []string{k.site + "1-1", k.site + "2-1", k.site + "3-1"}}
		if err := static(ctx, m); err != nil {
			return nil, err
		}
		if err := babel(ctx, m, k.options); err != nil {
			return nil, err
		}
		pairs = append(pairs, &pair{name: k.name, a: k.site + "1", b: k.site + "2", from: m.loopback(0), to: m.loopback(1), cuts: k.cuts})
	}
	return pairs, nil
}

// newWayWithin is how long a new way is waited for.
const newWayWithin = 60 * time.Second

// cutAll waits until all pairs use the direct way, cuts it, and waits until what is sent arrives again.
func cutAll(ctx context.Context, l *lab.Lab, pairs []*pair) error {
	for _, p := range pairs {
		if err := until(ctx, 100*time.Millisecond, 2*time.Minute, p.name+": the direct way is used", p.direct); err != nil {
			return err
		}
	}
	if err := pause(ctx, 5*time.Second); err != nil { // links that came back are believed again
		return err
	}
	var cut time.Time
	for _, p := range pairs {
		if err := l.Cut(p.a + "<>" + p.b); err != nil {
			return err
		}
		cut = time.Now()
	}
	err := until(ctx, 20*time.Millisecond, newWayWithin, "", func() bool {
		for _, p := range pairs {
			if _, ok := firstSince(p.there.heard(p.from), cut); !ok {
				return false
			}
		}
		return true
	})
	if ctx.Err() != nil {
		return err
	}
	for _, p := range pairs {
		if sent, ok := firstSince(p.there.heard(p.from), cut); ok {
			p.outages = append(p.outages, sent.Sub(cut))
		} else {
			p.none++
		}
	}
	if err := l.Heal("*"); err != nil {
		return err
	}
	for _, p := range pairs {
		p.there.forget()
		p.here.forget()
	}
	return nil
}

// direct: of the last answers each came as quickly as only the direct way is.
func (p *pair) direct() bool {
	all := p.here.heard(p.to)
	if len(all) < 5 {
		return false
	}
	for _, e := range all[len(all)-5:] {
		if e.came.Sub(e.sent) > directWithin || time.Since(e.came) > 2*time.Second {
			return false
		}
	}
	return true
}
