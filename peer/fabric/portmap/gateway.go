package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/libp2p/go-netroute"
)

// firstWait is how long the first try waits for the router; each of the next waits twice as long.
const (
	firstWait = 250 * time.Millisecond
	tries     = 4
)

var errNoAnswer = errors.New("no answer")

// farAway is on no network that this machine is on, or has a route of its own to (RFC 5737).
var farAway = net.IPv4(203, 0, 113, 1)

// defaultGateway finds the router of this machine's IPv4.
func defaultGateway() (netip.Addr, error) {
	r, err := netroute.New()
	if err != nil {
		return netip.Addr{}, err
	}
	_, via, _, err := r.Route(farAway)
	if err != nil {
		return netip.Addr{}, err
	}
	a, ok := netip.AddrFromSlice(via)
	if !ok || !a.Unmap().Is4() {
		return netip.Addr{}, errors.New("no IPv4 gateway")
	}
	return a.Unmap(), nil
}

// asker maps ports by one protocol.
type asker interface {
	protocol() Protocol
	ask(ctx context.Context, r request) (grant, error)
}

// server is a router that takes PCP or NAT-PMP.
type server struct {
	at    netip.AddrPort
	nonce Nonce
	pmp   bool // it speaks NAT-PMP only
}

func (s *server) protocol() Protocol {
	if s.pmp {
		return NATPMP
	}
	return PCP
}

// ask implements asker. What speaks only NAT-PMP is asked by that from then on.
func (s *server) ask(ctx context.Context, r request) (g grant, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp4", s.at.String())
	if err != nil {
		return g, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if !s.pmp {
		local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		err = exchange(ctx, c, pcpRequest(r, s.nonce, local), func(b []byte) (err error) {
			g, err = readPCP(b, r, s.nonce)
			return err
		})
		if !errors.Is(err, errVersion) && !errors.Is(err, errNoAnswer) { // some servers of NAT-PMP keep silent on another version
			return g, err
		}
	}
	g, err = askPMP(ctx, c, r)
	s.pmp = s.pmp || err == nil
	return g, err
}

func askPMP(ctx context.Context, c net.Conn, r request) (g grant, err error) {
	var outside netip.Addr
	if err := exchange(ctx, c, pmpAddressRequest(), func(b []byte) (err error) {
		outside, err = readPMPAddress(b)
		return err
	}); err != nil {
		return g, err
	}
	err = exchange(ctx, c, pmpRequest(r), func(b []byte) (err error) {
		g, err = readPMP(b, r, outside)
		return err
	})
	return g, err
}

// exchange sends until read takes an answer.
func exchange(ctx context.Context, c net.Conn, ask []byte, read func([]byte) error) error {
	buf := make([]byte, maxServerRead+1)
	wait := firstWait
	for range tries {
		if _, err := c.Write(ask); err != nil {
			return err
		}
		end := time.Now().Add(wait)
		wait *= 2
		for {
			_ = c.SetReadDeadline(end)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errNoAnswer, err) // nothing listens there
			}
			if err := read(buf[:n]); !errors.Is(err, errOtherAnswer) && !errors.Is(err, errMalformed) {
				return err
			}
		}
	}
	return errNoAnswer
}
