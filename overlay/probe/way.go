package probe

import (
	"slices"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// way is how frames get to one target: directly, by the link of one kind, or over n transit gateways.
type way struct {
	id   ID
	kind path.Kind // of a direct way to a gateway; else GRE
	n    uint8
	via  [label.MaxTransit]label.Label // those after n are zero
}

// wayTo returns the way over via; false: no frame can go it, for a gateway is there twice or is none.
func wayTo(id ID, via []label.Label) (way, bool) {
	w := way{id: id, n: uint8(len(via))}
	if len(via) > label.MaxTransit {
		return way{}, false
	}
	copy(w.via[:], via)
	return w, w.valid()
}

// directTo returns the way by the link of a kind; false: there can be none.
func directTo(id ID, kind path.Kind) (way, bool) {
	w := way{id: id, kind: kind}
	return w, w.valid()
}

func (w way) valid() bool {
	if !w.id.Valid() || w.n > label.MaxTransit || w.id.near && w.n > 0 {
		return false
	}
	if w.kind != path.GRE && (w.kind != path.Sealed || w.id.near || w.n > 0) {
		return false
	}
	for i, l := range w.via {
		used := i < int(w.n)
		if used != (l != 0) || used && (!l.Valid() || Gateway(l) == w.id || slices.Contains(w.via[:i], l)) {
			return false
		}
	}
	return true
}

// over reports whether l is one of the transit gateways.
func (w way) over(l label.Label) bool { return slices.Contains(w.via[:w.n], l) }

// back is the way that goes over the same gateways in reverse order.
func (w way) back() way {
	slices.Reverse(w.via[:w.n])
	return w
}

// first is the gateway that frames are handed to.
func (w way) first() label.Label {
	if w.n > 0 {
		return w.via[0]
	}
	return label.Label(w.id.num)
}
