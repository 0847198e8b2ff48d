package admit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

func TestMain(m *testing.M) {
	fabric.QuietLibraries(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

func seedOf(n *node) string { return fmt.Sprintf("127.0.0.1:%d", n.Port()) }

// tryJoin joins within 20 s.
func tryJoin(t testing.TB, newcomer *node, token Token, seeds ...string) (*Welcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Join(ctx, newcomer, token, seeds, Facts{Name: "n9"}, nil)
}

func TestJoin(t *testing.T) {
	records := found(t, "a")
	a := start(t, "a", records)
	newcomer := start(t, "n", nil)
	var steps []string
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w, err := Join(ctx, newcomer, records.token(t, time.Hour, false), []string{seedOf(a)}, Facts{Name: "n9"}, func(s string) { steps = append(steps, s) })
	if err != nil {
		t.Fatal(err)
	}
	if w.Cluster != records.f.ID() || w.Via != a.Self() || w.By != a.Self() || w.Site != "kyoto" {
		t.Errorf("welcome: %+v", w)
	}
	if len(w.Peers) != 1 || w.Peers[0].ID != a.Self() || len(w.Peers[0].Addrs) == 0 {
		t.Errorf("peers: %+v", w.Peers)
	}
	if err := crdt.VerifyAdmission(records.f.ID(), w.Proof, newcomer.Self()); err != nil {
		t.Error(err)
	}
	if m, ok := records.View().Member(newcomer.Self()); !ok || m.Standing != crdt.Joined || m.AdmittedBy != a.Self() {
		t.Errorf("the records say %+v, %v", m, ok)
	}
	if e := a.lastEvent(); e.Err != nil || e.Node != newcomer.Self() || e.Facts.Name != "n9" || e.Remote == "" {
		t.Errorf("event: %+v", e)
	}
	if all := strings.Join(steps, "\n"); len(steps) != 4 || !strings.HasPrefix(all, "asking 127.0.0.1") || !strings.Contains(all, "joined cluster") {
		t.Errorf("steps:\n%s", all)
	}
	// The connection of the handshake serves on: the newcomer is a member to the seed, and the seed to it.
	newcomer.mu.Lock()
	newcomer.trusts[a.Self()] = true
	newcomer.mu.Unlock()
	a.Handle("/test/hi/1", func(_ context.Context, _ crdt.NodeID, c net.Conn) { c.Write([]byte("hi")); c.Close() })
	c, err := newcomer.Open(ctx, a.Self(), "/test/hi/1")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Each kind of bad token is refused with its own message, on both ends.
func TestRefusals(t *testing.T) {
	records := found(t, "a")
	a := start(t, "a", records)
	newcomer := start(t, "n", nil)
	used := records.token(t, time.Hour, false)
	if _, err := tryJoin(t, start(t, "first", nil), used, seedOf(a)); err != nil {
		t.Fatal(err)
	}
	revoked := records.token(t, time.Hour, true)
	records.must(t, func(tx *crdt.Tx) error { return tx.RevokeToken(revoked.ID()) })
	unknown, err := NewToken(records.f.ID(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewToken(crdt.ClusterID{1, 2, 3, 4}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		token Token
		code  Code
		text  string
	}{
		{"unknown", unknown, UnknownToken, "wrong token"},
		{"expired", records.token(t, -time.Minute, true), Expired, "expired at 20"},
		{"used", used, Used, "used already by " + idOf("first").String() + " at 20"},
		{"revoked", revoked, Revoked, "revoked"},
		{"other cluster", other, WrongCluster, "another cluster than this node's (" + ClusterOf(records.f.ID()).Short()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tryJoin(t, newcomer, tt.token, seedOf(a))
			r, ok := refusalIn(err)
			if !ok || r.Code != tt.code || !strings.Contains(err.Error(), tt.text) || r.Hint() == "" {
				t.Errorf("the newcomer is told %v", err)
			}
			e := a.lastEvent()
			if r, ok := refusalIn(e.Err); !ok || r.Code != tt.code || e.Node != newcomer.Self() || !strings.Contains(e.Err.Error(), tt.text) {
				t.Errorf("the member tells %+v", e)
			}
			if s := records.View().Standing(newcomer.Self()); s != crdt.Stranger {
				t.Errorf("the newcomer is a %v", s)
			}
		})
	}
}

// A node whose answer was lost asks again and is welcomed again, and the token still counts as used once.
func TestAskedTwice(t *testing.T) {
	records := found(t, "a")
	a := start(t, "a", records)
	newcomer := start(t, "n", nil)
	token := records.token(t, time.Hour, false)
	for i := range 2 {
		if _, err := tryJoin(t, newcomer, token, seedOf(a)); err != nil {
			t.Fatalf("time %d: %v", i+1, err)
		}
	}
	tok, _ := records.View().Token(token.ID())
	if len(tok.UsedBy) != 1 {
		t.Errorf("used by %v", tok.UsedBy)
	}
}

func TestEvictedNodeIsShutOut(t *testing.T) {
	records := found(t, "a")
	a := start(t, "a", records)
	newcomer := start(t, "n", nil)
	token := records.token(t, time.Hour, true)
	if _, err := tryJoin(t, newcomer, token, seedOf(a)); err != nil {
		t.Fatal(err)
	}
	records.must(t, func(tx *crdt.Tx) error { return tx.Evict(newcomer.Self(), "lost") })
	a.Disconnect(newcomer.Self())
	_, err := tryJoin(t, newcomer, token, seedOf(a))
	if !errors.Is(err, fabric.ErrShutOut) {
		t.Errorf("an evicted node that asks again is told %v", err)
	}
}

// A one-time token shown to another member than its issuer is redeemed by the issuer.
func TestForwarded(t *testing.T) {
	ra := found(t, "a")
	rb := ra.join(t, "b")
	a, b := start(t, "a", ra), start(t, "b", rb)
	b.Learn(a.Self(), a.Addrs())
	newcomer := start(t, "n", nil)
	w, err := tryJoin(t, newcomer, ra.token(t, time.Hour, false), seedOf(b))
	if err != nil {
		t.Fatal(err)
	}
	if w.Via != b.Self() || w.By != a.Self() {
		t.Errorf("via %s by %s; want via b by a", w.Via.Short(), w.By.Short())
	}
	if e := a.lastEvent(); e.Err != nil || e.Node != newcomer.Self() || e.Facts.Name != "n9" {
		t.Errorf("the issuer tells %+v", e)
	}
	if s := rb.View().Standing(newcomer.Self()); s != crdt.Joined {
		t.Errorf("to the seed the newcomer is a %v", s)
	}

	// Used is used, wherever it is shown.
	again := start(t, "again", nil)
	token := ra.token(t, time.Hour, false)
	ra.setCut(true) // b does not hear of the use
	if _, err := tryJoin(t, start(t, "n2", nil), token, seedOf(a)); err != nil {
		t.Fatal(err)
	}
	_, err = tryJoin(t, again, token, seedOf(b))
	if r, ok := refusalIn(err); !ok || r.Code != Used {
		t.Errorf("a token used at its issuer, shown elsewhere: %v", err)
	}
	ra.setCut(false)

	// Without the issuer nobody can tell.
	alone := ra.token(t, time.Hour, false)
	a.Close()
	b.Learn(a.Self(), nil)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var steps []string
	_, err = Join(ctx, again, alone, []string{seedOf(b)}, Facts{}, func(s string) { steps = append(steps, s) })
	if err == nil || !strings.Contains(strings.Join(steps, "\n")+err.Error(), "only the node that issued it") {
		t.Errorf("issuer away: %v\n%s", err, strings.Join(steps, "\n"))
	}
}

// Of many that show one one-time token at once, at two members, exactly one is let in.
func TestOneTimeTokenRace(t *testing.T) {
	ra := found(t, "a")
	rb := ra.join(t, "b")
	a, b := start(t, "a", ra), start(t, "b", rb)
	b.Learn(a.Self(), a.Addrs())
	token := ra.token(t, time.Hour, false)
	const newcomers = 4
	var wg sync.WaitGroup
	errs := make([]error, newcomers)
	for i := range newcomers {
		n := start(t, fmt.Sprint("n", i), nil)
		seed := seedOf([]*node{a, b}[i%2])
		wg.Go(func() { _, errs[i] = tryJoin(t, n, token, seed) })
	}
	wg.Wait()
	in := 0
	for i, err := range errs {
		if err == nil {
			in++
		} else if r, ok := refusalIn(err); !ok || r.Code != Used {
			t.Errorf("newcomer %d: %v", i, err)
		}
	}
	if members := len(ra.View().Members()); in != 1 || members != 3 {
		t.Errorf("%d were let in, %d members; want 1 and 3", in, members)
	}
}

// Seeds that are down, unresolvable or not vcpeer are told apart, and the newcomer goes on trying until one answers.
func TestJoinWaits(t *testing.T) {
	records := found(t, "a")
	token := records.token(t, time.Hour, true)
	newcomer := start(t, "n", nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	steps := make(chan string, 100)
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	begin := time.Now()
	go func() {
		_, err := Join(ctx, newcomer, token, []string{"no-such-host.invalid", fmt.Sprintf("127.0.0.1:%d", port)}, Facts{}, func(s string) { steps <- s })
		done <- err
	}()
	first := <-steps
	if d := time.Since(begin); d > time.Second || !strings.Contains(first, "no-such-host.invalid") {
		t.Errorf("after %v: %q", d, first)
	}
	var waiting string
	for waiting == "" {
		select {
		case s := <-steps:
			if strings.HasPrefix(s, "waiting") {
				waiting = s
			}
		case <-ctx.Done():
			t.Fatal("no word of waiting")
		}
	}
	for _, want := range []string{string(fabric.NoSuchName), string(fabric.Refused), "next try"} {
		if !strings.Contains(waiting, want) {
			t.Errorf("%q does not say %q", waiting, want)
		}
	}
	n := &node{records: records}
	n.Fabric, err = fabric.New(fabric.Config{Key: testKey("a"), Listen: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Standing: n.standing})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	Serve(Config{Fabric: n, Records: records})
	if err := <-done; err != nil {
		t.Error(err)
	}
}
