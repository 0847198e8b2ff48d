package probe

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vcpeer/overlay/device/devicetest"
	"vcpeer/overlay/label"
)

// TestProber runs two Probers in a network namespace of their own:
//
//	g1 on pa -------- pb on g2
//
// No bridge is between: what a frame's addresses say counts for nothing here.
func TestProber(t *testing.T) {
	if devicetest.Alone(t, 60*time.Second) {
		testProber(t)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func makeLink(t *testing.T) {
	t.Helper()
	ip(t, "link add pa mtu 1400 type veth peer name pb mtu 1400")
	ip(t, "link set pa up")
	ip(t, "link set pb up")
}

// side is a Prober and what it told.
type side struct {
	*Prober
	mu     sync.Mutex
	events []string
	frames []string
}

func (s *side) told(word string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if strings.HasPrefix(e, word) {
			n++
		}
	}
	return n
}

func newSide(iface string) *side {
	s := &side{Prober: NewProber(iface)}
	s.OnEvent = func(e Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e.String())
	}
	s.OnFrame = func(f []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frames = append(s.frames, string(f))
	}
	return s
}

func eventually(t *testing.T, what string, within time.Duration, holds func() bool) {
	t.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("%v: %s", time.Since(start).Round(time.Millisecond), what)
}

func testProber(t *testing.T) {
	defer goleak.VerifyNone(t)
	makeLink(t)
	ctx, cancel := context.WithCancel(context.Background())
	a, b := newSide("pa"), newSide("pb")
	var group sync.WaitGroup
	for _, s := range []*side{a, b} {
		group.Go(func() { s.Run(ctx) })
	}
	defer group.Wait()
	defer cancel()
	addr := netip.MustParseAddr("192.0.2.1")
	for i, s := range []*side{a, b} {
		other := Target{ID: []ID{Gateway(2), Gateway(1)}[i], Addr: addr, MTU: 1458}
		if err := s.Set(ctx, Self{Label: label.Label(i + 1)}, []Target{other}); err != nil {
			t.Fatal(err)
		}
	}
	up := func(s *side) bool { l := s.Report().Links; return len(l) == 1 && l[0].Up }
	both := func() bool { return up(a) && up(b) }
	eventually(t, "both are up", 2*time.Second, both)
	eventually(t, "the MTU is found, below what was hoped for", 5*time.Second, func() bool {
		l := a.Report().Links[0]
		return l.MTU == 1400 && l.RTT > 0 && l.RTT < 20*time.Millisecond
	})
	t.Logf("%+v", a.Report().Links[0])

	if _, err := a.Ping(ctx, Ping{To: Gateway(2), Bytes: 1400, Count: 3, Interval: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ping is done", 2*time.Second, func() bool { return a.told("pong") == 3 && a.told("done g2 #3") == 1 })

	frame := "\x02\x76\x00\x00\x00\x01\x02\x76\x00\x00\x00\x02\x08\x00" + strings.Repeat("x", 1000)
	if err := a.Send([]byte(frame)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a frame that is no probe is handed on", time.Second, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.frames {
			if f == frame {
				return true
			}
		}
		return false
	})

	ip(t, "link del pa")
	eventually(t, "the interfaces are gone, and both down", 2*time.Second, func() bool { return !up(a) && !up(b) })
	makeLink(t)
	eventually(t, "they are there again, and both up", 3*time.Second, both)
	ip(t, "link set pb down")
	eventually(t, "one is set down", 2*time.Second, func() bool { return !up(a) && !up(b) })
	ip(t, "link set pb up")
	eventually(t, "and up", 3*time.Second, both)
	if s := a.Stats(); s.Opened < 2 || s.Sent == 0 || s.Received == 0 {
		t.Errorf("%+v", s)
	}
	cancel()
	group.Wait()
	if err := a.Set(context.Background(), Self{Label: 1}, nil); err != ErrStopped {
		t.Errorf("Set after the end: %v", err)
	}
}
