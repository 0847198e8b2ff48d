package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vcpeer/peer/api"
)

func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("content of "+f), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCollect(t *testing.T) {
	dir := tree(t, "work/a.txt", "work/b.txt", "work/in/x", "work/in/deep/y", "work/odd:name", "else/z")
	if err := os.Symlink("a.txt", filepath.Join(dir, "work/in/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "work/in/link"), filepath.Join(dir, "work/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "work/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "work/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	for _, tt := range []struct{ typed, want, err string }{
		{"a.txt", "a.txt", ""},
		{"*.txt in", "a.txt b.txt in/deep/y in/x", ""},
		{"a.txt:data/c", "data/c", ""},
		{"a.txt:data/", "data/a.txt", ""},
		{"*.txt:data", "data/a.txt data/b.txt", ""},
		{"in:here", "here/deep/y here/x", ""},
		{"in:.", "deep/y x", ""},
		{"in/x:.", "x", ""},
		{"../else/z", "z", ""},
		{dir + "/else", "else/z", ""},
		{"odd:name", "odd:name", ""},
		{"link", "link", ""},
		{"a.txt ./a.txt", "a.txt", ""},
		{"a.txt:x b.txt:x", "", "would both be x"},
		{"none", "", "no such file"},
		{"*.none", "", "no file fits"},
		{"a.txt:../up", "", "outside"},
		{"a.txt:/etc/x", "", "outside"},
		{"empty", "", "empty"},
		{"pipe", "", "neither a file nor a directory"},
	} {
		items, err := Collect(work, strings.Fields(tt.typed))
		var paths []string
		for _, it := range items {
			paths = append(paths, it.Path)
		}
		if got := strings.Join(paths, " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.typed, got, tt.want)
		}
		if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.typed, err, tt.err)
		}
	}
}

// store is a blob store in memory.
type store struct {
	mu   sync.Mutex
	has  map[string]bool
	puts int
	fail error
}

func (s *store) HasBlob(_ context.Context, hash string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[hash], nil
}

func (s *store) PutBlob(_ context.Context, r io.Reader) (*api.Blob, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	hash := hex.EncodeToString(h.Sum(nil))
	s.puts++
	s.has[hash] = true
	return &api.Blob{Hash: hash, Size: n}, nil
}

func TestSend(t *testing.T) {
	dir := tree(t, "a", "b", "c")
	items, err := Collect(dir, []string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{has: map[string]bool{}}
	var last Progress
	files, err := Send(t.Context(), s, items, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		sum := sha256.Sum256([]byte("content of " + f.Path))
		if f.Hash != hex.EncodeToString(sum[:]) || f.Path != items[i].Path || f.Mode != 0o640 {
			t.Errorf("file %d: %+v", i, f)
		}
	}
	if want := (Progress{3, 3, 36, 36}); s.puts != 3 || last != want {
		t.Errorf("%d puts, progress %+v", s.puts, last)
	}
	if _, err := Send(t.Context(), s, items, nil); err != nil || s.puts != 3 {
		t.Errorf("sent again: %d puts, %v", s.puts, err)
	}
}

func TestSendFails(t *testing.T) {
	dir := tree(t, "a", "b")
	items, err := Collect(dir, []string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Send(t.Context(), &store{fail: fmt.Errorf("disk full")}, items, nil); err == nil || !strings.Contains(err.Error(), "disk full") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Send(ctx, &store{has: map[string]bool{}}, items, nil); err == nil {
		t.Error("a cancelled context sends on")
	}
}

func TestSendBytes(t *testing.T) {
	s := &store{has: map[string]bool{}}
	for range 2 {
		if b, err := SendBytes(t.Context(), s, []byte("hi")); err != nil || b.Size != 2 || !s.has[b.Hash] {
			t.Errorf("%v %v", b, err)
		}
	}
	if s.puts != 1 {
		t.Errorf("%d puts", s.puts)
	}
}
