//go:build !race

package spread

// manyNodes is the size of the large tests.
const manyNodes = 100
