package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Files in an attempt's directory. The directory is made exclusively and holds, besides these, work/ and tmp/.
const (
	fileSpec    = "spec"    // attemptRecord: the intent, before anything runs
	fileStarted = "started" // startedRecord, by the shim, of attempts that last
	fileEnd     = "end"     // endRecord, renamed into place by the shim, or by the daemon for a lost attempt
	fileStdout  = "stdout"
	fileStderr  = "stderr"
	fileScript  = "script"
	dirWork     = "work"
	dirTmp      = "tmp"
)

// attemptRecord is what a restarted daemon must know about an attempt.
type attemptRecord struct {
	Spec   Spec     `cbor:"1,keyasint"`
	Mark   string   `cbor:"2,keyasint"` // random; in the environment of all its processes
	ShimID string   `cbor:"3,keyasint"`
	BootID string   `cbor:"4,keyasint"`
	Until  BootTime `cbor:"5,keyasint"`
}

// startedRecord names the first process. (PID, Ticks) is unique within a boot.
type startedRecord struct {
	PID   int       `cbor:"1,keyasint"`
	Ticks uint64    `cbor:"2,keyasint"` // start time, field 22 of /proc/PID/stat
	At    time.Time `cbor:"3,keyasint"`
}

// endRecord is how an attempt ended.
type endRecord struct {
	Exit    int           `cbor:"1,keyasint"`
	Reason  string        `cbor:"2,keyasint,omitempty"`
	Cause   Cause         `cbor:"3,keyasint,omitempty"`
	Started time.Time     `cbor:"4,keyasint"`
	Ended   time.Time     `cbor:"5,keyasint"`
	CPU     time.Duration `cbor:"6,keyasint"`
	MaxRSS  int64         `cbor:"7,keyasint"`
	Lost    bool          `cbor:"8,keyasint,omitempty"`
}

// codec is CBOR as everywhere in vcpeer: deterministic, with bounds for what is read.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	eo := cbor.CoreDetEncOptions()
	eo.Time = cbor.TimeRFC3339Nano
	enc, err := eo.EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  8,
		MaxArrayElements: 16384,
		MaxMapPairs:      64,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// errRecord says that a file is not a whole record: it was cut by a power loss, or changed.
var errRecord = errors.New("damaged record")

// writeRecord puts v at path: whole or not at all as long as the machine runs. Not flushed, see the package comment.
func (c codec) writeRecord(path string, v any) error {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// readRecord reads what writeRecord wrote. Errors: fs.ErrNotExist, errRecord.
func (c codec) readRecord(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := c.decodeRecord(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (c codec) decodeRecord(b []byte, v any) error {
	n := len(b) - 4
	if n < 0 || crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[n:]) {
		return errRecord
	}
	if err := c.dec.Unmarshal(b[:n], v); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	return nil
}
