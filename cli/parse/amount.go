package parse

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size reads an amount of memory: a number, whole or not, and a unit K, M, G or T (powers of 1024, also written KB or
// KiB); without a unit it is bytes.
func Size(s string) (int64, error) {
	num := strings.TrimRight(s, "KMGTBikmgtb")
	unit := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s[len(num):]), "b"), "i"))
	f, err := strconv.ParseFloat(num, 64)
	shift, known := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	if err != nil || !known || !(f >= 0) || strings.ContainsAny(num, "xXpPeEn_") {
		return 0, fmt.Errorf("size %q: want a number with K, M, G or T, for instance 500M or 1.5G", s)
	}
	b := f * float64(int64(1)<<shift)
	if b > math.MaxInt64/2 {
		return 0, fmt.Errorf("size %q is more than any machine has", s)
	}
	return int64(b), nil
}

// Time reads a length of time: seconds, [[H:]M:]S with colons, or numbers with d, h, m, s such as 1h30m.
func Time(s string) (time.Duration, error) {
	bad := fmt.Errorf("time %q: want seconds, H:MM:SS, or units as in 1h30m or 2d", s)
	if s == "" {
		return 0, bad
	}
	var seconds float64
	if strings.Trim(s, "0123456789:") == "" {
		parts := strings.Split(s, ":")
		if len(parts) > 3 {
			return 0, bad
		}
		for _, p := range parts {
			n, err := strconv.ParseFloat(p, 64)
			if p == "" || err != nil {
				return 0, bad
			}
			seconds = seconds*60 + n
		}
	} else {
		for s != "" {
			n := strings.IndexAny(s, "dhms")
			if n < 1 || strings.Trim(s[:n], "0123456789.") != "" {
				return 0, bad
			}
			f, err := strconv.ParseFloat(s[:n], 64)
			if err != nil {
				return 0, bad
			}
			seconds += f * map[byte]float64{'d': 86400, 'h': 3600, 'm': 60, 's': 1}[s[n]]
			s = s[n+1:]
		}
	}
	if seconds > 10*365*86400 {
		return 0, fmt.Errorf("a time of more than ten years")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
