package replica

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"
)

// Writes do not stall however much is written, and what they leave is merged.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const writes = 100 // more than enough for all tables that may wait
	noise := rand.NewChaCha8([32]byte{1})
	value := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 16) }
	for n := range writes {
		filler := make([]byte, 1<<20-1<<16)
		_, _ = noise.Read(filler) // it never fails
		puts := []put{{binary.BigEndian.AppendUint32([]byte("k"), uint32(n)), value(n)}, {[]byte{'x', byte(n)}, filler}}
		if err := s.write(puts); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); mergeDue(s.db.Levels()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("tables are left: %+v", s.db.Levels())
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for n := range writes {
		got, ok, err := s.get(string(binary.BigEndian.AppendUint32([]byte("k"), uint32(n))))
		if err != nil || !ok || !bytes.Equal(got, value(n)) {
			t.Fatalf("%d: %x, %v, %v", n, got, ok, err)
		}
	}
}
