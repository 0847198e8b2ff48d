package exec

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemonMain is a daemon that can be killed: it starts the attempts listed in DIR/todo that have not been started, and
// never acknowledges.
func daemonMain(dir string) int {
	e, err := New(Config{Dir: filepath.Join(dir, "exec"), Blobs: &memBlobs{}, Log: slog.New(slog.DiscardHandler), FloorBytes: -1, Cgroup: os.Getenv("CG")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go e.Run(context.Background())
	todo, err := os.ReadFile(filepath.Join(dir, "todo"))
	if err != nil {
		return 1
	}
	go func() {
		for range e.Results() {
		}
	}()
	for key := range strings.FieldsSeq(string(todo)) {
		n := key[strings.LastIndexByte(key, '.')+1:]
		script := fmt.Sprintf("echo %s $$ >> %s/ledger; while [ ! -e %s/go ]; do sleep 0.2; done; exit %s", key, dir, dir, n)
		e.Start(context.Background(), sh(key, script), time.Minute) // ErrStarted: an earlier daemon has
	}
	select {}
}

// TestDaemonKilled kills the daemon 20 times at various moments while 20 jobs run; none may be killed or started twice, and
// every exit code must come.
func TestDaemonKilled(t *testing.T) {
	dir := openDirs(t)
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("1.%d.%d", i, i+10))
	}
	if err := os.WriteFile(filepath.Join(dir, "todo"), []byte(strings.Join(keys, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	ledger := func() []string {
		b, _ := os.ReadFile(filepath.Join(dir, "ledger")) // not there before the first job
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	for round := range 20 {
		cmd := exec.Command("/proc/self/exe", "daemon", dir)
		cmd.Env = append(os.Environ(), "CG="+CgroupOff)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(40+round*17)*time.Millisecond, func() { cmd.Process.Kill() })
		cmd.Wait() // it was killed
	}
	b := &memBlobs{}
	r := runRig(t, Config{Dir: filepath.Join(dir, "exec"), Blobs: b, Log: slog.New(slog.DiscardHandler), FloorBytes: -1, Cgroup: CgroupOff, Linger: 200 * time.Millisecond}, b)
	begun := time.Now()
	<-r.ready
	t.Logf("%d attempts adopted in %v", len(r.Running()), time.Since(begun))
	for _, key := range keys {
		n := key[strings.LastIndexByte(key, '.')+1:]
		r.Start(t.Context(), sh(key, fmt.Sprintf("echo %s $$ >> %s/ledger; exit %s", key, dir, n)), time.Minute) // those never begun
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range keys {
		res := r.result()
		want := res.Key[strings.LastIndexByte(res.Key, '.')+1:]
		started := strings.Count(strings.Join(ledger(), "\n")+"\n", res.Key+" ")
		switch {
		case res.Lost && started == 0 && strings.Contains(res.Reason, "while it was being started"):
			lost++ // the daemon died between recording the intent and giving it to the shim: never run, and said so
		case res.Lost || fmt.Sprint(res.Exit) != want || started != 1:
			t.Errorf("%d starts: %+v", started, res)
		}
	}
	if lost > 10 {
		t.Errorf("%d of %d attempts were lost before their start", lost, len(keys))
	}
}

func TestShimKilled(t *testing.T) {
	bothGroups(t, func(t *testing.T, cg string) {
		r := newRig(t, func(c *Config) { c.Cgroup = cg })
		pids := filepath.Join(t.TempDir(), "pids")
		r.start(sh("1.1.1", `echo $$ >> `+pids+`; sleep 300 & echo $! >> `+pids+`
			( setsid sh -c 'echo $$ >> `+pids+`; exec sleep 300' & ); wait`))
		read := func() []string {
			b, _ := os.ReadFile(pids)
			return strings.Fields(string(b))
		}
		wait(t, "the job is complete", 5*time.Second, func() bool { return len(read()) == 3 })
		r.mu.Lock()
		l := r.attempts["1.1.1"].link
		r.mu.Unlock()
		began := time.Now()
		if err := unix.Kill(l.me.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		res := r.result()
		if took := time.Since(began); !res.Lost || res.Exit != -1 || res.Reason == "" || took > 2*time.Second {
			t.Errorf("after %v: %+v", took, res)
		}
		for _, f := range read() {
			var pid int
			fmt.Sscan(f, &pid)
			if p, err := readProcess(pid); err == nil && p.state != 'Z' {
				t.Errorf("%+v is alive after its attempt was reported lost", p)
			}
		}
		if res := r.do(sh("1.2.1", "echo next")); res.Exit != 0 {
			t.Errorf("after it: %+v", res)
		}
	})
}

// TestShimKilledWithDaemon: both die; the next daemon finds the rest of the job by its mark and ends it.
func TestShimKilledWithDaemon(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Cgroup = CgroupOff })
	pids := filepath.Join(t.TempDir(), "pids")
	r.start(sh("1.1.1", `( setsid sh -c 'echo $$ >> `+pids+`; exec sleep 300' & ); sleep 300`))
	var pid int
	wait(t, "the job is complete", 5*time.Second, func() bool {
		b, _ := os.ReadFile(pids)
		n, _ := fmt.Sscan(string(b), &pid)
		return n == 1
	})
	r.mu.Lock()
	l := r.attempts["1.1.1"].link
	r.mu.Unlock()
	r.stop()
	unix.Kill(l.me.PID, unix.SIGKILL)
	wait(t, "the shim is dead", 5*time.Second, func() bool { return !alive(l.me.PID, l.me.Ticks) })
	next := runRig(t, r.cfg, r.blobs)
	if res := next.result(); !res.Lost {
		t.Errorf("result %+v", res)
	}
	if p, err := readProcess(pid); err == nil && p.state != 'Z' {
		t.Errorf("%+v is left", p)
	}
}

// TestLeaseWithoutDaemon: nobody renews, the shim alone must end the job.
func TestLeaseWithoutDaemon(t *testing.T) {
	r := newRig(t, nil)
	r.startFor(sh("1.1.1", "trap '' TERM; while :; do sleep 0.1; done"), 700*time.Millisecond)
	pid := r.Running()[0].PID
	until := r.Running()[0].Until
	r.stop()
	wait(t, "the job is dead", 5*time.Second, func() bool { _, err := readProcess(pid); return err != nil })
	if late := NowBoot().Sub(until); late < 0 || late > time.Second {
		t.Errorf("killed %v after the end of its lease", late)
	}
	next := runRig(t, r.cfg, r.blobs)
	if res := next.result(); res.Killed != CauseLease || res.Exit != 137 {
		t.Errorf("result %+v", res)
	}
	next.stop()
	again := runRig(t, r.cfg, r.blobs)
	if res := again.result(); res.Killed != CauseLease {
		t.Errorf("a result that was not acknowledged comes as %+v", res)
	}
}

// TestOtherBoot: what an earlier boot left is lost, whatever processes carry its numbers now.
func TestOtherBoot(t *testing.T) {
	r := newRig(t, nil)
	r.start(sh("1.1.1", "sleep 300"))
	r.stop()
	path := filepath.Join(r.attemptsDir(), "1.1.1", fileSpec)
	var rec attemptRecord
	if err := r.codec.readRecord(path, &rec); err != nil {
		t.Fatal(err)
	}
	link := rec.ShimID
	rec.BootID, rec.ShimID = "00000000-0000-0000-0000-000000000000", "GONE"
	if err := r.codec.writeRecord(path, rec); err != nil {
		t.Fatal(err)
	}
	first := startedRecord{PID: os.Getpid(), Ticks: 1}
	if err := r.codec.writeRecord(filepath.Join(r.attemptsDir(), "1.1.1", fileStarted), first); err != nil {
		t.Fatal(err)
	}
	next := runRig(t, r.cfg, r.blobs)
	if res := next.result(); !res.Lost || res.Reason != "the node restarted" {
		t.Errorf("result %+v", res)
	}
	wait(t, "the shim without attempt is ended", 5*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(r.shimsDir(), link))
		return err != nil
	})
}

func TestManyAdopted(t *testing.T) {
	r := newRig(t, nil)
	const n = 30
	for i := range n {
		r.start(sh(fmt.Sprintf("1.%d.1", i), "sleep 0.8; exit 4"))
	}
	r.stop()
	began := time.Now()
	next := runRig(t, r.cfg, r.blobs)
	<-next.ready
	t.Logf("%d adopted in %v", len(next.Running()), time.Since(began))
	for range n {
		if res := next.result(); res.Exit != 4 {
			t.Errorf("%+v", res)
		}
	}
}
