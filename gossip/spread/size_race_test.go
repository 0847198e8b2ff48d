//go:build race

package spread

// manyNodes is the size of the large tests; the race detector makes them ten times slower.
const manyNodes = 30
