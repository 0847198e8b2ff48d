package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newStore(t testing.TB, change func(*Options)) *Store {
	t.Helper()
	opt := Options{Dir: t.TempDir(), FloorBytes: -1}
	if change != nil {
		change(&opt)
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, content []byte) string {
	t.Helper()
	h, n, err := s.Put(t.Context(), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if want := hashOf(content); h != want || n != int64(len(content)) {
		t.Fatalf("Put: %s %d, want %s %d", h, n, want, len(content))
	}
	return h
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

func content(t testing.TB, s *Store, h string) []byte {
	t.Helper()
	r, n, err := s.Open(h)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != n {
		t.Fatalf("read %d of %d: %v", len(b), n, err)
	}
	return b
}

func TestPutOpen(t *testing.T) {
	s := newStore(t, nil)
	var used int64
	for _, n := range []int{0, 1, 4096, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3 * chunkBytes, 3*chunkBytes + 7} {
		c := noise(uint64(n), n)
		h := put(t, s, c)
		put(t, s, c) // again: no second copy
		used += int64(n)
		if !s.Has(h) || !bytes.Equal(content(t, s, h), c) || s.Used() != used {
			t.Errorf("%d bytes: has %v, used %d, want %d", n, s.Has(h), s.Used(), used)
		}
		if err := s.Verify(t.Context(), h); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.opt.Dir, Empty[:2], Empty)); !os.IsNotExist(err) {
		t.Error("the empty blob has a file")
	}
	if list, _ := os.ReadDir(s.tmpDir()); len(list) != 0 {
		t.Errorf("%d temporary files are left", len(list))
	}
	dir := s.opt.Dir
	if _, err := Open(Options{Dir: dir}); err == nil {
		t.Error("a second process may open the store")
	}
	s.Close()
	again, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Used() != used {
		t.Errorf("used %d after reopening, want %d", again.Used(), used)
	}
}

func TestNasty(t *testing.T) {
	s := newStore(t, nil)
	up := strings.ToUpper(hashOf([]byte("x")))
	for _, h := range []string{"", "..", "../../etc/passwd", strings.Repeat("g", 64), strings.Repeat("a", 63), strings.Repeat("a", 65), up,
		strings.Repeat("../", 21) + "a", strings.Repeat("a", 32) + "/" + strings.Repeat("a", 31), strings.Repeat("\x00", 64)} {
		if s.Has(h) {
			t.Errorf("has %q", h)
		}
		if _, _, err := s.Open(h); !errors.Is(err, ErrHash) {
			t.Errorf("open %q: %v", h, err)
		}
		if err := s.Delete(h); !errors.Is(err, ErrHash) {
			t.Errorf("delete %q: %v", h, err)
		}
	}
	if _, _, err := s.Open(hashOf([]byte("absent"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}

func TestLimitsOfPut(t *testing.T) {
	big := bytes.NewReader(noise(1, 2*chunkBytes))
	s := newStore(t, func(o *Options) { o.MaxBytes = chunkBytes })
	if _, _, err := s.Put(t.Context(), big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	q := newStore(t, func(o *Options) { o.QuotaBytes = 1000 })
	put(t, q, noise(1, 900))
	if _, _, err := q.Put(t.Context(), bytes.NewReader(noise(2, 200))); !errors.Is(err, ErrQuota) {
		t.Errorf("quota: %v", err)
	}
	put(t, q, noise(1, 900))
	f := newStore(t, func(o *Options) { o.FloorBytes = 1 << 60 })
	_, _, err := f.Put(t.Context(), strings.NewReader("x"))
	var ns *NoSpaceError
	if !errors.Is(err, ErrNoSpace) || !errors.As(err, &ns) || ns.FreeBytes <= 0 {
		t.Errorf("floor: %v", err)
	}
	put(t, f, nil) // needs no room
	broken := io.MultiReader(bytes.NewReader(noise(3, chunkBytes+5)), iotestErr{})
	if _, _, err := s.Put(t.Context(), broken); !errors.Is(err, errReader) {
		t.Errorf("broken reader: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := newStore(t, nil).Put(ctx, bytes.NewReader(noise(1, 3*chunkBytes))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, st := range []*Store{s, q, f} {
		if list, _ := os.ReadDir(st.tmpDir()); len(list) != 0 {
			t.Errorf("%d temporary files are left", len(list))
		}
	}
}

var errReader = errors.New("reader broke")

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errReader }

func TestConcurrentPuts(t *testing.T) {
	s := newStore(t, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				c := fmt.Appendf(nil, "content %d", (i*7+g)%40)
				if h, _, err := s.Put(t.Context(), bytes.NewReader(c)); err != nil || h != hashOf(c) {
					t.Errorf("put: %s %v", h, err)
				}
			}
		})
	}
	wg.Wait()
	var used int64
	for i := range 40 {
		c := fmt.Appendf(nil, "content %d", i)
		used += int64(len(c))
		if !bytes.Equal(content(t, s, hashOf(c)), c) {
			t.Errorf("content %d is wrong", i)
		}
	}
	if s.Used() != used {
		t.Errorf("used %d, want %d", s.Used(), used)
	}
}

func TestCorruption(t *testing.T) {
	s := newStore(t, nil)
	h := put(t, s, noise(1, 100_000))
	path := s.path(h)
	os.Chmod(path, 0o600)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{0xff, 0x00, 0xff}, 5000)
	f.Close()
	r, err := s.OpenVerified(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, ErrCorrupt) {
		t.Errorf("verified reader: %v", err)
	}
	r.Close()
	if err := s.Verify(t.Context(), h); !errors.Is(err, ErrCorrupt) || s.Has(h) || s.Used() != 0 {
		t.Errorf("verify: %v, has %v, used %d", err, s.Has(h), s.Used())
	}
}

// TestGC holds GC against its policy stated again, blob by blob.
func TestGC(t *testing.T) {
	s := newStore(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		defer s.GC(context.Background(), Policy{MinAge: -1, MaxAge: 1}, time.Now().Add(time.Hour))
		now := time.Now()
		type one struct {
			keep bool
			age  time.Duration
			size int
		}
		all := map[string]one{}
		for i := range rapid.IntRange(0, 8).Draw(rt, "n") {
			b := one{rapid.Bool().Draw(rt, "keep"), time.Duration(rapid.IntRange(0, 20).Draw(rt, "age"))*time.Hour + time.Duration(i)*time.Second, rapid.IntRange(1, 50).Draw(rt, "size")}
			h := hashOf(noise(uint64(i+1), b.size))
			if _, _, err := s.Put(context.Background(), bytes.NewReader(noise(uint64(i+1), b.size))); err != nil {
				rt.Fatal(err)
			}
			os.Chtimes(s.path(h), now, now.Add(-b.age))
			all[h] = b
		}
		p := Policy{Keep: func(h string) bool { return all[h].keep }, MinAge: 2 * time.Hour, MaxAge: 15 * time.Hour, QuotaBytes: int64(rapid.IntRange(1, 200).Draw(rt, "quota"))}
		if _, err := s.GC(context.Background(), p, now); err != nil {
			rt.Fatal(err)
		}
		loose := 0
		for h, b := range all {
			has := s.Has(h)
			if (b.keep || b.age < p.MinAge) && !has {
				rt.Errorf("%+v was removed", b)
			}
			if !b.keep && b.age >= p.MaxAge && has {
				rt.Errorf("%+v was kept", b)
			}
			if !b.keep && b.age >= p.MinAge && has {
				loose++
			}
		}
		if s.Used() > p.QuotaBytes && loose > 0 {
			rt.Errorf("%d bytes over quota %d with %d blobs that could go", s.Used(), p.QuotaBytes, loose)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{100, 64 << 10, 4 << 20} {
		for _, par := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dB/%d", size, par), func(b *testing.B) {
				s := newStore(b, nil)
				b.SetBytes(int64(size))
				var wg sync.WaitGroup
				base := noise(9, size)
				b.ResetTimer()
				for g := range par {
					wg.Go(func() {
						c := bytes.Clone(base)
						for i := g; i < b.N; i += par {
							copy(c, fmt.Appendf(nil, "%d %d", g, i))
							if _, _, err := s.Put(context.Background(), bytes.NewReader(c)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
