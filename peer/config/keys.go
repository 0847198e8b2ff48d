package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Key is one setting: a flag --Name, a variable VCPEER_NAME and a key Name of the file.
type Key struct {
	Name   string
	Hint   string // what the value looks like, for help
	Help   string
	List   bool // may be given several times; in the environment separated by commas
	Secret bool // not shown

	set func(*Config, []string) error
	get func(*Config) []string
}

// Env is the variable that sets k.
func (k Key) Env() string { return "VCPEER_" + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_")) }

// Keys lists all settings in the order in which help and `vcpeer config` show them.
func Keys() []Key {
	return []Key{
		list("seed", "HOST[:PORT]", "a node to join through; may be repeated; needed only the first time", func(c *Config) *[]string { return &c.Seeds }),
		secret(text("token", "TOKEN", "join token that another node printed; - reads it from standard input", func(c *Config) *string { return &c.Token })),
		text("site", "NAME", "the site of this node (default: the host's name)", func(c *Config) *string { return &c.Site }),
		text("name", "NAME", "the name of this node (default: the host's name)", func(c *Config) *string { return &c.Name }),
		list("listen", "HOST:PORT", "where to listen, TCP and UDP; may be repeated", func(c *Config) *[]string { return &c.Listen }),
		list("advertise", "HOST[:PORT]", "an address that others shall dial; may be repeated (default: what they see)", func(c *Config) *[]string { return &c.Advertise }),
		text("port-mapping", "auto|off", "behind NAT, ask the router to pass the port on to this node (PCP, NAT-PMP, UPnP)", func(c *Config) *string { return &c.PortMapping }),
		number("slots", "N", "CPUs offered to jobs; 0: all of the machine, -1: none", func(c *Config) *int { return &c.Slots }),
		text("jobs-as", "account|self", "run jobs as their cluster account or all as this user", func(c *Config) *string { return &c.JobsAs }),
		text("integrate", "auto|on|off", "keep host names in /etc/hosts and serve accounts to the system (root)", func(c *Config) *string { return &c.Integrate }),
		text("overlay", "auto|on|off", "take part in the network over all sites (root, Open vSwitch)", func(c *Config) *string { return &c.Overlay }),
		list("underlay", "ADDR|IFACE", "an address or interface for the network's tunnels; may be repeated (default: all of the machine)", func(c *Config) *[]string { return &c.Underlay }),
		text("transit", "on|off", "forward for other sites where that makes their paths shorter", func(c *Config) *string { return &c.Transit }),
		text("network", "PREFIX", "when this node makes a cluster: its network's addresses, a private /16 (default: 10.77.0.0/16)", func(c *Config) *string { return &c.Network }),
		number("protect", "N", "links to the nearest sites that fail over within 300 ms", func(c *Config) *int { return &c.Protect }),
		text("state", "DIR", "directory of keys, records and queue", func(c *Config) *string { return &c.State }),
		text("socket", "PATH", "unix socket of the API", func(c *Config) *string { return &c.Socket }),
		text("log-level", "LEVEL", "debug, info, warn or error", func(c *Config) *string { return &c.LogLevel }),
		text("log-format", "FORMAT", "text, json or auto", func(c *Config) *string { return &c.LogFormat }),
	}
}

// one takes the only value of a setting that is no list.
func one(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("want one value, got %d", len(values))
	}
	return values[0], nil
}

func text(name, hint, help string, at func(*Config) *string) Key {
	return Key{Name: name, Hint: hint, Help: help,
		get: func(c *Config) []string { return []string{*at(c)} },
		set: func(c *Config, values []string) (err error) { *at(c), err = one(values); return err }}
}

func list(name, hint, help string, at func(*Config) *[]string) Key {
	return Key{Name: name, Hint: hint, Help: help, List: true,
		get: func(c *Config) []string { return *at(c) },
		set: func(c *Config, values []string) error { *at(c) = slices.Clone(values); return nil }}
}

func number(name, hint, help string, at func(*Config) *int) Key {
	return Key{Name: name, Hint: hint, Help: help,
		get: func(c *Config) []string { return []string{strconv.Itoa(*at(c))} },
		set: func(c *Config, values []string) error {
			v, err := one(values)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(v)
			if err != nil {
				return fmt.Errorf("%q is not a whole number", v)
			}
			*at(c) = n
			return nil
		}}
}

func secret(k Key) Key {
	k.Secret = true
	return k
}

// oneOf reports a word that is not among those allowed.
func oneOf(word string, allowed []string) error {
	if slices.Contains(allowed, word) {
		return nil
	}
	if near := Nearest(word, allowed); near != "" {
		return fmt.Errorf("want %s; did you mean %s?", strings.Join(allowed, ", "), near)
	}
	return fmt.Errorf("want %s", strings.Join(allowed, ", "))
}
