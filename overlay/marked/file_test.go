package marked

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func put(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func in(dir string) File {
	return File{Path: filepath.Join(dir, "hosts"), Lock: filepath.Join(dir, "lock"), Mode: 0o644}
}

func set(owner string, lines ...string) func([]byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) { return Set(old, owner, lines) }
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestEditKeepsModeAndWritesOnlyChanges(t *testing.T) {
	f := in(t.TempDir())
	put(t, f.Path, "1\n", 0o604)
	if os.Geteuid() == 0 {
		if err := os.Chown(f.Path, 7, 8); err != nil {
			t.Fatal(err)
		}
	}
	if changed, err := f.Edit(t.Context(), set("a", "x")); err != nil || !changed {
		t.Fatalf("first edit: %v, %v", changed, err)
	}
	info, err := os.Stat(f.Path)
	if err != nil || info.Mode() != 0o604 {
		t.Errorf("mode %v, %v; want 0604", info.Mode(), err)
	}
	if st := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (st.Uid != 7 || st.Gid != 8) {
		t.Errorf("owner %d:%d, want 7:8", st.Uid, st.Gid)
	}
	before := inode(t, f.Path)
	if changed, err := f.Edit(t.Context(), set("a", "x")); err != nil || changed || inode(t, f.Path) != before {
		t.Errorf("equal edit: changed %v, %v, inode %d, was %d", changed, err, inode(t, f.Path), before)
	}
	if _, err := f.Edit(t.Context(), set("a")); err != nil || content(t, f.Path) != "1\n" {
		t.Errorf("after the end: %q, %v", content(t, f.Path), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".hosts*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEditMakesFileOnlyForContent(t *testing.T) {
	f := in(t.TempDir())
	if changed, err := f.Edit(t.Context(), set("a")); err != nil || changed {
		t.Fatalf("nothing into nothing: %v, %v", changed, err)
	}
	if _, err := os.Stat(f.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("file was made for nothing: %v", err)
	}
	if changed, err := f.Edit(t.Context(), set("a", "x")); err != nil || !changed || !strings.Contains(content(t, f.Path), "\nx\n") {
		t.Fatalf("new file: %v, %v, %q", changed, err, content(t, f.Path))
	}
}

func TestEditFollowsLink(t *testing.T) {
	f := in(t.TempDir())
	behind := filepath.Join(t.TempDir(), "real")
	put(t, behind, "1\n", 0o644)
	if err := os.Symlink(behind, f.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Edit(t.Context(), set("a", "x")); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(f.Path); err != nil || target != behind || !strings.Contains(content(t, behind), "\nx\n") {
		t.Errorf("link to %q, %v; content %q", target, err, content(t, behind))
	}
}

func TestEditKeepsLastGood(t *testing.T) {
	f := in(t.TempDir())
	const broken = "# BEGIN vcpeer a\nx\n"
	put(t, f.Path, broken, 0o644)
	if _, err := f.Edit(t.Context(), set("a", "y")); !errors.Is(err, ErrDamaged) || content(t, f.Path) != broken {
		t.Errorf("got %v, content %q", err, content(t, f.Path))
	}
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(f.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Edit(t.Context(), set("a", "y")); err == nil {
		t.Error("a directory was edited")
	}
}

// TestEditSeesOtherWriters: a write by somebody who knows no lock, between our reading and writing, is not lost.
func TestEditSeesOtherWriters(t *testing.T) {
	f := in(t.TempDir())
	put(t, f.Path, "1\n", 0o644)
	calls := 0
	_, err := f.Edit(t.Context(), func(old []byte) ([]byte, error) {
		if calls++; calls == 1 {
			put(t, f.Path, "1\n2\n", 0o644)
		}
		return Set(old, "a", []string{"x"})
	})
	if got := content(t, f.Path); err != nil || !strings.HasPrefix(got, "1\n2\n# BEGIN") || calls != 2 {
		t.Errorf("got %q, %v after %d calls", got, err, calls)
	}
	_, err = f.Edit(t.Context(), func(old []byte) ([]byte, error) {
		put(t, f.Path, string(old)+"more\n", 0o644)
		return Set(old, "a", []string{"y"})
	})
	if !errors.Is(err, ErrChanging) {
		t.Errorf("file that never rests: %v, want ErrChanging", err)
	}
}

func TestEditTogether(t *testing.T) {
	f := in(t.TempDir())
	put(t, f.Path, "1\n", 0o644)
	var all sync.WaitGroup
	for o := range 8 {
		all.Go(func() {
			for i := range 10 {
				if _, err := f.Edit(t.Context(), set(fmt.Sprint("owner-", o), fmt.Sprint("value-", o, "-", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := content(t, f.Path)
	for o := range 8 {
		if !strings.Contains(got, fmt.Sprint("\nvalue-", o, "-", 9, "\n# END vcpeer owner-", o, "\n")) {
			t.Errorf("last value of owner %d is missing in\n%s", o, got)
		}
	}
}

func TestEditWaitsForLockOnlyAsLongAsTold(t *testing.T) {
	f := in(t.TempDir())
	unlock, err := lock(t.Context(), f.Lock)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.Edit(ctx, set("a", "x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want deadline exceeded", err)
	}
}

// TestInterruptedInPlaceWrite: the machine died while a bind-mounted file was written; the next edit completes it first.
func TestInterruptedInPlaceWrite(t *testing.T) {
	f := in(t.TempDir())
	put(t, f.Path, "1\n# BEGIN vcpeer a\nhalf", 0o644)
	put(t, beside(f.Path, "redo"), "1\n# BEGIN vcpeer a\nx\n# END vcpeer a\n2\n", 0o644)
	if _, err := f.Edit(t.Context(), set("a")); err != nil || content(t, f.Path) != "1\n2\n" {
		t.Errorf("got %q, %v", content(t, f.Path), err)
	}
	if _, err := os.Stat(beside(f.Path, "redo")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log of the interrupted write is still there: %v", err)
	}
}

// TestEditMountPoint runs itself in a mount namespace of its own, where the file is a bind mount as in a container.
func TestEditMountPoint(t *testing.T) {
	const inside = "VCPEER_TEST_MOUNT_DIR"
	if dir := os.Getenv(inside); dir != "" {
		editMountPoint(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestEditMountPoint$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to make a mount namespace:", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func editMountPoint(t *testing.T, dir string) {
	f := in(dir)
	outside := filepath.Join(dir, "outside")
	put(t, outside, "1\n2\n", 0o644)
	put(t, f.Path, "", 0o644)
	if err := syscall.Mount(outside, f.Path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(f.Path, syscall.MNT_DETACH)
	before := inode(t, f.Path)
	for _, lines := range [][]string{{"long line", "another"}, {"s"}, nil} {
		if changed, err := f.Edit(t.Context(), set("a", lines...)); err != nil || !changed {
			t.Fatalf("%q: changed %v, %v", lines, changed, err)
		}
		want, _ := Set([]byte("1\n2\n"), "a", lines)
		if got := content(t, outside); got != string(want) || inode(t, f.Path) != before {
			t.Errorf("outside has %q, want %q; inode %d, was %d", got, want, inode(t, f.Path), before)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".hosts*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
