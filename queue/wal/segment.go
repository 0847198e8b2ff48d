package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment file starts with this header, little endian:
//
//	0  magic
//	8  format version
//	12 salt of the log
//	16 sequence number of the segment
//	24 crc32c of bytes 0..24
//	28 where the records of the segment before it end, in units of 8 bytes; 0: it does not say
//
// It is followed by one batch that repeats identity, hard state and marker, so that older segments can go. Header and
// that batch are durable before the file gets its name: a segment that starts badly is damaged, never torn.
const (
	segmentHeaderBytes = 32
	segmentMagic       = "vcwal\x00\r\n"
	segmentVersion     = 1
	segmentSuffix      = ".wal"
)

type segment struct {
	seq  uint64
	last uint64 // highest index of an entry in it, 0 without entries
}

func (l *Log) segmentPath(seq uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016x%s", seq, segmentSuffix))
}

// parseSegmentName returns the sequence number in a segment's file name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil
}

// appendSegmentHeader appends the header of segment seq. before is where the segment before it ends, 0 without one.
func appendSegmentHeader(dst []byte, salt uint32, seq uint64, before int64) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, segmentVersion)
	dst = binary.LittleEndian.AppendUint32(dst, salt)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	units := before / recordAlign
	if units > math.MaxUint32 {
		units = 0
	}
	return binary.LittleEndian.AppendUint32(dst, uint32(units))
}

// decodeSegmentHeader returns what the header alone says.
func decodeSegmentHeader(b []byte) (scanned, error) {
	if len(b) < segmentHeaderBytes || string(b[:8]) != segmentMagic {
		return scanned{}, errors.New("no segment header")
	}
	if crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]) {
		return scanned{}, errors.New("bad checksum of the segment header")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return scanned{}, fmt.Errorf("segment of format %d, this program reads %d", v, segmentVersion)
	}
	return scanned{
		salt: binary.LittleEndian.Uint32(b[12:]), seq: binary.LittleEndian.Uint64(b[16:]),
		before: int64(binary.LittleEndian.Uint32(b[28:])) * recordAlign,
		end:    segmentHeaderBytes, synced: segmentHeaderBytes,
	}, nil
}

// scanned is what scan found in one segment.
type scanned struct {
	salt   uint32
	seq    uint64
	before int64 // where the segment before it must end, 0: not known
	end    int64 // offset after the last whole batch
	synced int64 // below it all was durable before the last whole batch was written
}

// scan calls visit for each record of each whole batch in b, in order. The torn tail of the log's last segment is left
// out; everywhere else, and where a witness proves that it had been synced, a bad record is an error.
func scan(b []byte, lastSegment bool, visit func(record) error) (scanned, error) {
	s, err := decodeSegmentHeader(b)
	if err != nil {
		return scanned{}, err
	}
	var batch []record
	off := s.end
	for {
		r, size, err := decodeRecord(b[off:], s.salt)
		if err != nil {
			return s, s.judge(b, off, lastSegment, err)
		}
		off += int64(size)
		batch = append(batch, r)
		if !r.last {
			continue
		}
		for _, r := range batch {
			if err := visit(r); err != nil {
				return s, fmt.Errorf("offset %d: %w", s.end, err)
			}
		}
		// The header is durable before the file has its name.
		s.synced = min(max(r.synced, segmentHeaderBytes), off)
		s.end, batch = off, batch[:0]
	}
}

// judge decides what the failure to read a record at off means: nil for the end or a torn tail.
func (s scanned) judge(b []byte, off int64, lastSegment bool, cause error) error {
	if !lastSegment {
		if errors.Is(cause, errEnd) && off == s.end && allZero(b[off:]) {
			return nil
		}
		return fmt.Errorf("offset %d of a closed segment: %w", off, errRecord)
	}
	if w, found := witness(b, off, s.salt); found {
		return fmt.Errorf("offset %d, though a record at %d proves it was synced: %w", off, w, errRecord)
	}
	return nil
}

// witness looks for a record after off that was written when off was already durable. Framing is lost behind a bad
// record, so every aligned offset is tried; the salt makes that cheap and keeps payloads from posing as records.
func witness(b []byte, off int64, salt uint32) (int64, bool) {
	for o := off + (-off & (recordAlign - 1)); o+recordHeaderBytes <= int64(len(b)); o += recordAlign {
		if binary.LittleEndian.Uint32(b[o+12:]) != salt {
			continue
		}
		if r, _, err := decodeRecord(b[o:], salt); err == nil && r.synced > off {
			return o, true
		}
	}
	return 0, false
}
