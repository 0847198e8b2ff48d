package lab

import (
	"fmt"
	"net/netip"

	"vcpeer/deploy/lab/topology"
)

// netKind is one of the four nets that a site may have.
type netKind int

const (
	publicNet netKind = iota
	privateNet
	transitNet
	betweenNet
)

func lanNet(s topology.Site) netKind {
	if s.NAT == topology.NoNAT {
		return publicNet
	}
	return privateNet
}

// subnet is a net of one site; a family that the site lacks is not valid.
type subnet struct{ v4, v6 prefix }

type prefix struct{ netip.Prefix }

func netOf(site int, kind netKind, ip topology.IP) (s subnet) {
	hi, lo := byte(site>>8), byte(site)
	if ip.Has4() {
		first := map[netKind][2]byte{publicNet: {44, 128 + hi}, privateNet: {192, 168}, transitNet: {44, 192 + hi}, betweenNet: {100, 64}}[kind]
		s.v4 = prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{first[0], first[1], lo, 0}), 24)}
	}
	if ip.Has6() {
		group := map[netKind]byte{publicNet: 0xc0, privateNet: 0xc0, transitNet: 0xc1, betweenNet: 0xc2}[kind]
		s.v6 = prefix{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x2a, 0x0e, 0x97, group, hi, lo}), 64)}
	}
	return s
}

// host is the n-th address of the net, n from 1 to 254.
func (p prefix) host(n int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		panic(fmt.Sprintf("lab: no net: %v", p))
	}
	return a
}

// families lists the nets that there are.
func (s subnet) families() (all []prefix) {
	for _, p := range []prefix{s.v4, s.v6} {
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return all
}

// hosts is the n-th address of each family with the length of the net.
func (s subnet) hosts(n int) (all []netip.Prefix) {
	for _, p := range s.families() {
		all = append(all, netip.PrefixFrom(p.host(n), p.Bits()))
	}
	return all
}

func (s subnet) addrsOf(n int) (all []netip.Addr) {
	for _, p := range s.families() {
		all = append(all, p.host(n))
	}
	return all
}

func (s subnet) nets() (all []netip.Prefix) {
	for _, p := range s.families() {
		all = append(all, p.Prefix)
	}
	return all
}

func (s subnet) nets6() []netip.Prefix {
	if !s.v6.IsValid() {
		return nil
	}
	return []netip.Prefix{s.v6.Prefix}
}

// defaults leads everywhere over the gateway of the net.
func (s subnet) defaults() (all []route) {
	for _, a := range s.addrsOf(gatewayHost) {
		all = append(all, route{via: a})
	}
	return all
}

// portName is the name of an interface: what it leads to where that fits into the kernel's 15 bytes.
func portName(of string, i int) string {
	if len(of) <= 15 {
		return of
	}
	return fmt.Sprintf("p%d", i)
}
