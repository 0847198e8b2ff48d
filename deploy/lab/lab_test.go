package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/deploy/lab/topology"
)

func newLab(t *testing.T, o Options, file string) *Lab {
	t.Helper()
	if why := CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	top, err := topology.Parse("test", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o.Progress = func(s string) { t.Log(time.Now().Format("15:04:05.000"), s) }
	l, err := Up(ctx, top, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func vcpeer(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("VCPEER_BINARY"); path != "" {
		return path
	}
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if why := CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	bin, err := harness.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(bin)
}

func TestFirst(t *testing.T) {
	l := newLab(t, Options{Binary: vcpeer(t)}, `
sites:
  kyoto: {nodes: 2}
  osaka:
  home: {nat: port-restricted}
links:
  default: delay=10ms
`)
	for _, argv := range [][]string{
		{"kyoto-1", "ip", "-br", "addr"},
		{"kyoto-1", "ping", "-c3", "-i0.01", l.Node("osaka").Addrs[0].String()},
		{"home-1", "ping", "-c3", "-i0.01", l.Node("kyoto-2").Addrs[0].String()},
		{"home-1", "vcpeer", "members"},
		{"home-1", "ovs-vsctl", "show"},
		{"osaka", "ovs-vsctl", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"},
		{"osaka", "sh", "-c", "ovs-ofctl dump-flows br0; ip -br a; ethtool -k eth0 | grep ': on'; ps ax"},
	} {
		out, err := l.Exec(t.Context(), argv[0], argv[1:]...)
		t.Logf("%v: %v\n%s", argv, err, out)
	}
}
