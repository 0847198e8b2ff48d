// Package flow turns what a node wants of its bridge into OpenFlow rules, and nothing else: it is pure, so that equal
// records give equal tables on every run. Package ovs writes them; what is measured and chosen comes in as a [Want].
//
//	t := flow.Build(flow.Want{Self: flow.Self{Slot: 0x0301, Label: 7}, Ports: ports, Hosts: hosts, Gateways: gateways})
//
// A frame goes through these tables; each rule is made by the file named after its table:
//
//	in        which port: programs and guests, tunnels, or the agent's control port
//	access    frames of programs and guests: ARP and ND are answered here, unicast goes on by its MAC address
//	host      MAC address -> where it is: here, at a node of the site, or behind a gateway
//	path      gateway -> the way to it that was chosen; a change of path is a change of this rule alone
//	source    tunnels: only what comes from the address of a member goes on
//	tunnel    the frame's key decides: it ends here, leaves the site, or is sent on with a smaller budget
//	link      gateway -> its address; the same whatever the paths are
//	spread    broadcast: a tree of two levels over the sites
//
// No frame can go round in a loop, whatever rules the nodes have: from a node to its gateway it goes once, since what came
// up from a node never goes up again; between gateways each forwarding lowers the budget, which three at most can; and what
// came down from a gateway to a node ends there.
//
// A sender names up to three transit gateways. The key has room for the destination alone, so the others travel in two
// bytes of the MAC addresses that are the same in all addresses of the network (see [Slot.MAC]): a gateway that gets
// budget 3 finds the next in the source address, with budget 2 in the destination address, with budget 1 it is the
// destination. The last gateway puts the bytes back. A broadcast to the site of one gateway, whose destination address is its
// own, has the one for budget 2 in the first two bytes of the source address.
package flow
