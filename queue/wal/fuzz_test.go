package wal

import (
	"bytes"
	"testing"
)

// FuzzScan feeds a segment with arbitrary bytes behind a good header: no panic, and what is accepted is encoded alike.
func FuzzScan(f *testing.F) {
	const salt = 0x01020305
	head := appendSegmentHeader(nil, salt, 1, 0)
	good := appendRecord(nil, salt, record{kind: kindEntry, synced: 32, body: encodeEntry(Entry{Index: 1, Term: 1, Data: []byte("x")})})
	good = appendRecord(good, salt, record{kind: kindHard, last: true, synced: 32, body: encodeHard(HardState{Term: 1})})
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add(append(make([]byte, 24), good...))
	f.Add(appendRecord(nil, salt, record{kind: kindMarker, last: true, body: encodeMarker(Marker{Index: 5, Term: 2, Reset: true})}))
	f.Add(appendRecord(nil, salt, record{kind: kindIdentity, last: true, body: encodeIdentity(Identity{ID: 3, Owner: "o"})}))
	f.Fuzz(func(t *testing.T, b []byte) {
		data := append(append([]byte(nil), head...), b...)
		for _, lastSegment := range []bool{true, false} {
			var again []byte
			var bld builder
			s, err := scan(data, lastSegment, func(r record) error {
				again = appendRecord(again, salt, r)
				_, err := bld.visit(r)
				return err
			})
			if err == nil && s.end%recordAlign != 0 {
				t.Errorf("end at %d is not aligned", s.end)
			}
			if n := len(again); err == nil && n != int(s.end)-segmentHeaderBytes {
				t.Errorf("%d bytes of records, %d when encoded again", int(s.end)-segmentHeaderBytes, n)
			}
		}
	})
}

// FuzzSnapshot feeds the snapshot decoder.
func FuzzSnapshot(f *testing.F) {
	s := Snapshot{Index: 9, Term: 3, Data: []byte("state")}
	f.Add(append(snapshotHeader(s), s.Data...))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeSnapshot(b)
		if err != nil {
			return
		}
		again := append(snapshotHeader(got), got.Data...)
		if !bytes.Equal(again[:12], b[:12]) || !bytes.Equal(again[16:], b[16:]) && bytes.Equal(b[12:16], make([]byte, 4)) {
			t.Errorf("accepted %x, which is %x when encoded again", b, again)
		}
	})
}
