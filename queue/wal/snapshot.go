package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A snapshot file, little endian: magic, format version (4), zeros (4), index (8), term (8), length of the data (8),
// crc32c of data and header so far (4), zeros (4), data.
const (
	snapshotHeaderBytes = 48
	snapshotMagic       = "vcsnap\r\n"
	snapshotVersion     = 1
	snapshotSuffix      = ".snap"
)

func (l *Log) snapshotPath(index uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016x%s", index, snapshotSuffix))
}

func parseSnapshotName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, snapshotSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	index, err := strconv.ParseUint(digits, 16, 64)
	return index, err == nil
}

// WriteSnapshot makes s durable under its index. It counts for nothing until a marker names it. ErrNoSpace: nothing is
// left behind. Only one call at a time.
func (l *Log) WriteSnapshot(s Snapshot) error {
	err := l.writeSnapshot(s)
	if isFull(err) && l.release(l.fs) {
		// A snapshot is what frees segments, so it may use the ballast.
		err = l.writeSnapshot(s)
	}
	switch {
	case isFull(err):
		return fmt.Errorf("wal: snapshot %d: %w: %v", s.Index, ErrNoSpace, err)
	case err != nil:
		return fmt.Errorf("wal: snapshot %d: %w: %w", s.Index, ErrFailed, err)
	}
	return nil
}

func (l *Log) writeSnapshot(s Snapshot) (err error) {
	tmp := filepath.Join(l.dir, "snapshot.tmp")
	f, err := l.fs.Open(tmp, true)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = l.fs.Remove(tmp) // Open removes it, too
		}
	}()
	err = fillSnapshot(f, s)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := l.fs.Rename(tmp, l.snapshotPath(s.Index)); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

func fillSnapshot(f File, s Snapshot) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(snapshotHeader(s), 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(s.Data, snapshotHeaderBytes); err != nil {
		return err
	}
	return f.Sync()
}

func snapshotHeader(s Snapshot) []byte {
	h := append(make([]byte, 0, snapshotHeaderBytes), snapshotMagic...)
	h = binary.LittleEndian.AppendUint32(h, snapshotVersion)
	h = binary.LittleEndian.AppendUint32(h, 0)
	h = binary.LittleEndian.AppendUint64(h, s.Index)
	h = binary.LittleEndian.AppendUint64(h, s.Term)
	h = binary.LittleEndian.AppendUint64(h, uint64(len(s.Data)))
	crc := crc32.Update(crc32.Checksum(s.Data, castagnoli), castagnoli, h)
	h = binary.LittleEndian.AppendUint32(h, crc)
	return binary.LittleEndian.AppendUint32(h, 0)
}

// ReadSnapshot reads the snapshot of an index. Errors: ErrNoSnapshot, ErrCorrupt, or those of the file system.
func (l *Log) ReadSnapshot(index uint64) (Snapshot, error) {
	f, err := l.fs.Open(l.snapshotPath(index), false)
	if errors.Is(err, os.ErrNotExist) {
		return Snapshot{}, fmt.Errorf("snapshot %d: %w", index, ErrNoSnapshot)
	}
	if err != nil {
		return Snapshot{}, err
	}
	defer f.Close() // read only
	b, err := readAll(f)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read snapshot %d: %w", index, err)
	}
	s, err := decodeSnapshot(b)
	if err == nil && s.Index != index {
		err = fmt.Errorf("it says index %d", s.Index)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %d: %w: %w", index, ErrCorrupt, err)
	}
	return s, nil
}

// decodeSnapshot reads a snapshot file; the data shares b's memory.
func decodeSnapshot(b []byte) (Snapshot, error) {
	if len(b) < snapshotHeaderBytes || string(b[:8]) != snapshotMagic {
		return Snapshot{}, errors.New("no snapshot header")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != snapshotVersion {
		return Snapshot{}, fmt.Errorf("snapshot of format %d, this program reads %d", v, snapshotVersion)
	}
	data := b[snapshotHeaderBytes:]
	if n := binary.LittleEndian.Uint64(b[32:]); n != uint64(len(data)) {
		return Snapshot{}, fmt.Errorf("%d bytes of data, the header says %d", len(data), n)
	}
	crc := crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, b[:40])
	if crc != binary.LittleEndian.Uint32(b[40:]) || !allZero(b[44:snapshotHeaderBytes]) {
		return Snapshot{}, errors.New("bad checksum")
	}
	return Snapshot{Index: binary.LittleEndian.Uint64(b[16:]), Term: binary.LittleEndian.Uint64(b[24:]), Data: data}, nil
}

// removeSnapshots removes the snapshot files that old chooses.
func (l *Log) removeSnapshots(old func(index uint64) bool) error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if index, ok := parseSnapshotName(name); ok && old(index) {
			if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil {
				return fmt.Errorf("wal: remove old snapshot: %w", err)
			}
		}
	}
	return nil
}

// readAll reads a file from start to end.
func readAll(f File) ([]byte, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if n == 0 {
		return b, nil
	}
	if m, err := f.ReadAt(b, 0); int64(m) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}
