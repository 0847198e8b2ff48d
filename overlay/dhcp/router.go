package dhcp

import (
	"time"

	"github.com/mdlayher/ndp"
)

// forever is a lifetime without end: all bits of its seconds are set.
const forever = ndp.Infinity

// answerRouter answers a guest that looks for a router.
func (g Guest) answerRouter(q question) ([]byte, bool) {
	if q.hopLimit != hopLimitND || !q.src.IsUnspecified() && !q.src.IsLinkLocalUnicast() {
		return nil, false
	}
	return g.Advertisement()
}

// Advertisement is the router advertisement for a guest, to all that is at its end: there is no router (lifetime 0), the
// network's addresses are on the link, none is to be made by the guest itself, and DHCPv6 tells the one that is its own.
// False: the network has no IPv6.
func (g Guest) Advertisement() ([]byte, bool) {
	if !g.Addr6.IsValid() {
		return nil, false
	}
	body, err := ndp.MarshalMessageChecksum(&ndp.RouterAdvertisement{
		ManagedConfiguration: true, OtherConfiguration: true,
		Options: []ndp.Option{
			&ndp.PrefixInformation{
				Prefix: g.Addr6.Masked().Addr(), PrefixLength: uint8(g.Addr6.Bits()), OnLink: true, ValidLifetime: forever, PreferredLifetime: forever,
			},
			ndp.NewMTU(uint32(g.MTU)),
			&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: g.Server.MAC[:]},
		},
	}, g.Server.linkLocal(), allNodes)
	if err != nil {
		return nil, false
	}
	return g.Server.frame6(allNodesMAC, allNodes, icmp6, hopLimitND, body), true
}

// advertiseEvery is how often a guest is told without having asked, in case it only listens (RFC 4861, 6.2.1).
const advertiseEvery = 10 * time.Minute
