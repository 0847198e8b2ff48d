package site

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/queue"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	in := queue.JobView{Seq: 7, Submitted: time.Unix(1, 23).UTC(), Nodes: []crdt.NodeID{{1}}, Counts: queue.Counts{Total: 3}}
	if err := writeFrame(&b, in); err != nil {
		t.Fatal(err)
	}
	var out queue.JobView
	if err := readFrame(&b, &out); err != nil {
		t.Fatal(err)
	}
	if out.Seq != 7 || !out.Submitted.Equal(in.Submitted) || !out.Ended.IsZero() || out.Nodes[0] != in.Nodes[0] || out.Counts != in.Counts {
		t.Errorf("got %+v, want %+v", out, in)
	}
	huge := binary.BigEndian.AppendUint32(nil, maxFrame+1)
	if err := readFrame(bytes.NewReader(huge), &out); !errors.Is(err, errFrame) {
		t.Errorf("a huge length: %v", err)
	}
	short := binary.BigEndian.AppendUint32(nil, maxFrame)
	if err := readFrame(bytes.NewReader(short), &out); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a length without a body: %v", err)
	}
	garbage := append(binary.BigEndian.AppendUint32(nil, 3), 0xff, 0xff, 0xff)
	if err := readFrame(bytes.NewReader(garbage), &out); !errors.Is(err, errFrame) {
		t.Errorf("garbage: %v", err)
	}
	if err := writeFrame(io.Discard, make([]byte, maxFrame)); err == nil {
		t.Error("a message over the limit is written")
	}
}

// FuzzFrame wants any bytes to be read as a message or refused, within the memory that they themselves take.
func FuzzFrame(f *testing.F) {
	for _, v := range []any{question{Op: opClaim, Body: []byte{0xa0}}, answer{Err: &queue.Error{Code: queue.Busy}}, grantedList{[]granted{{Node: crdt.NodeID{1}}}}} {
		var b bytes.Buffer
		if err := writeFrame(&b, v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{&question{}, &answer{}, &grantedList{}, &owedList{}, &jobDetail{}, &attemptMeta{}} {
			err := readFrame(bytes.NewReader(data), v)
			if err == nil {
				if err := writeFrame(io.Discard, v); err != nil {
					t.Errorf("%T: what was read cannot be written: %v", v, err)
				}
			}
		}
	})
}

// FuzzHandle wants a leader to live on whatever a member asks it.
func FuzzHandle(f *testing.F) {
	for _, s := range []struct {
		op   op
		body any
	}{
		{opClaim, claim{ID: 1, Slots: 1}}, {opPull, pull{[]queue.Offer{{Node: nodeID(2), Slots: 1}}}}, {opRenew, renewal{[]queue.Ref{{Job: 1, Task: 1, Epoch: 1}}}},
		{opReport, report{Release: &queue.Release{Ref: queue.Ref{Job: 1}}}}, {opSubmit, queue.Submit{}}, {opCancel, cancel{Job: 1, Tasks: &queue.Range{First: 1, Last: 2, Step: 1}}},
		{opOwed, owed{}}, {opBack, queue.Returned{Job: 1, Tasks: []int{1}}}, {opList, list{}}, {opGet, get{Job: 1}}, {opWhy, get{Job: 1}}, {opWatch, watch{Job: 1}}, {"?", none{}},
	} {
		q, err := ask(s.op, s.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(q.Op), []byte(q.Body))
	}
	f.Fuzz(func(t *testing.T, o string, body []byte) {
		bubble.Test(t, func(t *testing.T) {
			c := newCluster(t, 1)
			n := c.add("s1", 1, 1)
			n.start()
			submit(t, n, array(jobSpec(n, "fuzz", "1s"), 3))
			n.svc.handle(t.Context(), nodeID(2), question{op(o), body})
			if _, _, err := n.svc.Get(t.Context(), queue.JobID{Seq: 1}, 0, 0); err != nil {
				t.Errorf("after the question: %v", err)
			}
			c.stopAll()
		})
	})
}
