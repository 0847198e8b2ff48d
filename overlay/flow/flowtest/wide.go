package flowtest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// wide is the value of a field: up to 128 bits, the lowest bit of lo first.
type wide struct{ hi, lo uint64 }

func (a wide) and(b wide) wide { return wide{a.hi & b.hi, a.lo & b.lo} }
func (a wide) or(b wide) wide  { return wide{a.hi | b.hi, a.lo | b.lo} }
func (a wide) not() wide       { return wide{^a.hi, ^a.lo} }

func (a wide) left(n int) wide {
	if n >= 64 {
		return wide{hi: a.lo << (n - 64)}
	}
	return wide{a.hi<<n | a.lo>>(64-n), a.lo << n}
}

func (a wide) right(n int) wide {
	if n >= 64 {
		return wide{lo: a.hi >> (n - 64)}
	}
	return wide{a.hi >> n, a.lo>>n | a.hi<<(64-n)}
}

// ones has its n lowest bits set.
func ones(n int) wide {
	return wide{^uint64(0), ^uint64(0)}.right(128 - n)
}

// value reads a number, a MAC address or an IP address.
func value(s string) (wide, error) {
	if m, err := net.ParseMAC(s); err == nil && len(m) == 6 {
		return wide{lo: binary.BigEndian.Uint64(append([]byte{0, 0}, m...))}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return addr(a), nil
	}
	switch s {
	case "LOCAL":
		return wide{lo: Local}, nil
	case "any":
		return wide{}, nil
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return wide{}, fmt.Errorf("flowtest: %q is no value", s)
	}
	return wide{lo: n}, nil
}

func addr(a netip.Addr) wide {
	if a.Is4() {
		b := a.As4()
		return wide{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return wide{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// masked reads "value", "value/mask" or "address/length" for a field of the given width.
func masked(s string, width int) (v, mask wide, err error) {
	s, m, ok := strings.Cut(s, "/")
	if v, err = value(s); err != nil {
		return v, mask, err
	}
	mask = ones(width)
	if ok {
		if n, err := strconv.Atoi(m); err == nil && strings.ContainsAny(s, ".:") && !strings.Contains(m, ":") {
			return v.and(ones(width).and(ones(width - n).not())), ones(width).and(ones(width - n).not()), nil
		}
		if mask, err = value(m); err != nil {
			return v, mask, err
		}
	}
	return v.and(mask), mask, nil
}
