package ovs

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/overlay/flow"
)

// bridgeSays answers the questions of a watcher as ovs-vswitchd does: with so many flows and frames.
func bridgeSays(t *testing.T, c net.Conn, flows, frames *atomic.Uint64) {
	answers := make(chan []byte, 8) // a pipe holds nothing, and the other end may be writing too
	defer close(answers)
	go func() {
		for b := range answers {
			c.Write(b)
		}
	}()
	for {
		var head [ofHeader]byte
		if _, err := readFull(c, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint16(head[2:])-ofHeader)
		if _, err := readFull(c, body); err != nil {
			return
		}
		xid := binary.BigEndian.Uint32(head[4:])
		switch head[1] {
		case ofHello:
			answers <- message(ofHello, xid, nil)
		case ofMultipartRequest:
			if body[1] == ofFlow {
				hosts := append([]byte{0, ofFlow, 0, 0, 0, 0, 0, 0}, hostFlow(9, frames.Load())...)
				answers <- message(ofMultipartReply, xid, hosts)
				continue
			}
			out := make([]byte, 32)
			binary.BigEndian.PutUint16(out, ofAggregate)
			if table := body[8]; table == allTables {
				binary.BigEndian.PutUint32(out[24:], uint32(flows.Load()))
			} else {
				binary.BigEndian.PutUint64(out[8:], frames.Load())
			}
			answers <- message(ofMultipartReply, xid, out)
		default:
			t.Errorf("message of type %d", head[1])
		}
	}
}

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Read(b[n:])
		n += m
	}
	return n, err
}

func TestFlowsAndFramesAreCounted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var flows, frames atomic.Uint64
		flows.Store(7)
		go bridgeSays(t, there, &flows, &frames)
		ctx, stop := context.WithCancel(t.Context())
		var mail mailbox
		mail.init()
		go mail.run(ctx)
		w := newWatcher(Config{Poll: time.Second, Log: slog.New(slog.DiscardHandler)}, "br0", &mail)
		w.begin()
		w.end(7, true)
		done := make(chan struct{})
		go func() { defer close(done); w.serve(ctx, here, func() { w.up.Store(true) }) }()
		expect := func(what string, want Kind) {
			t.Helper()
			time.Sleep(2*w.poll + time.Millisecond)
			bubble.Wait()
			var got Kind
			select {
			case e := <-mail.out:
				got = e.Kind
				if e.Kind == Busy && !slices.Equal(e.Hosts, []flow.Slot{9}) {
					t.Errorf("%s: to %v", what, e.Hosts)
				}
			default:
			}
			if got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		const none = Kind(0)
		expect("nothing happens", none)
		frames.Store(10)
		expect("frames come", Busy)
		expect("no more of them", none)
		frames.Store(3)
		expect("flows are new, and so are their counts", none)
		frames.Store(4)
		expect("and one more frame", Busy)
		flows.Store(6)
		expect("a flow is gone", Changed)
		expect("which is told once", none)
		stop()
		<-done
		there.Close()
	})
}
