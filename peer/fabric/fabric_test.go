package fabric

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vcpeer/crdt"
)

func TestMain(m *testing.M) {
	QuietLibraries(slog.New(slog.DiscardHandler))
	code := m.Run()
	if code == 0 {
		// libp2p's DNS resolver and quic-go's shared timers are not ours to end.
		if err := goleak.Find(goleak.IgnoreAnyFunction("internal/poll.runtime_pollWait")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// book is the records of a test: who has which standing, and members unless said otherwise are strangers.
type book struct {
	mu sync.Mutex
	m  map[crdt.NodeID]Standing
}

func (b *book) of(id crdt.NodeID) Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[id]
}

func (b *book) set(s Standing, ids ...crdt.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = map[crdt.NodeID]Standing{}
	}
	for _, id := range ids {
		b.m[id] = s
	}
}

// testKey is the same key for the same name in every run.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func idOf(name string) crdt.NodeID { return crdt.NodeIDOf(testKey(name)) }

type option func(*Config)

func overTCP(c *Config) { c.NoQUIC = true }

// start runs a fabric on loopback until the test ends.
func start(t testing.TB, name string, records *book, opts ...option) *Fabric {
	t.Helper()
	cfg := Config{Key: testKey(name), Listen: []string{"127.0.0.1:0"}, Standing: records.of}
	for _, o := range opts {
		o(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// mesh starts members that know one another's addresses.
func mesh(t testing.TB, records *book, names string, opts ...option) []*Fabric {
	t.Helper()
	var fs []*Fabric
	for _, n := range strings.Fields(names) {
		records.set(Member, idOf(n))
		fs = append(fs, start(t, n, records, opts...))
	}
	for _, a := range fs {
		for _, b := range fs {
			a.Learn(b.Self(), b.Addrs())
		}
	}
	return fs
}

// eventually waits until ok, for 10 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 10 s in vain for: %s", what)
		}
	}
}

func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const echoProto = "/test/echo/1"

func echo(_ context.Context, _ crdt.NodeID, c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

// ask sends text to an echo and returns what came back.
func ask(t testing.TB, f *Fabric, to crdt.NodeID, text string) (string, error) {
	t.Helper()
	c, err := f.Open(short(t), to, echoProto)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(Stream).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestStreams(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
		want string
	}{
		{"quic", nil, "quic"},
		{"tcp", []option{overTCP}, "tcp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fs := mesh(t, &book{}, "a b", tt.opts...)
			a, b := fs[0], fs[1]
			b.Handle(echoProto, echo)
			for i := range 3 { // the second and third agree on the protocol along with the data
				text := strings.Repeat(fmt.Sprint(i), 100_000)
				got, err := ask(t, a, b.Self(), text)
				if err != nil || got != text {
					t.Fatalf("echo %d: %d of %d bytes, %v", i, len(got), len(text), err)
				}
			}
			if ls := a.Links(); len(ls) != 1 || ls[0].Peer != b.Self() || ls[0].Transport != tt.want || ls[0].Standing != Member {
				t.Errorf("links of a: %+v", ls)
			}
			_, err := a.Open(short(t), b.Self(), "/test/nothing/1")
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("a protocol nobody offers: %v", err)
			}
		})
	}
}

// A stream that is written to and closed without a read still arrives whole.
func TestOneWayStream(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	got := make(chan []byte, 8)
	fs[1].Handle("/test/sink/1", func(_ context.Context, _ crdt.NodeID, c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		got <- b
	})
	for i := range 4 {
		c, err := fs[0].Open(short(t), fs[1].Self(), "/test/sink/1")
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{byte(i)}, 50_000)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case b := <-got:
			if !bytes.Equal(b, want) {
				t.Errorf("stream %d: got %d bytes, want %d", i, len(b), len(want))
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("stream %d did not arrive", i)
		}
	}
}

func TestHandlerContextEndsWithConnection(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	ended := make(chan struct{})
	fs[1].Handle("/test/wait/1", func(ctx context.Context, _ crdt.NodeID, c net.Conn) {
		defer c.Close()
		<-ctx.Done()
		close(ended)
	})
	if _, err := fs[0].Open(short(t), fs[1].Self(), "/test/wait/1"); err != nil {
		t.Fatal(err)
	}
	fs[0].Disconnect(fs[1].Self())
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler's context outlived its connection")
	}
}

func TestOpenErrors(t *testing.T) {
	records := &book{}
	fs := mesh(t, records, "a b")
	a, b := fs[0], fs[1]
	b.Handle(echoProto, echo)
	gone := idOf("gone")
	records.set(Member, gone)
	records.set(Evicted, idOf("bad"))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	a.Learn(gone, []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)})
	for _, tt := range []struct {
		name string
		to   crdt.NodeID
		want error
		text string
	}{
		{"stranger", idOf("nobody"), ErrNotMember, "not a member"},
		{"evicted", idOf("bad"), ErrEvicted, "evicted"},
		{"itself", a.Self(), nil, "this node itself"},
		{"down", gone, nil, "connection refused"},
	} {
		_, err := a.Open(short(t), tt.to, echoProto)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q on one line", tt.name, err, tt.text)
		}
	}
	a.Close()
	if _, err := a.Open(short(t), b.Self(), echoProto); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Learn replaces: a peer that moved is found at its new place, and only valid addresses of the peer itself are taken.
func TestLearn(t *testing.T) {
	records := &book{}
	fs := mesh(t, records, "a b")
	a, b := fs[0], fs[1]
	b.Handle(echoProto, echo)
	other := "/p2p/" + a.Self().String()
	a.Learn(b.Self(), []string{"nonsense", "/ip4/127.0.0.1/udp/9", "/ip4/127.0.0.1/tcp/1" + other, "/ip4/127.0.0.1/tcp/1"})
	if _, err := ask(t, a, b.Self(), "hi"); err == nil {
		t.Fatal("reached b under an address it has not")
	}
	var full []string
	for _, s := range b.Addrs() {
		full = append(full, s+"/p2p/"+b.Self().String())
	}
	a.Learn(b.Self(), full)
	if got, err := ask(t, a, b.Self(), "hi"); err != nil || got != "hi" {
		t.Fatalf("after learning the right address: %q, %v", got, err)
	}
}
