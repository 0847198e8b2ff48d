package topology

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"vcpeer/deploy/lab/shape"
)

// Matrix holds the round-trip times between sites, in milliseconds, by their order; its diagonal is zero.
type Matrix [][]float64

// RandomMatrix draws sites on a plane of 120 ms across, and makes every direct path longer than the straight line by a
// factor that for some is large, as in measured networks: there many pairs have a faster path over a third site.
func RandomMatrix(sites int, seed uint64) Matrix {
	rng := rand.New(rand.NewPCG(seed, 0))
	type point struct{ x, y float64 }
	at := make([]point, sites)
	for i := range at {
		at[i] = point{rng.Float64() * 120, rng.Float64() * 120}
	}
	m := newMatrix(sites)
	for i := range m {
		for j := range i {
			straight := 2 + math.Hypot(at[i].x-at[j].x, at[i].y-at[j].y)
			rtt := math.Round(straight*(1.05+0.5*rng.ExpFloat64())*10) / 10
			m[i][j], m[j][i] = rtt, rtt
		}
	}
	return m
}

func newMatrix(n int) Matrix {
	m := make(Matrix, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

// ParseMatrix reads lines of numbers, as many as sites: round-trip times in milliseconds. Lines that begin with # are
// left out. A matrix need not be symmetric: each direction has half of its own entry.
func ParseMatrix(path string, b []byte) (Matrix, error) {
	var m Matrix
	line := 0
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		line++
		words := strings.FieldsFunc(sc.Text(), func(r rune) bool { return strings.ContainsRune(" \t\r,;", r) })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		var row []float64
		for _, w := range words {
			v, err := strconv.ParseFloat(w, 64)
			if err != nil || !(v >= 0 && v <= 1e5) {
				return nil, fmt.Errorf("%s:%d: %q: want milliseconds", path, line, w)
			}
			row = append(row, v)
		}
		m = append(m, row)
	}
	for i, row := range m {
		if len(row) != len(m) {
			return nil, fmt.Errorf("%s: row %d has %d numbers, but there are %d rows", path, i+1, len(row), len(m))
		}
	}
	return m, nil
}

// String is what ParseMatrix reads.
func (m Matrix) String() string {
	var b strings.Builder
	for _, row := range m {
		for j, v := range row {
			if j > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(strconv.FormatFloat(v, 'f', -1, 64))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// WithMatrix returns t with the delays of m; t has as many sites.
func (t Topology) WithMatrix(m Matrix) (Topology, error) {
	if len(m) != len(t.Sites) {
		return t, fmt.Errorf("the matrix is for %d sites, the lab has %d", len(m), len(t.Sites))
	}
	links := append([]Link(nil), t.Links...)
	for i, row := range m {
		for j, rtt := range row {
			if i != j {
				delay := time.Duration(rtt * float64(time.Millisecond) / 2).Round(time.Microsecond)
				links = append(links, Link{shape.Pair{From: t.Sites[i].Name, To: t.Sites[j].Name}, []string{"delay=" + delay.String()}})
			}
		}
	}
	t.Links = links
	return t, nil
}

// Matrix returns the round-trip times that the links of t make, queues and routers left out.
func (t *Topology) Matrix() (Matrix, error) {
	shapes, err := t.Shapes()
	if err != nil {
		return nil, err
	}
	m := newMatrix(len(t.Sites))
	for i := range m {
		for j := range m {
			if i != j {
				m[i][j] = float64(shapes[i][j].Delay+shapes[j][i].Delay) / float64(time.Millisecond)
			}
		}
	}
	return m, nil
}

// Shortest returns the least round-trip time between each two sites over any others.
func (m Matrix) Shortest() Matrix {
	d := newMatrix(len(m))
	for i := range m {
		copy(d[i], m[i])
	}
	for k := range d { // Floyd and Warshall
		for i := range d {
			for j := range d {
				d[i][j] = min(d[i][j], d[i][k]+d[k][j])
			}
		}
	}
	return d
}
