package portmap

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Protocol is how a router is asked.
type Protocol string

// The protocols.
const (
	PCP    Protocol = "PCP"
	NATPMP Protocol = "NAT-PMP"
	UPnP   Protocol = "UPnP"
)

// State is what the router has said last. The zero value: it was not asked.
type State struct {
	Router   netip.Addr     // asked; not valid: there is none, or it was not asked yet
	Protocol Protocol       // that it answers to; empty: none
	UDP, TCP netip.AddrPort // what it says to pass on, as seen from outside; not valid: it does not
	Refused  string         // why it maps nothing, or not all
}

// Mapped reports whether the router says that it passes something on.
func (s State) Mapped() bool { return s.UDP.IsValid() || s.TCP.IsValid() }

// Config is what a Mapper needs. Port and Told are required.
type Config struct {
	Port  uint16 // of this machine, and wanted outside
	UDP   bool   // UDP as well as TCP
	Nonce Nonce  // secret; the same after a restart, so that the mappings are still this node's
	Told  func(State)
	Log   *slog.Logger // nil: nothing is logged

	gateway func() (netip.Addr, error)                                  // nil: the default route's
	find    func(context.Context, netip.Addr) (asker, *[2]grant, error) // nil: PCP, NAT-PMP, UPnP
}

const (
	lifetime   = 10 * time.Minute // how long a mapping outlives this process if that is killed
	renewEvery = time.Minute      // a router that was restarted has forgotten all
	retryFirst = 30 * time.Second // when nothing was mapped; then longer
	retryMost  = 15 * time.Minute
	findWithin = 15 * time.Second
	backWithin = 2 * time.Second // to take the mapping back at the end
)

// Mapper keeps a mapping.
type Mapper struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex
	wanted bool
	again  bool // ask at once

	// Owned by Run.
	state  State
	router asker // that has answered; nil: none
	held   [2]grant
	failed int
}

// New makes a mapper that asks nothing yet.
func New(cfg Config) *Mapper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.gateway == nil {
		cfg.gateway = defaultGateway
	}
	m := &Mapper{cfg: cfg, wake: make(chan struct{}, 1)}
	if m.cfg.find == nil {
		m.cfg.find = m.find
	}
	return m
}

// Want says whether a mapping is of use; while it is not the router is left alone.
func (m *Mapper) Want(yes bool) {
	m.mu.Lock()
	changed := m.wanted != yes
	m.wanted = yes
	m.mu.Unlock()
	if changed {
		m.poke()
	}
}

// Again has the router asked at once: it may be another one, or have forgotten.
func (m *Mapper) Again() {
	m.mu.Lock()
	m.again = true
	m.mu.Unlock()
	m.poke()
}

func (m *Mapper) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps the mapping while it is wanted, until ctx ends, and takes it back then.
func (m *Mapper) Run(ctx context.Context) {
	due := time.NewTimer(0)
	defer due.Stop()
	defer m.takeBack()
	timed := false
	for {
		m.mu.Lock()
		wanted, again := m.wanted, m.again
		m.again = false
		m.mu.Unlock()
		switch {
		case !wanted && m.state != State{}:
			m.takeBack()
			m.tell(State{})
		case wanted && (again || timed || m.state == State{}):
			if again { // even with the same router this machine may have another address
				m.router, m.held = nil, [2]grant{}
			}
			due.Reset(m.round(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			timed = true
		case <-m.wake:
			timed = false
		}
	}
}

// round asks once and returns when to ask again.
func (m *Mapper) round(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	gateway, err := m.cfg.gateway()
	if err != nil {
		m.router, m.held = nil, [2]grant{}
		m.tell(State{Refused: err.Error()})
		return m.later()
	}
	if gateway != m.state.Router {
		m.router, m.held = nil, [2]grant{}
	}
	got := m.held
	err = errNoAnswer
	if m.router != nil {
		err = m.ask(ctx, m.router, &got)
	}
	if isSilence(err) {
		var found *[2]grant
		if m.router, found, err = m.cfg.find(ctx, gateway); found != nil {
			got = *found
		}
	}
	if ctx.Err() != nil {
		return m.later()
	}
	next := State{Router: gateway}
	if m.router != nil {
		next.Protocol = m.router.protocol()
	}
	if err != nil && !isSilence(err) {
		next.Refused = err.Error()
	}
	if m.router == nil || err != nil && got == m.held { // what was not renewed is not relied on
		got = [2]grant{}
	}
	m.held = got
	next.TCP, next.UDP = got[0].at, got[1].at
	m.tell(next)
	if err != nil {
		return m.later()
	}
	m.failed = 0
	return min(renewEvery, shortest(got)/2)
}

// isSilence tells a router that does not answer from one that refuses.
func isSilence(err error) bool {
	_, refused := errors.AsType[*Refusal](err)
	return err != nil && !refused
}

func shortest(all [2]grant) time.Duration {
	life := time.Duration(lifetime)
	for _, g := range all {
		if g.life > 0 {
			life = min(life, g.life)
		}
	}
	return max(life, 8*time.Second) // RFC 6887 section 11.2.1: no oftener than every 4 s
}

func (m *Mapper) later() time.Duration {
	m.failed++
	return min(retryFirst<<min(m.failed-1, 8), retryMost)
}

// ask maps both ports, or renews them. One that is refused does not keep the other from being mapped.
func (m *Mapper) ask(ctx context.Context, by asker, got *[2]grant) error {
	var first error
	for i := range got {
		udp := i == 1
		if udp && !m.cfg.UDP {
			continue
		}
		want := got[i].at
		if !want.IsValid() { // the same number for both is what others guess
			want = netip.AddrPortFrom(netip.Addr{}, cmp.Or(got[0].at.Port(), m.cfg.Port))
		}
		g, err := by.ask(ctx, request{udp, m.cfg.Port, want, lifetime})
		if isSilence(err) {
			return err
		}
		got[i] = g
		first = cmp.Or(first, err)
	}
	return first
}

// find tries the protocols in turn.
func (m *Mapper) find(ctx context.Context, gateway netip.Addr) (asker, *[2]grant, error) {
	var got [2]grant
	s := &server{at: netip.AddrPortFrom(gateway, serverPort), nonce: m.cfg.Nonce}
	err := m.ask(ctx, s, &got)
	if err == nil {
		return s, &got, nil
	}
	m.cfg.Log.Debug("the router maps nothing by PCP or NAT-PMP", "router", gateway, "err", err)
	refused := !isSilence(err)
	u, uerr := findUPnP(ctx, gateway)
	if uerr == nil {
		var more [2]grant
		if uerr = m.ask(ctx, u, &more); uerr == nil || !refused {
			return u, &more, uerr
		}
	}
	m.cfg.Log.Debug("the router maps nothing by UPnP", "router", gateway, "err", uerr)
	if refused {
		return s, &got, err
	}
	return nil, nil, err
}

func (m *Mapper) tell(s State) {
	if s == m.state {
		return
	}
	m.state = s
	m.cfg.Log.Info("the router before this machine", "router", s.Router, "protocol", s.Protocol, "udp", s.UDP, "tcp", s.TCP, "refused", s.Refused)
	m.cfg.Told(s)
}

// takeBack gives up what is mapped.
func (m *Mapper) takeBack() {
	ctx, cancel := context.WithTimeout(context.Background(), backWithin)
	defer cancel()
	for i, g := range m.held {
		if m.router == nil || !g.at.IsValid() {
			continue
		}
		if _, err := m.router.ask(ctx, request{i == 1, m.cfg.Port, g.at, 0}); err != nil {
			m.cfg.Log.Debug("a mapping not taken back", "err", err)
		}
	}
	m.router, m.held, m.failed = nil, [2]grant{}, 0
}
