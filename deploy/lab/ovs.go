package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
)

// A node's Open vSwitch is in the usual places of the node's own directories: /var/lib/openvswitch/conf.db and
// /run/openvswitch. Each node begins with a copy of one database that has its first row.

// makeDatabase makes the database that each node gets a copy of.
func (l *Lab) makeDatabase(ctx context.Context) error {
	path := filepath.Join(l.Dir, "conf.db")
	const row = `["Open_vSwitch",{"op":"insert","table":"Open_vSwitch","row":{}}]`
	for _, argv := range [][]string{{"create", path, "/usr/share/openvswitch/vswitch.ovsschema"}, {"transact", path, row}} {
		if out, err := exec.CommandContext(ctx, "ovsdb-tool", argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("ovsdb-tool %s: %w\n%s", argv[0], err, out)
		}
	}
	return nil
}

// prepareOVS makes the files of a machine that is not there yet.
func (l *Lab) prepareOVS(dir string) error {
	db, err := os.ReadFile(filepath.Join(l.Dir, "conf.db"))
	if err != nil {
		return err
	}
	for _, d := range []string{"lib/openvswitch", "run/openvswitch", "log/openvswitch"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "lib/openvswitch/conf.db"), db, 0o640)
}

func (l *Lab) startSwitches(ctx context.Context) error {
	return each(ctx, l.nodes, atOnce, func(ctx context.Context, n *Node) error {
		if !n.wanted.OVS {
			return nil
		}
		if err := n.startOVSDB(ctx); err != nil {
			return err
		}
		return n.startOVS(ctx)
	})
}

var ovsLogging = []string{"--pidfile", "--log-file", "-vconsole:off", "-vsyslog:off"}

func (n *Node) startOVSDB(ctx context.Context) error {
	argv := append([]string{OVSDB, "/var/lib/openvswitch/conf.db", "--remote=punix:/run/openvswitch/db.sock"}, ovsLogging...)
	if err := n.launch(OVSDB, nil, argv...); err != nil {
		return err
	}
	return n.waitFor(ctx, OVSDB, func() bool { return answers(filepath.Join(n.OVSRunDir(), "db.sock")) })
}

// keepMemory has glibc (mallopt(3)) keep what ovs-vswitchd frees. Its datapath in user space takes room for a batch of packets
// each time it looks for some; to have that from the kernel each time is a third of what an idle switch costs, and a lab
// has many.
var keepMemory = []string{"MALLOC_TRIM_THRESHOLD_=67108864", "MALLOC_TOP_PAD_=1048576"}

func (n *Node) startOVS(ctx context.Context) error {
	argv := append([]string{OVS, "unix:/run/openvswitch/db.sock"}, ovsLogging...)
	if !kernelDatapath() {
		argv = append(argv, "--disable-system")
	}
	if err := n.launch(OVS, keepMemory, argv...); err != nil {
		return err
	}
	return n.waitFor(ctx, OVS, func() bool {
		pid, err := os.ReadFile(filepath.Join(n.OVSRunDir(), OVS+".pid")) // as the node counts; a killed one leaves its own
		return err == nil && answers(filepath.Join(n.OVSRunDir(), fmt.Sprintf("%s.%s.ctl", OVS, strings.TrimSpace(string(pid)))))
	})
}

func answers(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// kernelDatapath reports whether the kernel has the module openvswitch; else Open vSwitch forwards in user space.
var kernelDatapath = sync.OnceValue(func() bool {
	_, err := netlink.GenlFamilyGet("ovs_datapath")
	return err == nil
})
