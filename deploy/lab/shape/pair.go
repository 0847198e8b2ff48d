package shape

import (
	"fmt"
	"strings"
)

// Any stands for every site in a Pair.
const Any = "*"

// Pair names directions between sites: from each site that From stands for to each that To stands for.
type Pair struct {
	From, To string // a site's name, or Any
	Both     bool   // and back
}

// ParsePair reads "a<>b" (both ways), "a>b" (one way), "a" (all to and from a) and "*" (every pair); a side may be "*".
func ParsePair(s string) (Pair, error) {
	from, to, both := strings.Cut(s, "<>")
	oneWay := false
	if !both {
		from, to, oneWay = strings.Cut(s, ">")
	}
	if !both && !oneWay {
		to, both = Any, true
	}
	p := Pair{strings.TrimSpace(from), strings.TrimSpace(to), both}
	if !isSide(p.From) || !isSide(p.To) {
		return Pair{}, fmt.Errorf("pair %q: want a<>b, a>b, a<>* or a site's name", s)
	}
	if p.From == p.To && p.From != Any {
		return Pair{}, fmt.Errorf("pair %q: want two sites", s)
	}
	return p, nil
}

func isSide(s string) bool { return s != "" && !strings.ContainsAny(s, "<> \t\n") }

func (p Pair) String() string {
	if p.Both {
		return p.From + "<>" + p.To
	}
	return p.From + ">" + p.To
}

// Has reports whether the direction from one site to another, different one is among those of p.
func (p Pair) Has(from, to string) bool {
	fits := func(name, site string) bool { return name == Any || name == site }
	return from != to && (fits(p.From, from) && fits(p.To, to) || p.Both && fits(p.From, to) && fits(p.To, from))
}

// Check says whether the sites that p names exist; sites are all there are.
func (p Pair) Check(sites []string) error {
	for _, side := range []string{p.From, p.To} {
		if side == Any {
			continue
		}
		if err := known(side, sites); err != nil {
			return err
		}
	}
	return nil
}

func known(site string, sites []string) error {
	for _, s := range sites {
		if s == site {
			return nil
		}
	}
	return fmt.Errorf("there is no site %q; there are %s", site, strings.Join(sites, ", "))
}
