package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A record on disk, little endian, padded with zeros to a multiple of 8 bytes:
//
//	0  crc32c of all that follows but the padding
//	4  length of the body
//	8  kind
//	9  flags: 1 = last record of its batch
//	10 two zero bytes
//	12 salt of the log, so that no payload passes for a record
//	16 synced: the segment's bytes up to this offset were durable when this record was written
//	24 body
const (
	recordHeaderBytes = 24
	recordAlign       = 8
	// maxBodyBytes refuses a length that no batch of ours can have, before memory is spent on it.
	maxBodyBytes = 64 << 20
	flagLast     = 1

	hardBytes        = 24
	markerBytes      = 17
	entryHeaderBytes = 17
)

type kind byte

const (
	kindIdentity kind = 1 + iota
	kindHard
	kindEntry
	kindMarker
	kindClosed
	kindEnd // first unused number
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errEnd     = errors.New("end of records")
	errRecord  = errors.New("bad record")
)

type record struct {
	kind   kind
	last   bool
	synced int64
	body   []byte
}

// appendRecord appends the encoding of r to dst. len(dst) must be a multiple of recordAlign.
func appendRecord(dst []byte, salt uint32, r record) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, recordHeaderBytes)...)
	dst = append(dst, r.body...)
	h := dst[start:]
	binary.LittleEndian.PutUint32(h[4:], uint32(len(r.body)))
	h[8] = byte(r.kind)
	if r.last {
		h[9] = flagLast
	}
	binary.LittleEndian.PutUint32(h[12:], salt)
	binary.LittleEndian.PutUint64(h[16:], uint64(r.synced))
	binary.LittleEndian.PutUint32(h, crc32.Checksum(h[4:], castagnoli))
	return append(dst, make([]byte, padding(len(r.body)))...)
}

func padding(n int) int { return -n & (recordAlign - 1) }

// decodeRecord reads the record at the start of b and returns its size with padding. The body shares b's memory.
// errEnd: b is empty or starts with zeros, as after the last record. errRecord: anything else that is no record.
func decodeRecord(b []byte, salt uint32) (record, int, error) {
	if len(b) < recordHeaderBytes {
		if allZero(b) {
			return record{}, 0, errEnd
		}
		return record{}, 0, errRecord
	}
	if allZero(b[:recordHeaderBytes]) {
		return record{}, 0, errEnd
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	k, flags := kind(b[8]), b[9]
	switch {
	case n > maxBodyBytes, n+padding(n) > len(b)-recordHeaderBytes:
		return record{}, 0, errRecord
	case k == 0 || k >= kindEnd, flags&^flagLast != 0, b[10] != 0, b[11] != 0:
		return record{}, 0, errRecord
	case binary.LittleEndian.Uint32(b[12:]) != salt:
		return record{}, 0, errRecord
	case crc32.Checksum(b[4:recordHeaderBytes+n], castagnoli) != binary.LittleEndian.Uint32(b):
		return record{}, 0, errRecord
	}
	synced := binary.LittleEndian.Uint64(b[16:])
	if synced > 1<<62 {
		return record{}, 0, errRecord
	}
	size := recordHeaderBytes + n + padding(n)
	r := record{kind: k, last: flags&flagLast != 0, synced: int64(synced), body: b[recordHeaderBytes : recordHeaderBytes+n : recordHeaderBytes+n]}
	return r, size, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func encodeIdentity(id Identity) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id.ID)
	return append(b, id.Owner...)
}

func decodeIdentity(b []byte) (Identity, error) {
	if len(b) < 8 {
		return Identity{}, fmt.Errorf("identity of %d bytes: %w", len(b), errRecord)
	}
	return Identity{ID: binary.LittleEndian.Uint64(b), Owner: string(b[8:])}, nil
}

func encodeHard(h HardState) []byte {
	b := binary.LittleEndian.AppendUint64(nil, h.Term)
	b = binary.LittleEndian.AppendUint64(b, h.Vote)
	return binary.LittleEndian.AppendUint64(b, h.Commit)
}

func decodeHard(b []byte) (HardState, error) {
	if len(b) != hardBytes {
		return HardState{}, fmt.Errorf("hard state of %d bytes: %w", len(b), errRecord)
	}
	return HardState{
		Term:   binary.LittleEndian.Uint64(b),
		Vote:   binary.LittleEndian.Uint64(b[8:]),
		Commit: binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

func encodeEntry(e Entry) []byte {
	b := make([]byte, 0, entryHeaderBytes+len(e.Data))
	b = binary.LittleEndian.AppendUint64(b, e.Index)
	b = binary.LittleEndian.AppendUint64(b, e.Term)
	return append(append(b, e.Type), e.Data...)
}

// decodeEntry copies the data: the segment it was read from is not kept.
func decodeEntry(b []byte) (Entry, error) {
	if len(b) < entryHeaderBytes {
		return Entry{}, fmt.Errorf("entry of %d bytes: %w", len(b), errRecord)
	}
	e := Entry{Index: binary.LittleEndian.Uint64(b), Term: binary.LittleEndian.Uint64(b[8:]), Type: b[16]}
	if len(b) > entryHeaderBytes {
		e.Data = append([]byte(nil), b[entryHeaderBytes:]...)
	}
	return e, nil
}

func encodeMarker(m Marker) []byte {
	b := binary.LittleEndian.AppendUint64(nil, m.Index)
	b = binary.LittleEndian.AppendUint64(b, m.Term)
	if m.Reset {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeMarker(b []byte) (Marker, error) {
	if len(b) != markerBytes || b[16] > 1 {
		return Marker{}, fmt.Errorf("snapshot marker of %d bytes: %w", len(b), errRecord)
	}
	return Marker{Index: binary.LittleEndian.Uint64(b), Term: binary.LittleEndian.Uint64(b[8:]), Reset: b[16] == 1}, nil
}
