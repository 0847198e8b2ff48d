package e2e

import (
	"strings"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
)

const neighboursTopology = `
name: neighbours
sites:
  here:  {start: no}
  there: {}
links:
  default: delay=2ms
`

// TestOverlayLeavesOthersAlone has two vcpeers and a bridge of somebody else on one machine, and wants each to come and go
// without the others noticing, and nothing to be left in the end.
func TestOverlayLeavesOthersAlone(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, neighboursTopology))
	n.sh("here-1", `ovs-vsctl add-br theirs -- set bridge theirs datapath_type=netdev fail_mode=secure
		ovs-vsctl add-port theirs theirs0 -- set interface theirs0 type=internal
		ovs-ofctl add-flow theirs cookie=0x5,priority=7,actions=drop
		ovs-ofctl add-flow theirs cookie=0x7663000000000001,priority=8,in_port=1,actions=drop`)
	clean, theirs := n.traces("here-1"), n.flowsOf("theirs")
	n.must(n.StartDaemon(n.ctx, "here-1", netlab.VCPeer))
	n.settle([]string{"here-1", "there-1"})
	n.within(20*time.Second, "the first vcpeer's network is used", func() bool { return n.pings("here-1", n.addrs["there-1"]) })
	n.sh("here-1", "ovs-ofctl add-flow vcpeer0 table=99,cookie=0x5,priority=7,actions=drop")
	n.within(20*time.Second, "its bridge is as it shall be", func() bool { o, err := n.overlayOf("here-1"); return err == nil && o.Up && len(o.Faults) == 0 })
	hosts := n.sh("here-1", "cat /etc/hosts")
	ours := n.sh("here-1", "ovs-vsctl list-br | grep -v theirs | sort | xargs")

	talk := n.stream("here-1", "there-1", 20*time.Millisecond)
	n.sh("here-1", `mkdir -p /var/lib/second
		setsid vcpeer start --dir /var/lib/second --name second --site second --listen :7575 --overlay on --network 10.99.0.0/16 >/var/lib/second.log 2>&1 &`)
	t.Cleanup(func() {
		if out, err := n.try("here-1", "tail -n 30 /var/lib/second.log"); t.Failed() && err == nil {
			t.Logf("the second vcpeer said %s", out)
		}
	})
	n.within(60*time.Second, "a second vcpeer has a bridge of its own", func() bool {
		out, err := n.try("here-1", "vcpeer overlay --json --dir /var/lib/second && ovs-vsctl br-exists vcpeer1 && ip -o -4 addr show dev vcpeer1")
		return err == nil && strings.Contains(out, "inet 10.99.")
	})
	time.Sleep(3 * time.Second) // each has compared its bridges again
	n.sh("here-1", "ovs-vsctl br-exists vcpeer0 && ovs-vsctl br-exists vcpeer1")
	n.sh("here-1", "vcpeer stop --dir /var/lib/second && vcpeer uninstall --yes --dir /var/lib/second && rm -r /var/lib/second /var/lib/second.log")
	if out := n.sh("here-1", "ovs-vsctl list-br | grep -v theirs | sort | xargs"); out != ours {
		t.Errorf("after the second was uninstalled there are bridges %s", out)
	}
	if got := n.flowsOf("vcpeer0"); !strings.Contains(got, "cookie=0x5,") || !strings.Contains(got, "cookie=0x7663") {
		t.Errorf("of the first one's flows and somebody else's there are left %s", got)
	}
	if got := n.sh("here-1", "cat /etc/hosts"); got != hosts {
		t.Errorf("the first one's names changed:\n%s\nwere\n%s", got, hosts)
	}
	r := talk.stop()
	t.Logf("while the second came and went: %v; load %s", r, load())
	if r.lossy() && r.lost*50 > r.sent { // a busy machine loses one now and then
		t.Error("the second one's life cost the first one packets")
	}

	n.sh("here-1", "vcpeer leave --yes && vcpeer uninstall --yes")
	if left := n.traces("here-1"); left != clean {
		t.Errorf("left behind\n%s\nwas\n%s", left, clean)
	}
	if got := n.flowsOf("theirs"); got != theirs {
		t.Errorf("flows of somebody else changed:\n%s\nwere\n%s", got, theirs)
	}
}

// traces is all of a machine that vcpeer changes outside its own directories.
func (n *testnet) traces(machine string) string {
	n.t.Helper()
	return n.sh(machine, `ovs-vsctl list-br; ovs-vsctl --columns=name,type find interface | sort; ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort
		ip tuntap; ip rule; ip route show table all | grep -v ' table local' | sort; ip -6 route show table all | grep -v ' table local\| expires' | sort
		nft list ruleset; cat /etc/hosts; find /run/systemd/userdb /var/lib/extrausers -mindepth 1 2>/dev/null || true`)
}

// flowsOf are the flows of a bridge of here-1 without what counts up.
func (n *testnet) flowsOf(bridge string) string {
	n.t.Helper()
	return n.sh("here-1", "ovs-ofctl dump-flows --no-stats "+bridge+" | sort")
}
