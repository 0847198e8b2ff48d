package dhcp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"vcpeer/overlay/inet"
)

var (
	vm = Guest{
		Name: "vm1", Addr4: netip.MustParsePrefix("10.77.3.9/16"), Addr6: netip.MustParsePrefix("fd07::309/64"), MTU: 1458,
		Server: Node{Addr: netip.MustParseAddr("10.77.3.1"), MAC: MAC{2, 0x76, 0, 0, 3, 1}},
	}
	vmMAC = MAC{0x52, 0x54, 0, 1, 2, 3}
	vmLL  = Node{MAC: vmMAC}.linkLocal()
)

// ask4 makes the frame of a client: a message such as "request ciaddr=10.77.3.9 asked=10.77.3.9 server=10.77.3.1 broadcast".
func ask4(t testing.TB, text string) []byte {
	t.Helper()
	kinds := map[string]dhcpv4.MessageType{
		"discover": dhcpv4.MessageTypeDiscover, "request": dhcpv4.MessageTypeRequest, "inform": dhcpv4.MessageTypeInform,
		"release": dhcpv4.MessageTypeRelease, "decline": dhcpv4.MessageTypeDecline, "offer": dhcpv4.MessageTypeOffer,
	}
	words := strings.Fields(text)
	m, err := dhcpv4.New(dhcpv4.WithMessageType(kinds[words[0]]), dhcpv4.WithHwAddr(vmMAC[:]))
	if err != nil {
		t.Fatal(err)
	}
	m.UpdateOption(dhcpv4.OptClientIdentifier([]byte{1, 2, 3}))
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch ip := net.ParseIP(value).To4(); key {
		case "ciaddr":
			m.ClientIPAddr = ip
		case "asked":
			m.UpdateOption(dhcpv4.OptRequestedIPAddress(ip))
		case "server":
			m.UpdateOption(dhcpv4.OptServerIdentifier(ip))
		case "relay":
			m.GatewayIPAddr = ip
		case "broadcast":
			m.SetBroadcast()
		case "other":
			m.ClientHWAddr = net.HardwareAddr{0x52, 0x54, 0, 9, 9, 9}
		case "reply":
			m.OpCode = dhcpv4.OpcodeBootReply
		default:
			t.Fatalf("%q", w)
		}
	}
	return clientFrame4(m.ToBytes())
}

func clientFrame4(data []byte) []byte {
	head := make([]byte, ip4Len)
	head[0], head[8], head[9] = 0x45, 64, udp
	binary.BigEndian.PutUint16(head[2:], uint16(ip4Len+udpLen+len(data)))
	copy(head[16:], []byte{255, 255, 255, 255})
	out := append(everyone[:], vmMAC[:]...)
	out = append(append(binary.BigEndian.AppendUint16(out, inet.EtherIPv4), head...), udpHead(client4, server4, len(data))...)
	return append(out, data...)
}

// told4 reads an answer as a client does, headers and checksum included.
func told4(t testing.TB, frame []byte) string {
	t.Helper()
	head, err := ipv4.ParseHeader(frame[etherLen:])
	if err != nil || inet.Checksum(frame[etherLen:][:ip4Len]) != 0 || head.TotalLen != len(frame)-etherLen {
		t.Fatalf("IPv4 header %v, %v", head, err)
	}
	datagram := frame[etherLen+ip4Len:]
	if binary.BigEndian.Uint16(datagram) != server4 || binary.BigEndian.Uint16(datagram[2:]) != client4 || int(binary.BigEndian.Uint16(datagram[4:])) != len(datagram) {
		t.Fatalf("UDP header % x", datagram[:8])
	}
	m, err := dhcpv4.FromBytes(datagram[udpLen:])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.GetOneOption(dhcpv4.OptionClientIdentifier), []byte{1, 2, 3}) || !bytes.Equal(m.ClientHWAddr, vmMAC[:]) {
		t.Errorf("to another client: %s", m.Summary())
	}
	out := fmt.Sprintf("%s from %s to %s %s: yours %s", m.MessageType(), m.ServerIdentifier(), net.HardwareAddr(frame[:6]), head.Dst, m.YourIPAddr)
	if mask := m.SubnetMask(); mask != nil {
		ones, _ := mask.Size()
		mtu, _ := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options)
		out += fmt.Sprintf("/%d MTU %d name %q", ones, mtu, m.HostName())
	}
	if lease := m.IPAddressLeaseTime(0); lease != 0 {
		out += fmt.Sprintf(" for %v, %v, %v", lease, m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0))
	}
	return out
}

func TestDHCP(t *testing.T) {
	const (
		all   = "/16 MTU 1458 name \"vm1\""
		lease = " for 168h0m0s, 1h0m0s, 2h0m0s"
	)
	for _, tt := range []struct{ name, ask, want string }{
		{"discover", "discover", "OFFER from 10.77.3.1 to 52:54:00:01:02:03 10.77.3.9: yours 10.77.3.9" + all + lease},
		{"discover of one that takes broadcasts only", "discover broadcast", "OFFER from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 10.77.3.9" + all + lease},
		{"takes the offer", "request asked=10.77.3.9 server=10.77.3.1", "ACK from 10.77.3.1 to 52:54:00:01:02:03 10.77.3.9: yours 10.77.3.9" + all + lease},
		{"takes the offer of another", "request asked=10.77.3.9 server=10.77.3.2", ""},
		{"takes what was not offered", "request asked=10.77.3.8 server=10.77.3.1", "NAK from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 0.0.0.0"},
		{"remembers", "request asked=10.77.3.9 broadcast", "ACK from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 10.77.3.9" + all + lease},
		{"remembers what it had elsewhere", "request asked=192.168.1.5", "NAK from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 0.0.0.0"},
		{"renews or rebinds", "request ciaddr=10.77.3.9", "ACK from 10.77.3.1 to 52:54:00:01:02:03 10.77.3.9: yours 10.77.3.9" + all + lease},
		{"renews what is another's now", "request ciaddr=10.77.3.8", "NAK from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 0.0.0.0"},
		{"asks for no address", "request", "NAK from 10.77.3.1 to ff:ff:ff:ff:ff:ff 255.255.255.255: yours 0.0.0.0"},
		{"informs itself", "inform ciaddr=10.77.3.9", "ACK from 10.77.3.1 to 52:54:00:01:02:03 10.77.3.9: yours 0.0.0.0" + all},
		{"informs itself from nowhere", "inform", ""},
		{"release", "release ciaddr=10.77.3.9 server=10.77.3.1", ""},
		{"decline", "decline asked=10.77.3.9 server=10.77.3.1", ""},
		{"a server's message", "offer", ""},
		{"a reply", "discover reply", ""},
		{"over a relay", "discover relay=10.77.3.7", ""},
		{"for another", "discover other", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if out, ok := vm.Answer(ask4(t, tt.ask)); ok {
				got = told4(t, out)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A name comes from a record that any site may have written, and ends in scripts of the guest.
func TestOnlyHostNamesAreTold(t *testing.T) {
	for _, name := range []string{"", "a b", "x;reboot", "$(reboot)", "-x", "x.y", strings.Repeat("n", 64)} {
		g := vm
		g.Name = name
		out, ok := g.Answer(ask4(t, "discover"))
		if !ok || !strings.Contains(told4(t, out), `name ""`) {
			t.Errorf("%q: %v", name, ok)
		}
	}
}

// ask6 makes the frame of a client: a message such as "renew server ia=fd07::309,fd07::1 ia".
func ask6(t testing.TB, text string) []byte {
	t.Helper()
	kinds := map[string]dhcpv6.MessageType{
		"solicit": dhcpv6.MessageTypeSolicit, "request": dhcpv6.MessageTypeRequest, "renew": dhcpv6.MessageTypeRenew,
		"rebind": dhcpv6.MessageTypeRebind, "confirm": dhcpv6.MessageTypeConfirm, "release": dhcpv6.MessageTypeRelease,
		"decline": dhcpv6.MessageTypeDecline, "inform": dhcpv6.MessageTypeInformationRequest, "reply": dhcpv6.MessageTypeReply,
	}
	words := strings.Fields(text)
	m := &dhcpv6.Message{MessageType: kinds[words[0]], TransactionID: dhcpv6.TransactionID{7, 7, 7}}
	client := true
	for i, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "server":
			m.AddOption(dhcpv6.OptServerID(serverID))
		case "stranger":
			m.AddOption(dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: net.HardwareAddr{1, 2, 3, 4, 5, 6}}))
		case "rapid":
			dhcpv6.WithRapidCommit(m)
		case "nobody":
			client = false
		case "ia":
			ia := &dhcpv6.OptIANA{IaId: [4]byte{byte(i)}}
			for _, a := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
			}
			m.AddOption(ia)
		default:
			t.Fatalf("%q", w)
		}
	}
	if client {
		m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: vmMAC[:]}))
	}
	data := m.ToBytes()
	return clientFrame6(udp, 1, append(udpHead(client6, server6, len(data)), data...))
}

func clientFrame6(next, hops byte, body []byte) []byte {
	out := append([]byte{0x33, 0x33, 0, 1, 0, 2}, vmMAC[:]...)
	out = append(binary.BigEndian.AppendUint16(out, inet.EtherIPv6), 6<<4, 0, 0, 0, byte(len(body)>>8), byte(len(body)), next, hops)
	out = append(append(out, vmLL.AsSlice()...), netip.MustParseAddr("ff02::1:2").AsSlice()...)
	return append(out, body...)
}

// told6 reads an answer as a client does.
func told6(t testing.TB, frame []byte) string {
	t.Helper()
	head, err := ipv6.ParseHeader(frame[etherLen:])
	if err != nil || head.PayloadLen != len(frame)-etherLen-ip6Len || head.Dst.String() != vmLL.String() || MAC(frame[:6]) != vmMAC {
		t.Fatalf("IPv6 header %v, %v", head, err)
	}
	datagram := frame[etherLen+ip6Len:]
	pseudo := append(append([]byte(nil), frame[etherLen+8:etherLen+ip6Len]...), 0, 0, byte(len(datagram)>>8), byte(len(datagram)), 0, 0, 0, udp)
	if inet.Checksum(append(pseudo, datagram...)) != 0 {
		t.Error("the checksum is wrong")
	}
	m, err := dhcpv6.MessageFromBytes(datagram[udpLen:])
	if err != nil || m.TransactionID != (dhcpv6.TransactionID{7, 7, 7}) || !m.Options.ServerID().Equal(serverID) {
		t.Fatalf("%v, %v", m, err)
	}
	out := m.MessageType.String()
	if m.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
		out += " rapid"
	}
	if s := m.Options.Status(); s != nil {
		out += " " + s.StatusCode.String()
	}
	for _, ia := range m.Options.IANA() {
		out += fmt.Sprintf(" %d:", ia.IaId[0])
		for _, a := range ia.Options.Addresses() {
			out += fmt.Sprintf(" %s for %v", a.IPv6Addr, a.ValidLifetime)
		}
		if s := ia.Options.Status(); s != nil {
			out += " " + s.StatusCode.String()
		}
	}
	return out
}

func TestDHCPv6(t *testing.T) {
	for _, tt := range []struct{ name, ask, want string }{
		{"solicit", "solicit ia", "ADVERTISE 0: fd07::309 for 168h0m0s"},
		{"solicit, at once", "solicit rapid ia", "REPLY rapid 1: fd07::309 for 168h0m0s"},
		{"solicit for two", "solicit ia ia", "ADVERTISE 0: fd07::309 for 168h0m0s 1: NoAddrsAvail"},
		{"solicit of another server", "solicit server ia", ""},
		{"solicit of nobody", "solicit nobody ia", ""},
		{"request", "request server ia=fd07::309", "REPLY 1: fd07::309 for 168h0m0s"},
		{"request to nobody", "request ia", ""},
		{"request to another", "request stranger ia", ""},
		{"renew", "renew server ia=fd07::309", "REPLY 1: fd07::309 for 168h0m0s"},
		{"renew what is another's now", "renew server ia=fd07::308", "REPLY 1: fd07::309 for 168h0m0s fd07::308 for 0s"},
		{"rebind", "rebind ia=fd07::309", "REPLY 0: fd07::309 for 168h0m0s"},
		{"confirm", "confirm ia=fd07::309", "REPLY Success 0:"},
		{"confirm what is of elsewhere", "confirm ia=fd08::309", "REPLY NotOnLink 0:"},
		{"confirm nothing", "confirm ia", ""},
		{"release", "release server ia=fd07::309", "REPLY Success"},
		{"decline", "decline server ia=fd07::309", "REPLY Success"},
		{"informs itself", "inform", "REPLY"},
		{"informs itself without a name", "inform nobody", "REPLY"},
		{"informs itself for an address", "inform ia", ""},
		{"a server's message", "reply server", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if out, ok := vm.Answer(ask6(t, tt.ask)); ok {
				got = told6(t, out)
			}
			if got != strings.TrimSuffix(tt.want, " 0:") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func solicitation(hops byte) []byte {
	return clientFrame6(icmp6, hops, []byte{routerSolicitation, 0, 0, 0, 0, 0, 0, 0})
}

func TestRouterAdvertisement(t *testing.T) {
	if _, ok := vm.Answer(solicitation(254)); ok {
		t.Error("a solicitation that came over a router was answered (RFC 4861, 6.1.1)")
	}
	out, ok := vm.Answer(solicitation(255))
	if !ok {
		t.Fatal("no answer")
	}
	head, err := ipv6.ParseHeader(out[etherLen:])
	if err != nil || head.HopLimit != 255 || head.Src.String() != "fe80::76:ff:fe00:301" || head.Dst.String() != "ff02::1" || MAC(out[:6]) != allNodesMAC {
		t.Fatalf("%v, %v", head, err)
	}
	m, err := ndp.ParseMessage(out[etherLen+ip6Len:])
	if err != nil {
		t.Fatal(err)
	}
	ra := m.(*ndp.RouterAdvertisement)
	if !ra.ManagedConfiguration || ra.RouterLifetime != 0 || len(ra.Options) != 3 {
		t.Errorf("%+v", ra)
	}
	if p := ra.Options[0].(*ndp.PrefixInformation); p.Prefix.String() != "fd07::" || p.PrefixLength != 64 || !p.OnLink || p.AutonomousAddressConfiguration {
		t.Errorf("prefix %+v", p)
	}
	if mtu := ra.Options[1].(*ndp.MTU); mtu.MTU != 1458 {
		t.Errorf("MTU %d", mtu.MTU)
	}
}

func TestWithoutIPv6(t *testing.T) {
	g := vm
	g.Addr6 = netip.Prefix{}
	for _, frame := range [][]byte{ask6(t, "solicit ia"), solicitation(255)} {
		if _, ok := g.Answer(frame); ok {
			t.Error("an answer for IPv6 where the network has none")
		}
	}
	if _, ok := g.Answer(ask4(t, "discover")); !ok {
		t.Error("no answer for IPv4")
	}
}

// FuzzAnswer: whatever a guest sends, an answer goes to it alone or to all that is at its end, is small, comes from the node,
// and grants no address but the guest's own.
func FuzzAnswer(f *testing.F) {
	for _, ask := range []string{"discover", "request asked=10.77.3.9 server=10.77.3.1", "request ciaddr=10.77.3.8", "inform ciaddr=10.77.3.9", "release"} {
		f.Add(ask4(f, ask))
	}
	for _, ask := range []string{"solicit rapid ia", "renew server ia=fd07::308 ia", "confirm ia=fd07::309", "inform"} {
		f.Add(ask6(f, ask))
	}
	f.Add(solicitation(255))
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		out, ok := vm.Answer(frame)
		if !bytes.Equal(before, frame) {
			t.Fatal("the frame was changed")
		}
		if !ok {
			return
		}
		if to := MAC(out[:6]); to != MAC(frame[6:12]) && to != everyone && to != allNodesMAC || MAC(out[6:12]) != vm.Server.MAC {
			t.Fatalf("from % x to % x", out[6:12], out[:6])
		}
		if len(out) > etherLen+vm.MTU {
			t.Fatalf("%d bytes", len(out))
		}
		switch {
		case binary.BigEndian.Uint16(out[12:]) == inet.EtherIPv4:
			m, err := dhcpv4.FromBytes(out[etherLen+ip4Len+udpLen:])
			if err != nil || !m.YourIPAddr.IsUnspecified() && m.YourIPAddr.String() != "10.77.3.9" {
				t.Fatalf("%v, %v", m, err)
			}
		case out[etherLen+6] == udp:
			m, err := dhcpv6.MessageFromBytes(out[etherLen+ip6Len+udpLen:])
			if err != nil {
				t.Fatal(err)
			}
			for _, ia := range m.Options.IANA() {
				for _, a := range ia.Options.Addresses() {
					if a.ValidLifetime > 0 && a.IPv6Addr.String() != "fd07::309" {
						t.Fatalf("%v", m)
					}
				}
			}
		}
	})
}
