package exec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be the shim, and the daemon that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shimVerb:
			os.Exit(ShimMain(os.Args[2:]))
		case "daemon":
			os.Exit(daemonMain(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// memBlobs is a blob store in memory.
type memBlobs struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (b *memBlobs) Put(_ context.Context, r io.Reader) (string, int64, error) {
	c, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	sum := sha256.Sum256(c)
	h := hex.EncodeToString(sum[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = map[string][]byte{}
	}
	b.m[h] = c
	return h, int64(len(c)), nil
}

var errNoBlob = errors.New("no such blob")

func (b *memBlobs) Open(h string) (io.ReadSeekCloser, int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.m[h]
	if !ok {
		return nil, 0, errNoBlob
	}
	return struct {
		*bytes.Reader
		io.Closer
	}{bytes.NewReader(c), io.NopCloser(nil)}, int64(len(c)), nil
}

func (b *memBlobs) text(t testing.TB, r Ref) string {
	t.Helper()
	f, _, err := b.Open(r.Hash)
	if err != nil {
		t.Fatalf("blob %q: %v", r.Hash, err)
	}
	c, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(c)
}

func (b *memBlobs) file(t testing.TB, path, content string, mode uint32) File {
	t.Helper()
	h, n, err := b.Put(t.Context(), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return File{Path: path, Hash: h, Size: n, Mode: mode}
}

// rig is an executor under test.
type rig struct {
	*Executor
	t     testing.TB
	blobs *memBlobs
	stop  func()
}

// openDirs makes a temporary directory that other users can pass through.
func openDirs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vcpeer-exec-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := every(context.Background(), 20*time.Millisecond, func() bool { return removeTree(dir) == nil }); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	b := &memBlobs{}
	cfg := Config{Dir: openDirs(t), Blobs: b, Log: slog.New(slog.DiscardHandler), Grace: 300 * time.Millisecond, Linger: 200 * time.Millisecond, FloorBytes: -1}
	if change != nil {
		change(&cfg)
	}
	return runRig(t, cfg, b)
}

func runRig(t testing.TB, cfg Config, b *memBlobs) *rig {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r := &rig{Executor: e, t: t, blobs: b}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		r.stop()
		if e.groups.dir != "" {
			for _, id := range e.groups.all() {
				c, end := context.WithTimeout(context.Background(), 5*time.Second)
				if err := e.groups.existing(id).clear(c); err != nil {
					t.Error(err)
				}
				end()
			}
			os.Remove(e.groups.dir)
		}
	})
	return r
}

func sh(key, script string) Spec {
	return Spec{Key: key, Argv: []string{"/bin/sh", "-c", script}}
}

func (r *rig) start(s Spec) {
	r.t.Helper()
	r.startFor(s, time.Minute)
}

func (r *rig) startFor(s Spec, lease time.Duration) {
	r.t.Helper()
	if err := r.Start(context.Background(), s, lease); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) result() Result {
	r.t.Helper()
	select {
	case res := <-r.Results():
		return res
	case <-time.After(30 * time.Second):
		r.t.Fatalf("no result within 30 s; running: %+v", r.Running())
		return Result{}
	}
}

// do runs the attempt to its end and acknowledges it.
func (r *rig) do(s Spec) Result {
	r.t.Helper()
	r.start(s)
	res := r.result()
	if err := r.Ack(res.Key); err != nil {
		r.t.Fatal(err)
	}
	return res
}

// wait polls until f holds.
func wait(t testing.TB, what string, within time.Duration, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if every(ctx, 5*time.Millisecond, f) != nil {
		t.Fatalf("not within %v: %s", within, what)
	}
}

func bothGroups(t *testing.T, f func(t *testing.T, cgroup string)) {
	t.Run("no cgroup", func(t *testing.T) { f(t, CgroupOff) })
	t.Run("cgroup", func(t *testing.T) {
		g, err := openGroups("", t.TempDir())
		if err != nil {
			t.Skipf("no control group can be made here: %v", err)
		}
		os.Remove(g.dir)
		f(t, "")
	})
}
