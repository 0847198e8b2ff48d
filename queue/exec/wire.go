package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxFrame bounds a message between daemon and shim: arguments, environment and some room.
const maxFrame = 2 << 20

// kind of a message. Daemon to shim: run, renew, kill, exit. Shim to daemon: hello (first on every connection),
// started, ended.
type kind uint8

const (
	kindHello kind = iota + 1
	kindRun
	kindRenew
	kindKill
	kindExit
	kindStarted
	kindEnded
)

// message is one frame. Which fields are set follows from Kind; check enforces it.
type message struct {
	Kind    kind           `cbor:"1,keyasint"`
	Key     string         `cbor:"2,keyasint,omitempty"` // of the attempt; in hello: the one that runs, if any
	Until   BootTime       `cbor:"3,keyasint,omitempty"`
	Reason  string         `cbor:"4,keyasint,omitempty"`
	Hello   *identity      `cbor:"5,keyasint,omitempty"`
	Run     *order         `cbor:"6,keyasint,omitempty"`
	Started *startedRecord `cbor:"7,keyasint,omitempty"` // in hello: of the running attempt
	End     *endRecord     `cbor:"8,keyasint,omitempty"`
}

// identity names a process for ever.
type identity struct {
	PID    int    `cbor:"1,keyasint"`
	Ticks  uint64 `cbor:"2,keyasint"`
	BootID string `cbor:"3,keyasint"`
}

// order is all that a shim needs to run an attempt.
type order struct {
	Dir       string        `cbor:"1,keyasint"` // the attempt's directory, absolute
	Argv      []string      `cbor:"2,keyasint"`
	Env       []string      `cbor:"3,keyasint"`
	Cred      *credential   `cbor:"4,keyasint,omitempty"` // nil: as the shim
	Join      bool          `cbor:"5,keyasint,omitempty"`
	TimeLimit time.Duration `cbor:"6,keyasint,omitempty"`
	Grace     time.Duration `cbor:"7,keyasint"` // between SIGTERM and SIGKILL
	MemBytes  int64         `cbor:"8,keyasint,omitempty"`
	MaxProcs  int           `cbor:"9,keyasint,omitempty"`
	OutBytes  int64         `cbor:"10,keyasint"` // of each standard stream, kept
	NoStdout  bool          `cbor:"11,keyasint,omitempty"`
	NoStderr  bool          `cbor:"12,keyasint,omitempty"`
}

type credential struct {
	UID    uint32   `cbor:"1,keyasint"`
	GID    uint32   `cbor:"2,keyasint"`
	Groups []uint32 `cbor:"3,keyasint"`
}

var errMessage = errors.New("malformed message")

func (m *message) check() error {
	ok := false
	switch m.Kind {
	case kindHello:
		ok = m.Hello != nil
	case kindRun:
		ok = m.Run != nil && ValidKey(m.Key) && len(m.Run.Argv) > 0 && m.Run.Dir != ""
	case kindRenew, kindKill:
		ok = ValidKey(m.Key)
	case kindExit:
		ok = true
	case kindStarted:
		ok = m.Started != nil && ValidKey(m.Key)
	case kindEnded:
		ok = m.End != nil && ValidKey(m.Key)
	}
	if !ok {
		return fmt.Errorf("%w: kind %d", errMessage, m.Kind)
	}
	return nil
}

func (c codec) writeMessage(w io.Writer, m *message) error {
	b, err := c.enc.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxFrame {
		return fmt.Errorf("%w: %d bytes, at most %d", errMessage, len(b), maxFrame)
	}
	frame := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
	_, err = w.Write(frame)
	return err
}

func (c codec) readMessage(r io.Reader) (*message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errMessage, n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return c.decodeMessage(b)
}

func (c codec) decodeMessage(b []byte) (*message, error) {
	var m message
	if err := c.dec.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return &m, m.check()
}
