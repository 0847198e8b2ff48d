package probe

import (
	"cmp"
	"slices"
	"time"

	"vcpeer/overlay/label"
)

// Sizes of clusters and classes.
const (
	allFast   = 8  // up to so many other gateways, all are Fast …
	allNear   = 24 // … and up to so many at least Near
	nearest   = 8
	byChance  = 8 // on average
	fastInUse = 16
)

// Classify says how often to probe each of gateways, in their order. In a small cluster all are Fast. In a larger one
// those whose direct link is in use are, or not measured yet, and all others Near: where the best path to a gateway is
// another, no path of anybody leads over that link, since parts of best paths are best. In a large one those in use are
// Fast, up to 16, first named first; the 8 with the least RTT are Near, and some 8 by chance, for a detour leads over
// gateways that are not near; all others are Rest. The chance is a function of the pair, so both ends of a link draw alike
// without a word. rtt returns 0 where nothing is measured.
func Classify(self label.Label, gateways []label.Label, rtt func(label.Label) time.Duration, inUse []label.Label) []Class {
	out := make([]Class, len(gateways))
	if len(gateways) <= allFast {
		return out
	}
	if len(gateways) <= allNear {
		for i, g := range gateways {
			if rtt(g) > 0 && !slices.Contains(inUse, g) {
				out[i] = Near
			}
		}
		return out
	}
	order := make([]int, 0, len(gateways))
	for i, g := range gateways {
		out[i] = Rest
		if pairHash(self, g) < ^uint64(0)/uint64(len(gateways))*byChance {
			out[i] = Near
		}
		if rtt(g) > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rtt(gateways[a]), rtt(gateways[b])), cmp.Compare(gateways[a], gateways[b]))
	})
	for _, i := range order[:min(len(order), nearest)] {
		out[i] = Near
	}
	fast := 0
	for _, l := range inUse {
		if i := slices.Index(gateways, l); i >= 0 && out[i] != Fast && fast < fastInUse {
			out[i] = Fast
			fast++
		}
	}
	return out
}

// PathClass says how often to probe so many paths over others. Of many it is enough that they are seen not to get through
// though each link does, which is rare: the ends of a link that fails tell at once.
func PathClass(paths int) Class {
	if paths <= allFast {
		return Fast
	}
	return Near
}

// pairHash is the same for both orders (the finisher of SplitMix64, Steele, Lea, Flood 2014).
func pairHash(a, b label.Label) uint64 {
	z := (uint64(min(a, b))<<16 | uint64(max(a, b))) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
