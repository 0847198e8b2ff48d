package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"vcpeer/deploy/lab/topology"
)

// miniupnpd is what most home routers run for UPnP, NAT-PMP and PCP.
const miniupnpd = "miniupnpd"

// startMappers starts what passes ports on, on the routers of sites that have it. Of a double NAT it is the inner one, which
// is the one that nodes ask.
func (l *Lab) startMappers(ctx context.Context) error {
	return each(ctx, l.Topology.Sites, atOnce, func(_ context.Context, s topology.Site) error {
		if !s.Maps() {
			return nil
		}
		if why := MissingMapper(); why != "" {
			return errors.New(why)
		}
		m := l.machines[s.RouterName()]
		if err := os.WriteFile(filepath.Join(m.Dir, "run", "miniupnpd.conf"), mapperConfig(s, l.outside(s)), 0o644); err != nil {
			return err
		}
		d, err := launch(m, miniupnpd, filepath.Join(m.Dir, "log", miniupnpd+".out"), nil,
			miniupnpd, "-d", "-f", "/run/miniupnpd.conf", "-P", "/run/miniupnpd.pid")
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mappers = append(l.mappers, d)
		return nil
	})
}

// outside is the address that a router with port mapping claims to have. Behind a second NAT it is that one's, as if somebody
// had set it by hand or asked a STUN server: what is mapped to it does not work, since the second NAT knows nothing of it.
// (With its own address, which is private, miniupnpd maps nothing.)
func (l *Lab) outside(s topology.Site) netip.Addr {
	name := s.RouterName()
	if s.DoubleNAT {
		name = s.ISPName()
	}
	all := l.plan.addrs(name)
	return all[slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() && !a.IsPrivate() && !providers.Contains(a) })]
}

// providers is where the inner router of a double NAT has its address (RFC 6598).
var providers = netip.MustParsePrefix("100.64.0.0/10")

// mapperConfig is miniupnpd's.
func mapperConfig(s topology.Site, outside netip.Addr) []byte {
	yes := func(on bool) string { return map[bool]string{true: "yes", false: "no"}[on] }
	return fmt.Appendf(nil, `ext_ifname=wan
ext_ip=%s
listening_ip=lan
ipv6_disable=yes
enable_upnp=%s
enable_natpmp=%s
secure_mode=yes
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`, outside, yes(s.Mapping != topology.PCP), yes(s.Mapping != topology.UPnP))
}

// MissingMapper says why sites with port mapping cannot be had here; empty: they can.
func MissingMapper() string {
	if _, err := exec.LookPath(miniupnpd); err != nil {
		return "miniupnpd is missing: apt-get install --no-install-recommends miniupnpd miniupnpd-nftables"
	}
	return ""
}
