// Package portmap asks the router before this machine to pass a port of it on: by PCP (RFC 6887), by NAT-PMP (RFC 6886),
// and by UPnP (WANIPConnection:1 and :2), in this order, since the first two are one packet each way and say the address
// with the port. What the router says is a claim: behind a second NAT, or with a filter, nobody gets in. Whoever uses a
// mapping has to have it tried from outside.
//
// PCP and NAT-PMP share a port and are two fixed packets, so they are written here: go-nat-pmp knows no PCP and cannot be
// cancelled, and libp2p's own package tells neither the protocol nor why a router refuses. UPnP is XML, SOAP and a dozen
// odd routers, and is goupnp's.
//
//	m := portmap.New(portmap.Config{Port: 7475, UDP: true, Told: func(s portmap.State) { … }})
//	go m.Run(ctx)   // takes the mapping back at the end
//	m.Want(true)    // nothing is asked before
package portmap
