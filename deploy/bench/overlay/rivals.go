package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"vcpeer/deploy/lab"
)

// mesh is a network made by hand between some nodes of a lab; node i has the address 10.99.0.i+1 in it.
type mesh struct {
	lab   *lab.Lab
	nodes []string
}

func (m mesh) addr(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }
func (m mesh) mac(i int) string  { return fmt.Sprintf("02:99:00:00:00:%02x", i+1) }

func (m mesh) underlay(i int) netip.Addr { return m.lab.Node(m.nodes[i]).Addrs[0] }

func (m mesh) sh(ctx context.Context, i int, script string) error {
	_, err := m.lab.Exec(ctx, m.nodes[i], "sh", "-ec", script)
	return err
}

// ovsTakesNIC is how Open vSwitch's manual has it for the datapath in user space: a bridge owns the interface and its
// address, and tunnels leave by that bridge.
const ovsTakesNIC = `
addr=$(ip -4 -o addr show eth0 | awk '{ print $4 }') gw=$(ip -4 route show default | awk '{ print $3 }') mac=$(cat /sys/class/net/eth0/address)
ovs-vsctl add-br brp -- set bridge brp datapath_type=netdev other-config:hwaddr=$mac -- add-port brp eth0
ip addr flush dev eth0
ip addr add $addr dev brp
ip link set brp up
ip route replace default via $gw dev brp
ethtool -K brp tx off >/dev/null
`

// static makes a mesh of GRE tunnels with a port for each peer and rules that never change.
func static(ctx context.Context, m mesh) error {
	for i := range m.nodes {
		var b strings.Builder
		b.WriteString(ovsTakesNIC)
		fmt.Fprintf(&b, "ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure other-config:hwaddr=%s\n", m.mac(i))
		var all []string
		for j := range m.nodes {
			if i == j {
				continue
			}
			fmt.Fprintf(&b, "ovs-vsctl add-port br0 g%[1]d -- set interface g%[1]d type=gre options:remote_ip=%[2]s ofport_request=%[1]d\n", j+1, m.underlay(j))
			fmt.Fprintf(&b, "ovs-ofctl add-flow br0 priority=20,in_port=LOCAL,dl_dst=%s,actions=%d\n", m.mac(j), j+1)
			all = append(all, fmt.Sprint(j+1))
		}
		fmt.Fprintf(&b, "ovs-ofctl add-flow br0 priority=10,in_port=LOCAL,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=%s\n", strings.Join(all, ","))
		b.WriteString("ovs-ofctl add-flow br0 priority=5,actions=LOCAL\n")
		fmt.Fprintf(&b, "ip link set br0 mtu 1458 up\nip addr add %s/24 dev br0\nethtool -K br0 tx off >/dev/null\n", m.addr(i))
		if err := m.sh(ctx, i, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// over makes frames between nodes a and c of a static mesh go over b, in both directions.
func (m mesh) over(ctx context.Context, a, b, c int) error {
	for _, way := range [][2]int{{a, c}, {c, a}} {
		from, to := way[0], way[1]
		if err := m.sh(ctx, from, fmt.Sprintf("ovs-ofctl add-flow br0 priority=30,in_port=LOCAL,dl_dst=%s,actions=%d", m.mac(to), b+1)); err != nil {
			return err
		}
		if err := m.sh(ctx, b, fmt.Sprintf("ovs-ofctl add-flow br0 priority=30,in_port=%d,dl_dst=%s,actions=%d", from+1, m.mac(to), to+1)); err != nil {
			return err
		}
	}
	return nil
}

// tinc runs tinc 1.0 as a switch.
func tinc(ctx context.Context, m mesh) error {
	hosts := map[string]string{}
	for i, n := range m.nodes {
		dir := filepath.Join(m.lab.Node(n).Machine.Dir, "run", "tinc")
		if err := os.MkdirAll(filepath.Join(dir, "hosts"), 0o755); err != nil {
			return err
		}
		conf := fmt.Sprintf("Name = n%d\nMode = switch\nInterface = tinc0\nDeviceType = tap\n", i+1)
		for j := range i {
			conf += fmt.Sprintf("ConnectTo = n%d\n", j+1)
		}
		host := filepath.Join(dir, "hosts", fmt.Sprintf("n%d", i+1))
		for path, text := range map[string]string{filepath.Join(dir, "tinc.conf"): conf, host: fmt.Sprintf("Address = %s\n", m.underlay(i))} {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				return err
			}
		}
		if err := m.sh(ctx, i, "tincd -c /run/tinc -K </dev/null"); err != nil {
			return err
		}
		text, err := os.ReadFile(host)
		if err != nil {
			return err
		}
		hosts[fmt.Sprintf("n%d", i+1)] = string(text)
	}
	for i, n := range m.nodes {
		dir := filepath.Join(m.lab.Node(n).Machine.Dir, "run", "tinc", "hosts")
		for name, text := range hosts {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		up := fmt.Sprintf("tincd -c /run/tinc --pidfile=/run/tinc.pid --logfile=/run/tinc.log\nsleep 1\nip addr add %s/24 dev tinc0\nip link set tinc0 up", m.addr(i))
		if err := m.sh(ctx, i, up); err != nil {
			return err
		}
	}
	return nil
}

// loopback is what babeld tells of node i.
func (m mesh) loopback(i int) string { return fmt.Sprintf("10.98.0.%d", i+1) }

// babel runs babeld over a static mesh, on one interface on which every other node is a neighbour.
func babel(ctx context.Context, m mesh, options string) error {
	for i := range m.nodes {
		if err := m.sh(ctx, i, fmt.Sprintf(`
sysctl -qw net.ipv6.conf.br0.disable_ipv6=0 net.ipv6.conf.br0.accept_dad=0 net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
ip link set br0 down; ip link set br0 up
ip addr add %s/32 dev lo
babeld -D -I /run/babeld.pid -L /run/babeld.log -S /run/babeld.state -C 'interface br0 type tunnel %s' -C 'redistribute local ip 10.98.0.0/16' -C 'redistribute local deny' br0`,
			m.loopback(i), options)); err != nil {
			return err
		}
	}
	return nil
}
