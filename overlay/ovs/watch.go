package ovs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// watcher holds an OpenFlow 1.4 connection to one bridge. Its end tells at once that ovs-vswitchd went away, and with it
// all flows; over it the number of our flows is asked for, to notice what others remove. It changes nothing.
type watcher struct {
	name  string
	path  string // BRIDGE.mgmt
	poll  time.Duration
	leave []uint64
	mail  *mailbox
	log   *slog.Logger

	up      atomic.Bool
	epoch   atomic.Uint64 // connections so far; another one: the tables may be empty
	touched atomic.Bool   // somebody else changed flows since Program last read them
	turn    atomic.Uint64 // odd while Program is at work; a count that spans a turn is not compared
	expect  atomic.Int64  // how many flows of ours there ought to be; -1: not known
}

func newWatcher(cfg Config, bridge string, mail *mailbox) *watcher {
	w := &watcher{
		name: bridge, path: management(cfg.RunDir, bridge), poll: cfg.Poll, leave: cfg.Leave, mail: mail,
		log: cfg.Log.With("bridge", bridge),
	}
	w.expect.Store(-1)
	return w
}

func management(runDir, bridge string) string { return filepath.Join(runDir, bridge+".mgmt") }

// probe says why a bridge cannot be reached; nil: it can.
func probe(runDir, bridge string) error {
	c, err := net.DialTimeout("unix", management(runDir, bridge), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// begin and end surround the writing of flows.
func (w *watcher) begin() {
	w.expect.Store(-1)
	w.turn.Add(1)
}

func (w *watcher) end(flows int, known bool) {
	if known {
		w.expect.Store(int64(flows))
	}
	w.turn.Add(1)
}

// run connects for ever until ctx ends, and tells of every connection but one that works at the first try.
func (w *watcher) run(ctx context.Context) {
	silent := true
	for pause := time.Duration(0); wait(ctx, pause) == nil; pause = backoff(pause) {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", w.path)
		if err != nil {
			silent = false
			continue
		}
		err = w.serve(ctx, c, func() {
			w.epoch.Add(1)
			w.up.Store(true)
			if !silent {
				w.log.Info("ovs-vswitchd serves the bridge again")
				w.mail.put(Event{Kind: Restarted, Daemon: Vswitchd, Bridge: w.name})
			}
			pause = 0
		})
		if w.up.Swap(false) && ctx.Err() == nil {
			w.log.Warn("ovs-vswitchd no longer serves the bridge", "err", err)
			w.mail.put(Event{Kind: Gone, Daemon: Vswitchd, Bridge: w.name})
		}
		silent = false
	}
}

// Numbers of OpenFlow 1.4 (ONF TS-012).
const (
	ofVersion          = 5
	ofHello            = 0
	ofError            = 1
	ofEchoRequest      = 2
	ofEchoReply        = 3
	ofMultipartRequest = 18
	ofMultipartReply   = 19
	ofFlow             = 1
	ofAggregate        = 2
	ofHeader           = 8
	silence            = 10 * time.Second // longer without an answer: the connection counts as dead
)

// serve speaks on one connection until it breaks or ctx ends.
func (w *watcher) serve(ctx context.Context, c net.Conn, ready func()) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(message(ofHello, 0, nil)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 1<<16) // a message has at most 65535 bytes
	n := count{w: w}
	heard := time.Now()
	next := heard.Add(silence) // nothing is asked before the other's hello
	for {
		if err := c.SetReadDeadline(next); err != nil {
			return err
		}
		kind, xid, body, err := receive(in)
		now := time.Now()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if now.Sub(heard) > silence {
				return fmt.Errorf("silent for %v", silence)
			}
			next = now.Add(w.poll)
			if err := n.ask(c); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		heard = now
		switch kind {
		case ofHello:
			if !w.up.Load() {
				ready()
			}
			next = now.Add(w.poll)
		case ofEchoRequest:
			if _, err := c.Write(message(ofEchoReply, xid, body)); err != nil {
				return err
			}
		case ofMultipartReply:
			if err := n.answer(xid, body, c); err != nil {
				return err
			}
		case ofError:
			w.log.Warn("OpenFlow error", "body", fmt.Sprintf("%x", body[:min(len(body), 16)]))
		}
	}
}

func message(kind byte, xid uint32, body []byte) []byte {
	b := []byte{ofVersion, kind}
	b = binary.BigEndian.AppendUint16(b, uint16(ofHeader+len(body)))
	b = binary.BigEndian.AppendUint32(b, xid)
	return append(b, body...)
}

// receive returns the next message, its body until the next call. After a deadline it can be called again: nothing is
// taken from in before the message is whole.
func receive(in *bufio.Reader) (kind byte, xid uint32, body []byte, err error) {
	head, err := in.Peek(ofHeader)
	if err != nil {
		return 0, 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if n < ofHeader {
		return 0, 0, nil, fmt.Errorf("message of %d bytes", n)
	}
	all, err := in.Peek(n)
	if err != nil {
		return 0, 0, nil, err
	}
	_, err = in.Discard(n) // leaves the bytes where they are until the next Peek
	return all[1], binary.BigEndian.Uint32(all[4:]), all[ofHeader:], err
}
