package queue

import (
	"fmt"
	"strconv"
	"testing"
)

func benchMachine(b *testing.B, jobs int) *Machine {
	b.Helper()
	m := New("s1", 0)
	for i := range jobs {
		spec := specOf(strconv.Itoa(i))
		spec.User = "u" + strconv.Itoa(i%200)
		spec.Slots = 1 + i%4
		if r := m.submit(&Submit{spec}); r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	return m
}

func benchApply(b *testing.B, m *Machine, index int, e Entry) []Result {
	b.Helper()
	data, err := e.Encode()
	if err != nil {
		b.Fatal(err)
	}
	r, err := m.Apply(uint64(index), data)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkSubmit applies entries of 64 submits, encoded and decoded.
func BenchmarkSubmit(b *testing.B) {
	m := New("s1", 0)
	n := 0
	for i := 0; b.Loop(); i++ {
		e := Entry{}
		for range 64 {
			n++
			spec := specOf(strconv.Itoa(n))
			spec.User = strconv.Itoa(n / 1000)
			e.Commands = append(e.Commands, Command{Submit: &Submit{spec}})
		}
		benchApply(b, m, i+1, e)
		if m.open > MaxJobs-64 {
			m = New("s1", 0)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "submits/s")
}

// BenchmarkDispatch matches 64 offers, grants and completes them, at different backlogs that stay as they are: as
// many jobs come as go. As single jobs and as one array.
func BenchmarkDispatch(b *testing.B) {
	for _, backlog := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", backlog), func(b *testing.B) {
			m := benchMachine(b, backlog-128)
			benchDispatch(b, m, func(i int) []Spec {
				specs := make([]Spec, 64)
				for k := range specs {
					specs[k] = specOf(fmt.Sprintf("%d-%d", i, k))
					specs[k].User, specs[k].Slots = "u"+strconv.Itoa(k), 1+k%4
				}
				return specs
			})
		})
		b.Run(fmt.Sprintf("array=%d", backlog), func(b *testing.B) {
			benchDispatch(b, New("s1", 0), func(i int) []Spec {
				if i%(backlog/64) != 0 {
					return nil
				}
				spec := specOf(strconv.Itoa(i))
				spec.Array = &Range{1, backlog, 1}
				return []Spec{spec}
			})
		})
	}
}

func benchDispatch(b *testing.B, m *Machine, more func(i int) []Spec) {
	var offers []Offer
	for i := range 64 {
		offers = append(offers, Offer{Node: node(i + 1), Site: "s1", Slots: 4})
	}
	n := 0
	for i := 0; b.Loop(); i++ {
		var grant, complete Entry
		for _, spec := range more(i) {
			grant.Commands = append(grant.Commands, Command{Submit: &Submit{spec}})
		}
		first := len(grant.Commands)
		for _, g := range Match(m, offers, nil, 64).Grants {
			grant.Commands = append(grant.Commands, Command{Grant: &g})
		}
		for k, r := range benchApply(b, m, 2*i+1, grant)[first:] {
			c := &Complete{Ref: Ref{r.Job, grant.Commands[first+k].Grant.Task, r.Epoch}}
			complete.Commands = append(complete.Commands, Command{Complete: c})
		}
		if f, ok := m.Excess(0); ok {
			complete.Commands = append(complete.Commands, Command{Forget: &f})
		}
		benchApply(b, m, 2*i+2, complete)
		n += len(grant.Commands) - first
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tasks/s")
}

func BenchmarkSnapshot(b *testing.B) {
	m := benchMachine(b, 20_000)
	for b.Loop() {
		if _, err := m.Snapshot(); err != nil {
			b.Fatal(err)
		}
	}
}
