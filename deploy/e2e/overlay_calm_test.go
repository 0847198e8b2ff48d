package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A ring over an underlay of IPv6 alone.
const calmTopology = `
name: calm
sites:
  one:   {ip: v6}
  two:   {ip: v6}
  three: {ip: v6}
  four:  {ip: v6}
links:
  default: delay=10ms
  one<>two: {delay: 40ms}
`

// TestOverlayStaysCalm has a link fail and recover all the time, and another grow a long queue, and counts how often paths
// change. The underlay knows no IPv4.
func TestOverlayStaysCalm(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, calmTopology))
	nodes := []string{"one-1", "two-1", "three-1", "four-1"}
	for _, node := range nodes {
		if out := n.sh(node, "ip -4 -o addr show dev eth0"); out != "" {
			t.Errorf("%s has IPv4 below the network: %s", node, out)
		}
	}
	v6 := map[string]string{}
	for _, node := range nodes {
		o, err := n.overlayOf(node)
		n.must(err)
		v6[node] = o.Address6
	}
	n.within(30*time.Second, "all pings are answered, over both families", func() bool {
		return len(n.allPing(nodes, n.addrs)) == 0 && len(n.allPing(nodes, v6, "-6")) == 0
	})
	n.within(20*time.Second, "the MTU leaves room for IPv6 below", func() bool { return n.link("one-1", "three-1").MTU == 1500-40-8-14 })
	n.within(30*time.Second, "one reaches two over another", func() bool { return len(n.path("one-1", "two-1").Via) == 1 })
	time.Sleep(10 * time.Second) // the planner follows freely at first
	n.flaps()
	n.bloats()
}

// flaps cuts and heals the link that a path begins with. Without damping each failure would be two changes.
func (n *testnet) flaps() {
	n.t.Helper()
	const times = 6
	p := n.path("one-1", "two-1")
	if len(p.Via) != 1 {
		n.t.Fatalf("the path from one to two is %v", p.Via)
	}
	first := n.Node(p.Via[0]).Site
	before, failed := p.Switches, n.link("one-1", p.Via[0]).Flaps
	for range times {
		n.must(n.Cut("one<>" + first))
		time.Sleep(1500 * time.Millisecond)
		n.must(n.Heal("one<>" + first))
		time.Sleep(1500 * time.Millisecond)
	}
	seen, changes := n.link("one-1", p.Via[0]).Flaps-failed, n.path("one-1", "two-1").Switches-before
	n.t.Logf("a link was cut %d times: it was seen to fail %d times, the path changed %d times; load %s", times, seen, changes, load())
	if seen == 0 || changes > times {
		n.t.Errorf("the path changed %d times, want at most %d, and the link to be seen failing (%d times)", changes, times, seen)
	}
	n.within(10*time.Second, "pings are answered", func() bool { return n.pings("one-1", n.addrs["two-1"]) })
}

// bloats has a TCP connection keep the queue of a link full, as far as its window goes, so that nothing is lost and everything
// waits: the path may move away, but not back and forth.
func (n *testnet) bloats() {
	n.t.Helper()
	n.within(60*time.Second, "three sends straight to four", func() bool { p := n.path("three-1", "four-1"); return p.To != "" && len(p.Via) == 0 })
	before := n.path("three-1", "four-1").Switches
	n.must(n.Set("three<>four", "rate=8mbit", "queue=400000"))
	var sink net.Listener
	n.must(n.Machine("four-1").InNetwork(func() (err error) {
		sink, err = net.Listen("tcp4", n.addrs["four-1"]+":0")
		return err
	}))
	defer sink.Close()
	go func() {
		if conn, err := sink.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	sent := int64(0)
	n.must(n.Machine("three-1").InNetwork(func() (err error) {
		sent, err = pour(sink.Addr().String(), 20*time.Second)
		return err
	}))
	p, l := n.path("three-1", "four-1"), n.link("three-1", "four-1")
	n.t.Logf("%d kB went over a link with a long queue: %d changes, now over %v; the link failed %d times; load %s", sent/1000, p.Switches-before, p.Via, l.Flaps, load())
	if p.Switches-before > 2 {
		n.t.Errorf("the path changed %d times, want at most 2", p.Switches-before)
	}
}

// pour sends for a while all that a connection takes, of which not much is under way at a time.
func pour(to string, within time.Duration) (sent int64, err error) {
	conn, err := net.DialTimeout("tcp4", to, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	err = errors.Join(conn.(*net.TCPConn).SetWriteBuffer(64<<10), conn.SetWriteDeadline(time.Now().Add(within)))
	if err != nil {
		return 0, err
	}
	for block := make([]byte, 32<<10); ; {
		n, err := conn.Write(block)
		if sent += int64(n); errors.Is(err, os.ErrDeadlineExceeded) {
			return sent, nil
		} else if err != nil {
			return sent, err
		}
	}
}
