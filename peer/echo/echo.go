// Package echo asks machines by ICMP echo requests (RFC 792), as ping(8) does: it measures the way that programs' packets
// take to whoever has a kernel, without anything of ours at the other end. It needs the right to open raw sockets.
//
//	err := echo.Run(ctx, echo.Ask{To: addr, Count: 3, Interval: time.Second}, func(p echo.Pong) { … })
package echo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of an IP packet with a request in it, bytes: headers and what tells requests apart, up to what IP allows.
const (
	MinSize = headers + tokenBytes + seqBytes
	MaxSize = 65535
)

const (
	headers    = 20 + icmpHeader
	icmpHeader = 8
	tokenBytes = 8
	seqBytes   = 8
)

const (
	typeReply   = 0
	typeRequest = 8
)

// Ask is what to send.
type Ask struct {
	To       netip.Addr    // IPv4
	Count    int           // 0: until the context ends
	Interval time.Duration // 0: a second
	Timeout  time.Duration // 0: two seconds
	Size     int           // of the IP packet, bytes; 0: as small as it can be. Packets are never fragmented
}

// Pong is what became of one request.
type Pong struct {
	Seq  int // from 1
	Lost bool
	RTT  time.Duration
}

// ErrTooLarge says that a packet is larger than the way to the other takes.
var ErrTooLarge = errors.New("the packet is too large for the way there")

// token tells the requests of one Run from all others.
type token [tokenBytes]byte

// request is an ICMP message of a size that includes the IP header.
func request(t token, seq uint64, size int) []byte {
	m := make([]byte, size-headers+icmpHeader)
	m[0] = typeRequest
	binary.BigEndian.PutUint16(m[4:], binary.BigEndian.Uint16(t[:]))
	binary.BigEndian.PutUint16(m[6:], uint16(seq))
	copy(m[icmpHeader:], t[:])
	binary.BigEndian.PutUint64(m[icmpHeader+tokenBytes:], seq)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// reply reads an ICMP message; false: it answers nothing that t sent.
func reply(m []byte, t token) (seq uint64, ok bool) {
	if len(m) < icmpHeader+tokenBytes+seqBytes || m[0] != typeReply || m[1] != 0 || checksum(m) != 0 || token(m[icmpHeader:icmpHeader+tokenBytes]) != t {
		return 0, false
	}
	return binary.BigEndian.Uint64(m[icmpHeader+tokenBytes:]), true
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// answered is an answer and when it came.
type answered struct {
	seq uint64
	at  time.Time
}

// Run sends requests and calls each for every one, when its answer comes or is given up. It returns when all are done, with
// the error that kept one from being sent, or with ctx's.
func Run(ctx context.Context, ask Ask, each func(Pong)) error {
	if ask.Interval <= 0 {
		ask.Interval = time.Second
	}
	if ask.Timeout <= 0 {
		ask.Timeout = 2 * time.Second
	}
	if ask.Size == 0 {
		ask.Size = MinSize
	}
	if !ask.To.Is4() || ask.Size < MinSize || ask.Size > MaxSize {
		return fmt.Errorf("echo: %d bytes to %s: want IPv4 and %d to %d bytes", ask.Size, ask.To, MinSize, MaxSize)
	}
	conn, err := open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := run{ask: ask, conn: conn, each: each, sent: map[uint64]time.Time{}, in: make(chan answered, 64)}
	_, _ = rand.Read(r.token[:]) // it never fails
	read := make(chan struct{})
	go func() { defer close(read); r.read(ctx) }()
	err = r.loop(ctx)
	cancel()
	conn.Close()
	<-read
	return err
}

// open makes a raw socket that never fragments (ip(7)).
func open() (*net.IPConn, error) {
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		})
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("echo: %w", err)
	}
	return conn, nil
}

// run is one Run; its fields are loop's.
type run struct {
	ask   Ask
	conn  *net.IPConn
	token token
	each  func(Pong)
	sent  map[uint64]time.Time // those that are waited for
	next  uint64               // how many were sent
	in    chan answered
}

func (r *run) read(ctx context.Context) {
	buf := make([]byte, MaxSize+1)
	for {
		n, from, err := r.conn.ReadFromIP(buf)
		if err != nil {
			return
		}
		at := time.Now()
		if a, ok := netip.AddrFromSlice(from.IP.To4()); !ok || a != r.ask.To {
			continue
		}
		if seq, ok := reply(buf[:n], r.token); ok {
			select {
			case r.in <- answered{seq, at}:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (r *run) loop(ctx context.Context) error {
	begun := time.Now()
	for r.ask.Count == 0 || r.next < uint64(r.ask.Count) || len(r.sent) > 0 {
		wake := r.giveUp(time.Now())
		if r.ask.Count == 0 || r.next < uint64(r.ask.Count) {
			due := begun.Add(time.Duration(r.next) * r.ask.Interval)
			if !time.Now().Before(due) {
				if err := r.send(); err != nil {
					return err
				}
				continue
			}
			if wake.IsZero() || due.Before(wake) {
				wake = due
			}
		}
		if wake.IsZero() {
			continue // the last was given up
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case a := <-r.in:
			if at, ok := r.sent[a.seq]; ok {
				delete(r.sent, a.seq)
				r.each(Pong{Seq: int(a.seq), RTT: a.at.Sub(at)})
			}
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

func (r *run) send() error {
	r.next++
	m := request(r.token, r.next, r.ask.Size)
	at := time.Now()
	_, err := r.conn.WriteToIP(m, &net.IPAddr{IP: r.ask.To.AsSlice()})
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, r.ask.Size)
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Errorf("echo: %w", err)
	}
	r.sent[r.next] = at // of what a full queue dropped no answer comes
	return nil
}

// giveUp tells of what is overdue, the oldest first, and returns when the next will be; zero: nothing is waited for.
func (r *run) giveUp(now time.Time) (next time.Time) {
	for {
		oldest, at := uint64(0), time.Time{}
		for seq, t := range r.sent {
			if oldest == 0 || seq < oldest {
				oldest, at = seq, t
			}
		}
		switch {
		case oldest == 0:
			return time.Time{}
		case now.Before(at.Add(r.ask.Timeout)):
			return at.Add(r.ask.Timeout)
		}
		delete(r.sent, oldest)
		r.each(Pong{Seq: int(oldest), Lost: true})
	}
}
