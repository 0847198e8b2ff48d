package config

import "strings"

// Nearest returns the word that a mistyped one most likely stands for, or "" when none is near: about one edit in
// three characters (Levenshtein distance), or one a prefix of the other. Ties go to the first.
func Nearest(mistyped string, words []string) string {
	m := strings.ToLower(mistyped)
	best, bestDist := "", 1+max(1, (len(m)+1)/3)
	for _, w := range words {
		d := distance(m, strings.ToLower(w))
		if len(m) > 2 && (strings.HasPrefix(w, m) || strings.HasPrefix(m, w)) {
			d = min(d, 1)
		}
		if d < bestDist {
			best, bestDist = w, d
		}
	}
	return best
}

// distance is the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			sub := diag
			if a[i] != b[j] {
				sub++
			}
			diag = row[j+1]
			row[j+1] = min(sub, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
