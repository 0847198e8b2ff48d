package fabric

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	bhost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

// lawless is a gater that lets everything pass.
type lawless struct{}

var _ connmgr.ConnectionGater = lawless{}

func (lawless) InterceptPeerDial(peer.ID) bool                                           { return true }
func (lawless) InterceptAddrDial(peer.ID, ma.Multiaddr) bool                             { return true }
func (lawless) InterceptAccept(network.ConnMultiaddrs) bool                              { return true }
func (lawless) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }
func (lawless) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason)          { return true, 0 }

// outsider is a usual libp2p host, with identify and ping, that knows where f is.
func outsider(t testing.TB, name string, f *Fabric, opts ...option) (*bhost.BasicHost, *host) {
	t.Helper()
	cfg := Config{Key: testKey(name)}.withDefaults()
	for _, o := range opts {
		o(&cfg)
	}
	under, err := newHost(cfg, lawless{}, newPending(), &packetSockets{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := bhost.NewHost(under.Swarm, &bhost.HostOpts{EnablePing: true, UserAgent: "outsider"})
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	t.Cleanup(func() { h.Close(); under.Close() })
	for _, a := range f.Addrs() {
		h.Peerstore().AddAddr(peerIDOf(f.Self()), ma.StringCast(a), time.Hour)
	}
	return h, under
}

// An outsider with a whole libp2p finds the join protocol and nothing else, is not told what else there is, cannot send
// datagrams, and is shown the door in time; meanwhile and afterwards members talk.
func TestOutsider(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
	}{{"quic", nil}, {"tcp", []option{overTCP}}} {
		t.Run(tt.name, func(t *testing.T) {
			fs := mesh(t, &book{}, "a b", tt.opts...)
			a, b := fs[0], fs[1]
			var mu sync.Mutex
			entered := map[string]bool{}
			secret := []string{echoProto, "/vcpeer/gossip/1", "/vcpeer/sync/1", "/vcpeer/raft/1", "/vcpeer/blob/1"}
			for _, proto := range secret {
				a.Handle(proto, func(ctx context.Context, from crdt.NodeID, c net.Conn) {
					if from != b.Self() {
						mu.Lock()
						entered[proto] = true
						mu.Unlock()
					}
					echo(ctx, from, c)
				})
			}
			a.HandleStrangers(JoinProtocol, echo)
			in := collect(a, 7)
			h, _ := outsider(t, "outsider", a, tt.opts...)
			pid := peerIDOf(a.Self())

			tried := append([]string{datagramProtocol, ping.ID, identify.ID, identify.IDPush, "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/autonat/1.0.0", "/libp2p/dcutr", "/x"}, secret...)
			for _, proto := range tried {
				if s, err := h.NewStream(short(t), pid, protocol.ID(proto)); err == nil {
					// libp2p may agree on the protocol only with the first data
					_ = s.SetDeadline(time.Now().Add(5 * time.Second))
					_, _ = s.Write([]byte("hello"))
					if n, err := s.Read(make([]byte, 1)); err == nil {
						t.Errorf("%s answered an outsider with %d bytes", proto, n)
					}
				}
			}
			for _, c := range h.Network().ConnsToPeer(pid) {
				var q *quic.Conn
				if c.As(&q) {
					for range 100 {
						_ = q.SendDatagram([]byte("\x07let me in"))
					}
				}
			}
			s, err := h.NewStream(short(t), pid, JoinProtocol)
			if err != nil {
				t.Fatalf("an outsider cannot even ask to join: %v", err)
			}
			if _, err := s.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Errorf("join: %v", err)
			}
			if got, err := ask(t, b, a.Self(), "still there?"); err != nil || got != "still there?" {
				t.Errorf("member beside an outsider: %q, %v", got, err)
			}
			if protos, _ := h.Peerstore().GetProtocols(pid); len(protos) > 1 { // the one it succeeded with
				t.Errorf("the outsider was told of %q", protos)
			}
			if v, err := h.Peerstore().Get(pid, "AgentVersion"); err == nil {
				t.Errorf("the outsider was told the version %v", v)
			}
			mu.Lock()
			if len(entered) != 0 || len(in) != 0 {
				t.Errorf("an outsider got into %v and sent %d datagrams", entered, len(in))
			}
			mu.Unlock()
			for _, c := range a.host.ConnsToPeer(h.ID()) {
				a.sweepConn(c, time.Now().Add(strangerTime+time.Second))
			}
			eventually(t, "the outsider to be disconnected", func() bool { return len(h.Network().ConnsToPeer(pid)) == 0 })
			eventually(t, "its place to be free", func() bool {
				a.gate.mu.Lock()
				defer a.gate.mu.Unlock()
				return len(a.gate.inside) == 0 && len(a.gate.perIP) == 0
			})
		})
	}
}

// No more strangers at once than the gate has room for, from one address and hence in all; members do not count.
func TestStrangersAreBounded(t *testing.T) {
	var mu sync.Mutex
	var why []error
	records := &book{}
	fs := mesh(t, records, "a b", func(c *Config) {
		c.Refused = func(_ crdt.NodeID, err error) { mu.Lock(); why = append(why, err); mu.Unlock() }
	})
	a := fs[0]
	a.Handle(echoProto, echo)
	held := 0
	for i := range 2 * maxStrangersPerIP {
		h, _ := outsider(t, "outsider"+string(rune('0'+i)), a)
		if _, err := h.Network().DialPeer(short(t), peerIDOf(a.Self())); err == nil {
			held++
		}
	}
	strangers := func() (n int) {
		for _, l := range a.Links() {
			if l.Standing == Stranger {
				n++
			}
		}
		return n
	}
	eventually(t, "only so many to stay", func() bool { return strangers() == maxStrangersPerIP })
	mu.Lock()
	if len(why) == 0 || why[0] != ErrBusy {
		t.Errorf("refusals told: %v", why)
	}
	mu.Unlock()
	if got, err := ask(t, fs[1], a.Self(), "x"); err != nil || got != "x" {
		t.Errorf("member while strangers fill their places: %q, %v", got, err)
	}
}

// A member that is evicted is refused by the very next stream and datagram, loses its connections, and is not let in again.
func TestEvicted(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
	}{{"quic", nil}, {"tcp", []option{overTCP}}} {
		t.Run(tt.name, func(t *testing.T) {
			records, late := &book{}, &book{} // late: the evicted node, to which the news has not come
			a := mesh(t, records, "a", tt.opts...)[0]
			records.set(Member, idOf("b"))
			late.set(Member, a.Self())
			b := start(t, "b", late, tt.opts...)
			a.Handle(echoProto, echo)
			in := collect(a, 7)
			b.Learn(a.Self(), a.Addrs())
			if got, err := ask(t, b, a.Self(), "hi"); err != nil || got != "hi" {
				t.Fatal(got, err)
			}
			b.Send(a.Self(), 7, []byte("before"))
			next(t, in)
			held, err := b.Open(short(t), a.Self(), echoProto)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := held.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}

			records.set(Evicted, b.Self())
			b.Send(a.Self(), 7, []byte("after"))
			if got, err := ask(t, b, a.Self(), "hi"); err == nil {
				t.Errorf("an evicted node was served %q", got)
			}
			a.Disconnect(b.Self())
			_ = held.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadAll(held); err == nil {
				t.Error("the stream of an evicted node goes on")
			}
			eventually(t, "the connection to end", func() bool { return len(a.Links()) == 0 })
			// Over TCP the reset that follows the refusal may overtake it: then it is told the next time.
			eventually(t, "an evicted node that comes back to be told why", func() bool {
				_, err := ask(t, b, a.Self(), "hi")
				if err == nil {
					t.Error("an evicted node that comes back is served")
				}
				return errors.Is(err, ErrShutOut)
			})
			if len(in) != 0 {
				t.Errorf("a datagram of an evicted node came through: %+v", <-in)
			}
			if a.Send(b.Self(), 7, []byte("x")); a.linkTo(b.Self()).out.draining {
				t.Error("something is sent to an evicted node")
			}
		})
	}
}

// The sweep ends what nobody disconnected.
func TestSweep(t *testing.T) {
	records := &book{}
	fs := mesh(t, records, "a b")
	fs[1].Handle(echoProto, echo)
	if _, err := ask(t, fs[0], fs[1].Self(), "x"); err != nil {
		t.Fatal(err)
	}
	records.set(Evicted, fs[0].Self())
	eventually(t, "the sweep", func() bool { return len(fs[1].Links()) == 0 })
}

// Megabytes of garbage on TCP and UDP, and hundreds of connections that say nothing, are borne: memory stays bounded, and
// members find one another all the while.
func TestGarbage(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	a, b := fs[0], fs[1]
	a.Handle(echoProto, echo)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	at := func(kind string) string {
		for _, l := range a.Addrs() {
			if na := netAddr(ma.StringCast(l)); strings.HasPrefix(na.Network(), kind) {
				return na.String()
			}
		}
		t.Fatalf("a does not listen on %s", kind)
		return ""
	}
	var silent []net.Conn
	for range 400 {
		if c, err := net.DialTimeout("tcp", at("tcp"), 5*time.Second); err == nil {
			silent = append(silent, c)
		}
	}
	junk := make([]byte, 1<<20)
	_, _ = rand.Read(junk)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() { garbageTCP(at("tcp"), junk, i) })
	}
	wg.Go(func() { garbageUDP(t, at("udp"), junk) })
	for range 5 {
		if got, err := ask(t, b, a.Self(), "through the noise"); err != nil || got != "through the noise" {
			t.Errorf("member under garbage: %q, %v", got, err)
		}
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	b.Disconnect(a.Self())
	if got, err := ask(t, b, a.Self(), "afterwards"); err != nil || got != "afterwards" {
		t.Errorf("a new connection of a member after garbage: %q, %v", got, err)
	}
	for _, c := range silent {
		c.Close()
	}
	if n := len(a.Links()); n > 4 {
		t.Errorf("%d connections counted as peers", n)
	}
}

// garbageTCP sends junk in one of several disguises until the other side has had enough.
func garbageTCP(addr string, junk []byte, i int) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	greetings := []string{"", "\x13/multistream/1.0.0\n", "\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n", "\x13/multistream/1.0.0\n\x07/noise\n", "\xff\xff\xff\xff\x7f", "GET / HTTP/1.1\r\n\r\n"}
	_, _ = io.WriteString(c, greetings[i%len(greetings)])
	for range 4 {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}

// garbageUDP sends junk of every length and some that looks like the first packet of a QUIC handshake.
func garbageUDP(t *testing.T, addr string, junk []byte) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for i := range 8000 {
		p := junk[i : i+1+i%1400]
		if i%3 == 0 {
			p = append([]byte{0xc3, 0, 0, 0, 1, 8}, junk[i:i+1200]...) // long header, QUIC version 1, Initial
		}
		_, _ = c.Write(p) // a full socket buffer is as good
	}
}
