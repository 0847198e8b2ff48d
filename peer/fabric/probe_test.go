package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProbeID(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option // of the seed
	}{{"quic", nil}, {"tcp only", []option{overTCP}}} {
		t.Run(tt.name, func(t *testing.T) {
			seed := start(t, "seed", &book{}, tt.opts...)
			f := start(t, "newcomer", &book{})
			id, err := f.ProbeID(short(t), fmt.Sprintf("127.0.0.1:%d", seed.Port()))
			if err != nil || id != seed.Self() {
				t.Fatalf("%v, %v", id, err)
			}
		})
	}
}

func TestProbeErrors(t *testing.T) {
	f := start(t, "newcomer", &book{})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	for _, tt := range []struct {
		addr string
		want ProbeReason
	}{
		{"no such host", BadAddress},
		{"127.0.0.1:99999", BadAddress},
		{":7475", BadAddress},
		{"seed.invalid", NoSuchName},
		{closed.Addr().String(), Refused},
		{web.Addr().String(), NotANode},
	} {
		begin := time.Now()
		_, err := f.ProbeID(short(t), tt.addr)
		var pe *ProbeError
		if !errors.As(err, &pe) || pe.Reason != tt.want {
			t.Errorf("%s: %v; want %q", tt.addr, err, tt.want)
		}
		if d := time.Since(begin); tt.want == Refused && d > 5*time.Second {
			t.Errorf("%s: a refusal took %v", tt.addr, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.ProbeID(ctx, closed.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Silence is told from refusal by the errors of the attempts alone.
func TestProbeReasons(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want ProbeReason
	}{
		{errors.Join(context.DeadlineExceeded, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), Refused},
		{errors.Join(context.DeadlineExceeded, context.DeadlineExceeded), NoAnswer},
		{errors.Join(context.DeadlineExceeded, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}), NoAnswer},
		{errors.Join(errNotANode, context.DeadlineExceeded), NotANode},
	} {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

// A newcomer and a member are strangers to each other: the newcomer may open the join protocol, and nothing else goes.
func TestConnectStranger(t *testing.T) {
	records := &book{}
	member := mesh(t, records, "member")[0]
	newcomer := start(t, "newcomer", &book{})
	member.HandleStrangers(JoinProtocol, echo)
	member.Handle(echoProto, echo)
	newcomer.Handle(echoProto, echo)
	at := fmt.Sprintf("127.0.0.1:%d", member.Port())
	if _, err := newcomer.Open(short(t), member.Self(), JoinProtocol); !errors.Is(err, ErrNotMember) {
		t.Errorf("without leave: %v", err)
	}
	release, err := newcomer.ConnectStranger(short(t), member.Self(), at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newcomer.Open(short(t), member.Self(), JoinProtocol)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := newcomer.Open(short(t), member.Self(), echoProto); !errors.Is(err, ErrProtocol) {
		t.Errorf("a member's protocol for a stranger: %v", err)
	}
	if _, err := member.Open(short(t), newcomer.Self(), echoProto); !errors.Is(err, ErrNotMember) {
		t.Errorf("the member opens to a stranger: %v", err)
	}
	release()
	release()
	if _, err := newcomer.Open(short(t), member.Self(), JoinProtocol); !errors.Is(err, ErrNotMember) {
		t.Errorf("after release: %v", err)
	}
	if _, err := newcomer.ConnectStranger(short(t), idOf("somebody else"), at); err == nil || !strings.Contains(err.Error(), "mismatch") {
		t.Errorf("another key than expected: %v", err)
	}
}
