package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"vcpeer/deploy/lab"
)

// echoPort is where every watched machine answers.
const echoPort = 7099

// station is a UDP socket in a machine: it sends back what others ask, and notes what comes back to it. A packet is the
// time at which it was sent, preceded by what it is.
type station struct {
	conn *net.UDPConn

	mu   sync.Mutex
	back map[netip.Addr][]echo // what came back
}

// echo is a packet that came back, or in a stream that came.
type echo struct{ sent, came time.Time }

const (
	isAsked  = 0
	isAnswer = 1
	isStream = 2 // wants no answer
)

var began = time.Now()

// newStation opens a station at an address of a machine; it ends with ctx.
func newStation(ctx context.Context, l *lab.Lab, node, addr string) (*station, error) {
	s := &station{back: map[netip.Addr][]echo{}}
	err := l.Machine(node).InNetwork(func() (err error) {
		s.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr), Port: echoPort})
		return err
	})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { s.conn.Close() })
	go s.serve()
	return s, nil
}

func (s *station) serve() {
	buf := make([]byte, 64)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		came := time.Now()
		if n != 9 {
			continue
		}
		if buf[0] == isAsked {
			buf[0] = isAnswer
			_, _ = s.conn.WriteToUDPAddrPort(buf[:n], from) // lost is what a network may do
			continue
		}
		a := from.Addr().Unmap()
		s.mu.Lock()
		s.back[a] = append(s.back[a], echo{began.Add(time.Duration(binary.BigEndian.Uint64(buf[1:]))), came})
		s.mu.Unlock()
	}
}

func (s *station) send(what byte, to string) {
	a, err := netip.ParseAddr(to)
	if err != nil {
		return
	}
	buf := binary.BigEndian.AppendUint64([]byte{what}, uint64(time.Since(began)))
	_, _ = s.conn.WriteToUDPAddrPort(buf, netip.AddrPortFrom(a, echoPort)) // no route yet is a loss
}

// stream sends a packet every so often until ctx ends.
func (s *station) stream(ctx context.Context, what byte, to string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.send(what, to)
		}
	}
}

// heard returns what came from an address, or came back from it.
func (s *station) heard(from string) []echo {
	a, _ := netip.ParseAddr(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]echo(nil), s.back[a]...)
}

func (s *station) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.back)
}

// firstSince returns when the first packet that came was sent after a moment; false: none came.
func firstSince(all []echo, t time.Time) (time.Time, bool) {
	for _, e := range all {
		if e.sent.After(t) {
			return e.sent, true
		}
	}
	return time.Time{}, false
}
