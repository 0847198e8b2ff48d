package lab

import (
	"fmt"
	"strings"

	"vcpeer/deploy/lab/topology"
)

// How the kinds of NAT are made, and what of them is approximated. Linux keeps the source port of a connection where it
// can, whatever the destination, so its mapping is endpoint-independent in practice: it changes only where two nodes of a
// site use one port to one destination.
//
//	port-restricted  masquerade: only answers come in, from the address and port that was sent to
//	symmetric        masquerade fully-random: each destination sees a port of its own
//	full-cone        whoever sends to a port from which a node has sent reaches that node, TCP and UDP, for two minutes
//	                 after it last sent. Where two nodes send from one port, the last one gets what comes unasked.
//	restricted       the same, but only from addresses that the node has sent to from this port
//
// With port-mapping a router also runs miniupnpd, and what that has mapped comes in, whatever the kind.
//
// What else comes in unasked is dropped in silence. Two mappings are not made: of ICMP queries and of GRE other than
// what Linux does by itself (one GRE tunnel of each pair of addresses passes outwards; `gre: blocked` stops it).

// rulesOf is what nft reads on a router of the site; empty: it only forwards.
func rulesOf(s topology.Site) string {
	var b strings.Builder
	if s.NAT != topology.NoNAT {
		b.WriteString(natTable(s.NAT))
	}
	if s.Maps() {
		b.WriteString(mappingTables)
	}
	if f := filters(s); len(f) > 0 {
		fmt.Fprintf(&b, "table inet lab {\n  chain forward {\n    type filter hook forward priority 0;\n    %s\n  }\n}\n", strings.Join(f, "\n    "))
	}
	return b.String()
}

func filters(s topology.Site) (f []string) {
	if s.NoUDP {
		f = append(f, "meta l4proto udp drop")
	}
	if s.NoGRE {
		f = append(f, "meta l4proto gre drop")
	}
	onlyAnswers := "iifname wan ct state new,invalid drop"
	switch {
	case s.NoInbound:
		f = append(f, onlyAnswers)
	case s.NAT != topology.NoNAT: // IPv4 is the translation's business
		f = append(f, "meta nfproto ipv6 "+onlyAnswers)
	}
	return f
}

const (
	mappings = `  map mapped { type inet_proto . inet_service : ipv4_addr; flags dynamic,timeout; timeout 2m; size 65535; }
  set sentto { type inet_proto . inet_service . ipv4_addr; flags dynamic,timeout; timeout 2m; size 65535; }
  chain learn {
    type filter hook forward priority 0;
    oifname wan meta l4proto { tcp, udp } update @mapped { meta l4proto . th sport : ip saddr }
    oifname wan meta l4proto { tcp, udp } update @sentto { meta l4proto . th sport . ip daddr }
  }
`
	inwards = `  chain inwards {
    type nat hook prerouting priority dstnat;
    iifname wan meta l4proto { tcp, udp } %sdnat to meta l4proto . th dport map @mapped
  }
`
	outwards = `  chain outwards {
    type nat hook postrouting priority srcnat;
    oifname wan masquerade%s
  }
  chain silence {
    type filter hook input priority 0;
    iifname wan meta l4proto { tcp, udp } ct state new drop
  }
`
)

// mappingTables are where miniupnpd writes what it maps. It takes the place of a router's own firewall: what it has mapped
// comes in, whatever kind of NAT there is.
const mappingTables = `table inet filter {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain prerouting {
    type nat hook prerouting priority dstnat - 1;
    iifname wan jump prerouting_miniupnpd
  }
}
`

func natTable(kind topology.NAT) string {
	body := ""
	random := ""
	switch kind {
	case topology.FullCone:
		body = mappings + fmt.Sprintf(inwards, "")
	case topology.Restricted:
		body = mappings + fmt.Sprintf(inwards, "meta l4proto . th dport . ip saddr @sentto ")
	case topology.Symmetric:
		random = " fully-random"
	}
	return "table ip nat {\n" + body + fmt.Sprintf(outwards, random) + "}\n"
}
