package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSpareDirectories runs jobs that leave their directories in all kinds of states. Each next one must find new ones,
// with nothing of the one before, and only what was left as it was made may be used again.
func TestSpareDirectories(t *testing.T) {
	r := newRig(t, nil)
	probe := `ls -A; ls -A "$TMPDIR"; stat -c %a . "$TMPDIR"; pwd`
	for i, tt := range []struct {
		name, script string
		again        bool
	}{
		{"nothing left", "true", true},
		{"a file", "touch x", false},
		{"a file in tmp", `touch "$TMPDIR/.x"`, false},
		{"opened to others", "chmod 777 .", false},
		{"tmp is gone", `rmdir "$TMPDIR"`, false},
		{"tmp is a link", `rmdir "$TMPDIR"; ln -s /tmp "$TMPDIR"`, false},
		{"the attempt's own directory is opened", "chmod 777 ..", false},
		{"a file beside", "echo x > ../other", true},
		{"a directory beside", "mkdir ../other", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 && strings.Contains(tt.name, "own directory") {
				t.Skip("the directory is the daemon's")
			}
			r.t = t
			r.spares = map[uint32][]string{}
			r.do(sh(fmt.Sprintf("8.%d.1", i), tt.script))
			kept := len(r.spares[uint32(os.Geteuid())])
			if (kept == 1) != tt.again || kept > 1 {
				t.Errorf("%d directories kept", kept)
			}
			next := sh(fmt.Sprintf("8.%d.2", i), probe)
			res := r.do(next)
			want := "700\n700\n" + filepath.Join(r.attemptsDir(), next.Key, dirWork) + "\n"
			if got := r.blobs.text(t, res.Stdout); got != want || res.Exit != 0 {
				t.Errorf("the next job found %q, want %q", got, want)
			}
		})
	}
}

// TestSpareDoesNotReplace wants a key whose directory is there to stay refused although a spare could take its name.
func TestSpareDoesNotReplace(t *testing.T) {
	r := newRig(t, nil)
	r.do(sh("9.1.1", "true"))
	if err := os.Mkdir(filepath.Join(r.attemptsDir(), "9.2.1"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := &attempt{dir: filepath.Join(r.attemptsDir(), "9.2.1")}
	r.mu.Lock()
	defer r.mu.Unlock()
	if spare, err := r.makeDir(a); spare || !os.IsExist(err) {
		t.Errorf("made over a directory that was there: %v, %v", spare, err)
	}
}
