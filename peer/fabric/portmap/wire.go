package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// serverPort is where a router takes PCP and NAT-PMP.
const serverPort = 5351

const (
	pcpVersion    = 2
	pmpVersion    = 0
	answerBit     = 0x80
	opMap         = 1 // PCP
	opAddress     = 0 // NAT-PMP
	opMapUDP      = 1 // NAT-PMP
	opMapTCP      = 2 // NAT-PMP
	protocolTCP   = 6
	protocolUDP   = 17
	pcpBytes      = 24 + 36 // a MAP request and its answer without options
	pmpAskBytes   = 12
	pmpMapBytes   = 16
	pmpAddrBytes  = 12
	maxServerRead = 1100 // RFC 6887 section 7
	unsupported   = 1    // result: the version is not spoken here, in both protocols
)

var (
	errMalformed   = errors.New("malformed answer")
	errOtherAnswer = errors.New("an answer to something else")
	errVersion     = errors.New("the router does not speak this version")
)

// request is one port to be mapped. life 0 takes the mapping back.
type request struct {
	udp  bool
	port uint16         // of this machine
	want netip.AddrPort // outside; what it had before, or only a port
	life time.Duration
}

// grant is what the router gives.
type grant struct {
	at   netip.AddrPort // outside; PCP and UPnP tell the address, NAT-PMP is asked for it
	life time.Duration
}

// Nonce says whose a mapping is: without it nobody can change it (RFC 6887 section 11.2).
type Nonce [12]byte

// pcpRequest is a MAP request from the address client.
func pcpRequest(r request, n Nonce, client netip.Addr) []byte {
	b := make([]byte, 0, pcpBytes)
	b = append(b, pcpVersion, opMap, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.life/time.Second))
	b = append(b, mapped16(client)...)
	b = append(b, n[:]...)
	b = append(b, protocolOf(r.udp), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.port)
	b = binary.BigEndian.AppendUint16(b, r.want.Port())
	return append(b, mapped16(r.want.Addr())...)
}

// mapped16 is an IPv4 address in IPv6's form; all zeros of IPv4 for none.
func mapped16(a netip.Addr) []byte {
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	b := a.As16()
	return b[:]
}

func protocolOf(udp bool) byte {
	if udp {
		return protocolUDP
	}
	return protocolTCP
}

// readPCP reads the answer to a MAP request.
func readPCP(b []byte, r request, n Nonce) (g grant, err error) {
	if len(b) >= 4 && b[0] == pmpVersion && b[1]&answerBit != 0 {
		return g, errVersion // only NAT-PMP is spoken here
	}
	if len(b) < 24 || b[0] != pcpVersion {
		return g, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	switch result := b[3]; {
	case b[1] != answerBit|opMap:
		return g, errOtherAnswer
	case result == unsupported:
		return g, errVersion
	case len(b) < pcpBytes && result == 0:
		return g, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	case len(b) >= pcpBytes && (Nonce(b[24:36]) != n || b[36] != protocolOf(r.udp) || binary.BigEndian.Uint16(b[40:]) != r.port):
		return g, errOtherAnswer
	case result != 0:
		return g, &Refusal{PCP, int(result), pcpResult(result)}
	}
	addr := netip.AddrFrom16([16]byte(b[44:60])).Unmap()
	g = grant{netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[42:])), time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second}
	return g, g.check(r)
}

// check refuses what makes no sense.
func (g grant) check(r request) error {
	if r.life > 0 && (!g.at.Addr().IsValid() || g.at.Addr().IsUnspecified() || g.at.Port() == 0 || g.life <= 0) {
		return fmt.Errorf("%w: mapped to %v for %v", errMalformed, g.at, g.life)
	}
	return nil
}

func pmpAddressRequest() []byte { return []byte{pmpVersion, opAddress} }

func pmpRequest(r request) []byte {
	b := append(make([]byte, 0, pmpAskBytes), pmpVersion, pmpOp(r.udp), 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.port)
	outside := r.want.Port()
	if r.life == 0 {
		outside = 0 // RFC 6886 section 3.4
	}
	b = binary.BigEndian.AppendUint16(b, outside)
	return binary.BigEndian.AppendUint32(b, uint32(r.life/time.Second))
}

func pmpOp(udp bool) byte {
	if udp {
		return opMapUDP
	}
	return opMapTCP
}

// pmpHead checks what all answers of NAT-PMP begin with.
func pmpHead(b []byte, op byte, size int) error {
	if len(b) < 4 || b[0] != pmpVersion {
		return fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	if b[1] != answerBit|op {
		return errOtherAnswer
	}
	if result := binary.BigEndian.Uint16(b[2:]); result != 0 {
		return &Refusal{NATPMP, int(result), pmpResult(result)}
	}
	if len(b) < size {
		return fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	return nil
}

func readPMPAddress(b []byte) (netip.Addr, error) {
	if err := pmpHead(b, opAddress, pmpAddrBytes); err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), nil
}

// readPMP reads the answer to a mapping request; outside is the router's address there.
func readPMP(b []byte, r request, outside netip.Addr) (g grant, err error) {
	if err := pmpHead(b, pmpOp(r.udp), pmpMapBytes); err != nil {
		return g, err
	}
	if binary.BigEndian.Uint16(b[8:]) != r.port {
		return g, errOtherAnswer
	}
	g = grant{netip.AddrPortFrom(outside, binary.BigEndian.Uint16(b[10:])), time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second}
	return g, g.check(r)
}

// Refusal is a router's no.
type Refusal struct {
	Protocol Protocol
	Code     int
	Reason   string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s (%s, code %d)", r.Reason, r.Protocol, r.Code)
}

func pcpResult(code byte) string {
	if s := map[byte]string{2: "the router does not allow it", 3: "the router did not understand", 4: "the router maps no ports", 5: "the router knows no such option",
		7: "the router's own network is down", 8: "the router has no room for more mappings", 9: "the router does not map this protocol",
		10: "this machine has all the mappings it may have", 11: "the router cannot give that port", 12: "another NAT is between this machine and the router",
		13: "the router allows fewer peers"}[code]; s != "" {
		return s
	}
	return "the router refuses"
}

func pmpResult(code uint16) string {
	if s := map[uint16]string{1: "the router does not speak this version", 2: "the router does not allow it", 3: "the router's own network is down",
		4: "the router has no room for more mappings", 5: "the router maps no ports"}[code]; s != "" {
		return s
	}
	return "the router refuses"
}
