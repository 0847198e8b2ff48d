package ovs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"vcpeer/overlay/flow"
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
			n.answer(xid, body)
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

// count asks how many flows of ours there are: those with our magic, without those that are left to learn(); and whether
// flow.DataTable has seen frames since it was last asked.
type count struct {
	w    *watcher
	xid  uint32 // of the last question of a round
	turn uint64 // when the round was asked
	left int    // answers to come about flows
	sum  int64

	frames uint64 // that flow.DataTable has seen; fewer than before: some flows are new
}

// allTables is OFPTT_ALL.
const allTables = 0xff

func (n *count) ask(out io.Writer) error {
	n.turn, n.left, n.sum = n.w.turn.Load(), 1+len(n.w.leave), 0
	const magic = uint64(flow.Magic) << 48
	batch := n.question(nil, flow.DataTable, magic, flow.CookieMask)
	batch = n.question(batch, allTables, magic, flow.CookieMask)
	for _, c := range n.w.leave {
		batch = n.question(batch, allTables, c, ^uint64(0))
	}
	_, err := out.Write(batch)
	return err
}

// question appends an aggregate request for the flows of a table with such cookies.
func (n *count) question(b []byte, table byte, cookie, mask uint64) []byte {
	n.xid++
	body := []byte{0, ofAggregate, 0, 0, 0, 0, 0, 0, table, 0, 0, 0}
	body = append(body, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
	body = binary.BigEndian.AppendUint64(body, cookie)
	body = binary.BigEndian.AppendUint64(body, mask)
	body = append(body, 0, 1, 0, 4, 0, 0, 0, 0) // no match fields
	return append(b, message(ofMultipartRequest, n.xid, body)...)
}

// answer takes one reply; with the last of a round it compares.
func (n *count) answer(xid uint32, body []byte) {
	if len(body) < 32 || binary.BigEndian.Uint16(body) != ofAggregate {
		return
	}
	packets, flows := binary.BigEndian.Uint64(body[8:]), int64(binary.BigEndian.Uint32(body[24:]))
	switch ago, flowQuestions := n.xid-xid, uint32(1+len(n.w.leave)); {
	case ago > flowQuestions: // of an earlier round
		return
	case ago == flowQuestions:
		if packets > n.frames && n.frames > 0 {
			n.w.mail.put(Event{Kind: Busy, Bridge: n.w.name})
		}
		n.frames = max(packets, 1)
		return
	case ago == flowQuestions-1:
		n.sum += flows
	default:
		n.sum -= flows
	}
	if n.left--; n.left > 0 {
		return
	}
	expect := n.w.expect.Load()
	if n.turn%2 == 1 || n.turn != n.w.turn.Load() || expect < 0 || n.sum == expect {
		return
	}
	n.w.touched.Store(true)
	n.w.expect.Store(-1) // told once; Program sets it anew
	n.w.log.Info("somebody changed flows", "want", expect, "have", n.sum)
	n.w.mail.put(Event{Kind: Changed, Bridge: n.w.name})
}
