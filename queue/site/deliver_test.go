package site

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vcpeer/queue"
	"vcpeer/queue/exec"
)

func deliverer(t *testing.T, account func(context.Context, string) (*exec.Account, error)) (Files, string) {
	c := newCluster(t, 1)
	n := c.add("s1", 1, 1)
	return Files{fakeBlobs{n}, account}, n.put([]byte("content"))
}

func TestDeliverNames(t *testing.T) {
	files, hash := deliverer(t, noAccount)
	for _, tt := range []struct{ name, stdout, output, want string }{
		{"default", "", "", "name.o7.3"},
		{"template", "log/$JOB_NAME-${JOB_ID}.$TASK_ID", "", "log/name-7.3"},
		{"unknown variable", "$HOME.txt", "", "$HOME.txt"},
		{"directory", "logs/", "", "logs/name.o7.3"},
		{"output below", "", "a/b/out.txt", "a/b/out.txt"},
	} {
		dir := t.TempDir()
		d := Delivery{Job: 7, Spec: queue.Spec{Name: "name", Dir: dir, Stdout: tt.stdout, Array: &queue.Range{First: 1, Last: 5, Step: 1}}, Task: queue.TaskView{Index: 3}}
		if tt.output != "" {
			d.Task.Outputs = []queue.File{{Path: tt.output, Hash: hash, Mode: 0o640}}
		} else {
			d.Task.Stdout = &queue.File{Hash: hash}
		}
		problem, err := files.Deliver(t.Context(), d)
		b, readErr := os.ReadFile(filepath.Join(dir, tt.want))
		if problem != "" || err != nil || readErr != nil || string(b) != "content" {
			t.Errorf("%s: problem %q, %v, %v, content %q", tt.name, problem, err, readErr, b)
		}
		left, err := filepath.Glob(filepath.Join(dir, filepath.Dir(tt.want), ".vcpeer-*"))
		if err != nil || len(left) != 0 {
			t.Errorf("%s: left over: %v, %v", tt.name, left, err)
		}
	}
}

// TestDeliverReplacesFilesOnly wants devices, links and pipes to stay what they are, and the null device to mean nothing.
func TestDeliverReplacesFilesOnly(t *testing.T) {
	files, hash := deliverer(t, noAccount)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("elsewhere", at("link")), os.Mkdir(at("dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		stdout string
		wrong  bool
	}{
		{at("pipe"), true}, {at("link"), true}, {"link", true}, {at("dir"), true}, {"pipe", true},
		{"/dev/null", false}, {"/dev/../dev//null", false}, {at("fresh"), false}, {at("fresh"), false},
	} {
		d := Delivery{Job: 1, Spec: queue.Spec{Name: "n", Dir: dir, Stdout: tt.stdout, Stderr: "//dev/null"},
			Task: queue.TaskView{Stdout: &queue.File{Hash: hash}, Stderr: &queue.File{Hash: hash}}}
		if problem, err := files.Deliver(t.Context(), d); (problem != "") != tt.wrong || err != nil {
			t.Errorf("%s: problem %q, %v", tt.stdout, problem, err)
		}
	}
	if info, err := os.Lstat(os.DevNull); err != nil || info.Mode()&os.ModeDevice == 0 {
		t.Errorf("the null device is %v, %v", info.Mode(), err)
	}
	list, err := os.ReadDir(dir)
	var left []string
	for _, e := range list {
		left = append(left, e.Type().String()[:1]+e.Name())
	}
	if got := strings.Join(left, " "); err != nil || got != "ddir -fresh Llink ppipe" {
		t.Errorf("left in the directory: %q, %v", got, err)
	}
}

// TestDeliverStaysInside wants paths and links that lead out of the directory to be problems, and nothing written.
func TestDeliverStaysInside(t *testing.T) {
	files, hash := deliverer(t, noAccount)
	base := t.TempDir()
	dir, outside := filepath.Join(base, "in"), filepath.Join(base, "out")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../out", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"../out/x", "link/x", "/x", "..", "a/../../x", "file/x", "."} {
		d := Delivery{Spec: queue.Spec{Name: "n", Dir: dir}, Task: queue.TaskView{Outputs: []queue.File{{Path: p, Hash: hash}}}}
		if problem, err := files.Deliver(t.Context(), d); problem == "" || err != nil {
			t.Errorf("%s: problem %q, %v", p, problem, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("written outside: %v, %v", left, err)
	}
	gone := Delivery{Spec: queue.Spec{Name: "n", Dir: filepath.Join(base, "gone")}, Task: queue.TaskView{Stdout: &queue.File{Hash: hash}}}
	if problem, err := files.Deliver(t.Context(), gone); !strings.Contains(problem, "gone") || err != nil {
		t.Errorf("directory that is gone: problem %q, %v", problem, err)
	}
	missing := Delivery{Spec: queue.Spec{Name: "n", Dir: dir}, Task: queue.TaskView{Stdout: &queue.File{Hash: "none"}}}
	if problem, err := files.Deliver(t.Context(), missing); problem != "" || err == nil {
		t.Errorf("blob that is missing: problem %q, %v; want to try again", problem, err)
	}
}

// TestDeliverAsOwner wants a root daemon to write as the job's owner, and nowhere else than that user could.
func TestDeliverAsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	const uid, gid = 64321, 64322
	files, hash := deliverer(t, func(context.Context, string) (*exec.Account, error) {
		return &exec.Account{Name: "u", UID: uid, GID: gid}, nil
	})
	base := t.TempDir()
	mine, others := filepath.Join(base, "mine"), filepath.Join(base, "others")
	for p := base; len(p) > len(os.TempDir()); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(mine, 0o700), os.Chown(mine, uid, gid), os.Mkdir(others, 0o755)); err != nil {
		t.Fatal(err)
	}
	deliver := func(dir string) (string, error) {
		return files.Deliver(t.Context(), Delivery{Spec: queue.Spec{Name: "n", Dir: dir}, Task: queue.TaskView{Outputs: []queue.File{{Path: "d/f", Hash: hash}}}})
	}
	if problem, err := deliver(mine); problem != "" || err != nil {
		t.Fatalf("own directory: problem %q, %v", problem, err)
	}
	for _, p := range []string{"d", "d/f"} {
		info, err := os.Stat(filepath.Join(mine, p))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid {
			t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
		}
	}
	if problem, err := deliver(others); problem == "" || err != nil {
		t.Errorf("root's directory: problem %q, %v", problem, err)
	}
	if _, err := os.Stat(filepath.Join(others, "d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("written into root's directory: %v", err)
	}
}

func TestKeptOutputIsNotBroughtBack(t *testing.T) {
	out := queue.File{Hash: "h", Size: 1}
	d := Delivery{Spec: queue.Spec{Name: "n", Dir: "/tmp", Stdout: queue.Kept, Stderr: "err"}, Job: 1}
	d.Task.Stdout, d.Task.Stderr = &out, &out
	if got := results(d); len(got) != 1 || got[0].path != "err" {
		t.Errorf("brought back: %+v, want standard error alone", got)
	}
}
