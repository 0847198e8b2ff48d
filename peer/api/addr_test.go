package api

import (
	"slices"
	"strings"
	"testing"
)

func TestHostPorts(t *testing.T) {
	for addrs, want := range map[string]string{
		"/ip4/192.0.2.1/udp/7475/quic-v1 /ip4/192.0.2.1/tcp/7475": "192.0.2.1:7475",
		"/ip6/2001:db8::1/tcp/7475 /dns/alpha/tcp/1":              "[2001:db8::1]:7475 alpha:1",
		"/ip4/192.0.2.1 nonsense /":                               "",
		"":                                                        "",
	} {
		if got := HostPorts(strings.Fields(addrs)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: got %q, want %q", addrs, got, want)
		}
	}
}
