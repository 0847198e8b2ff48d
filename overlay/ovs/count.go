package ovs

import (
	"encoding/binary"
	"io"
	"slices"

	"vcpeer/overlay/flow"
)

// count asks how many flows of ours there are: those with our magic, without those that are left to learn(). It asks too
// whether flow.DataTable has seen frames since it was last asked, and if so, for which hosts.
type count struct {
	w    *watcher
	xid  uint32 // of the last question of a round
	turn uint64 // when the round was asked
	left int    // answers to come about flows
	sum  int64

	frames uint64 // that flow.DataTable has seen; fewer than before: some flows are new
	hosts  recipients
}

const (
	allTables = 0xff // OFPTT_ALL
	ours      = uint64(flow.Magic) << 48
	hostsXID  = 1 << 31 // marks the question for hosts, which belongs to no round
)

func (n *count) ask(out io.Writer) error {
	n.turn, n.left, n.sum = n.w.turn.Load(), 1+len(n.w.leave), 0
	batch := n.question(nil, flow.DataTable, ours, flow.CookieMask)
	batch = n.question(batch, allTables, ours, flow.CookieMask)
	for _, c := range n.w.leave {
		batch = n.question(batch, allTables, c, ^uint64(0))
	}
	_, err := out.Write(batch)
	return err
}

// question appends an aggregate request for the flows of a table with such cookies.
func (n *count) question(b []byte, table byte, cookie, mask uint64) []byte {
	n.xid = (n.xid + 1) % hostsXID
	return append(b, message(ofMultipartRequest, n.xid, flowRequest(ofAggregate, table, cookie, mask))...)
}

// flowRequest asks about the flows of a table with such cookies, whatever they match (ofp_flow_stats_request, which an
// aggregate request is alike).
func flowRequest(kind, table byte, cookie, mask uint64) []byte {
	body := []byte{0, kind, 0, 0, 0, 0, 0, 0, table, 0, 0, 0}
	body = append(body, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
	body = binary.BigEndian.AppendUint64(body, cookie)
	body = binary.BigEndian.AppendUint64(body, mask)
	return append(body, 0, 1, 0, 4, 0, 0, 0, 0) // no match fields
}

// answer takes one reply, and asks for hosts when there were frames.
func (n *count) answer(xid uint32, body []byte, out io.Writer) error {
	switch {
	case len(body) < 8:
	case binary.BigEndian.Uint16(body) == ofFlow && xid == hostsXID:
		if more := body[3]&1 != 0; n.hosts.take(body[8:], more) {
			n.w.mail.put(Event{Kind: Busy, Bridge: n.w.name, Hosts: n.hosts.lately})
		}
	case binary.BigEndian.Uint16(body) == ofAggregate && len(body) >= 32:
		packets, flows := binary.BigEndian.Uint64(body[8:]), int64(binary.BigEndian.Uint32(body[24:]))
		switch ago, flowQuestions := (n.xid-xid)%hostsXID, uint32(1+len(n.w.leave)); {
		case ago == flowQuestions:
			return n.moved(packets, out)
		case ago < flowQuestions:
			n.counted(flows, ago == flowQuestions-1)
		}
	}
	return nil
}

// moved takes how many frames flow.DataTable has seen.
func (n *count) moved(packets uint64, out io.Writer) error {
	more := packets > n.frames && n.frames > 0
	n.frames = max(packets, 1)
	if !more {
		return nil
	}
	n.hosts.begin()
	_, err := out.Write(message(ofMultipartRequest, hostsXID, flowRequest(ofFlow, flow.HostTable, ours, flow.CookieMask)))
	return err
}

// counted takes how many flows there are, of ours or of those that are left; with the last of a round it compares.
func (n *count) counted(flows int64, own bool) {
	if !own {
		flows = -flows
	}
	n.sum += flows
	if n.left--; n.left > 0 {
		return
	}
	expect := n.w.expect.Load()
	if n.turn%2 == 1 || n.turn != n.w.turn.Load() || expect < 0 || n.sum == expect {
		return
	}
	n.w.touched.Store(true)
	n.w.expect.Store(-1) // told once; Program sets it anew
	n.w.log.Info("somebody changed flows", "want", expect, "have", n.sum)
	n.w.mail.put(Event{Kind: Changed, Bridge: n.w.name})
}

// recipients remembers how many frames flow.HostTable has seen for each host.
type recipients struct {
	frames map[flow.Slot]uint64 // before the answer that comes …
	next   map[flow.Slot]uint64 // … and by what has come of it
	lately []flow.Slot          // whom frames went to between the last two answers, in order
}

func (r *recipients) begin() { r.next = map[flow.Slot]uint64{} }

// take takes a part of an answer; true: it was the last one.
func (r *recipients) take(body []byte, more bool) bool {
	if r.next == nil {
		return false
	}
	for host, frames := range hostFrames(body) {
		r.next[host] = frames
	}
	if more {
		return false
	}
	r.lately = nil
	for host, frames := range r.next {
		if frames != r.frames[host] && frames > 0 { // fewer than before: the flow is new, and what it has seen came since
			r.lately = append(r.lately, host)
		}
	}
	slices.Sort(r.lately)
	r.frames, r.next = r.next, nil
	return true
}

// hostFrames yields the host of each flow that matches just one's MAC address, and the frames that it has seen, from a list
// of ofp_flow_stats.
func hostFrames(body []byte) func(yield func(flow.Slot, uint64) bool) {
	const matchAt, ethDst = 48, 0x80000606 // an OXM header: OXM_OF_ETH_DST without mask, 6 bytes
	return func(yield func(flow.Slot, uint64) bool) {
		for len(body) >= matchAt {
			size := int(binary.BigEndian.Uint16(body))
			if size < matchAt || size > len(body) {
				return
			}
			entry := body[:size]
			body = body[size:]
			match := entry[matchAt:]
			if len(match) < 14 || binary.BigEndian.Uint16(match[2:]) != 14 || binary.BigEndian.Uint32(match[4:]) != ethDst {
				continue
			}
			host, ok := flow.SlotOf([6]byte(match[8:14]))
			if ok && !yield(host, binary.BigEndian.Uint64(entry[32:])) {
				return
			}
		}
	}
}
