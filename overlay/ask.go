package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
)

// losers is how many paths that were not chosen an explanation names.
const losers = 5

// Explain tells why a gateway sends to another as it does: this one by its plan in force, any other as it would from what
// all gateways last said of their links. False: one of them is none, this node has no plan, or the network is off.
func (n *Network) Explain(ctx context.Context, from, to label.Label) (e path.Explanation, ok bool) {
	var in path.Input
	own := false
	done := make(chan struct{})
	ask := func(s *session) {
		defer close(done)
		in = s.input
		if own = from == in.Self && from.Valid(); own {
			e, ok = s.planner.Explain(to, losers, time.Now())
		}
	}
	if !n.ask(ctx, ask, done) {
		return e, false
	}
	if own || !from.Valid() {
		return e, ok
	}
	in.Self = from
	p := path.New(path.Default())
	p.Plan(in, time.Now())
	return p.Explain(to, losers, time.Now())
}

// ask has the session do something and returns when that is done; false: the network is off, or ctx was over before.
func (n *Network) ask(ctx context.Context, do func(*session), done <-chan struct{}) bool {
	for {
		news := *n.news.Load()
		if n.view.Load() == nil {
			return false
		}
		select {
		case n.asks <- do:
			<-done
			return true
		case <-news: // the network may have gone off
		case <-ctx.Done():
			return false
		}
	}
}

// Behind is the gateway that this one sends to for a node of another site; false: none.
func (n *Network) Behind(id crdt.NodeID) (label.Label, bool) {
	v := n.view.Load()
	if v == nil {
		return 0, false
	}
	at, ok := v.topology.byID[id]
	if !ok || at.Site == v.topology.self.Site || !v.topology.self.Label.Valid() {
		return 0, false
	}
	l := behind(v.topology, v.table, at)
	return l, l.Valid()
}

// ErrNoWay says that this node neither measures the way to another nor sends there itself: another does it for it.
var ErrNoWay = errors.New("this node has no link and no path there")

// pingsAtOnce bounds the probes of one Ping that are under way, below what the prober takes.
const pingsAtOnce = 12

// Ping sends probes through the data path. It calls each, never twice at once, for every probe, and returns when all are
// done or ctx is over. ErrNoWay: To is none that this node measures.
func (n *Network) Ping(ctx context.Context, ask PingAsk, each func(Pong)) error {
	v := n.view.Load()
	if v == nil || v.prober == nil {
		return errors.New("overlay: the network is off")
	}
	m, ok := v.probed(ask.To)
	if !ok {
		return fmt.Errorf("overlay: %s: %w", ask.To.Short(), ErrNoWay)
	}
	if ask.Interval <= 0 {
		ask.Interval = time.Second
	}
	var (
		all   sync.WaitGroup
		turn  sync.Mutex
		room  = make(chan struct{}, pingsAtOnce)
		fault error
	)
	tick := time.NewTicker(ask.Interval)
	defer tick.Stop()
	for seq := 1; ctx.Err() == nil && (ask.Count == 0 || seq <= ask.Count); seq++ {
		room <- struct{}{}
		all.Go(func() {
			pong, err := n.probe(ctx, m, ask, seq)
			<-room
			turn.Lock()
			defer turn.Unlock()
			switch {
			case err == nil:
				each(pong)
			case ctx.Err() == nil:
				fault = err
			}
		})
		if seq == ask.Count {
			break
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	all.Wait()
	return fault
}

// probed is how this node measures another.
func (v view) probed(to crdt.NodeID) (measured, bool) {
	for _, m := range v.links {
		if m.node.ID == to {
			return m, true
		}
	}
	return measured{}, false
}

// probe sends one probe and waits for what becomes of it.
func (n *Network) probe(ctx context.Context, to measured, ask PingAsk, seq int) (Pong, error) {
	v := n.view.Load()
	if v == nil || v.prober == nil {
		return Pong{}, errors.New("overlay: the network is off")
	}
	via := ask.Via
	if l, far := to.id.Label(); ask.Chosen {
		via = nil
		if c, ok := v.table.To(l); far && ok {
			via = c.Via
		}
	}
	id, err := v.prober.Ping(ctx, probe.Ping{To: to.id, Kind: to.kind, Via: via, Bytes: ask.Size, Count: 1})
	if err != nil {
		return Pong{}, err
	}
	e, err := n.pongs.wait(ctx, id)
	return Pong{Seq: seq, Lost: e.Kind == probe.PingLost, RTT: e.RTT, Via: slices.Clone(via)}, err
}

// pongs brings the prober's events to those who wait for them. An event may come before it is known who waits.
type pongs struct {
	mu    sync.Mutex
	wants map[probe.PingID]chan probe.Event
	early []probe.Event // of pings that nobody waits for yet; the newest
}

// earlyMax is more than the prober has pings at once.
const earlyMax = 64

// come takes an event; it never waits.
func (p *pongs) come(e probe.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.wants[e.Ping]; ok {
		c <- e // it has room, and only the first is wanted
		delete(p.wants, e.Ping)
		return
	}
	p.early = append(p.early, e)
	if len(p.early) > earlyMax {
		p.early = slices.Delete(p.early, 0, 1)
	}
}

// wait returns the first event of a ping.
func (p *pongs) wait(ctx context.Context, id probe.PingID) (probe.Event, error) {
	p.mu.Lock()
	if i := slices.IndexFunc(p.early, func(e probe.Event) bool { return e.Ping == id }); i >= 0 {
		e := p.early[i]
		p.early = slices.Delete(p.early, i, i+1)
		p.mu.Unlock()
		return e, nil
	}
	c := make(chan probe.Event, 1)
	if p.wants == nil {
		p.wants = map[probe.PingID]chan probe.Event{}
	}
	p.wants[id] = c
	p.mu.Unlock()
	select {
	case e := <-c:
		return e, nil
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.wants, id)
		p.mu.Unlock()
		return probe.Event{}, context.Cause(ctx)
	}
}
