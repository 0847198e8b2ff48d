//go:build race

package gossip_test

import "time"

// The race detector makes the large tests ten times slower; they look for races here, not for figures.
const (
	manyNodes = 20
	kills     = 2
	quiet     = time.Minute
)
