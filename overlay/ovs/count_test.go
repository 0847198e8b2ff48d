package ovs

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"vcpeer/overlay/flow"
)

// hostFlow is what ovs-vswitchd says of the flow of a host.
func hostFlow(host flow.Slot, frames uint64) []byte {
	b := make([]byte, 80) // the match fills 14 bytes of 16, and there are instructions
	binary.BigEndian.PutUint16(b, uint16(len(b)))
	b[2] = flow.HostTable
	binary.BigEndian.PutUint64(b[24:], ours|1)
	binary.BigEndian.PutUint64(b[32:], frames)
	copy(b[48:], []byte{0, 1, 0, 14, 0x80, 0, 0x06, 0x06})
	copy(b[56:], host.MAC())
	return b
}

func TestRecipients(t *testing.T) {
	var s recipients
	steps := []struct {
		what   string
		frames map[flow.Slot]uint64
		want   []flow.Slot
	}{
		{"at first all count", map[flow.Slot]uint64{1: 5, 2: 0, 3: 9}, []flow.Slot{1, 3}},
		{"one has more", map[flow.Slot]uint64{1: 5, 2: 0, 3: 10}, []flow.Slot{3}},
		{"a flow is new and has seen some", map[flow.Slot]uint64{1: 2, 2: 0, 3: 10}, []flow.Slot{1}},
		{"a flow is new and has seen none", map[flow.Slot]uint64{1: 0, 2: 0, 3: 10}, nil},
		{"a host is new", map[flow.Slot]uint64{1: 0, 2: 0, 3: 10, 4: 1}, []flow.Slot{4}},
		{"nothing happens", map[flow.Slot]uint64{1: 0, 2: 0, 3: 10, 4: 1}, nil},
	}
	for _, step := range steps {
		hosts := slices.Sorted(maps.Keys(step.frames))
		s.begin()
		for i, h := range hosts { // each in a part of its own
			last := i == len(hosts)-1
			if got := s.take(hostFlow(h, step.frames[h]), !last); got != last {
				t.Fatalf("%s: part %d: %v", step.what, i, got)
			}
		}
		if !slices.Equal(s.lately, step.want) {
			t.Errorf("%s: %v, want %v", step.what, s.lately, step.want)
		}
	}
	if s.take(hostFlow(1, 99), false) {
		t.Error("an answer to no question counts")
	}
}

// FuzzHostFrames: whatever comes is read without harm, and every host with its frames out of a list that is whole.
func FuzzHostFrames(f *testing.F) {
	f.Add(slices.Concat(hostFlow(1, 2), hostFlow(0x304, 5)))
	f.Add(hostFlow(1, 2)[:60])
	f.Fuzz(func(t *testing.T, body []byte) {
		read := 0
		for range hostFrames(body) {
			read++
		}
		if read > len(body)/62 {
			t.Errorf("%d hosts in %d bytes", read, len(body))
		}
		list := append(hostFlow(7, 3), body...)
		for h, n := range hostFrames(list) {
			if h != 7 || n != 3 {
				t.Errorf("first comes %d with %d", h, n)
			}
			break
		}
	})
}

// A frame that is put through the tables is told of, with the host that it is for.
func TestWhoIsSentTo(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	want := flow.Tables{Flows: []flow.Flow{
		{Table: flow.DataTable, Priority: 1, Actions: "drop"},
		{Table: flow.HostTable, Priority: 0, Actions: "drop"},
	}}
	for _, host := range []flow.Slot{0x0102, 0x0304, 0x0506} {
		want.Flows = append(want.Flows, flow.Flow{Table: flow.HostTable, Priority: 10, Match: fmt.Sprintf("dl_dst=%s", host.MAC()), Actions: "drop"})
	}
	program(t, s, want)
	send := func(to flow.Slot) {
		frame := slices.Concat(to.MAC(), flow.Slot(1).MAC(), []byte{0x08, 0}, make([]byte, 50))
		live.Ofctl(t, "packet-out", "br0", fmt.Sprintf("in_port=LOCAL packet=%s actions=resubmit(,%d),resubmit(,%d)", hex.EncodeToString(frame), flow.HostTable, flow.DataTable))
	}
	for _, host := range []flow.Slot{0x0304, 0x0102} {
		again := time.NewTicker(200 * time.Millisecond) // what came before the first look does not count
		defer again.Stop()
		told := func() bool {
			select {
			case <-again.C:
				send(host)
			case ev := <-s.Events():
				return ev.Kind == Busy && slices.Equal(ev.Hosts, []flow.Slot{host})
			}
			return false
		}
		for end := time.Now().Add(20 * time.Second); !told(); {
			if time.Now().After(end) {
				t.Fatalf("not told of frames to %v", host.MAC())
			}
		}
	}
}
