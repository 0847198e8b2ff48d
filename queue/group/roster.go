package group

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/crdt"
)

// roster says which node each raft ID of the group is. It is part of the replicated state: additions ride in the
// context of configuration changes, and an ID goes when the configuration no longer has it.
type roster map[uint64]crdt.NodeID

// seat is one addition to the roster.
type seat struct {
	ID   uint64      `cbor:"1,keyasint"`
	Node crdt.NodeID `cbor:"2,keyasint"`
}

func (r roster) seats() []seat {
	out := make([]seat, 0, len(r))
	for _, id := range slices.Sorted(maps.Keys(r)) {
		out = append(out, seat{id, r[id]})
	}
	return out
}

// apply adds the seats of a change's context and drops all that conf no longer has.
func (r roster) apply(context []byte, conf *pb.ConfState) error {
	if len(context) > 0 {
		var seats []seat
		if err := decoder().Unmarshal(context, &seats); err != nil {
			return fmt.Errorf("%w: context of a configuration change: %w", ErrBadEntry, err)
		}
		for _, s := range seats {
			r[s.ID] = s.Node
		}
	}
	maps.DeleteFunc(r, func(id uint64, _ crdt.NodeID) bool { return !inConf(conf, id) })
	return nil
}

func inConf(c *pb.ConfState, id uint64) bool {
	return slices.Contains(c.GetVoters(), id) || slices.Contains(c.GetLearners(), id) ||
		slices.Contains(c.GetVotersOutgoing(), id) || slices.Contains(c.GetLearnersNext(), id)
}

// A snapshot's data: length (4) of a CBOR preface, the preface, the machine's bytes.
type preface struct {
	Version uint   `cbor:"1,keyasint"`
	Conf    []byte `cbor:"2,keyasint"` // raftpb.ConfState
	Seats   []seat `cbor:"3,keyasint"`
}

const snapshotVersion = 1

// image is a decoded snapshot.
type image struct {
	conf    *pb.ConfState
	roster  roster
	machine []byte
}

func (m image) encode() ([]byte, error) {
	conf, err := proto.Marshal(m.conf)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	head, err := encoder().Marshal(preface{Version: snapshotVersion, Conf: conf, Seats: m.roster.seats()})
	if err != nil {
		return nil, fmt.Errorf("encode snapshot preface: %w", err)
	}
	out := make([]byte, 0, 4+len(head)+len(m.machine))
	out = binary.BigEndian.AppendUint32(out, uint32(len(head)))
	return append(append(out, head...), m.machine...), nil
}

// decodeImage reads a snapshot's data; the machine's bytes share its memory.
func decodeImage(b []byte) (image, error) {
	if len(b) < 4 {
		return image{}, fmt.Errorf("snapshot of %d bytes", len(b))
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return image{}, fmt.Errorf("snapshot preface of %d bytes in %d", n, len(b))
	}
	var p preface
	if err := decoder().Unmarshal(b[4:4+n], &p); err != nil {
		return image{}, fmt.Errorf("snapshot preface: %w", err)
	}
	if p.Version != snapshotVersion {
		return image{}, fmt.Errorf("snapshot of version %d, this program reads %d", p.Version, snapshotVersion)
	}
	conf := &pb.ConfState{}
	if err := proto.Unmarshal(p.Conf, conf); err != nil {
		return image{}, fmt.Errorf("snapshot configuration: %w", err)
	}
	m := image{conf: conf, roster: roster{}, machine: b[4+n:]}
	for _, s := range p.Seats {
		m.roster[s.ID] = s.Node
	}
	return m, nil
}

// encoder and decoder hold the one CBOR dialect of this package: deterministic out, strict and bounded in.
func encoder() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.TextMarshaler = cbor.TextMarshalerNone
	m, err := opts.EncMode()
	if err != nil {
		panic(fmt.Sprintf("group: CBOR options: %v", err)) // they are constant
	}
	return m
}

func decoder() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  8,
		MaxArrayElements: 4096,
		MaxMapPairs:      64,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("group: CBOR options: %v", err)) // they are constant
	}
	return m
}
