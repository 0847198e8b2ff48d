package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"vcpeer/overlay/inet"
)

// Server answers guests, each by its own interface. Set may be called from anywhere; Run once.
type Server struct {
	log      *slog.Logger
	want     atomic.Pointer[map[string]Guest]
	wake     chan struct{} // holds one: more changes than one are one look
	answered atomic.Uint64
}

// NewServer returns a server that answers nobody yet.
func NewServer(log *slog.Logger) *Server {
	return &Server{log: log, wake: make(chan struct{}, 1)}
}

// Set says whom to answer from now on, and by which interface. The server keeps guests: it must not change.
func (s *Server) Set(guests map[string]Guest) {
	s.want.Store(&guests)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Answered is how many questions were answered.
func (s *Server) Answered() uint64 { return s.answered.Load() }

// Run answers until ctx ends. An interface that is missing is waited for.
func (s *Server) Run(ctx context.Context) error {
	type port struct {
		guest Guest
		stop  context.CancelFunc
	}
	ports := map[string]port{}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		}
		want := *s.want.Load()
		for iface, p := range ports {
			if g, ok := want[iface]; !ok || g != p.guest {
				p.stop()
				delete(ports, iface)
			}
		}
		for iface, g := range want {
			if _, ok := ports[iface]; !ok {
				own, stop := context.WithCancel(ctx)
				ports[iface] = port{g, stop}
				running.Go(func() { s.port(own, iface, g) })
			}
		}
	}
}

// reopen is how soon an interface that is not there, or went down, is looked at again: a guest that boots asks for minutes.
const reopen = time.Second

// port answers one guest until ctx ends.
func (s *Server) port(ctx context.Context, iface string, g Guest) {
	told := ""
	for {
		err := s.serve(ctx, iface, g)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != told {
			s.log.Debug("a guest's questions are not heard now", "err", err)
			told = text
		}
		timer := time.NewTimer(reopen)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Questions of a guest that are answered in a second, and how many may wait for their turn: what comes beyond is dropped by
// the kernel, at the cost of the filter.
const (
	askRate  = 10
	askBurst = 20
	askBytes = 32 << 10
)

// maxFrame is the largest question, bytes: a message has to fit into what any link takes.
const maxFrame = 1518

// serve answers until the interface goes away or ctx ends.
func (s *Server) serve(ctx context.Context, iface string, g Guest) error {
	conn, err := listen(iface)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	limit := rate.NewLimiter(askRate, askBurst)
	buffer := make([]byte, maxFrame)
	for next := time.Now(); ; {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(advertiseEvery)
			if out, ok := g.Advertisement(); ok {
				send(conn, out)
			}
		}
		if err := conn.SetReadDeadline(next); err != nil {
			return err
		}
		if ctx.Err() != nil { // after the deadline is set: see AfterFunc
			return context.Cause(ctx)
		}
		n, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("dhcp: read from %s: %w", iface, err)
		}
		if out, ok := g.Answer(buffer[:n]); ok {
			send(conn, out)
			s.answered.Add(1)
		}
		if err := limit.Wait(ctx); err != nil {
			return err
		}
	}
}

// send puts a frame out, or drops it: the guest asks again.
func send(conn *packet.Conn, frame []byte) {
	_, _ = conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
}

// listen opens a socket that sees the questions of the guest behind an interface, and nothing else.
func listen(iface string) (*packet.Conn, error) {
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("dhcp: interface %s: %w", iface, err)
	}
	filter, err := bpf.Assemble(questions)
	if err != nil {
		return nil, fmt.Errorf("dhcp: filter: %w", err)
	}
	conn, err := packet.Listen(dev, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("dhcp: listen on %s: %w", iface, err)
	}
	if err := bound(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dhcp: buffer of the socket on %s: %w", iface, err)
	}
	return conn, nil
}

// bound keeps what waits for its turn small.
func bound(conn *packet.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, askBytes) })
	return errors.Join(err, failed)
}

// questions lets through what parse may take, as far as headers of fixed length tell, and nothing that goes out to the guest.
var questions = func() []bpf.Instruction {
	const accept, drop = maxFrame, 0
	const next, outgoing = 6, 4 // where IPv6 says what comes next; PACKET_OUTGOING
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: outgoing, SkipTrue: 16},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: inet.EtherIPv6, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: inet.EtherIPv4, SkipTrue: 13},
		bpf.LoadAbsolute{Off: etherLen + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: udp, SkipTrue: 11},
		bpf.LoadMemShift{Off: etherLen},
		bpf.LoadIndirect{Off: etherLen + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: server4, SkipTrue: 7, SkipFalse: 8},
		bpf.LoadAbsolute{Off: etherLen + next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmp6, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: udp, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherLen + ip6Len + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: server6, SkipTrue: 2, SkipFalse: 3},
		bpf.LoadAbsolute{Off: etherLen + ip6Len, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: routerSolicitation, SkipTrue: 0, SkipFalse: 1},
		bpf.RetConstant{Val: accept},
		bpf.RetConstant{Val: drop},
	}
}()
