package fabric

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"
)

func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want [][]byte
		var wire []byte
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			d := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "datagram")
			want = append(want, d)
			wire = appendFrame(wire, d)
		}
		r, buf := bufio.NewReader(bytes.NewReader(wire)), make([]byte, maxFrameBytes)
		for _, d := range want {
			got, err := readFrame(r, buf)
			if err != nil || !bytes.Equal(got, d) {
				t.Fatalf("got %x, %v; want %x", got, err, d)
			}
		}
		if _, err := readFrame(r, buf); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, []byte{1, 2, 3}))
	f.Add(appendFrame(nil, make([]byte, maxFrameBytes)))
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(wire)), make([]byte, maxFrameBytes)
		var again []byte
		for {
			d, err := readFrame(r, buf)
			if err != nil {
				if err == io.EOF && !bytes.Equal(again, wire) {
					t.Errorf("%x is read as %x", wire, again)
				}
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errFrame) {
					t.Errorf("error %v", err)
				}
				return
			}
			if len(d) == 0 || len(d) > maxFrameBytes {
				t.Fatalf("a frame of %d bytes", len(d))
			}
			again = appendFrame(again, d)
		}
	})
}
