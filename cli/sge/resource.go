package sge

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// resources reads -l NAME=VALUE,…. Soft requests are wishes that may go unfulfilled, and do here.
func (r *request) resources(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(item, "=")
		if r.soft {
			continue
		}
		if err := r.resource(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *request) resource(name, value string) error {
	switch name {
	case "h_rt", "s_rt":
		d, ok := clock(value)
		if !ok {
			return denied("denied: %q is not a valid time value for resource %q", value, name)
		}
		if r.time == 0 || d < r.time || name == "h_rt" {
			r.time = d
		}
	case "h_vmem", "s_vmem", "mem_free", "m_mem_free", "h_rss", "virtual_free", "vf", "mf":
		n, ok := memory(value)
		if !ok {
			return denied("denied: %q is not a valid memory value for resource %q", value, name)
		}
		r.memBytes = max(r.memBytes, n)
	case "slots", "s":
		if err := number("-l slots", value, &r.slots); err != nil {
			return err
		}
	case "h", "hostname":
		r.host = value
	case "q", "qname":
		return setQueue(r, []string{value})
	default:
		return denied("unknown resource %q", name)
	}
	return nil
}

// clock reads Grid Engine's time: seconds, [[H:]M:]S with parts that may be empty, or INFINITY, which is no limit.
func clock(s string) (time.Duration, bool) {
	if strings.EqualFold(s, "INFINITY") {
		return 0, true
	}
	parts := strings.Split(s, ":")
	if s == "" || len(parts) > 3 {
		return 0, false
	}
	var total int64
	for _, p := range parts {
		n := int64(0)
		if p != "" {
			v, err := strconv.ParseInt(p, 10, 40)
			if err != nil || v < 0 {
				return 0, false
			}
			n = v
		}
		total = total*60 + n
	}
	if total > 10*365*86400 {
		return 0, false
	}
	return time.Duration(total) * time.Second, true
}

// memory reads Grid Engine's amount: K, M, G, T are powers of 1024, k, m, g, t of 1000; INFINITY is no request.
func memory(s string) (int64, bool) {
	if strings.EqualFold(s, "INFINITY") {
		return 0, true
	}
	num := strings.TrimRight(s, "KkMmGgTt")
	unit, known := map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}[s[len(num):]]
	f, err := strconv.ParseFloat(num, 64)
	if !known || err != nil || strings.Trim(num, "0123456789.") != "" || f*unit > math.MaxInt64/4 {
		return 0, false
	}
	return int64(f * unit), true
}

// variables reads -v NAME[=VALUE],…; quotes keep commas in a value, and a name alone takes the caller's value.
func (r *request) variables(list string) error {
	for _, item := range splitQuoted(list) {
		name, value, set := strings.Cut(item, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return misuse("invalid option argument \"-v %s\"", list)
		}
		if !set {
			value, set = r.env.lookup(name)
			if !set {
				continue
			}
		}
		r.vars[name] = value
	}
	return nil
}

// splitQuoted parts a list at commas outside quotes and takes the quotes away.
func splitQuoted(s string) []string {
	var items []string
	var b strings.Builder
	quote := rune(0)
	for _, c := range s {
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case c == ',' && quote == 0:
			items = append(items, b.String())
			b.Reset()
		default:
			b.WriteRune(c)
		}
	}
	return append(items, b.String())
}

// lookup finds a variable of the caller.
func (e *Env) lookup(name string) (string, bool) {
	for i := len(e.Environ) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(e.Environ[i], "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}
