// Package dhcp tells the guests of this machine what they are in the network: address, length, MTU and host name, by DHCP
// (RFC 2131), and for IPv6 by router advertisements (RFC 4861) and DHCPv6 (RFC 8415). There is nothing to hand out: the
// records say which address is a guest's, so that a lease is only how long it may go without asking again, and no state.
//
// [Guest.Answer] is pure: a frame of the guest in, the answer out. A [Server] runs it, each guest by a packet socket on its
// own interface:
//
//	s := dhcp.NewServer(log)
//	go s.Run(ctx)
//	s.Set(map[string]dhcp.Guest{"tap0": {Name: "vm1", Addr4: addr4, Addr6: addr6, MTU: 1458, Server: self}}) // never blocks
//
// So an answer reaches the guest that asked, and nobody else is ever heard: the flows of the bridge drop DHCP and router
// advertisements from everywhere. A guest that asks without end fills the small buffer of its own socket, which is read ten
// times a second. While vcpeer does not run, guests use what they were told; they ask again hourly and may go without an
// answer for a week.
//
// A guest has one address by its interface, whatever Ethernet address it uses; an IPv6 address of its own making (SLAAC)
// would be nobody's, for the last bytes of a machine's address are its number in the network. There is no router and no name
// server to tell of: all of the network is one link.
package dhcp
