package hosts

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/overlay/marked"
)

// counter counts log records by message.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counter) WithGroup(string) slog.Handler            { return c }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[r.Message]++
	return nil
}

func (c *counter) of(message string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[message]
}

func config(t *testing.T) (Config, *counter) {
	t.Helper()
	dir := t.TempDir()
	c := &counter{n: map[string]int{}}
	cfg := Config{Instance: "a", Path: filepath.Join(dir, "hosts"), Lock: filepath.Join(dir, "lock"), Log: slog.New(c)}
	if err := os.WriteFile(cfg.Path, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return cfg, c
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func start(t *testing.T, cfg Config) *Keeper {
	t.Helper()
	k, err := NewKeeper(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return k
}

func TestKeeperGathersChanges(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		cfg, log := config(t)
		k := start(t, cfg)
		time.Sleep(10*time.Minute + 30*time.Second) // before the first Set nothing is known, and nothing is written
		if got := text(t, cfg.Path); strings.Contains(got, "vcpeer") {
			t.Fatalf("wrote before it was told anything: %q", got)
		}
		for i := range 50 {
			k.Set(entries(t, "10.77.0."+string(rune('1'+i%9))+" n1.kyoto"))
			time.Sleep(3 * time.Millisecond)
		}
		k.Set(entries(t, "10.77.0.9 n1.kyoto"))
		time.Sleep(250 * time.Millisecond)
		if got := text(t, cfg.Path); !strings.Contains(got, "\n10.77.0.9\tn1.kyoto\tn1\n") || log.of("wrote host names") != 1 {
			t.Errorf("after %d writes: %q", log.of("wrote host names"), got)
		}
		if s := k.Status(); s.Err != nil || s.Names != 2 || s.Entries != 1 || s.Written.IsZero() {
			t.Errorf("status %+v", s)
		}
		k.Set(entries(t, "10.77.0.9 n1.kyoto"))
		time.Sleep(10 * time.Minute)
		if log.of("wrote host names") != 1 {
			t.Errorf("%d writes though nothing changed", log.of("wrote host names"))
		}
	})
}

func TestKeeperPutsBackAndKeepsLastGood(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		cfg, log := config(t)
		k := start(t, cfg)
		k.Set(entries(t, "10.77.0.1 n1.kyoto"))
		time.Sleep(time.Second)
		good := text(t, cfg.Path)

		if err := os.WriteFile(cfg.Path, []byte("127.0.0.1 localhost\n"), 0o644); err != nil { // an editor with an old copy
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := text(t, cfg.Path); got != good {
			t.Errorf("not put back: %q", got)
		}

		damaged := strings.Replace(good, "# END vcpeer a\n", "", 1)
		if err := os.WriteFile(cfg.Path, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		k.Set(entries(t, "10.77.0.2 n2.kyoto"))
		time.Sleep(10 * time.Minute)
		if got := text(t, cfg.Path); got != damaged || !errors.Is(k.Status().Err, marked.ErrDamaged) {
			t.Errorf("status %v, file %q", k.Status().Err, got)
		}
		if n := log.of("host names are not up to date"); n != 1 {
			t.Errorf("the same failure was logged %d times", n)
		}

		if err := os.WriteFile(cfg.Path, []byte(good), 0o644); err != nil { // somebody repaired it
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := text(t, cfg.Path); k.Status().Err != nil || !strings.Contains(got, "10.77.0.2\tn2.kyoto") {
			t.Errorf("after the repair: %v, %q", k.Status().Err, got)
		}
	})
}

func TestRemoveRestores(t *testing.T) {
	cfg, _ := config(t)
	r, err := Update([]byte(text(t, cfg.Path)), "a", entries(t, "10.77.0.1 n1.kyoto"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path, r.File, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} { // the second time there is nothing to do
		if removed, err := Remove(t.Context(), cfg); err != nil || removed != want || text(t, cfg.Path) != "127.0.0.1 localhost\n" {
			t.Errorf("removed %v (want %v), %v, file %q", removed, want, err, text(t, cfg.Path))
		}
	}
}

func TestNewKeeperChecksConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Instance: "a b"}, {Instance: "a", Coalesce: -1}} {
		if _, err := NewKeeper(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := Remove(t.Context(), Config{Instance: "a", Path: "/nonexistent/dir/hosts", Lock: "/nonexistent/lock"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove without a lock directory: %v", err)
	}
}
