package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// answer4 answers a message of DHCP that the guest itself sent, and no relay.
func (g Guest) answer4(q question) ([]byte, bool) {
	if !g.Addr4.IsValid() || !g.Server.Addr.Is4() {
		return nil, false
	}
	req, err := dhcpv4.FromBytes(q.data)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet ||
		string(req.ClientHWAddr) != string(q.mac[:]) || !req.GatewayIPAddr.IsUnspecified() {
		return nil, false
	}
	reply := g.reply4(req)
	if reply == nil {
		return nil, false
	}
	mac, dst := whereTo(req, reply, q.mac)
	return g.Server.frame4(mac, dst, reply.ToBytes()), true
}

// reply4 is the answer to a message; nil: there is none. A release and a refusal change nothing: the address stays the
// guest's.
func (g Guest) reply4(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return g.grant(req, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeRequest:
		return g.request(req)
	case dhcpv4.MessageTypeInform:
		if !req.ClientIPAddr.IsUnspecified() {
			return g.message(req, dhcpv4.MessageTypeAck, g.parameters())
		}
	}
	return nil
}

// request answers a guest that wants an address: that of an offer, one that it has, or one that it remembers
// (RFC 2131, 4.3.2). This node is the only one that may answer, so it also says no.
func (g Guest) request(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	if id := req.ServerIdentifier(); id != nil && !id.Equal(net.IP(g.Server.Addr.AsSlice())) {
		return nil // it took the offer of another
	}
	asked := req.ClientIPAddr
	if asked.IsUnspecified() {
		asked = req.RequestedIPAddress()
	}
	if !asked.Equal(net.IP(g.Addr4.Addr().AsSlice())) {
		return g.message(req, dhcpv4.MessageTypeNak, nil)
	}
	return g.grant(req, dhcpv4.MessageTypeAck)
}

// grant says that the guest may use its address.
func (g Guest) grant(req *dhcpv4.DHCPv4, t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	return g.message(req, t, append(g.parameters(), dhcpv4.WithYourIP(g.Addr4.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(leaseTime)), dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(renewTime)),
		dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(rebindTime))))
}

// parameters are what a guest is told besides its address, whether it asks for that or not: one that does not know the MTU
// would have its packets dropped and answered one by one.
func (g Guest) parameters() []dhcpv4.Modifier {
	out := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(g.Addr4.Bits(), 32))),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(g.MTU)))),
	}
	if name := g.hostName(); name != "" {
		out = append(out, dhcpv4.WithOption(dhcpv4.OptHostName(name)))
	}
	return out
}

func (g Guest) message(req *dhcpv4.DHCPv4, t dhcpv4.MessageType, more []dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	out, err := dhcpv4.NewReplyFromRequest(req, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(t), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(g.Server.Addr.AsSlice())),
	}, more...)...)
	if err != nil {
		return nil
	}
	if t == dhcpv4.MessageTypeAck {
		out.ClientIPAddr = req.ClientIPAddr
	}
	return out
}

// whereTo is the address of an answer (RFC 2131, 4.1): a no goes to all, an answer to who has its address to that, and any
// other to the address that it is about to have, unless it cannot take that yet.
func whereTo(req, reply *dhcpv4.DHCPv4, mac MAC) (MAC, netip.Addr) {
	to := req.ClientIPAddr
	switch {
	case reply.MessageType() == dhcpv4.MessageTypeNak || to.IsUnspecified() && req.IsBroadcast():
		return everyone, broadcast
	case to.IsUnspecified():
		to = reply.YourIPAddr
	}
	a, _ := netip.AddrFromSlice(to)
	return mac, a.Unmap()
}
