package flow

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/label"
)

// arp is a question of a node's programs or guest (RFC 826).
func arp(p flowtest.Packet, asked Slot) flowtest.Packet {
	return p.With("eth_type", "0x0806").With("eth_dst", "ff:ff:ff:ff:ff:ff").With("arp_op", "1").With("arp_sha", p.MAC("eth_src")).
		With("arp_spa", "10.77.99.99").With("arp_tpa", asked.Addr4(net4).String())
}

// nd is the same for IPv6 (RFC 4861).
func nd(p flowtest.Packet, asked string) flowtest.Packet {
	return p.With("eth_type", "0x86dd").With("nw_proto", "58").With("eth_dst", "33:33:ff:00:00:01").With("icmp_type", "135").
		With("ipv6_src", "fd00:77::9").With("nd_target", asked)
}

// TestQuestionsAreAnsweredHere asks for every machine from everywhere, with every length of path: who is known is answered
// once, with his fixed address, to the one who asked, and nothing leaves the node.
func TestQuestionsAreAnsweredHere(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 1}, {[]label.Label{3}, 2}, {[]label.Label{4}, 1}, {[]label.Label{5}, 1}}}
	for _, via := range [][]label.Label{nil, {3}, {3, 4}, {3, 4, 5}} {
		net, nodes := w.net(func(_ place, want *Want) {
			for i := range want.Paths {
				want.Paths[i].MTU = 1300
				if !slices.Contains(via, want.Paths[i].To) && !slices.Contains(via, want.Self.Label) {
					want.Paths[i].Via = via
				}
			}
		})
		for _, src := range w.places() {
			for _, guest := range []bool{false, true} {
				p := w.from(src, guest)
				self := w.slot(src.site, src.node)
				if guest {
					self = w.guest(src.site, src.node)
				}
				for _, dst := range w.places() {
					for _, asked := range []Slot{w.slot(dst.site, dst.node), w.guest(dst.site, dst.node)} {
						answered(t, net, nodes[src], p, self, asked)
					}
				}
				silent(t, net, nodes[src], arp(p, 999), "an unknown host")
				silent(t, net, nodes[src], arp(p, 2).With("arp_tpa", "10.78.0.2"), "another network")
				silent(t, net, nodes[src], nd(p, "fd00:77::999"), "an unknown host")
				silent(t, net, nodes[src], nd(p, "fd00:77::5:0:0:2"), "an address of nobody that ends as a slot")
				silent(t, net, nodes[src], nd(p, "fe80::2"), "a link-local address")
				silent(t, net, nodes[src], nd(p, "fd00:77::2").With("icmp_code", "1"), "no question")
			}
		}
	}
}

func answered(t *testing.T, net *flowtest.Net, at *flowtest.Node, p flowtest.Packet, self, asked Slot) {
	t.Helper()
	if asked == self { // or it would take its own address for taken (RFC 5227)
		silent(t, net, at, arp(p, asked), "its own address")
		silent(t, net, at, nd(p, asked.Addr6(net6).String()), "its own address")
		return
	}
	want := fmt.Sprintf("%s port %d %s>%s", at.Name, p.Get("in_port"), asked.MAC(), p.MAC("eth_src"))
	fate := net.Walk(at, arp(p, asked))
	if fate.String() != want || fate.Sent > 0 {
		t.Fatalf("ARP: %v, want %v\n%q", fate, want, fate.Trace)
	}
	a := fate.Delivered[0].Packet
	if a.Get("arp_op") != 2 || a.MAC("arp_sha") != asked.MAC().String() || a.MAC("arp_tha") != p.MAC("eth_src") ||
		a.Get("arp_spa") != uint64(10<<24|77<<16|int(asked)) || a.Get("arp_tpa") != 10<<24|77<<16|99<<8|99 {
		t.Fatalf("ARP: the answer for %v says %+v", asked, a)
	}
	fate = net.Walk(at, nd(p, asked.Addr6(net6).String()))
	if fate.String() != want || fate.Sent > 0 {
		t.Fatalf("ND: %v, want %v\n%q", fate, want, fate.Trace)
	}
	a = fate.Delivered[0].Packet
	if a.Get("icmp_type") != 136 || a.MAC("nd_tll") != asked.MAC().String() || a.Addr6("ipv6_src") != asked.Addr6(net6) ||
		a.Addr6("ipv6_dst").String() != "fd00:77::9" || a.Get("nd_reserved") != 0x60000000 || a.Get("nd_options_type") != 2 {
		t.Fatalf("ND: the answer for %v says %+v", asked, a)
	}
}

// TestQuestionsGoToTheAgent: where the datapath cannot answer for IPv6, the agent gets each question for a machine that is
// known, from the fixed address of who asks, and its answer arrives there. No rule needs what that datapath has not.
func TestQuestionsGoToTheAgent(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 1}, {[]label.Label{3}, 2}}}
	control := w.want(0, 0).Ports.Control
	net, nodes := w.net(func(p place, want *Want) {
		want.AskAgent = true
		for _, f := range Build(*want).Flows {
			if strings.Contains(f.Actions, "nd_options_type") || strings.Contains(f.Actions, "nd_reserved") {
				t.Errorf("%v: %s", p, f.Text())
			}
		}
	})
	for _, src := range w.places() {
		for _, guest := range []bool{false, true} {
			p, self := w.from(src, guest), w.slot(src.site, src.node)
			if guest {
				self = w.guest(src.site, src.node)
			}
			at := nodes[src]
			silent(t, net, at, nd(p, self.Addr6(net6).String()), "its own address")
			silent(t, net, at, nd(p, "fd00:77::999"), "an unknown host")
			for _, dst := range w.places() {
				for _, asked := range []Slot{w.slot(dst.site, dst.node), w.guest(dst.site, dst.node)} {
					if asked == self {
						continue
					}
					fate := net.Walk(at, nd(p, asked.Addr6(net6).String()))
					if want := fmt.Sprintf("%s port %d %s>%s", at.Name, control, self.MAC(), asked.MAC()); fate.String() != want || fate.Sent > 0 {
						t.Fatalf("the question: %v, want %v\n%q", fate, want, fate.Trace)
					}
					answer := flowtest.Frame(control).With("eth_type", "0x86dd").With("nw_proto", "58").With("icmp_type", "136").
						With("eth_src", asked.MAC().String()).With("eth_dst", self.MAC().String())
					fate = net.Walk(at, answer)
					if want := fmt.Sprintf("%s port %d %s>%s", at.Name, p.Get("in_port"), asked.MAC(), p.MAC("eth_src")); fate.String() != want || fate.Sent > 0 {
						t.Fatalf("the answer: %v, want %v\n%q", fate, want, fate.Trace)
					}
				}
			}
		}
	}
}

func silent(t *testing.T, net *flowtest.Net, at *flowtest.Node, p flowtest.Packet, what string) {
	t.Helper()
	if fate := net.Walk(at, p); fate.Sent > 0 || len(fate.Delivered) > 0 {
		t.Fatalf("%s: %v, %d sent\n%q", what, fate, fate.Sent, fate.Trace)
	}
}

// TestWhatStaysHere: what is for the wire alone leaves no node, whomever it is for.
func TestWhatStaysHere(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 1}}}
	net, nodes := w.net(nil)
	far := w.slot(1, 0).MAC().String()
	set := func(p flowtest.Packet, words ...string) flowtest.Packet {
		for i := 0; i < len(words); i += 2 {
			p = p.With(words[i], words[i+1])
		}
		return p
	}
	for _, src := range w.places() {
		for _, guest := range []bool{false, true} {
			for _, dst := range []string{far, "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:16", "33:33:00:00:00:16", "01:80:c2:00:00:00", "01:80:c2:00:00:0e"} {
				p := w.from(src, guest).With("eth_dst", dst)
				for _, words := range [][]string{
					{"eth_type", "0x0806", "arp_op", "2", "arp_tpa", "10.77.0.9"}, {"eth_type", "0x0806", "arp_op", "1", "arp_tpa", "10.77.9.9"},
					{"nw_proto", "17", "tp_dst", "67"}, {"nw_proto", "17", "tp_dst", "68"}, {"nw_proto", "2"},
					{"eth_type", "0x86dd", "nw_proto", "17", "tp_dst", "546"}, {"eth_type", "0x86dd", "nw_proto", "17", "tp_dst", "547"},
					{"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "130"}, {"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "143"},
					{"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "133"}, {"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "134"},
					{"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "135", "nd_target", "fd00:77::9:9"},
					{"eth_type", "0x86dd", "nw_proto", "58", "icmp_type", "136", "nd_target", "fd00:77::9"},
				} {
					silent(t, net, nodes[src], set(p, words...), fmt.Sprint(dst, words))
				}
				if dst != far {
					silent(t, net, nodes[src], p.With("eth_type", "0x88cc"), "LLDP")
					silent(t, net, nodes[src], p.With("eth_type", "0x0026"), "a spanning tree")
				}
			}
		}
	}
	at := nodes[place{0, 0}]
	silent(t, net, at, w.from(place{0, 0}, false).With("eth_src", far).With("eth_dst", w.slot(0, 1).MAC().String()), "another's address")
	silent(t, net, at, flowtest.Frame(77).With("eth_dst", far), "a port that nobody named")
}
