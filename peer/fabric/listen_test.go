package fabric

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Port 0 is one port for TCP and UDP on every address, also where the first choice of TCP is taken on UDP.
func TestListenPort(t *testing.T) {
	f := start(t, "a", &book{}, func(c *Config) { c.Listen = []string{":0"} })
	for _, a := range ownAddrs(f.host.ListenAddresses()) {
		if portOf(a) != f.Port() || f.Port() == 0 {
			t.Errorf("%s: not port %d", a, f.Port())
		}
	}
	if n := len(f.host.ListenAddresses()); n < 2 {
		t.Errorf("%d addresses", n)
	}
}

func TestListenErrors(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.LocalAddr().(*net.UDPAddr).Port
	for _, tt := range []struct {
		listen string
		want   error
		text   string
	}{
		{fmt.Sprintf("127.0.0.1:%d", port), syscall.EADDRINUSE, "hint: is another vcpeer running here?"},
		{"192.0.2.1:0", syscall.EADDRNOTAVAIL, "--advertise"},
		{"host:port", nil, "want host or host:port"},
	} {
		_, err := New(Config{Key: testKey("a"), Listen: []string{tt.listen}, Standing: (&book{}).of})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("listen on %s: %v; want %q", tt.listen, err, tt.text)
		}
	}
}

// A second daemon with the same port is an error, not a partner.
func TestListenTwice(t *testing.T) {
	f := start(t, "a", &book{}, overTCP)
	_, err := New(Config{Key: testKey("b"), Listen: []string{fmt.Sprintf("127.0.0.1:%d", f.Port())}, Standing: (&book{}).of, NoQUIC: true})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second on the port: %v", err)
	}
}

func TestAdvertise(t *testing.T) {
	f := start(t, "a", &book{}, func(c *Config) { c.Advertise = []string{"198.51.100.7:8000", "node.example.org:0"} })
	port := f.Port()
	want := []string{
		"/ip4/198.51.100.7/udp/8000/quic-v1", "/ip4/198.51.100.7/tcp/8000",
		fmt.Sprintf("/dns/node.example.org/udp/%d/quic-v1", port), fmt.Sprintf("/dns/node.example.org/tcp/%d", port),
	}
	if got := f.Addrs(); !slices.Equal(got, want) {
		t.Errorf("addresses %q, want %q", got, want)
	}
	for _, bad := range []string{"", ":7475", "a b", "x/y"} {
		_, err := New(Config{Key: testKey("b"), Listen: []string{"127.0.0.1:0"}, Advertise: []string{bad}, Standing: (&book{}).of})
		if err == nil || !strings.Contains(err.Error(), "advertise") {
			t.Errorf("advertise %q: %v", bad, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Config{Key: testKey("a"), Listen: []string{":0"}, Standing: (&book{}).of}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no key":      func(c *Config) { c.Key = nil },
		"no address":  func(c *Config) { c.Listen = nil },
		"no standing": func(c *Config) { c.Standing = nil },
		"negative":    func(c *Config) { c.ConnHigh = -1 },
		"low > high":  func(c *Config) { c.ConnLow, c.ConnHigh = 9, 8 },
	} {
		c := good
		spoil(&c)
		if c.Validate() == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

func FuzzSplitAddr(f *testing.F) {
	for _, s := range []string{"", ":", "a", "a:1", "[::1]:2", "::1", "[::1", "a:b:c", "1.2.3.4:99999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := SplitAddr(s)
		if err == nil && (port < 0 || port > 65535 || strings.ContainsAny(host, " /")) {
			t.Errorf("%q: %q %d", s, host, port)
		}
	})
}
