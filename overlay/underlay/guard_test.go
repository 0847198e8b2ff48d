package underlay

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"vcpeer/overlay/device/devicetest"
)

func TestScript(t *testing.T) {
	const (
		anew  = "table inet vcpeer_br0\ndelete table inet vcpeer_br0\n"
		chain = "chain guard {\ntype filter hook prerouting priority -310; policy accept;\n" +
			"meta l4proto 47 ip saddr @peers4 drop\nmeta l4proto 47 ip6 saddr @peers6 drop\n}\n"
		none4 = "set peers4 {\ntype ipv4_addr\n}\n"
		none6 = "set peers6 {\ntype ipv6_addr\n}\n"
		two4  = "set peers4 {\ntype ipv4_addr\nelements = { 192.0.2.7, 192.0.2.8 }\n}\n"
		one6  = "set peers6 {\ntype ipv6_addr\nelements = { 2001:db8::7 }\n}\n"
	)
	in := func(sets string) string { return anew + "table inet vcpeer_br0 {\n" + sets + chain + "}\n" }
	for _, tt := range []struct{ name, peers, want string }{
		{"nobody", "", anew},
		{"both families", "192.0.2.8 2001:db8::7 192.0.2.7", in(two4 + one6)},
		{"IPv4 only, one twice", "192.0.2.7 192.0.2.8 192.0.2.7", in(two4 + none6)},
		{"IPv6 only", "2001:db8::7", in(none4 + one6)},
	} {
		if got := script("br0", addrs(tt.peers)); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestGuard(t *testing.T) {
	devicetest.Enter(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			t.Skipf("needs nftables in the kernel: nft %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	const theirs = "table inet theirs"
	run("add", "table", "inet", "theirs")
	tables := func() []string { return strings.Split(strings.TrimSpace(run("list", "tables")), "\n") }
	expect := func(when string, want ...string) {
		t.Helper()
		if got := tables(); !slices.Equal(got, want) {
			t.Fatalf("%s: %q, want %q", when, got, want)
		}
	}
	guard := func(owner, peers string) {
		t.Helper()
		if err := Guard(t.Context(), owner, addrs(peers)); err != nil {
			t.Fatal(err)
		}
	}
	guard("br0", "")
	expect("nobody to guard", theirs)
	guard("br0", "192.0.2.8 2001:db8::7 192.0.2.7")
	guard("br-1", "2001:db8::7")
	first := run("list", "ruleset")
	guard("br0", "192.0.2.7 192.0.2.8 2001:db8::7")
	guard("br-1", "2001:db8::7")
	expect("twice", theirs, "table inet vcpeer_br0", "table inet vcpeer_br-1")
	if again := run("list", "ruleset"); again != first {
		t.Errorf("twice:\n%s\nwas\n%s", again, first)
	}
	guard("br0", "192.0.2.9")
	if got := run("list", "table", "inet", "vcpeer_br0"); !strings.Contains(got, "192.0.2.9") || strings.Contains(got, "192.0.2.7") {
		t.Errorf("other peers: %s", got)
	}
	for range 2 {
		if err := Unguard(t.Context(), "br0"); err != nil {
			t.Fatal(err)
		}
		expect("unguarded", theirs, "table inet vcpeer_br-1")
	}
}

func TestGuardWithoutNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Guard(t.Context(), "br0", addrs("192.0.2.7")); !errors.Is(err, ErrNoNFT) {
		t.Errorf("got %v, want %v", err, ErrNoNFT)
	}
}
