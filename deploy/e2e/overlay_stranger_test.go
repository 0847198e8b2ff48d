package e2e

import (
	enc "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/sealed"
)

// Two members, and a machine without vcpeer that reaches them.
const strangerTopology = `
name: stranger
sites:
  one:   {}
  two:   {}
  other: {start: no}
links:
  default: delay=5ms
`

// TestOverlayDropsTheRightKeyFromAStranger sends a member the very tunnel that another sends it, from an address that is no
// member's and from the other's address on sealed links: neither comes through, and from the other itself it does.
func TestOverlayDropsTheRightKeyFromAStranger(t *testing.T) {
	n := newNet(t, binary, topologyOf(t, strangerTopology))
	to := netip.MustParseAddr(n.addrs["one-1"])
	var heard *net.UDPConn
	n.must(n.Machine("one-1").InNetwork(func() (err error) {
		heard, err = net.ListenUDP("udp4", &net.UDPAddr{IP: to.AsSlice(), Port: 4747})
		return err
	}))
	defer heard.Close()
	key := label.Key{Src: n.labelOf("two-1"), Dst: n.labelOf("one-1")}
	next := func(within time.Duration) string {
		heard.SetReadDeadline(time.Now().Add(within))
		b := make([]byte, 100)
		k, err := heard.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:k])
	}
	inner := func(text string) []byte { return udpFrame(netip.MustParseAddr(n.addrs["two-1"]), to, 4747, text) }
	asSealed := sealed.AddrOf(sealed.DefaultNet, key.Src).String()
	n.sh("other-1", "ip addr add "+asSealed+"/32 dev lo")
	foreign := func() string {
		return n.sh("one-1", `ovs-ofctl dump-flows vcpeer0 | grep 'table=30,.*priority=0 ' | grep -o 'n_packets=[0-9]*'`)
	}

	before := foreign()
	n.within(10*time.Second, "a stranger's tunnels are dropped and counted", func() bool {
		n.tunnel("other-1", asSealed, "44.128.0.1", key.Pack(), inner("as if sealed"))
		n.tunnel("other-1", "44.128.2.1", "44.128.0.1", key.Pack(), inner("from a stranger"))
		return foreign() != before
	})
	n.within(10*time.Second, "the member's own tunnel comes through, and nothing else", func() bool {
		n.tunnel("two-1", "44.128.1.1", "44.128.0.1", key.Pack(), inner("from a member"))
		got := next(time.Second)
		if got != "" && got != "from a member" {
			t.Fatalf("what came through: %q", got)
		}
		return got != ""
	})
	if !n.kernelForwards() {
		return // what would be sealed is dropped below, by the bridge that holds the interfaces
	}
	// Without the rules of nftables it would: they are what keeps it out.
	n.sh("one-1", "nft delete table inet vcpeer_vcpeer0_sealed")
	n.within(10*time.Second, "without rules what is as if sealed comes through", func() bool {
		n.tunnel("other-1", asSealed, "44.128.0.1", key.Pack(), inner("as if sealed"))
		return next(time.Second) == "as if sealed"
	})
}

// labelOf is the label of a gateway.
func (n *testnet) labelOf(node string) (l label.Label) {
	n.t.Helper()
	o, err := n.overlayOf(node)
	n.must(err)
	if _, err := fmt.Sscanf(o.Label, "g%d", &l); err != nil {
		n.t.Fatalf("%s has the label %q", node, o.Label)
	}
	return l
}

// tunnel sends a frame in GRE with a key (RFC 2890) from a machine.
func (n *testnet) tunnel(machine, from, to string, key uint32, frame []byte) {
	n.t.Helper()
	n.must(n.Machine(machine).InNetwork(func() error {
		conn, err := net.DialIP("ip4:47", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
		if err != nil {
			return err
		}
		defer conn.Close()
		gre := enc.BigEndian.AppendUint32([]byte{0x20, 0, 0x65, 0x58}, key)
		_, err = conn.Write(append(gre, frame...))
		return err
	}))
}

// udpFrame is an Ethernet frame with a datagram, as one machine of the network sends it to another.
func udpFrame(from, to netip.Addr, port uint16, text string) []byte {
	out := make([]byte, 0, 100)
	for _, a := range []netip.Addr{to, from} {
		m, _ := net.ParseMAC(mac(a.String()))
		out = append(out, m...)
	}
	out = append(out, 8, 0)
	ip := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 0, 0x40, 0, 64, 17, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	enc.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	out = append(out, ip...)
	for _, v := range []uint16{port, port, uint16(8 + len(text)), 0} { // no checksum
		out = enc.BigEndian.AppendUint16(out, v)
	}
	return append(out, text...)
}
