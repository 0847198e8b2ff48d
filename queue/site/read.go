package site

import (
	"context"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// read answers a question about jobs from this node's copy, after a read barrier: the answer holds all that was
// acknowledged before it was asked.
func (s *Service) read(ctx context.Context, q question) answer {
	if s.cfg.Group.Status().Leader != s.cfg.Self {
		return s.elsewhere()
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout/2)
	defer cancel()
	if err := s.cfg.Group.ReadIndex(ctx); err != nil {
		return s.elsewhere()
	}
	a := no(&queue.Error{Code: queue.Invalid, Text: "malformed question"})
	switch q.Op {
	case opList:
		var in list
		if unmarshal(q.Body, &in) == nil {
			a = s.readList(in)
		}
	case opGet:
		var in get
		if unmarshal(q.Body, &in) == nil {
			a = s.readJob(in)
		}
	case opWhy:
		var in get
		if unmarshal(q.Body, &in) == nil {
			a = s.readWhy(in)
		}
	}
	return a
}

// maxList bounds a list; maxTasks the tasks of one answer.
const (
	maxList  = 2000
	maxTasks = 2000
)

func bounded(n, most int) int {
	if n <= 0 || n > most {
		return most
	}
	return n
}

func (s *Service) readList(in list) answer {
	var out jobList
	alive := s.alive()
	s.cfg.Book.Read(func(m *queue.Machine) { out.Jobs = m.Jobs(in.User, in.Open, bounded(in.Limit, maxList), alive) })
	for i := range out.Jobs {
		out.Jobs[i].Spec.Env, out.Jobs[i].Spec.Inputs = nil, nil // a list does not show them
		if len(out.Jobs[i].Spec.Argv) > 1 {
			out.Jobs[i].Spec.Argv = out.Jobs[i].Spec.Argv[:1]
		}
	}
	return ok(out)
}

func (s *Service) readJob(in get) answer {
	var out jobDetail
	var found bool
	alive := s.alive()
	s.cfg.Book.Read(func(m *queue.Machine) {
		if out.Job, found = m.Job(in.Job, alive); found {
			out.Tasks = m.Tasks(in.Job, in.From, bounded(in.Limit, maxTasks), alive)
		}
	})
	if !found {
		return no(noJob(in.Job))
	}
	return ok(out)
}

func (s *Service) readWhy(in get) answer {
	var w queue.Why
	var found bool
	view := s.view()
	s.cfg.Book.Read(func(m *queue.Machine) { w, found = m.Explain(in.Job, view, time.Now()) })
	if !found {
		return no(noJob(in.Job))
	}
	return ok(w)
}

// alive says who was heard when the directory was last looked at; this node always is.
func (s *Service) alive() queue.Alive {
	heard := *s.heard.Load()
	return func(n crdt.NodeID) bool { return heard[n] }
}

func (s *Service) view() queue.View {
	v := queue.View{Nodes: s.cfg.Directory.Nodes(), Names: map[queue.SiteID]string{}}
	for _, n := range v.Nodes {
		v.Names[n.Site] = s.cfg.Directory.SiteName(n.Site)
	}
	return v
}

// ownedWait is a node that waits for results to bring back; watchWait who waits for a job to change.
type ownedWait struct {
	node   crdt.NodeID
	answer func(answer)
}

type watchWait struct {
	watch
	from   time.Time // not answered before, but with the first look and with the end
	answer func(answer)
}

// watchPace is the least time between two looks of one watcher at a job that goes on: its tasks may end by the hundreds a
// second.
const watchPace = 100 * time.Millisecond

func (l *leader) waitOwed(from crdt.NodeID, o owed, reply func(answer)) {
	w := &ownedWait{from, reply}
	if l.answerOwed(w) {
		return
	}
	l.owed[w] = struct{}{}
	l.after(o.WaitMS, func(l *leader) {
		if _, waits := l.owed[w]; waits {
			delete(l.owed, w)
			w.answer(ok(owedList{}))
		}
	})
}

func (l *leader) waitChange(q watch, reply func(answer)) {
	w := &watchWait{watch: q, answer: reply}
	if q.Seen != (queue.Counts{}) {
		w.from = time.Now().Add(watchPace)
	}
	if l.answerWatch(w, false) {
		return
	}
	l.watches[w] = struct{}{}
	l.after(watchPace.Milliseconds(), func(l *leader) {
		if _, waits := l.watches[w]; waits && l.answerWatch(w, false) {
			delete(l.watches, w)
		}
	})
	l.after(q.WaitMS, func(l *leader) {
		if _, waits := l.watches[w]; waits {
			delete(l.watches, w)
			l.answerWatch(w, true)
		}
	})
}

// after runs f on the loop later, at most after ClaimWait.
func (l *leader) after(ms int64, f func(*leader)) {
	wait := min(max(0, time.Duration(ms)*time.Millisecond), l.s.cfg.ClaimWait)
	s := l.s
	time.AfterFunc(wait, func() { s.post(f) })
}

// answerWaits answers those for whom the last entry has brought something.
func (l *leader) answerWaits() {
	for w := range l.owed {
		if l.answerOwed(w) {
			delete(l.owed, w)
		}
	}
	for w := range l.watches {
		if l.answerWatch(w, false) {
			delete(l.watches, w)
		}
	}
}

// owedAtOnce bounds the tasks of one answer.
const owedAtOnce = 128

func (l *leader) answerOwed(w *ownedWait) bool {
	var out owedList
	left := owedAtOnce
	l.s.cfg.Book.Read(func(m *queue.Machine) {
		for _, seq := range m.Owed(w.node) {
			if left <= 0 {
				return
			}
			o := owedJob{Job: seq, Spec: *m.Spec(seq), Tasks: m.OwedTasks(seq, left)}
			left -= len(o.Tasks)
			out.Jobs = append(out.Jobs, o)
		}
	})
	if len(out.Jobs) == 0 {
		return false
	}
	for i := range out.Jobs {
		out.Jobs[i].Voters = l.s.voters()
	}
	w.answer(ok(out))
	return true
}

func (l *leader) answerWatch(w *watchWait, anyway bool) bool {
	var v queue.JobView
	var found bool
	alive := l.s.alive()
	early := !anyway && time.Now().Before(w.from)
	l.s.cfg.Book.Read(func(m *queue.Machine) {
		if early = early && !m.HasEnded(w.Job); !early {
			v, found = m.Job(w.Job, alive)
		}
	})
	switch {
	case early:
		return false
	case !found:
		w.answer(no(noJob(w.Job)))
	case anyway || v.Counts != w.Seen || v.Owed != w.Owed:
		w.answer(ok(v))
	default:
		return false
	}
	return true
}
