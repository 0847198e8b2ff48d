package api

import (
	"net"
	"slices"
	"strings"
)

// HostPorts turns the addresses of a node (multiaddrs such as /ip4/192.0.2.1/udp/7475/quic-v1) into host:port, as people
// read and type them: each once, in the order given. What has no port is left out.
func HostPorts(addrs []string) []string {
	var out []string
	for _, a := range addrs {
		part := strings.Split(a, "/") // "", "ip4", host, "udp", port, …
		if len(part) < 5 {
			continue
		}
		if hp := net.JoinHostPort(part[2], part[4]); !slices.Contains(out, hp) {
			out = append(out, hp)
		}
	}
	return out
}
