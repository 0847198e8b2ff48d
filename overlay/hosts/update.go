package hosts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vcpeer/overlay/marked"
)

// Result is what Update made of a file.
type Result struct {
	File  []byte // the new content; equal to the old when nothing had to change
	Names int    // names written
	Left  []Left // what was not written
}

// Left is a name, or a whole entry, that was left out, with the reason.
type Left struct {
	Name   string
	Reason string
}

func (l Left) String() string { return l.Name + ": " + l.Reason }

// Update returns file with instance's block saying want and all other bytes as they were; the order of want does not
// matter. No entries: no block. It changes neither file nor want. Errors may wrap marked.ErrDamaged.
//
// A line that gives the name of the machine itself to 127.0.1.1 is kept in the block, so that the name has the address of
// the entry alone: programs that ask for all addresses of a name prefer the other one, wherever it stands.
func Update(file []byte, instance string, want []Entry) (Result, error) {
	rest, err := marked.Clear(file, instance)
	if err != nil {
		return Result{}, err
	}
	if s := findStandIn(rest, want); s != nil {
		if r := render(want, parse(s.rest)); r.written[s.name] {
			out, err := marked.SetInstead(file, instance, s.line, append(s.lines(), r.lines...))
			return Result{File: out, Names: r.names, Left: r.left}, err
		}
	}
	r := render(want, parse(rest))
	out, err := marked.Set(file, instance, r.lines)
	if err != nil {
		return Result{}, err
	}
	return Result{File: out, Names: r.names, Left: r.left}, nil
}

// standIn is the address that Debian gives a machine's own name for want of a permanent one, and those who copy it.
var standIn = netip.AddrFrom4([4]byte{127, 0, 1, 1})

// standInLine is the line of a file that gives a machine's own name to it.
type standInLine struct {
	name   string // of the machine
	line   int    // its number, from 0
	others []string
	rest   []byte // the file without it
}

// lines are for the names of the line that are not the machine's.
func (s *standInLine) lines() []string {
	if len(s.others) == 0 {
		return nil
	}
	return []string{standIn.String() + "\t" + strings.Join(s.others, "\t")}
}

// findStandIn returns nil if no line is one that a block can take the place of.
func findStandIn(file []byte, want []Entry) *standInLine {
	i := slices.IndexFunc(want, func(e Entry) bool { return e.Self })
	if i < 0 {
		return nil
	}
	e, number, at := want[i], 0, 0
	for line := range strings.Lines(string(file)) {
		text, _, _ := strings.Cut(line, "#")
		fields := strings.Fields(text)
		ours := func(name string) bool { return fold(name) == fold(e.Host) || fold(name) == e.full() }
		if len(fields) > 1 && fields[0] == standIn.String() && slices.ContainsFunc(fields[1:], ours) {
			if !strings.HasSuffix(line, "\n") || strings.ContainsAny(line, "\r\x00") {
				return nil
			}
			s := &standInLine{name: fold(e.Host), line: number, others: slices.DeleteFunc(fields[1:], ours)}
			s.rest = slices.Concat(file[:at], file[at+len(line):])
			return s
		}
		number, at = number+1, at+len(line)
	}
	return nil
}

// table is name (folded) to the addresses it is given.
type table map[string][]netip.Addr

func (t table) add(name string, a netip.Addr) {
	if !slices.Contains(t[name], a) {
		t[name] = append(t[name], a)
	}
}

// others returns the addresses of name that are not a, in order, as text.
func (t table) others(name string, a netip.Addr) []string {
	var out []string
	for _, other := range slices.SortedFunc(slices.Values(t[name]), netip.Addr.Compare) {
		if other != a {
			out = append(out, other.String())
		}
	}
	return out
}

// parse reads a hosts file as hosts(5) has it; lines that make no sense are nobody's names.
func parse(file []byte) table {
	t := table{}
	for line := range strings.Lines(string(file)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			t.add(fold(name), addr.Unmap())
		}
	}
	return t
}

// block is the lines of our block on their way.
type block struct {
	lines   []string
	names   int
	left    []Left
	written map[string]bool // names
}

func render(want []Entry, foreign table) block {
	b := block{written: map[string]bool{}}
	var entries []Entry
	asked := table{} // who asks for which name among the entries
	var each []Entry
	for _, e := range want {
		each = append(each, e.all()...)
	}
	slices.SortFunc(each, Entry.compare)
	for _, e := range each {
		e.Addr = e.Addr.Unmap()
		if err := e.check(); err != nil {
			b.left = append(b.left, Left{Name: clean(e.full()), Reason: err.Error()})
			continue
		}
		if n := len(entries); n > 0 && entries[n-1].compare(e) == 0 {
			continue
		}
		entries = append(entries, e)
		asked.add(e.full(), e.Addr)
		if e.Site != "" {
			asked.add(e.short(), e.Addr)
		}
	}
	for _, e := range entries {
		b.entry(e, asked, foreign)
	}
	return b
}

// entry writes one host: its note, why names are left out, and the names that remain.
func (b *block) entry(e Entry, asked, foreign table) {
	if note := clean(e.Note); note != "" {
		b.lines = append(b.lines, "# CONFLICT "+e.full()+": "+note)
	}
	names := []string{e.full()}
	if e.Site != "" {
		names = append(names, e.short())
	}
	line := e.Addr.String()
	for _, name := range names {
		reason := contested(name, e.Addr, asked, foreign)
		if name == e.full() && publicDomain(e.Site) {
			reason = "it would hide names of the Internet's domain ." + fold(e.Site)
		}
		if reason != "" {
			b.left = append(b.left, Left{Name: name, Reason: reason})
			b.lines = append(b.lines, "# "+name+" is not "+e.Addr.String()+" here: "+reason)
			continue
		}
		line += "\t" + name
		b.names++
		b.written[name] = true
	}
	if line != e.Addr.String() {
		b.lines = append(b.lines, line)
	}
}

// contested says why name cannot mean addr; empty: it can. What other lines of the file say comes before our block: they
// are the administrator's word. That they name the same address is no reason, for then it makes no difference.
func contested(name string, addr netip.Addr, asked, foreign table) string {
	if given := foreign[name]; len(given) > 0 && !slices.Contains(given, addr) {
		return fmt.Sprintf("another line of this file gives it to %s", strings.Join(foreign.others(name, addr), ", "))
	}
	if others := asked.others(name, addr); len(others) > 0 {
		return fmt.Sprintf("also the name of %s", strings.Join(others[:min(len(others), 3)], ", "))
	}
	return ""
}
