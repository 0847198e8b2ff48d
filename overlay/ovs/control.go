package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Neighbour is a node of the underlay: the MAC that frames for IP are to be sent to.
type Neighbour struct {
	IP  netip.Addr
	MAC net.HardwareAddr
}

// Neighbours tells the userspace datapath the MACs of the underlay that it does not know, or knows otherwise; device is
// the port that has the underlay's address. Without it a peer whose MAC changed may be out of reach for half a minute,
// since frames that go by cached flows hide the ARP replies from which Open vSwitch would learn. Entries age away after 15
// minutes without use, so call again. Not needed where the kernel forwards.
func (s *Switch) Neighbours(ctx context.Context, device string, want []Neighbour) error {
	out, err := s.control(ctx, "tnl/neigh/show")
	if err != nil {
		return err
	}
	have := parseNeighbours(out, device)
	for _, n := range want {
		ip, mac := n.IP.Unmap(), n.MAC.String()
		if have[ip] == mac {
			continue
		}
		if _, err := s.control(ctx, "tnl/neigh/set", device, ip.String(), mac); err != nil {
			return err
		}
	}
	return nil
}

// parseNeighbours reads what tnl/neigh/show prints of a device: address, MAC and device in columns.
func parseNeighbours(out, device string) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != device {
			continue
		}
		if ip, err := netip.ParseAddr(f[0]); err == nil {
			all[ip.Unmap()] = f[1]
		}
	}
	return all
}

// control runs a command of ovs-appctl(8) in ovs-vswitchd, over its socket, which costs no process.
func (s *Switch) control(ctx context.Context, method string, args ...string) (string, error) {
	return control(ctx, s.cfg, method, args...)
}

func control(ctx context.Context, cfg Config, method string, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	path, err := controlSocket(cfg)
	if err != nil {
		return "", notRunning(Vswitchd, cfg.RunDir, err)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return "", notRunning(Vswitchd, path, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if args == nil {
		args = []string{}
	}
	request := map[string]any{"method": method, "params": args, "id": 0}
	if err := json.NewEncoder(c).Encode(request); err != nil {
		return "", fmt.Errorf("ovs: %s: %w", method, ended(ctx, err))
	}
	var reply struct{ Result, Error *string }
	if err := json.NewDecoder(io.LimitReader(c, 16<<20)).Decode(&reply); err != nil {
		return "", fmt.Errorf("ovs: %s: %w", method, ended(ctx, err))
	}
	switch {
	case reply.Error != nil:
		return "", fmt.Errorf("ovs: %s %s: %s", method, strings.Join(args, " "), strings.TrimSpace(*reply.Error))
	case reply.Result == nil:
		return "", nil
	}
	return *reply.Result, nil
}

// ended prefers the reason why ctx ended to that a connection was closed for it.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// controlSocket finds ovs-vswitchd's: named by its process ID, or else whatever looks like it, the newest first.
func controlSocket(cfg Config) (string, error) {
	if cfg.Ctl != "" {
		return cfg.Ctl, nil
	}
	if pid, err := os.ReadFile(filepath.Join(cfg.RunDir, "ovs-vswitchd.pid")); err == nil {
		path := filepath.Join(cfg.RunDir, "ovs-vswitchd."+strings.TrimSpace(string(pid))+".ctl")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	found, err := filepath.Glob(filepath.Join(cfg.RunDir, "*vswitchd*.ctl"))
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("no control socket")
	}
	return slices.MaxFunc(found, func(a, b string) int { return modified(a).Compare(modified(b)) }), nil
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
