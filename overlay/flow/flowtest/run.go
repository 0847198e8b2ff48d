package flowtest

import (
	"fmt"
	"slices"
)

// maxDepth and maxSteps are Open vSwitch's own: nested resubmits, and all of them for one packet.
const (
	maxDepth = 64
	maxSteps = 4096
)

// Output is a packet that a bridge puts out.
type Output struct {
	Port   uint16
	Packet Packet
}

// run is the way of one packet through one bridge.
type run struct {
	s     *Switch
	p     Packet
	port  uint16 // that it came in by, whatever was written over it
	out   []Output
	steps int
	trace []string
	err   error
}

// Run says what a bridge puts out for a packet, and which rules it met.
func (s *Switch) Run(p Packet) (out []Output, trace []string, err error) {
	r := run{s: s, p: p, port: uint16(p.v[inPort].lo)}
	r.table(0, 0)
	return r.out, r.trace, r.err
}

func (r *run) table(n, depth int) {
	if r.steps++; depth > maxDepth || r.steps > maxSteps {
		r.err = fmt.Errorf("flowtest: too many resubmits")
		return
	}
	for _, rule := range r.s.tables[n] {
		if rule.matches(&r.p) {
			r.trace = append(r.trace, rule.text)
			r.actions(rule.actions, depth)
			return
		}
	}
}

func (r *rule) matches(p *Packet) bool {
	for _, c := range r.match {
		if p.v[c.f].and(c.mask) != c.value {
			return false
		}
	}
	return true
}

func (r *run) actions(list []action, depth int) {
	for i, a := range list {
		switch a.kind {
		case "resubmit":
			r.table(a.table, depth+1)
		case "set":
			r.p.write(a.to, a.value)
		case "move":
			r.p.write(a.to, r.p.read(a.from))
		case "larger":
			// Open vSwitch follows the rest of this list for either answer, and what calls it sees neither.
			before := r.p
			larger := wide{}
			if r.p.Size > int(a.n) {
				larger.lo = 1
			}
			r.p.write(a.to, larger)
			r.actions(list[i+1:], depth)
			r.p = before
			return
		case "output":
			r.output(uint16(a.n))
		case "outputTo":
			r.output(uint16(r.p.read(a.from).lo))
		case "inPort":
			r.put(uint16(r.p.v[inPort].lo))
		case "group":
			r.group(r.s.groups[a.n], depth)
		case "learn":
			r.learn(a)
		}
	}
}

// output refuses the port that the frame came in by, as far as the frame still says so.
func (r *run) output(port uint16) {
	if port != uint16(r.p.v[inPort].lo) {
		r.put(port)
	}
}

func (r *run) put(port uint16) { r.out = append(r.out, Output{port, r.p}) }

// group takes the first bucket that lives; what its actions change ends with it.
func (r *run) group(buckets []bucket, depth int) {
	i := slices.IndexFunc(buckets, func(b bucket) bool { return r.s.Live == nil || r.s.Live(b.watch) })
	if i >= 0 {
		before := r.p
		r.actions(buckets[i].actions, depth+1)
		r.p = before
	}
}

func (r *run) learn(a action) {
	made := &rule{table: a.table, priority: a.priority, text: fmt.Sprintf("learned in table %d", a.table)}
	for _, l := range a.learn {
		v := r.p.read(l.from)
		switch l.kind {
		case "match":
			made.match = append(made.match, condition{l.to.f, v.left(l.to.from), ones(l.to.width()).left(l.to.from)})
		case "load":
			made.actions = append(made.actions, action{kind: "set", to: l.to, value: v})
		case "output":
			made.actions = append(made.actions, action{kind: "output", n: v.lo})
		}
	}
	r.s.add(made)
}
