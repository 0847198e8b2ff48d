package group

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func FuzzBatch(f *testing.F) {
	f.Add(batch{origin: 1, seq: 2, commands: [][]byte{[]byte("a"), nil}}.encode())
	f.Add([]byte{batchVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeBatch(b)
		if err != nil {
			return
		}
		again, err := decodeBatch(got.encode())
		if err != nil || again.origin != got.origin || !slices.EqualFunc(again.commands, got.commands, bytes.Equal) {
			t.Errorf("%x: %v", b, err)
		}
	})
}

func FuzzImage(f *testing.F) {
	b, err := image{conf: &pb.ConfState{Voters: []uint64{1}}, roster: roster{1: nodeID(1)}, machine: []byte("m")}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if img, err := decodeImage(b); err == nil && img.conf == nil {
			t.Error("no configuration and no error")
		}
	})
}

// FuzzStream feeds what another node may send: a hello, then messages, to a member of a group. Nothing may panic, and
// nothing that decodeMessage lets pass may be of a kind that only raft itself makes.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	if err := writeCBOR(&b, hello{Purpose: forMessages, Site: "s"}); err != nil {
		f.Fatal(err)
	}
	m, err := proto.Marshal(&pb.Message{Type: pb.MsgApp.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(3)),
		Entries: []*pb.Entry{{Index: new(uint64(1)), Term: new(uint64(3)), Data: []byte("x")}}})
	if err != nil {
		f.Fatal(err)
	}
	if err := writeFrame(&b, m); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var h hello
		if err := readCBOR(r, maxHelloBytes, &h); err != nil {
			return
		}
		for {
			frame, err := readFrame(r, maxMessageBytes)
			if err != nil {
				return
			}
			if m, err := decodeMessage(frame); err == nil && (!fromMembers(m.GetType()) || len(m.GetResponses()) > 0) {
				t.Errorf("accepted %v", m)
			}
		}
	})
}

func TestAccepts(t *testing.T) {
	c := &core{id: 1, roster: roster{1: nodeID(1), 2: nodeID(2)}}
	msg := func(from, to uint64, kind pb.MessageType) *pb.Message {
		return &pb.Message{From: new(from), To: new(to), Type: kind.Enum()}
	}
	for _, tt := range []struct {
		name     string
		node     int
		siteNode bool
		m        *pb.Message
		want     bool
	}{
		{"member", 2, true, msg(2, 1, pb.MsgApp), true},
		{"another node with a member's ID", 3, true, msg(2, 1, pb.MsgApp), false},
		{"unknown ID of a node of the site", 3, true, msg(9, 1, pb.MsgApp), true},
		{"unknown ID of a node of another site", 3, false, msg(9, 1, pb.MsgApp), false},
		{"for a directory that was here before", 2, true, msg(2, 7, pb.MsgApp), false},
		{"our own ID", 2, true, msg(1, 1, pb.MsgApp), false},
		{"no ID", 2, true, msg(0, 1, pb.MsgApp), false},
		{"proposal", 2, true, msg(2, 1, pb.MsgProp), false},
		{"raft's own kind", 2, true, msg(2, 1, pb.MsgHup), false},
		{"raft's own kind", 2, true, msg(2, 1, pb.MsgStorageAppendResp), false},
	} {
		if got := c.accepts(nodeID(tt.node), tt.siteNode, tt.m); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A leader that says we acknowledged more than we have ends the member: the directory is an older copy.
func TestRolledBackDirectoryIsRefused(t *testing.T) {
	s := newSim(t, 1, 1)
	c := s.members[0].core
	err := guard(func() error {
		return c.step(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(c.id), Term: new(uint64(9)), Commit: new(uint64(1000))})
	})
	if !errors.Is(err, ErrRolledBack) {
		t.Errorf("a commit index beyond the log: %v, want ErrRolledBack", err)
	}
}
