package overlay

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"vcpeer/overlay/device"
	"vcpeer/overlay/ovs"
)

// given are the addresses that guests' own ends have of us, by the interface on this side. Those that a daemon before this one
// gave stand beside the ports in Open vSwitch: a guest may have gone elsewhere while none ran.
type given map[string][]netip.Prefix

// givenKey is where they stand in a port's external_ids.
const givenKey = "vcpeer-given"

func formatGiven(addrs []netip.Prefix) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func readGiven(sw *ovs.Switch) given {
	out := given{}
	for iface, text := range sw.Noted(givenKey) {
		for _, word := range strings.Fields(text) {
			if p, err := netip.ParsePrefix(word); err == nil { // anything else is not of us
				out[iface] = append(out[iface], p)
			}
		}
	}
	return out
}

// take takes away what none of these guests is to have, and notes what they are to. What could not be taken stays noted.
func (g given) take(guests []guestWant) error {
	want := given{}
	for _, w := range guests {
		want[w.iface] = w.inner.Addrs
	}
	var errs []error
	for iface, have := range g {
		old := slices.DeleteFunc(slices.Clone(have), func(p netip.Prefix) bool { return slices.Contains(want[iface], p) })
		if len(old) > 0 {
			if err := device.DetachGuest(iface, old); err != nil {
				errs = append(errs, err)
				want[iface] = append(slices.Clone(want[iface]), old...)
			}
		}
	}
	clear(g)
	maps.Copy(g, want)
	return errors.Join(errs...)
}
