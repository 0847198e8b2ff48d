package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// startAndFail runs `vcpeer start` that is expected to end by itself and returns what it printed.
func startAndFail(t *testing.T, ctx context.Context, n *harness.Node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	all := append([]string{"start", "--dir", n.Dir, "--name", n.Name, "--site", n.Site, "--listen", n.Listen}, args...)
	out, err := exec.CommandContext(ctx, binary, all...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		t.Errorf("vcpeer %s: %v, want it to end with an error\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func token(t *testing.T, ctx context.Context, n *harness.Node, ask api.TokenAsk) *api.Token {
	t.Helper()
	got, err := n.Client().NewToken(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTokensAreRefusedByName(t *testing.T) {
	ctx, c := cluster(t, "a-1@a")
	founder := c.Nodes[0]
	used := token(t, ctx, founder, api.TokenAsk{TTL: time.Hour})
	if err := startJoined(t, ctx, c, "b-1@b", used.Token); err != nil {
		t.Fatal(err)
	}
	revoked := token(t, ctx, founder, api.TokenAsk{TTL: time.Hour})
	if err := founder.Client().RevokeToken(ctx, revoked.ID); err != nil {
		t.Fatal(err)
	}
	expired := token(t, ctx, founder, api.TokenAsk{TTL: time.Millisecond})
	other := another(t, ctx)
	foreign := token(t, ctx, other, api.TokenAsk{TTL: time.Hour})
	for _, tt := range []struct{ what, token, want string }{
		{"used", used.Token, "used"},
		{"revoked", revoked.Token, "revoked"},
		{"expired", expired.Token, "expired"},
		{"of another cluster", foreign.Token, "another cluster"},
		{"mistyped", used.Token[:len(used.Token)-2] + "zz", "mistyped"},
	} {
		n := add(t, c, "x@x")
		c.Nodes = c.Nodes[:len(c.Nodes)-1] // never runs
		out := startAndFail(t, ctx, n, "--seed", founder.Listen, "--token", tt.token)
		if !strings.Contains(out, tt.want) {
			t.Errorf("a token %s: the newcomer was told\n%s\nwant %q in it", tt.what, out, tt.want)
		}
		if tt.what == "mistyped" {
			continue // it never reaches the member
		}
		if !refusalSeen(ctx, founder, tt.want) {
			t.Errorf("a token %s: the member's events do not say so", tt.what)
		}
	}
	many := token(t, ctx, founder, api.TokenAsk{TTL: time.Hour, Reusable: true})
	for _, name := range []string{"c-1@c", "c-2@c"} {
		if err := startJoined(t, ctx, c, name, many.Token); err != nil {
			t.Errorf("reusable token: %v", err)
		}
	}
}

// another founds a cluster of one node beside that of the test.
func another(t *testing.T, ctx context.Context) *harness.Node {
	t.Helper()
	c := harness.New(t.TempDir(), binary)
	t.Cleanup(c.Kill)
	n := add(t, c, "z-1@z")
	if err := c.Found(ctx, n); err != nil {
		t.Fatal(err)
	}
	return n
}

func startJoined(t *testing.T, ctx context.Context, c *harness.Cluster, name, token string) error {
	n := add(t, c, name)
	if err := n.StartJoin(c.Nodes[0].Listen, token); err != nil {
		return err
	}
	return n.WaitRunning(ctx)
}

func refusalSeen(ctx context.Context, n *harness.Node, want string) bool {
	for e, err := range n.Client().Events(ctx, false, time.Time{}) {
		if err == nil && e.Type == "join.refused" && strings.Contains(e.Text, want) {
			return true
		}
	}
	return false
}

func TestRestartNeedsNeitherSeedNorToken(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "b-1@b", "c-1@c")
	for _, n := range c.Nodes[1:] {
		n.Kill()
	}
	for _, n := range c.Nodes[1:] {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		if err := n.WaitWell(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeaveIsNotFailure(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "b-1@b")
	leaver := c.Nodes[1]
	if err := leaver.Client().Leave(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the node that left is shown as left", func() bool {
		return stateOf(ctx, c.Nodes[0], leaver.Name) == "left"
	})
	eventually(t, ctx, "its daemon ends", func() bool { return !leaver.Alive() })
	if err := leaver.Start(); err != nil {
		t.Fatal(err)
	}
	if err := leaver.WaitWell(ctx, 2); err != nil {
		t.Errorf("a node that left comes back with its key: %v", err)
	}
}

func stateOf(ctx context.Context, at *harness.Node, name string) string {
	list, err := at.Client().Members(ctx)
	if err != nil {
		return err.Error()
	}
	for _, m := range list.Items {
		if m.Name == name {
			return m.State
		}
	}
	return "unlisted"
}

func TestEvictedNodeIsOutEverywhere(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "b-1@b", "c-1@c")
	bad := c.Nodes[2]
	begun := time.Now()
	if err := c.Nodes[0].Client().Evict(ctx, api.EvictAsk{Node: bad.Name, Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes[:2] {
		eventually(t, ctx, n.Name+" sees the eviction", func() bool { return stateOf(ctx, n, bad.Name) == "evicted" })
	}
	t.Logf("out everywhere after %v", time.Since(begun).Round(time.Millisecond))
	if err := c.Nodes[1].Client().Evict(ctx, api.EvictAsk{Node: "nobody"}); err == nil {
		t.Error("evicting a node that does not exist went well")
	}
	bad.Kill()
	if err := bad.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the evicted node is told so", func() bool { return strings.Contains(bad.Log(), "evicted") })
	add := api.AccountAdd{Name: "mallory"}
	if bad.Alive() {
		_, _ = bad.Client().AddAccount(ctx, add) // whatever it says, nobody else shall see it
	}
	if _, err := c.Nodes[0].Client().AddAccount(ctx, api.AccountAdd{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the others share a later change", func() bool { return hasAccount(ctx, c.Nodes[1], "alice") })
	if hasAccount(ctx, c.Nodes[1], "mallory") {
		t.Error("an evicted node's account reached a member")
	}
}

func hasAccount(ctx context.Context, n *harness.Node, name string) bool {
	list, err := n.Client().Accounts(ctx)
	return err == nil && slices.ContainsFunc(list.Items, func(a api.Account) bool { return a.Name == name && !a.Disabled })
}

func TestRecordsReachANodeThatWasAway(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "b-1@b")
	away := c.Nodes[1]
	away.Kill()
	for _, name := range []string{"alice", "bob"} {
		if _, err := c.Nodes[0].Client().AddAccount(ctx, api.AccountAdd{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Nodes[0].Client().RemoveAccount(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	if err := away.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the change has come", func() bool { return hasAccount(ctx, away, "alice") })
	if hasAccount(ctx, away, "bob") {
		t.Error("a removed account is in force")
	}
}

func TestTwoHostsWithOneName(t *testing.T) {
	ctx, c := cluster(t, "same@a", "same@b", "other@c")
	for _, n := range c.Nodes {
		eventually(t, ctx, n.Name+" lists the conflict", func() bool {
			list, err := n.Client().Conflicts(ctx)
			return err == nil && len(list.Items) == 1 && list.Items[0].Value == "same" && list.Items[0].Settle != ""
		})
	}
	winner := func(n *harness.Node) string {
		list, err := n.Client().Conflicts(ctx)
		if err != nil || len(list.Items) == 0 {
			return ""
		}
		return list.Items[0].Winner
	}
	if a, b := winner(c.Nodes[0]), winner(c.Nodes[2]); a != b {
		t.Errorf("two nodes name two winners: %s and %s", a, b)
	}
}

// TestGarbageLeavesTheDaemonUnharmed throws random bytes at the one port over TCP and UDP from many connections.
func TestGarbageLeavesTheDaemonUnharmed(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "b-1@b")
	before := residentKiB(t, c.Nodes[0])
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 40 {
				throw(c.Nodes[0].Listen)
			}
		}()
	}
	for range 8 {
		<-done
	}
	if err := c.Nodes[0].WaitWell(ctx, 2); err != nil {
		t.Error(err)
	}
	if after := residentKiB(t, c.Nodes[0]); after > before+128<<10 {
		t.Errorf("resident memory went from %d to %d KiB", before, after)
	}
	got := submit(t, ctx, c.Nodes[1], api.Submit{Key: rand.Text(), Argv: []string{"/bin/true"}})
	waitEnded(t, ctx, c.Nodes[0], got.ID)
}

// throw sends garbage that looks like nothing, like HTTP, and like the start of a libp2p or TLS conversation.
func throw(addr string) {
	noise := make([]byte, 32<<10)
	_, _ = rand.Read(noise)
	heads := []string{"", "GET / HTTP/1.1\r\n\r\n", "\x13/multistream/1.0.0\n", "\x16\x03\x01\x02\x00\x01", base64.StdEncoding.EncodeToString(noise[:64])}
	for i, head := range heads {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = conn.Write(append([]byte(head), noise...)) // a refusal is what we expect
			conn.Close()
		}
		if conn, err := net.Dial("udp", addr); err == nil {
			for j := range 20 {
				noise[0] = byte(0xc0 + i + j) // long-header QUIC, among others
				_, _ = conn.Write(noise[:1200])
			}
			conn.Close()
		}
	}
}
