package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// serverID is the same on all nodes, so that a guest that was moved gets its answer at once: it is the network that answers.
// It is the Ethernet address of no machine (RFC 8415, 11.4).
var serverID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{0x02, 0x76, 0, 0, 0, 0}}

// answer6 answers a message of DHCPv6 that the guest itself sent, and no relay.
func (g Guest) answer6(q question) ([]byte, bool) {
	if !g.Addr6.IsValid() || !q.src.IsLinkLocalUnicast() {
		return nil, false
	}
	m, err := dhcpv6.MessageFromBytes(q.data)
	if err != nil {
		return nil, false
	}
	reply := g.reply6(m)
	if reply == nil {
		return nil, false
	}
	return g.Server.datagram6(q.mac, q.src, reply.ToBytes()), true
}

// reply6 is the answer to a message; nil: there is none (RFC 8415, 16 and 18.3).
func (g Guest) reply6(m *dhcpv6.Message) *dhcpv6.Message {
	client, server := m.GetOneOption(dhcpv6.OptionClientID), m.Options.ServerID()
	if server != nil && !server.Equal(serverID) {
		return nil
	}
	out := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: m.TransactionID}
	if client != nil {
		out.AddOption(client)
	}
	out.AddOption(dhcpv6.OptServerID(serverID))
	known := client != nil && server != nil
	anyServer := client != nil && server == nil
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if !anyServer {
			return nil
		}
		if rapid := m.GetOneOption(dhcpv6.OptionRapidCommit); rapid != nil {
			out.AddOption(rapid)
		} else {
			out.MessageType = dhcpv6.MessageTypeAdvertise
		}
		g.identities(m, out)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew:
		if !known {
			return nil
		}
		g.identities(m, out)
	case dhcpv6.MessageTypeRebind:
		if !anyServer {
			return nil
		}
		g.identities(m, out)
	case dhcpv6.MessageTypeConfirm:
		all, mine := g.confirm(m)
		if !anyServer || all == 0 {
			return nil
		}
		code := iana.StatusSuccess
		if mine < all {
			code = iana.StatusNotOnLink
		}
		out.AddOption(&dhcpv6.OptStatusCode{StatusCode: code})
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline: // the address stays the guest's
		if !known {
			return nil
		}
		out.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess})
	case dhcpv6.MessageTypeInformationRequest:
		if len(m.Options.IANA()) > 0 {
			return nil
		}
	default:
		return nil
	}
	return out
}

// identities answers what the guest asks for addresses for: the first gets the guest's, and others none, since it has but
// one. Addresses that it named and that are not its own it is told to give up.
func (g Guest) identities(m, out *dhcpv6.Message) {
	for i, ia := range m.Options.IANA() {
		answer := &dhcpv6.OptIANA{IaId: ia.IaId}
		if i == 0 {
			answer.T1, answer.T2 = renewTime, rebindTime
			answer.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: g.Addr6.Addr().AsSlice(), PreferredLifetime: leaseTime, ValidLifetime: leaseTime})
		} else {
			answer.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})
		}
		if m.MessageType != dhcpv6.MessageTypeSolicit {
			for _, a := range ia.Options.Addresses() {
				if i > 0 || !g.is(a.IPv6Addr) {
					answer.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.IPv6Addr})
				}
			}
		}
		out.AddOption(answer)
	}
}

// confirm counts the addresses that the guest asks about, and those of them that are its own.
func (g Guest) confirm(m *dhcpv6.Message) (all, mine int) {
	for _, ia := range m.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			all++
			if g.is(a.IPv6Addr) {
				mine++
			}
		}
	}
	return all, mine
}

func (g Guest) is(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	return ok && a == g.Addr6.Addr()
}
