package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// portTries is how often another port is tried when the one that TCP got for port 0 is taken on UDP.
const portTries = 20

// SplitAddr takes "host", "host:port", "[v6]:port" or a bare IPv6 address apart. Where no port is named it is
// [DefaultPort]. The host may be a name, and empty.
func SplitAddr(s string) (host string, port int, err error) {
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return ip.String(), DefaultPort, nil
	}
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		if strings.ContainsAny(s, ":[] /") || s == "" {
			return "", 0, fmt.Errorf("address %q: want host or host:port", s)
		}
		return s, DefaultPort, nil
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil || strings.ContainsAny(host, " /") {
		return "", 0, fmt.Errorf("address %q: want host or host:port, port 0 to 65535", s)
	}
	return host, int(n), nil
}

// listenAll opens every address of Config.Listen.
func (f *Fabric) listenAll() error {
	for _, s := range f.cfg.Listen {
		host, port, err := SplitAddr(s)
		if err != nil {
			return fmt.Errorf("fabric: listen: %w", err)
		}
		ips, err := listenIPs(host)
		if err != nil {
			return fmt.Errorf("fabric: listen on %s: %w", s, err)
		}
		if err := f.listenOn(ips, port); err != nil {
			return fmt.Errorf("fabric: listen on %s: %w%s", s, err, listenHint(err))
		}
	}
	return nil
}

// listenIPs is what a host name means as an address to listen on.
func listenIPs(host string) ([]netip.Addr, error) {
	if host == "" {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := net.LookupIP(host)
	if err != nil {
		return nil, err
	}
	ips := make([]netip.Addr, 0, len(found))
	for _, ip := range found {
		a, _ := netip.AddrFromSlice(ip)
		ips = append(ips, a.Unmap())
	}
	return ips, nil
}

// listenOn opens one port number, TCP and UDP, on all of ips.
func (f *Fabric) listenOn(ips []netip.Addr, port int) error {
	for try := 1; ; try++ {
		opened, err := f.listenOnce(ips, port)
		if err == nil {
			return nil
		}
		f.host.ListenClose(opened...)
		if port != 0 || try == portTries || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

// listenOnce tries all of ips; for port 0 the first that TCP gets is the port of all.
func (f *Fabric) listenOnce(ips []netip.Addr, port int) (opened []ma.Multiaddr, err error) {
	for i, ip := range ips {
		for _, kind := range f.transports() {
			a, err := f.listenMultiaddr(multiaddr(ip, kind, port))
			switch {
			case err == nil:
				opened = append(opened, a)
				port = portOf(a)
			case i > 0 && ip == netip.IPv6Unspecified() && !errors.Is(err, syscall.EADDRINUSE):
				f.log.Debug("no IPv6 on this machine", "err", err) // asked for "every address", and there is none of these
			default:
				return opened, err
			}
		}
	}
	return opened, nil
}

// listenMultiaddr opens a and returns it with the port it got.
func (f *Fabric) listenMultiaddr(a ma.Multiaddr) (ma.Multiaddr, error) {
	before := map[string]bool{}
	for _, l := range f.host.ListenAddresses() {
		before[string(l.Bytes())] = true
	}
	if err := f.host.AddListenAddr(a); err != nil {
		return nil, err
	}
	for _, l := range f.host.ListenAddresses() {
		if !before[string(l.Bytes())] {
			return l, nil
		}
	}
	return a, nil // the same address was listed twice in the configuration
}

// transports lists the transports in use, TCP first since its port can be chosen by the kernel and read back.
func (f *Fabric) transports() []string {
	if f.cfg.NoQUIC {
		return []string{"tcp"}
	}
	return []string{"tcp", "quic"}
}

func listenHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "\nhint: is another vcpeer running here? choose another port with --listen"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "\nhint: no interface of this machine has that address; to be reached under it use --advertise"
	case errors.Is(err, syscall.EACCES):
		return "\nhint: ports below 1024 are for root"
	}
	return ""
}

// multiaddr is ip and port in libp2p's notation, for kind "tcp" or "quic".
func multiaddr(ip netip.Addr, kind string, port int) ma.Multiaddr {
	family := "ip4"
	if ip.Is6() {
		family = "ip6"
	}
	return hostMultiaddr(family, ip.WithZone("").String(), kind, port)
}

func hostMultiaddr(family, host, kind string, port int) ma.Multiaddr {
	text := fmt.Sprintf("/%s/%s/tcp/%d", family, host, port)
	if kind == "quic" {
		text = fmt.Sprintf("/%s/%s/udp/%d/quic-v1", family, host, port)
	}
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		panic(fmt.Sprintf("fabric: made an invalid address %q: %v", text, err)) // callers pass checked parts only
	}
	return a
}

func portOf(a ma.Multiaddr) int {
	for _, p := range []int{ma.P_TCP, ma.P_UDP} {
		if s, err := a.ValueForProtocol(p); err == nil {
			n, _ := strconv.Atoi(s) // a valid multiaddr holds a number here
			return n
		}
	}
	return 0
}

// advertised turns Config.Advertise into multiaddrs, port 0 meaning the port listened on.
func (f *Fabric) advertised() ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, s := range f.cfg.Advertise {
		host, port, err := SplitAddr(s)
		if err != nil || host == "" {
			return nil, fmt.Errorf("fabric: advertise %q: want host or host:port", s)
		}
		if port == 0 {
			port = f.Port()
		}
		for _, kind := range []string{"quic", "tcp"} {
			if kind == "quic" && f.cfg.NoQUIC {
				continue
			}
			if ip, err := netip.ParseAddr(host); err == nil {
				out = append(out, multiaddr(ip, kind, port))
				continue
			}
			if _, err := ma.NewComponent("dns", host); err != nil {
				return nil, fmt.Errorf("fabric: advertise %q: %w", s, err)
			}
			out = append(out, hostMultiaddr("dns", host, kind, port))
		}
	}
	return out, nil
}

// Addrs returns the multiaddrs under which others may reach this node, for its record: those to advertise, else those
// listened on, with every interface's address for an unspecified one. Loopback is left out where there is anything else.
func (f *Fabric) Addrs() []string {
	addrs := f.announce
	if len(addrs) == 0 {
		listening := ownAddrs(f.host.ListenAddresses())
		all, err := everyInterface(listening)
		if err != nil {
			f.log.Warn("cannot list the addresses of this machine", "err", err)
			all = listening
		}
		addrs = reachable(all, f.cfg.Hidden)
		slices.SortFunc(addrs, func(a, b ma.Multiaddr) int { return bytes.Compare(a.Bytes(), b.Bytes()) }) // equal sets are equal
	}
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// everyInterface puts each address of this machine in place of an unspecified one. libp2p does so too, but remembers the
// addresses for a minute, in which a machine may have moved.
func everyInterface(listening []ma.Multiaddr) ([]ma.Multiaddr, error) {
	interfaces, err := manet.InterfaceMultiaddrs()
	if err != nil {
		return nil, err
	}
	return manet.ResolveUnspecifiedAddresses(listening, interfaces)
}

// reachable drops what no other machine can use and what is hidden from them, unless nothing would be left.
func reachable(all []ma.Multiaddr, hidden func(netip.Addr) bool) []ma.Multiaddr {
	var far []ma.Multiaddr
	for _, a := range all {
		if ip, err := manet.ToIP(a); err == nil {
			if addr, ok := netip.AddrFromSlice(ip); ok && hidden(addr.Unmap()) {
				continue
			}
		}
		if !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a) && !manet.IsIPUnspecified(a) {
			far = append(far, a)
		}
	}
	if len(far) == 0 {
		return all
	}
	return far
}

// Port returns the port listened on (of the first address, where several are configured).
func (f *Fabric) Port() int {
	for _, a := range ownAddrs(f.host.ListenAddresses()) {
		return portOf(a)
	}
	return 0
}

// ownAddrs leaves out that circuits are listened for, which is no address.
func ownAddrs(all []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(all), circuitEnd.Equal)
}
