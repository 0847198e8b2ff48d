//go:build race

package gossip_test

// The race detector makes the large tests ten times slower; they look for races here, not for figures.
const (
	killNodes  = 20
	kills      = 2
	quietNodes = 5
	longNodes  = 20
	someNodes  = 10
)
