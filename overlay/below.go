package overlay

import (
	"net/netip"
	"slices"
	"time"

	"vcpeer/overlay/sealed"
	"vcpeer/overlay/underlay"
)

// lookEvery is how often the machine's addresses are looked at.
const lookEvery = time.Second

// lookBelow learns the addresses that tunnels can use, and tells how this node takes part when that changes.
func (s *session) lookBelow(now time.Time) {
	if now.Sub(s.looked) < lookEvery {
		return
	}
	s.looked = now
	local, err := underlay.Locals(func(a netip.Addr, link string) bool {
		// Another daemon's network is no underlay, nor are its sealed links.
		return !s.sw.Made(link) && !sealed.DefaultNet.Contains(a) && s.n.cfg.Underlay(a, link)
	})
	if err != nil {
		s.n.cfg.Log.Warn("the machine's addresses cannot be listed", "err", err)
		return
	}
	s.local = local
	f := Facts{Takes: true}
	for _, l := range local {
		if len(f.Underlay) < maxUnderlay {
			f.Underlay = append(f.Underlay, l.Addr)
		}
		if f.MTU == 0 || l.MTU < f.MTU {
			f.MTU = l.MTU
		}
	}
	slices.SortFunc(f.Underlay, netip.Addr.Compare)
	if s.facts.Takes && f.MTU == s.facts.MTU && slices.Equal(f.Underlay, s.facts.Underlay) {
		return
	}
	s.facts = f
	s.n.cfg.Facts(f)
}

// maxUnderlay is how many addresses a node tells of.
const maxUnderlay = 8
