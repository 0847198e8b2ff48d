package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
)

const guestTopology = `
name: guests
sites:
  alpha: {}
  beta:  {}
links:
  default: delay=5ms
`

// udhcpcScript does what the clients of a system do with what they are told, and writes it down.
const udhcpcScript = `#!/bin/sh
echo $1 $ip $subnet $mtu $hostname $lease $serverid >>/run/told
case $1 in
deconfig) ip -4 addr flush dev $interface; ip link set $interface up;;
bound|renew) ip link set $interface mtu $mtu; ip addr replace $ip/$mask dev $interface;;
esac
`

// TestGuestsAskByDHCP has a guest with an Ethernet address of its own, as virtual machines have, find out what it is by a real
// client, over a bridge of a real Open vSwitch.
func TestGuestsAskByDHCP(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, guestTopology))
	if _, err := n.try("alpha-1", "command -v udhcpc"); err != nil {
		t.Skip("needs udhcpc")
	}
	for _, node := range []string{"alpha-1", "beta-1"} {
		n.sh(node, "ip netns add box; ip link add box0 type veth peer name eth0 netns box; ip link add lost0 type veth peer name lost1; ip link set lost0 up; ip link set lost1 up")
		n.sh(node, fmt.Sprintf("printf %%s '%s' >/run/told.sh; chmod +x /run/told.sh; : >/run/told", udhcpcScript))
	}
	n.sh("alpha-1", "vcpeer attach box0 --name vm1")
	n.sh("beta-1", "vcpeer attach box0 --name vm2")
	for _, node := range []string{"alpha-1", "beta-1"} { // nothing of what was set up from outside is to help
		n.sh(node, "ip netns exec box sh -c 'ip addr flush dev eth0; ip link set eth0 mtu 1500 address 52:54:00:12:34:56'")
		n.sh(node, "ip netns exec box udhcpc -b -i eth0 -t 20 -T 1 -s /run/told.sh -p /run/udhcpc.pid >/run/udhcpc.log 2>&1")
	}
	addr := map[string]string{}
	for node, guest := range map[string]string{"alpha-1": "vm1", "beta-1": "vm2"} {
		o, err := n.overlayOf(node)
		n.must(err)
		addr[guest] = n.sh("alpha-1", fmt.Sprintf("vcpeer guests | awk '$1 == %q {print $4}'", guest))
		want := fmt.Sprintf("bound %s 255.255.0.0 %d %s 604800 %s", addr[guest], o.MTU, guest, o.Address)
		n.within(20*time.Second, guest+" is told: "+want, func() bool { return strings.Contains(n.sh(node, "cat /run/told"), want) })
	}
	n.within(20*time.Second, "guests of both sites reach each other", func() bool {
		_, err := n.try("alpha-1", "ip netns exec box ping -q -c 1 -W 1 -M do -s 1400 "+addr["vm2"])
		return err == nil
	})
	n.askedInVain("alpha-1")
	n.goesWithout("alpha-1", addr["vm1"])
}

// askedInVain wants no answer to who is no guest: a cable that was not attached, the machine itself in the network, and
// where its tunnels go.
func (n *testnet) askedInVain(node string) {
	n.t.Helper()
	nic := n.sh(node, "ip -o -4 route get 44.128.2.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/'")
	for _, iface := range []string{"lost1", "vcpeer0", nic} {
		out, err := n.try(node, fmt.Sprintf("udhcpc -f -n -q -t 2 -T 1 -i %s -s /bin/true", iface))
		if err == nil || !strings.Contains(out, "no lease") {
			n.t.Errorf("asked at %s: %v, %s", iface, err, out)
		}
	}
}

// goesWithout has a guest ask anew while vcpeer runs, while it does not, and when it runs again.
func (n *testnet) goesWithout(node, own string) {
	n.t.Helper()
	renewed := func() int { return strings.Count(n.sh(node, "cat /run/told"), "renew "+own) }
	renew := func(times int) {
		n.t.Helper()
		n.within(20*time.Second, fmt.Sprintf("the guest has its %d. answer", times), func() bool {
			n.sh(node, "kill -USR1 $(cat /run/udhcpc.pid)") // and each begins anew: it is given time
			for range 20 {
				if renewed() >= times {
					return true
				}
				time.Sleep(50 * time.Millisecond)
			}
			return false
		})
	}
	renew(1)
	n.must(n.Kill(node, netlab.VCPeer, syscall.SIGKILL))
	n.within(10*time.Second, "vcpeer has ended", func() bool { return !n.Alive(node, netlab.VCPeer) })
	before := renewed()
	if out, err := n.try(node, "ip netns exec box udhcpc -f -n -q -t 2 -T 1 -i eth0 -s /bin/true"); err == nil {
		n.t.Errorf("the guest was answered by nobody: %s", out)
	}
	n.within(5*time.Second, "the guest goes without", func() bool { // in the network; between sites sealed links are vcpeer's
		_, err := n.try(node, "ip netns exec box ping -q -c 1 -W 1 "+n.addrs[node])
		return err == nil
	})
	n.must(n.StartDaemon(n.ctx, node, netlab.VCPeer))
	renew(before + 1)
}
