package peer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/gossip"
	"vcpeer/peer/config"
	"vcpeer/queue"
)

func TestJoinCommandNamesWhatOthersCanDial(t *testing.T) {
	for _, tt := range []struct {
		name, addrs, site, want string
	}{
		{"each address once", "/ip4/192.0.2.1/udp/7475/quic-v1 /ip4/192.0.2.1/tcp/7475", "", "vcpeer start --seed 192.0.2.1:7475 --token T"},
		{"no loopback beside others", "/ip4/127.0.0.1/tcp/7475 /ip6/2001:db8::1/tcp/7475", "osaka", "vcpeer start --seed [2001:db8::1]:7475 --site osaka --token T"},
		{"loopback when there is nothing else", "/ip4/127.0.0.1/tcp/7601", "", "vcpeer start --seed 127.0.0.1:7601 --token T"},
		{"names", "/dns/alpha.example/udp/7475/quic-v1", "", "vcpeer start --seed alpha.example:7475 --token T"},
		{"three at most", "/ip4/192.0.2.1/tcp/1 /ip4/192.0.2.2/tcp/1 /ip4/192.0.2.3/tcp/1 /ip4/192.0.2.4/tcp/1", "",
			"vcpeer start --seed 192.0.2.1:1 --seed 192.0.2.2:1 --seed 192.0.2.3:1 --token T"},
	} {
		if got := joinCommand(dialable(strings.Fields(tt.addrs)), tt.site, "T"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestHostName(t *testing.T) {
	d := &Daemon{cfg: config.Config{Name: "told"}}
	if d.hostName() != "told" || d.siteName() != "told" {
		t.Errorf("host %q, site %q", d.hostName(), d.siteName())
	}
	for machine, want := range map[string]string{
		"Kyoto-1.example.org": "kyoto-1", "": "node", "___": "node", "a_b c": "a-b-c", "-x-": "x",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := hostLabel(machine); got != want {
			t.Errorf("%q: got %q, want %q", machine, got, want)
		}
	}
}

func TestTokenStates(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	used := []crdt.NodeID{{1}}
	for _, tt := range []struct {
		want  string
		token crdt.Token
	}{
		{"open", crdt.Token{Expires: now.Add(time.Hour)}},
		{"expired", crdt.Token{Expires: now.Add(-time.Hour)}},
		{"used", crdt.Token{Expires: now.Add(time.Hour), UsedBy: used}},
		{"used", crdt.Token{Expires: now.Add(-time.Hour), UsedBy: used}},
		{"open", crdt.Token{Expires: now.Add(time.Hour), UsedBy: used, Reusable: true}},
		{"expired", crdt.Token{Expires: now.Add(-time.Hour), UsedBy: used, Reusable: true}},
		{"revoked", crdt.Token{Expires: now.Add(-time.Hour), UsedBy: used, Revoked: true}},
	} {
		if got := tokenState(tt.token, now); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.token, got, tt.want)
		}
	}
}

func TestSplitSites(t *testing.T) {
	nodes := []queue.Node{{Site: "b", Alive: false}, {Site: "b", Alive: true}, {Site: "a", Alive: true}, {Site: "gone"}, {Site: ""}}
	for _, tt := range []struct{ name, own, asked, heard, silent string }{
		{"all, own first", "b", "", "b a", "gone"},
		{"own without a record", "new", "", "new a b", "gone"},
		{"only those asked for", "b", "gone a", "a", "gone"},
		{"own is always heard", "gone", "gone", "gone", ""},
		{"an unknown one is not", "b", "x", "", "x"},
	} {
		var asked []queue.SiteID
		for _, s := range strings.Fields(tt.asked) {
			asked = append(asked, queue.SiteID(s))
		}
		heard, silent := splitSites(nodes, queue.SiteID(tt.own), asked)
		if got := siteWords(heard); got != tt.heard {
			t.Errorf("%s: heard %q, want %q", tt.name, got, tt.heard)
		}
		if got := siteWords(silent); got != tt.silent {
			t.Errorf("%s: silent %q, want %q", tt.name, got, tt.silent)
		}
	}
}

func siteWords(ids []queue.SiteID) string {
	return strings.Join(each(ids, func(s queue.SiteID) string { return string(s) }), " ")
}

func TestMemberNews(t *testing.T) {
	for _, tt := range []struct {
		now      gossip.State
		standing crdt.Standing
		want     string
	}{
		{gossip.Alive, crdt.Joined, "n1 is there"},
		{gossip.Failed, crdt.Joined, "n1 does not answer any more"},
		{gossip.Left, crdt.Joined, "n1 was stopped"},
		{gossip.Left, crdt.Left, "n1 has left the cluster"},
		{gossip.Left, crdt.Evicted, "n1 has left the cluster"},
	} {
		if got := memberNews("n1", tt.now, tt.standing); got != tt.want {
			t.Errorf("%v %v: got %q, want %q", tt.now, tt.standing, got, tt.want)
		}
	}
}

func TestNarratorTellsAWaitOnce(t *testing.T) {
	var n narrator
	var told []string
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for range 40 { // a try a second
		for _, step := range []string{"asking a", "waiting for a: no answer; next try in " + at.Format("5s")} {
			if n.tells(step, at) {
				told = append(told, step)
			}
		}
		at = at.Add(time.Second)
	}
	want := []string{"asking a", "waiting for a: no answer; next try in 0s", "asking a", "waiting for a: no answer; next try in 30s"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if !n.tells("waiting for a: refused", at) {
		t.Error("another cause was not told")
	}
}

func TestVcpeerFor(t *testing.T) {
	for dir, want := range map[string]string{"": "vcpeer", "/tmp/n1": "vcpeer --dir /tmp/n1", "/tmp/it's": `vcpeer --dir '/tmp/it'\''s'`} {
		if got := vcpeerFor(dir); got != want {
			t.Errorf("%q: got %s, want %s", dir, got, want)
		}
	}
}
