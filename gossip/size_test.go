//go:build !race

package gossip_test

import "time"

// The size of the large tests: what the preset promises.
const (
	manyNodes = 100
	kills     = 3
	quiet     = 10 * time.Minute
)
