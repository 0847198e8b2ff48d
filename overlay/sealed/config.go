package sealed

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// Config is what a Link needs. Self, Device and Send are required.
type Config struct {
	Self   crdt.NodeID
	Device Device

	// Send sends b as datagrams of segment bytes each, the last may be shorter, from the socket with a local address. It may
	// wait for the socket; it must not keep b. An error that wraps syscall.EMSGSIZE says that they are too large.
	Send func(local, to netip.AddrPort, b []byte, segment int) error

	Net netip.Prefix // a /16; see AddrOf. Not valid: DefaultNet

	// Plain: the TAP is no port of a bridge. Its frames have no GRE wrapping, go to the first peer there is, and have key 0.
	Plain bool

	RekeyAfter   time.Duration // a key is used for so long; 0: DefaultRekeyAfter
	RekeyPackets uint64        // and for so many datagrams; 0: DefaultRekeyPackets

	Log *slog.Logger // nil: nowhere
}

// What RFC 9001, appendix B.1.1, allows for AES-GCM with packets of this size, and as short a time as it is worth.
const (
	DefaultRekeyAfter   = 2 * time.Minute
	DefaultRekeyPackets = 1 << 23
)

// Validate checks c and puts defaults in.
func (c *Config) Validate() error {
	if c.Self.IsZero() || c.Device == nil || c.Send == nil {
		return errors.New("sealed: the node's ID, a device and a socket are needed")
	}
	if !c.Net.IsValid() {
		c.Net = DefaultNet
	}
	if !c.Net.Addr().Is4() || c.Net.Bits() != 16 || c.Net != c.Net.Masked() {
		return errors.New("sealed: the range of addresses " + c.Net.String() + " is no IPv4 network of 16 bits")
	}
	if c.RekeyAfter == 0 {
		c.RekeyAfter = DefaultRekeyAfter
	}
	if c.RekeyPackets == 0 {
		c.RekeyPackets = DefaultRekeyPackets
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Device is a TAP with virtio headers (IFF_VNET_HDR). Read has one caller at a time, Write any number.
type Device interface {
	// Read reads a frame with its virtio header. Without wait it returns 0 where there is none.
	Read(b []byte, wait bool) (int, error)
	// Write writes one frame, its virtio header in front, made of parts. It does not keep them.
	Write(parts ...[]byte) error
	// Offloads reports whether Write takes large packets and open checksums.
	Offloads() bool
	MAC() net.HardwareAddr
	Close() error
}

// Peer is a gateway that frames may be exchanged with.
type Peer struct {
	ID    crdt.NodeID
	Label label.Label

	// Sessions are the connections with it, at most MaxSessions, the one to send on first; what comes with the keys of any of
	// them is taken.
	Sessions []Session

	// Stream carries the frames while there are no sessions; nil: there is none. It has to be authenticated and encrypted. The
	// link closes it when it fails, and when it is not named any more.
	Stream io.ReadWriteCloser
}

// MaxSessions is how many sessions of a peer are used.
const MaxSessions = 4

// Session is a connection that the keys come from. Both ends have to be given it.
type Session struct {
	ID     [8]byte // tells it from other sessions of the peer
	Secret []byte  // SecretBytes, the same at both ends and known to nobody else, exported for ExportLabel
	Local  netip.AddrPort
	Remote netip.AddrPort // where the peer is; followed to where its datagrams come from
}

// Packets are datagrams of one sender, one after the other. Whoever gets them may write to Data, and releases Owner.
type Packets struct {
	From, Local netip.AddrPort
	Segment     int // bytes of each but the last, which may be shorter
	Data        []byte
	Owner       interface{ Release() } // nil: nobody waits for the memory
}

// memory is what waits with p, about.
func (p *Packets) memory() int {
	if len(p.Data) <= copyBelow {
		return classes[classOf(len(p.Data))]
	}
	return largestFrame
}

func (p *Packets) release() {
	if p.Owner != nil {
		p.Owner.Release()
		p.Owner = nil
	}
}
