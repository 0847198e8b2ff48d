package path

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vcpeer/overlay/label"
)

// world is gateways and links that a test changes by words, and what the planner of g1 makes of it.
//
//	1-2=10        the link between g1 and g2 has an RTT of 10 ms and is up      1-2 down, 1-2 up
//	1>2 loss=25   a quarter is lost on the way                                  1>2 mtu=1400, 1>2 down: says g1
//	1-2 sealed    is encrypted                                                  2 notransit, 2 site=a, 2 gone
//	wait 3s       time passes, with plans when due and at least every 300 ms
type world struct {
	t       tester
	p       *Planner
	now     time.Time
	start   time.Time
	again   time.Time
	table   Table
	in      Input
	links   map[[2]label.Label]Link
	history strings.Builder // of the path to dst, or of all when 0
	dst     label.Label
	last    string
	plans   int
}

// tester is what testing.T and rapid.T have in common, as far as it is used here.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newWorld(t tester, c Config, self label.Label) *world {
	start := time.Unix(1_800_000_000, 0)
	return &world{t: t, p: New(c), now: start, start: start, links: map[[2]label.Label]Link{}, in: Input{Self: self}}
}

// play does what the words say, separated by ";". Plans are made at "wait" and at the end.
func (w *world) play(script string) *world {
	for _, s := range strings.Split(script, ";") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if wait, ok := strings.CutPrefix(s, "wait "); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				w.t.Fatalf("%q: %v", s, err)
			}
			w.wait(d)
			continue
		}
		w.change(s)
	}
	w.plan()
	return w
}

func (w *world) change(s string) {
	subject, rest, _ := strings.Cut(s, " ")
	subject, rtt, measured := strings.Cut(subject, "=")
	var a, b label.Label
	for _, both := range []bool{true, false} {
		x, y, ok := strings.Cut(subject, map[bool]string{true: "-", false: ">"}[both])
		if !ok {
			continue
		}
		a, b = w.gateway(x), w.gateway(y)
		change := func(l *Link) {
			if measured {
				ms, err := strconv.ParseFloat(rtt, 64)
				if err != nil {
					w.t.Fatalf("%q: %v", s, err)
				}
				l.RTT, l.Up = time.Duration(ms*float64(time.Millisecond)), true
			}
			key, value, _ := strings.Cut(rest, "=")
			n, _ := strconv.Atoi(value)
			switch key {
			case "up", "down":
				l.Up = key == "up"
			case "loss":
				l.Loss = float64(n) / 100
			case "mtu":
				l.MTU = n
			case "sealed":
				l.Kind = Sealed
			case "":
			default:
				w.t.Fatalf("%q: no such change", s)
			}
		}
		w.setLink(a, b, change)
		if both {
			w.setLink(b, a, change)
		}
		return
	}
	a = w.gateway(subject)
	i := slices.IndexFunc(w.in.Gateways, func(g Gateway) bool { return g.Label == a })
	switch key, value, _ := strings.Cut(rest, "="); key {
	case "site":
		w.in.Gateways[i].Site = value
	case "notransit":
		w.in.Gateways[i].NoTransit = true
	case "gone":
		w.in.Gateways = slices.Delete(slices.Clone(w.in.Gateways), i, i+1)
		for k := range w.links {
			if k[0] == a {
				delete(w.links, k)
			}
		}
	case "":
	default:
		w.t.Fatalf("%q: no such change", s)
	}
}

func (w *world) gateway(s string) label.Label {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatalf("gateway %q: %v", s, err)
	}
	l := label.Label(n)
	if !slices.ContainsFunc(w.in.Gateways, func(g Gateway) bool { return g.Label == l }) {
		w.in.Gateways = append(slices.Clone(w.in.Gateways), Gateway{Label: l, Site: "s" + s})
	}
	return l
}

func (w *world) setLink(a, b label.Label, change func(*Link)) {
	l := w.links[[2]label.Label{a, b}]
	l.To = b
	change(&l)
	w.links[[2]label.Label{a, b}] = l
}

// rows builds what gateways say, as new memory where it has changed.
func (w *world) rows() []Row {
	old := map[label.Label]Row{}
	for _, r := range w.in.Rows {
		old[r.From] = r
	}
	byFrom := map[label.Label][]Link{}
	for k, l := range w.links {
		byFrom[k[0]] = append(byFrom[k[0]], l)
	}
	var rows []Row
	for from, links := range byFrom {
		slices.SortFunc(links, func(a, b Link) int { return int(a.To) - int(b.To) })
		if slices.Equal(old[from].Links, links) {
			links = old[from].Links
		}
		rows = append(rows, Row{from, links})
	}
	return rows
}

func (w *world) plan() {
	w.in.Rows = w.rows()
	w.table, w.again = w.p.Plan(w.in, w.now)
	w.plans++
	checkTable(w.t, w.in, w.table)
	c, _ := w.table.To(w.dst)
	if s := words(c.Path); w.dst != 0 && s != w.last {
		if w.history.Len() > 0 {
			w.history.WriteString("; ")
		}
		fmt.Fprintf(&w.history, "%v %s", w.now.Sub(w.start), s)
		w.last = s
	}
}

func (w *world) wait(d time.Duration) {
	for end := w.now.Add(d); ; {
		w.plan()
		next := w.now.Add(300 * time.Millisecond)
		if !w.again.IsZero() && w.again.Before(next) {
			next = w.again
		}
		if !next.After(w.now) {
			w.t.Fatalf("planned at %v, to be planned again at %v", w.now.Sub(w.start), next.Sub(w.start))
		}
		if !next.Before(end) {
			w.now = end
			return
		}
		w.now = next
	}
}

// words is a path without its figures.
func words(p Path) string {
	if !p.Exists() {
		return "none"
	}
	if len(p.Via) == 0 {
		return "direct"
	}
	var s []string
	for _, l := range p.Via {
		s = append(s, l.String())
	}
	return strings.Join(s, ">")
}

// checkTable holds a table against all that must be true of any.
func checkTable(t tester, in Input, table Table) {
	t.Helper()
	gates := map[label.Label]Gateway{}
	for _, g := range in.Gateways {
		gates[g.Label] = g
	}
	words := map[[2]label.Label]Link{}
	for _, r := range in.Rows {
		for _, l := range r.Links {
			words[[2]label.Label{r.From, l.To}] = l
		}
	}
	check := func(p Path) {
		if len(p.Via) > label.MaxTransit {
			t.Fatalf("%v: more than %d transit gateways", p, label.MaxTransit)
		}
		seen, at := map[label.Label]bool{in.Self: true}, in.Self
		for i, l := range append(slices.Clone(p.Via), p.Dst) {
			g, ok := gates[l]
			ab, k1 := words[[2]label.Label{at, l}]
			ba, k2 := words[[2]label.Label{l, at}]
			switch {
			case !ok:
				t.Fatalf("%v: there is no %v", p, l)
			case seen[l]:
				t.Fatalf("%v: %v twice", p, l)
			case i < len(p.Via) && g.NoTransit:
				t.Fatalf("%v: no transit through %v", p, l)
			case !k1 && !k2 || k1 && !ab.Up || k2 && !ba.Up:
				t.Fatalf("%v: link %v>%v is not up", p, at, l)
			case in.SealedOnly && gates[at].Site != g.Site && (k1 && ab.Kind != Sealed || k2 && ba.Kind != Sealed):
				t.Fatalf("%v: link %v>%v is not encrypted", p, at, l)
			}
			seen[l], at = true, l
		}
	}
	for i, c := range table.Choices {
		if i > 0 && table.Choices[i-1].Dst >= c.Dst {
			t.Fatalf("choices not in order at %v", c.Dst)
		}
		check(c.Path)
		if c.Backup.Exists() {
			check(c.Backup)
			if c.Backup.First() == c.First() || c.Backup.Dst != c.Dst {
				t.Fatalf("%v: backup %v", c.Path, c.Backup)
			}
		}
	}
	for i, c := range table.Sites {
		if i > 0 && table.Sites[i-1].Site >= c.Site {
			t.Fatalf("sites not in order at %v", c.Site)
		}
		check(c.Path)
		if gates[c.Dst].Site != c.Site {
			t.Fatalf("site %s: %v is of %s", c.Site, c.Dst, gates[c.Dst].Site)
		}
	}
}
