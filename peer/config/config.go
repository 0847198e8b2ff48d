// Package config is what a node is told from outside: one struct, read from flags, environment, file and defaults in
// that order of strength, together with where each value came from. It opens nothing but the file.
//
//	c, err := config.Load(config.Sources{Flags: flags, Getenv: os.Getenv, User: u})
//	if err != nil { … }                  // names file, line and the nearest key
//	daemon.Run(ctx, c.Config)
package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Port is where a node listens, TCP and UDP, unless told otherwise.
const Port = 7475

// How jobs get their user, in Config.JobsAs.
const (
	JobsAsAccount = "account" // each job as its cluster account (the daemon must be root)
	JobsAsSelf    = "self"    // all jobs as the daemon's own user
)

// Whether a node writes to the machine's own files, in Config.Integrate.
const (
	IntegrateAuto = "auto" // on when the daemon is root and no --dir was given
	IntegrateOn   = "on"
	IntegrateOff  = "off"
)

// Whether a node takes part in the network over all sites, in Config.Overlay.
const (
	OverlayAuto = "auto" // on when the daemon is root and no --dir was given; without Open vSwitch the node does without it
	OverlayOn   = "on"
	OverlayOff  = "off"
)

// Whether a router is asked for a port, in Config.PortMapping.
const (
	PortMappingAuto = "auto"
	PortMappingOff  = "off"
)

// Whether a gateway forwards for other sites, in Config.Transit.
const (
	TransitOn  = "on"
	TransitOff = "off"
)

// MaxProtect is how many links a node can watch with BFD without missing beats: beyond some hundred sessions Open vSwitch
// loses count of them.
const MaxProtect = 64

// Config is everything a daemon is told. Load fills it; Validate has passed on what Load returns.
type Config struct {
	Dir    string // --dir, absolute: all of the node is below it; empty: the usual places
	File   string // the file that was or would be read
	State  string // directory of key, records, queue, blobs; mode 0700
	Socket string // unix socket of the API

	Seeds     []string // host or host:port of nodes to join through; only needed the first time
	Token     string   // join token, with Seeds
	Site      string   // name of this site; empty: the host's name
	Name      string   // name of this node; empty: the host's name
	Listen    []string // host:port, TCP and UDP; port 0: any free one
	Advertise []string // host[:port] that others shall dial; empty: what they see
	Slots     int      // CPUs offered to jobs; 0: as many as the machine has, -1: none
	JobsAs    string   // JobsAsAccount or JobsAsSelf
	Integrate string   // IntegrateOn or IntegrateOff: keep a block in /etc/hosts and serve accounts to the system
	Overlay   string   // OverlayOn or OverlayOff: take part in the network over all sites
	Network   string   // addresses of the network of a cluster that this node founds, a private /16; empty: 10.77.0.0/16
	Underlay  []string // addresses or interfaces that its tunnels use; empty: every address of the machine
	Transit   string   // TransitOn or TransitOff: forward for other sites where that makes their paths shorter

	PortMapping string // PortMappingAuto: behind NAT, the router is asked to pass the port on; or PortMappingOff

	Protect   int    // links to other sites that fail over within 300 ms, 0 to MaxProtect
	LogLevel  string // debug, info, warn, error
	LogFormat string // text, json, or auto: text on a terminal
}

var (
	levels  = []string{"debug", "info", "warn", "error"}
	formats = []string{"auto", "text", "json"}
)

// Validate says what cannot be right whatever the machine, naming the key.
func (c *Config) Validate() error {
	for _, n := range []struct{ key, value string }{{"site", c.Site}, {"name", c.Name}} {
		if n.value != "" && !isLabel(n.value) {
			return fmt.Errorf("%s %q: want lower-case letters, digits and hyphens, at most 63, as in a host name", n.key, n.value)
		}
	}
	if len(c.Listen) == 0 {
		return fmt.Errorf("listen: want at least one host:port")
	}
	for _, a := range c.Listen {
		if err := hostPort(a, 0); err != nil {
			return fmt.Errorf("listen %q: %w", a, err)
		}
	}
	for key, list := range map[string][]string{"seed": c.Seeds, "advertise": c.Advertise} {
		for _, a := range list {
			if err := hostPort(WithPort(a), 1); err != nil {
				return fmt.Errorf("%s %q: %w", key, a, err)
			}
		}
	}
	if c.Slots < -1 {
		return fmt.Errorf("slots %d: want 0 (all CPUs), -1 (none) or a number of CPUs", c.Slots)
	}
	if c.Network != "" {
		if p, err := netip.ParsePrefix(c.Network); err != nil || p.Bits() != 16 || !p.Addr().IsPrivate() || p != p.Masked() {
			return fmt.Errorf("network %q: want a /16 of private IPv4 addresses, such as 10.77.0.0/16", c.Network)
		}
	}
	if c.Protect < 0 || c.Protect > MaxProtect {
		return fmt.Errorf("protect %d: want 0 to %d links", c.Protect, MaxProtect)
	}
	return c.validateWords()
}

func (c *Config) validateWords() error {
	for _, w := range []struct {
		key, value string
		allowed    []string
	}{
		{"jobs-as", c.JobsAs, []string{JobsAsAccount, JobsAsSelf}},
		{"integrate", c.Integrate, []string{IntegrateAuto, IntegrateOn, IntegrateOff}},
		{"overlay", c.Overlay, []string{OverlayAuto, OverlayOn, OverlayOff}},
		{"transit", c.Transit, []string{TransitOn, TransitOff}},
		{"port-mapping", c.PortMapping, []string{PortMappingAuto, PortMappingOff}},
		{"log-level", c.LogLevel, levels},
		{"log-format", c.LogFormat, formats},
	} {
		if err := oneOf(w.value, w.allowed); err != nil {
			return fmt.Errorf("%s %q: %w", w.key, w.value, err)
		}
	}
	// sun_path of struct sockaddr_un holds 108 bytes with the final NUL (unix(7)).
	if len(c.Socket) > 107 {
		return fmt.Errorf("socket %q: a unix socket's path has at most 107 bytes, this has %d", c.Socket, len(c.Socket))
	}
	if !filepath.IsAbs(c.State) || !filepath.IsAbs(c.Socket) {
		return fmt.Errorf("state %q and socket %q: want absolute paths", c.State, c.Socket)
	}
	return nil
}

// isLabel reports whether s is a label of a host name (RFC 1123) in lower case. By hand: every command of the client
// passes here, and a regular expression would cost each its compilation.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// WithPort adds the usual port to an address that has none; an IPv6 address may come with or without brackets.
func WithPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	host := addr
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, strconv.Itoa(Port))
}

// hostPort checks host:port with a port of at least least; an empty host means every address of the machine when least is 0.
func hostPort(addr string, least int) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && strings.Contains(host, ":") {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		return fmt.Errorf("want host:port")
	}
	if host == "" && least > 0 {
		return fmt.Errorf("want a host before the port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < least || n > 65535 {
		return fmt.Errorf("want a port from %d to 65535", least)
	}
	return nil
}
