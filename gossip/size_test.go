//go:build !race

package gossip_test

// The size of the large tests.
const (
	killNodes  = 100
	kills      = 5
	quietNodes = 30 // and with VCPEER_LONG set in the environment:
	longNodes  = 100
	someNodes  = 20
)
