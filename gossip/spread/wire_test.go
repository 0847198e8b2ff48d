package spread

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
)

func TestFrame(t *testing.T) {
	c := newCodec()
	m := message{
		Kind: kindTurn, Digest: [16]byte{1, 2}, Heads: []byte("heads"), Ask: true, Batches: [][]byte{[]byte("a"), {}},
		More: true, EphemeralSum: [16]byte{3}, Ephemeral: [][]byte{[]byte("e")}, AskEphemeral: true, EphemeralHas: []byte("has"),
	}
	b, err := c.encode(m)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := c.readFrame(bytes.NewReader(b), len(b))
	if err != nil || n != len(b) || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %d of %d bytes, %v", got, n, len(b), err)
	}
	if _, _, err := c.readFrame(bytes.NewReader(b), len(b)-5); !errors.Is(err, errFrame) {
		t.Errorf("over the limit: %v, want errFrame", err)
	}
	if _, _, err := c.readFrame(bytes.NewReader(b[:len(b)-1]), len(b)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v, want unexpected EOF", err)
	}
	if _, err := c.decode([]byte{0xa1, 0x01, 0x18, 0x63}); err == nil {
		t.Error("a message of kind 99 is accepted")
	}
	// A later version may add keys: {1: 2, 99: 1}.
	if m, err := c.decode([]byte{0xa2, 0x01, 0x02, 0x18, 0x63, 0x01}); err != nil || m.Kind != kindTurn {
		t.Errorf("unknown key: %+v, %v", m, err)
	}
}

// TestFrameMemory announces four megabytes, sends ten bytes, and looks at what that cost.
func TestFrameMemory(t *testing.T) {
	c := newCodec()
	frame := append([]byte{0, 0x40, 0, 0}, make([]byte, 10)...)
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if _, _, err := c.readFrame(bytes.NewReader(frame), 4<<20); err == nil {
			t.Fatal("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 64<<10 {
		t.Errorf("%d bytes of memory for ten bytes of data", n)
	}
}

func TestAnnouncement(t *testing.T) {
	d := [16]byte{1, 2, 3}
	b := encodeAnnouncement(d)
	if got, err := decodeAnnouncement(append(b, "later"...)); err != nil || got != d {
		t.Errorf("got %x, %v", got, err)
	}
	for _, bad := range [][]byte{nil, b[:16], append([]byte{2}, b[1:]...)} {
		if _, err := decodeAnnouncement(bad); err == nil {
			t.Errorf("%x is accepted", bad)
		}
	}
}

func FuzzFrame(f *testing.F) {
	c := newCodec()
	for _, m := range []message{
		{Kind: kindPush, Batches: [][]byte{[]byte("batch")}},
		{Kind: kindTurn, Digest: [16]byte{1}, Ask: true, Heads: []byte("h")},
		{Kind: kindBusy},
	} {
		b, err := c.encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := c.readFrame(bytes.NewReader(b), 1<<16)
		if n > len(b) {
			t.Fatalf("read %d of %d bytes", n, len(b))
		}
		if err != nil {
			return
		}
		again, err := c.encode(m)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", m, err)
		}
		back, _, err := c.readFrame(bytes.NewReader(again), 1<<17)
		if err != nil || back.Kind != m.Kind || back.Digest != m.Digest || len(back.Batches) != len(m.Batches) {
			t.Fatalf("%+v came back as %+v, %v", m, back, err)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	f.Add(encodeAnnouncement([16]byte{1}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeAnnouncement(b); err == nil && !bytes.HasPrefix(b, encodeAnnouncement(d)) {
			t.Fatalf("%x was read as %x", b, d)
		}
	})
}

// BenchmarkFrame carries a push of ten batches of 400 bytes.
func BenchmarkFrame(b *testing.B) {
	c, m := newCodec(), message{Kind: kindPush}
	for range 10 {
		m.Batches = append(m.Batches, make([]byte, 400))
	}
	b.ReportAllocs()
	for b.Loop() {
		f, err := c.encode(m)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.readFrame(bytes.NewReader(f), 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}
