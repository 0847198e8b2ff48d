package probe

import (
	"cmp"
	"fmt"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
)

// ID is whom a probe is for, or from: a gateway of another site by its label, or a node of the own site by its slot.
type ID struct {
	near bool
	num  uint16
}

// Gateway is the ID of a gateway of another site.
func Gateway(l label.Label) ID { return ID{num: uint16(l)} }

// Node is the ID of a node of the own site.
func Node(s flow.Slot) ID { return ID{near: true, num: uint16(s)} }

// Label returns the gateway's label; false: the ID is a node's.
func (id ID) Label() (label.Label, bool) { return label.Label(id.num), !id.near }

// Slot returns the node's slot; false: the ID is a gateway's.
func (id ID) Slot() (flow.Slot, bool) { return flow.Slot(id.num), id.near }

// Valid reports whether there can be such a gateway or node.
func (id ID) Valid() bool {
	if id.near {
		return id.num != 0
	}
	return label.Label(id.num).Valid()
}

// Compare orders gateways by label before nodes by slot.
func (id ID) Compare(other ID) int {
	switch {
	case id.near == other.near:
		return cmp.Compare(id.num, other.num)
	case id.near:
		return 1
	}
	return -1
}

func (id ID) String() string {
	if id.near {
		return fmt.Sprintf("n%d", id.num)
	}
	return label.Label(id.num).String()
}
