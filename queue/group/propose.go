package group

import (
	"encoding/binary"
	"errors"

	"go.etcd.io/raft/v3"
)

// propose takes a proposal; its outcome comes by p.done.
func (c *core) propose(p *proposal) {
	if !c.leading() {
		p.done(nil, ErrNotLeader{c.leader()})
		return
	}
	c.waiting = append(c.waiting, p)
}

// flush turns the waiting proposals into entries, as many commands into each as fit. There is no timer: while an
// entry is being written the next proposals gather.
func (c *core) flush() {
	for len(c.waiting) > 0 {
		n, commands, bytes := 0, [][]byte(nil), 0
		for _, p := range c.waiting {
			if n > 0 && (len(commands)+len(p.commands) > MaxCommands || bytes+p.size() > MaxBytes) {
				break
			}
			commands = append(commands, p.commands...)
			bytes += p.size()
			n++
		}
		c.seq++
		b := batch{origin: c.origin, seq: c.seq, commands: commands}
		if err := c.node.Propose(b.encode()); err != nil {
			c.failWaiting(c.refusal(err))
			return
		}
		c.proposed[c.seq] = append([]*proposal(nil), c.waiting[:n]...)
		clear(c.waiting[:n])
		c.waiting = c.waiting[n:]
	}
	c.waiting = nil
}

// refusal says why raft did not take a proposal. Nothing of it is in the log.
func (c *core) refusal(err error) error {
	if !errors.Is(err, raft.ErrProposalDropped) {
		return err
	}
	if st := c.node.BasicStatus(); st.RaftState != raft.StateLeader {
		return ErrNotLeader{c.roster[st.Lead]}
	}
	return ErrBusy
}

func (c *core) failWaiting(err error) {
	for _, p := range c.waiting {
		p.done(nil, err)
	}
	c.waiting = nil
}

func (c *core) failProposed(err error) {
	for _, ps := range c.proposed {
		for _, p := range ps {
			p.done(nil, err)
		}
	}
	clear(c.proposed)
}

// reads are the linearizable reads (Ongaro 2014, section 6.4): those waiting share one question to the leader.
type reads struct {
	waiting []*read // not yet asked for
	asked   []*read // their question is on its way
	granted []*read // index known, not yet applied
	ticket  uint64  // of the question on its way
	since   uint64  // tick of the question
}

// read is one call of ReadIndex.
type read struct {
	index uint64
	gone  func() bool // the caller waits no more
	done  func(error)
}

// ask sends the question for all that wait, one at a time. A leader asks only once it has settled: a group of one would
// otherwise answer with a commit index from before its restart.
func (r *reads) ask(c *core) {
	if len(r.waiting) == 0 || len(r.asked) > 0 || c.soft.Lead == 0 || (c.leading() && !c.settled) {
		return
	}
	r.asked, r.waiting = r.waiting, nil
	r.ticket++
	r.since = c.ticks
	c.node.ReadIndex(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.origin), r.ticket))
}

// confirm takes the answers that raft brings.
func (r *reads) confirm(states []raft.ReadState) {
	for _, s := range states {
		if len(s.RequestCtx) != 16 || binary.BigEndian.Uint64(s.RequestCtx[8:]) != r.ticket {
			continue
		}
		for _, q := range r.asked {
			q.index = s.Index
		}
		r.granted, r.asked = append(r.granted, r.asked...), nil
	}
}

// release answers the reads whose index is applied.
func (r *reads) release(applied uint64) {
	kept := r.granted[:0]
	for _, q := range r.granted {
		if q.index > applied {
			kept = append(kept, q)
			continue
		}
		q.done(nil)
	}
	clear(r.granted[len(kept):])
	r.granted = kept
}

// expire asks again what was not answered within an election timeout: questions and answers may get lost. It forgets
// reads whose callers have gone.
func (r *reads) expire(c *core) {
	if len(r.asked) > 0 && c.ticks-r.since > uint64(c.cfg.ElectionTicks) {
		r.waiting, r.asked = append(r.asked, r.waiting...), nil
	}
	kept := r.waiting[:0]
	for _, q := range r.waiting {
		if q.gone() {
			q.done(ErrStopped)
			continue
		}
		kept = append(kept, q)
	}
	clear(r.waiting[len(kept):])
	r.waiting = kept
}

// fail ends all reads.
func (r *reads) fail(err error) {
	for _, q := range append(append(r.waiting, r.asked...), r.granted...) {
		q.done(err)
	}
	r.waiting, r.asked, r.granted = nil, nil, nil
}
