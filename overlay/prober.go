package overlay

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vcpeer/overlay/probe"
)

type prober struct {
	log    *slog.Logger
	urgent chan struct{}
	mu     sync.Mutex
	core   *probe.Core
	iface  string
	fd     int
	kick   chan struct{}
}

func newProber(log *slog.Logger) *prober {
	return &prober{log: log, urgent: make(chan struct{}, 1), fd: -1, kick: make(chan struct{}, 1),
		core: probe.New(probe.Default(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), time.Now())}
}

func (p *prober) use(iface string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.iface == iface && p.fd >= 0 {
		return
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(0x0300))
	if err != nil {
		return
	}
	tv := unix.Timeval{Usec: 200000}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: ifi.Index}); err != nil {
		unix.Close(fd)
		return
	}
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.iface, p.fd = iface, fd
	go p.read(fd)
}

func (p *prober) set(self probe.Self, t []probe.Target) {
	p.mu.Lock()
	p.core.Set(time.Now(), self, t)
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *prober) report() probe.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.core.Report(time.Now())
}

func (p *prober) send(o probe.Out) {
	for _, f := range o.Frames {
		if p.fd >= 0 {
			unix.Write(p.fd, f)
		}
	}
	for _, e := range o.Events {
		if e.Kind == probe.Up || e.Kind == probe.Down {
			select {
			case p.urgent <- struct{}{}:
			default:
			}
		}
	}
}

func (p *prober) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		out, next := p.core.Tick(time.Now())
		p.send(out)
		p.mu.Unlock()
		t := time.NewTimer(max(time.Millisecond, time.Until(next)))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-p.kick:
		}
		t.Stop()
	}
}

func (p *prober) read(fd int) {
	buf := make([]byte, 10000)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING || n < 14 || buf[12] != 0x88 || buf[13] != 0xb5 {
			continue
		}
		now := time.Now()
		p.mu.Lock()
		p.send(p.core.Receive(now, now, buf[14:n]))
		p.mu.Unlock()
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}
