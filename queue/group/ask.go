package group

import (
	"bytes"
	"context"
	"net"
	"slices"
	"time"

	"vcpeer/crdt"
)

// A raft ID belongs to a directory, which only its node can read. So the leader asks each node of the site for it,
// over the fabric that proves who answers, and tells on the same occasion who leads. That is how a node without a
// group is found, how a wiped disk shows, and how a removed member learns of it.

// asked is what a node last answered.
type asked struct {
	id      uint64
	at      time.Duration // of the last question, in the core's time
	pending bool
}

// hint is what a leader told about its group.
type hint struct {
	term   uint64
	leader crdt.NodeID
}

const (
	// maxAsking bounds the questions on their way.
	maxAsking = 8
	// askTimeout bounds one question.
	askTimeout = 2 * time.Second
	// answerLasts is how long an answer counts for a node that answers no more.
	answerLasts = 10 * time.Second
)

// applicants joins gossip's view of the site with the answers.
func (l *loop) applicants() []Applicant {
	var out []Applicant
	for _, c := range l.cfg.Peers() {
		a := Applicant{Node: c.ID, Alive: c.Alive, Gone: c.Gone, ID: l.asked[c.ID].id}
		if c.ID == l.cfg.Self {
			a.ID = l.id
		}
		out = append(out, a)
	}
	return out
}

// ask sends the next questions, the longest unasked nodes first.
func (l *loop) ask() {
	if !l.core.leading() || l.parked {
		clear(l.asked)
		return
	}
	now, asking := l.core.now(), 0
	var todo []crdt.NodeID
	for _, c := range l.cfg.Peers() {
		a := l.asked[c.ID]
		if a.pending {
			asking++
		} else if c.Alive && !c.Gone && c.ID != l.cfg.Self {
			todo = append(todo, c.ID)
		}
	}
	slices.SortFunc(todo, func(a, b crdt.NodeID) int {
		if d := l.asked[a].at - l.asked[b].at; d != 0 {
			return int(min(1, max(-1, d)))
		}
		return bytes.Compare(a[:], b[:])
	})
	question := hello{Purpose: forAsking, Site: l.cfg.Site, Term: l.core.term, Leader: l.cfg.Self}
	for _, s := range l.core.roster.seats() {
		question.Members = append(question.Members, s.ID)
	}
	for _, node := range todo[:min(len(todo), max(0, maxAsking-asking))] {
		a := l.asked[node]
		a.at, a.pending = now, true
		l.asked[node] = a
		l.net.goDo(func(ctx context.Context) {
			id, err := l.net.ask(ctx, node, question)
			l.net.later(func(l *loop) { l.answered(node, id, err) })
		})
	}
}

// answered notes an answer or its lack.
func (l *loop) answered(node crdt.NodeID, id uint64, err error) {
	a := l.asked[node]
	a.pending = false
	switch {
	case err == nil:
		a.id, a.at = id, l.core.now()
	case l.core.now()-a.at > answerLasts:
		a.id = 0
	}
	l.asked[node] = a
}

// told notes what a leader says while it asks.
func (l *loop) told(q hello) {
	if q.Term < max(l.hint.term, l.core.term) {
		return
	}
	l.hint = hint{term: q.Term, leader: q.Leader}
	// A removed member may never see the entry that removed it; without this it would campaign for ever.
	l.core.removed = !slices.Contains(q.Members, l.id)
}

// ask asks one node for its raft ID.
func (t *transport) ask(ctx context.Context, node crdt.NodeID, q hello) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := t.fabric.Open(ctx, node, Proto)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := writeCBOR(conn, q); err != nil {
		return 0, err
	}
	var a answer
	if err := readCBOR(conn, maxHelloBytes, &a); err != nil {
		return 0, err
	}
	return a.ID, nil
}

// answerAsk answers a leader and passes on what it told. Only the leader itself may say who leads.
func (g *Group) answerAsk(from crdt.NodeID, c net.Conn, q hello) error {
	if q.Leader == from {
		select {
		case g.requests <- func(l *loop) {
			if l.siteNodes()[from] {
				l.told(q)
			}
		}:
		case <-g.stopped:
			return ErrStopped
		}
	}
	return writeCBOR(c, answer{ID: g.loop.id})
}
