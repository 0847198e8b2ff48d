package fabric

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// On a datagram stream each datagram is a frame: its length as uint16, big endian, then the class and the payload. The
// length counts class and payload, so it is never 0.
const (
	frameHeaderBytes = 2
	maxFrameBytes    = 16 << 10 // class and payload
)

// errFrame says that a datagram stream does not hold frames.
var errFrame = errors.New("malformed datagram frame")

// appendFrame appends the frame of d, which is class and payload, to b. The caller has checked d's length.
func appendFrame(b, d []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(d)))
	return append(b, d...)
}

// readFrame reads one frame into buf, which must hold maxFrameBytes, and returns the part that is class and payload.
// io.EOF: the stream ended between frames.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var head [frameHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 || n > maxFrameBytes {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return buf[:n], nil
}
