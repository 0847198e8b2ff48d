package userdb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Varlink frames are JSON objects, each ended by a NUL byte (https://varlink.org/Service).

// maxFrameBytes bounds a request. Real ones have about 100 bytes.
const maxFrameBytes = 8 << 10

var (
	errFrameSize = fmt.Errorf("request longer than %d bytes", maxFrameBytes)
	errNotCall   = errors.New("not a varlink call")
)

// call is one request.
type call struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters"`
	More       bool            `json:"more"`   // any number of replies is understood
	Oneway     bool            `json:"oneway"` // no reply is wanted
	Upgrade    bool            `json:"upgrade"`
}

// reply is one answer; Continues says that more follow.
type reply struct {
	Parameters any    `json:"parameters,omitempty"`
	Continues  bool   `json:"continues,omitempty"`
	Error      string `json:"error,omitempty"`
}

// readFrame returns the next frame without its NUL, valid until the next read. io.EOF: there was none. The reader's
// buffer bounds the size (newFrameReader).
func readFrame(r *bufio.Reader) ([]byte, error) {
	frame, err := r.ReadSlice(0)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errFrameSize
	case errors.Is(err, io.EOF) && len(frame) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return frame[:len(frame)-1], nil
}

func newFrameReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxFrameBytes+1) }

// decodeCall reads a request; unknown members are ignored, as varlink asks. It keeps nothing of frame.
func decodeCall(frame []byte) (call, error) {
	var c call
	if err := json.Unmarshal(frame, &c); err != nil {
		return call{}, fmt.Errorf("%w: %w", errNotCall, err)
	}
	if c.Method == "" {
		return call{}, fmt.Errorf("%w: it names no method", errNotCall)
	}
	c.Parameters = bytes.Clone(c.Parameters)
	return c, nil
}

// encodeReply returns a frame.
func encodeReply(r reply) ([]byte, error) {
	frame, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(frame, 0), nil // JSON has no NUL: strings escape it
}
