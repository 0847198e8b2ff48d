package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// quantile returns the value below which the share q of v lies; v is not empty.
func quantile[T cmp.Ordered](v []T, q float64) T {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func median[T cmp.Ordered](v []T) T { return quantile(v, 0.5) }

// spread shows the middle and the end of durations.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	return fmt.Sprintf("median %v, max %v (n=%d)", median(d).Round(time.Millisecond), slices.Max(d).Round(time.Millisecond), len(d))
}

// ratios divides pairwise: rounds that were run one after the other.
func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}
