package admit

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many handshakes are begun. A site of some hundred nodes behind one address joins within a minute; a secret of 128
// bits is not guessed at any rate.
const (
	rateAll     = rate.Limit(50) // a second
	burstAll    = 200
	ratePerIP   = rate.Limit(5) // a second
	burstPerIP  = 60
	maxRatedIPs = 1024 // remembered at once; when full, those that are idle are forgotten
)

// rates limits handshakes. Safe for concurrent use.
type rates struct {
	mu    sync.Mutex
	all   *rate.Limiter
	perIP map[netip.Addr]*rate.Limiter
	swept time.Time // when idle addresses were last looked for
}

func newRates() *rates {
	return &rates{all: rate.NewLimiter(rateAll, burstAll), perIP: map[netip.Addr]*rate.Limiter{}}
}

// allow reports whether a handshake from an address may begin now.
func (r *rates) allow(from net.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip := addressOf(from)
	l := r.perIP[ip]
	if l == nil {
		if len(r.perIP) >= maxRatedIPs && !r.forgetIdle(now) {
			return false
		}
		l = rate.NewLimiter(ratePerIP, burstPerIP)
		r.perIP[ip] = l
	}
	return l.AllowN(now, 1) && r.all.AllowN(now, 1)
}

// forgetIdle drops addresses whose allowance is full again, and reports whether that made room.
func (r *rates) forgetIdle(now time.Time) bool {
	if now.Sub(r.swept) < time.Second {
		return false
	}
	r.swept = now
	for ip, l := range r.perIP {
		if l.TokensAt(now) >= burstPerIP {
			delete(r.perIP, ip)
		}
	}
	return len(r.perIP) < maxRatedIPs
}

// addressOf is the IP address of a socket address, of IPv6 the /64; zero for all others together.
func addressOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64) // 64 is valid for IPv6
		return p.Addr()
	}
	return ip
}
