package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/crdt"
)

// Proto is the name of the group's streams on the fabric.
//
// A stream starts with a frame that holds a hello; a frame is a length (4 bytes, big endian) and so many bytes. Then:
//
//	messages  frames with one raftpb.Message each, from opener to acceptor, until either closes
//	snapshot  a frame with the MsgSnap without data, then length (8 bytes) and bytes of the snapshot; the acceptor
//	          answers with a frame that holds an answer
//	ask       the acceptor answers with a frame that holds an answer
const Proto = "/vcpeer/raft/1"

const (
	maxSiteBytes     = 256
	maxHelloBytes    = 1024
	maxMessageBytes  = 8 << 20
	maxSnapshotBytes = 1 << 30
)

// purpose of a stream.
type purpose uint8

const (
	forMessages purpose = 1 + iota
	forSnapshot
	forAsking
)

// hello opens a stream.
type hello struct {
	Purpose purpose `cbor:"1,keyasint"`
	Site    string  `cbor:"2,keyasint"`
	// When asking, the leader also tells: who leads in which term, and whether the asked ID is a member.
	Term    uint64      `cbor:"3,keyasint,omitempty"`
	Leader  crdt.NodeID `cbor:"4,keyasint,omitempty"`
	Members []uint64    `cbor:"5,keyasint,omitempty"`
}

// answer ends a snapshot or an asking stream.
type answer struct {
	ID uint64 `cbor:"1,keyasint"` // raft ID of the answering directory
}

var errFrame = errors.New("bad frame")

func writeFrame(w io.Writer, b []byte) error {
	// One write, so that a frame costs one packet where it fits.
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

// readFrame reads a frame of at most limit bytes.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errFrame, n, limit)
	}
	return readN(r, int64(n))
}

// readN reads n bytes. Memory grows with what really comes.
func readN(r io.Reader, n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func writeCBOR(w io.Writer, v any) error {
	b, err := encoder().Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, b)
}

func readCBOR(r io.Reader, limit int, v any) error {
	b, err := readFrame(r, limit)
	if err != nil {
		return err
	}
	if err := decoder().Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// decodeMessage reads a raft message and refuses what would harm raft: entries that do not follow each other, local types.
func decodeMessage(b []byte) (*pb.Message, error) {
	m := &pb.Message{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	if !fromMembers(m.GetType()) || len(m.GetResponses()) > 0 || m.GetTerm() == 0 && m.GetType() != pb.MsgReadIndex && m.GetType() != pb.MsgReadIndexResp {
		return nil, fmt.Errorf("%w: message of type %v and term %d", errFrame, m.GetType(), m.GetTerm())
	}
	if m.GetType() == pb.MsgReadIndex && len(m.GetEntries()) != 1 {
		return nil, fmt.Errorf("%w: read of %d entries", errFrame, len(m.GetEntries()))
	}
	if m.GetType() != pb.MsgApp {
		return m, nil
	}
	for i, e := range m.GetEntries() {
		if e.GetIndex() != m.GetIndex()+uint64(i)+1 || e.GetTerm() > m.GetTerm() || e.GetTerm() == 0 {
			return nil, fmt.Errorf("%w: entry %d of term %d after %d", errFrame, e.GetIndex(), e.GetTerm(), m.GetIndex())
		}
	}
	return m, nil
}
