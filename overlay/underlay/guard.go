package underlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// ErrNoNFT says that the program nft is not installed: without it the kernel answers each tunnelled packet with an error
// that costs some time and does no harm.
var ErrNoNFT = errors.New("nft is not installed")

// Guard keeps the kernel from looking at tunnels of the given peers: a datapath in user space takes its own copy of each
// packet, and the kernel, which knows no such tunnel, would answer with "protocol unreachable". The table is named by the
// owner; other tables are not touched, and packets of strangers go on to whatever the kernel does with them.
func Guard(ctx context.Context, owner string, peers []netip.Addr) error {
	return nft(ctx, script(owner, peers))
}

// script puts a table for these peers in the place of the owner's table, or takes that away where there are none.
func script(owner string, peers []netip.Addr) string {
	table := "vcpeer_" + owner
	var b strings.Builder
	b.WriteString(dropTable(table))
	if len(peers) > 0 {
		fmt.Fprintf(&b, "table inet %s {\n", table)
		b.WriteString(set("peers4", "ipv4_addr", peers, netip.Addr.Is4))
		b.WriteString(set("peers6", "ipv6_addr", peers, netip.Addr.Is6))
		b.WriteString("chain guard {\ntype filter hook prerouting priority -310; policy accept;\n" +
			"meta l4proto 47 ip saddr @peers4 drop\nmeta l4proto 47 ip6 saddr @peers6 drop\n}\n}\n")
	}
	return b.String()
}

func set(name, kind string, peers []netip.Addr, is func(netip.Addr) bool) string {
	var texts []string
	for _, p := range peers {
		if is(p) {
			texts = append(texts, p.String())
		}
	}
	slices.Sort(texts)
	elements := ""
	if len(texts) > 0 {
		elements = "elements = { " + strings.Join(slices.Compact(texts), ", ") + " }\n"
	}
	return fmt.Sprintf("set %s {\ntype %s\n%s}\n", name, kind, elements)
}

// Unguard removes what Guard made.
func Unguard(ctx context.Context, owner string) error {
	return errors.Join(Guard(ctx, owner, nil), nft(ctx, dropTable(confined(owner))))
}

// Confine keeps addresses that exist on this machine only to one interface: nothing from them comes in by another, and
// nothing to them leaves by one.
func Confine(ctx context.Context, owner, link string, net netip.Prefix) error {
	table := confined(owner)
	return nft(ctx, dropTable(table)+fmt.Sprintf("table inet %s {\n"+
		"chain in {\ntype filter hook prerouting priority -310; policy accept;\niifname != %q ip saddr %s drop\n}\n"+
		"chain out {\ntype filter hook postrouting priority -310; policy accept;\noifname != %q ip daddr %s drop\n}\n}\n",
		table, link, net, link, net))
}

func confined(owner string) string { return "vcpeer_" + owner + "_sealed" }

// dropTable removes a table, if it is there: the first line makes the second succeed.
func dropTable(name string) string {
	return fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n", name)
}

// nft applies a script as one transaction.
func nft(ctx context.Context, script string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return ErrNoNFT
	case err != nil:
		return fmt.Errorf("underlay: nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
