// Package sealed is a link between gateways that encrypts: Ethernet frames as AEAD datagrams on the UDP socket that the
// nodes' QUIC connections use, so that it goes through the same hole in a NAT and needs no port and no handshake of its
// own. It ends in a TAP of the node.
//
//	tap, err := sealed.OpenTAP("vcpeers", sealed.TAPOptions{MTU: 9000, Persist: true})
//	l, err := sealed.New(sealed.Config{Self: id, Device: tap, Send: fabric.SendPackets})
//	fabric.HandlePackets(func(p *fabric.Packets) { l.Receive(sealed.Packets{From: p.From, …, Owner: p}) })
//	go l.Run(ctx)
//	l.SetPeers(label, peers) // whenever gateways or their sessions change; never blocks
//
// # How the bridge reaches it
//
// To Open vSwitch a sealed link is a GRE link like all others. Every gateway has one more address, made from its label
// ([AddrOf]), in a range that exists on this machine only ([DefaultNet]); the kernel's route for the range goes to the
// TAP, and the TAP is a port of the bridge that holds the interfaces tunnels go over. A GRE packet to such an address is
// taken out of its wrapping here and its key and frame are sealed; what was opened gets a GRE wrapping from the address of
// the gateway whose key opened it. So flows, known sources, the label of the frame, probes, broadcast and paths are those
// of GRE. Two rules more keep what has these addresses off real interfaces; see DESIGN.md.
//
// # What it takes from others
//
// Keys come from secrets that the two ends of a connection share ([Session]), addresses from that connection. Who may be
// a peer is decided elsewhere: with those that SetPeers does not name any more nothing is exchanged from then on. Where a
// peer has no session but a stream, frames go over that.
//
// The format, the keys and the queues are described in DESIGN.md beside this file.
package sealed
