package e2e

import "testing"

const chainTopology = `
name: chain
sites:
  one:   {}
  two:   {}
  three: {}
  four:  {}
links:
  default: delay=5ms
`

// TestBroadcastOverTwoSites cuts all but the links between neighbours, so that two sites are between the ends.
func TestBroadcastOverTwoSites(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, chainTopology))
	for _, pair := range []string{"one<>three", "one<>four", "two<>four"} {
		n.must(n.Cut(pair))
	}
	n.way("one-1", "four-1", "two-1", "three-1")
	n.way("four-1", "one-1", "three-1", "two-1")
	for _, from := range []string{"one-1", "two-1", "four-1"} {
		n.broadcastOnce(from, []string{"one-1", "two-1", "three-1", "four-1"})
	}
}
