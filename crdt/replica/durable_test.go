package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
)

// crashEnv names the directory in which a child of TestKilledAtAnyTime writes until it is killed.
const crashEnv = "VCPEER_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForEver opens the replica in dir and adds tokens from many goroutines; it prints each once Update has returned.
func writeForEver(dir string) error {
	r, err := Open(Options{Dir: dir, Key: keyOf(1), Now: time.Now})
	if err != nil {
		return err
	}
	if _, err := r.Found("test"); err != nil && !errors.Is(err, ErrFounded) {
		return err
	}
	start := uint64(len(r.View().Tokens())) + 1000
	var out sync.Mutex
	fail := make(chan error)
	for g := range uint64(4) {
		go func() {
			for n := start + g; ; n += 4 {
				id := crdt.TokenID(crdt.NodeIDOf(keyOf(n)))
				if err := r.Update(context.Background(), func(tx *crdt.Tx) error {
					_, err := tx.AddToken(id[:], time.Now().Add(time.Hour), true, "")
					return err
				}); err != nil {
					fail <- err
					return
				}
				out.Lock()
				fmt.Println(id)
				out.Unlock()
			}
		}()
	}
	return <-fail
}

// TestKilledAtAnyTime kills a writing process with SIGKILL again and again: nothing it was told is durable may be lost.
func TestKilledAtAnyTime(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		killAfter(t, dir, 15+11*round, acknowledged)
		r, err := Open(Options{Dir: dir, Key: keyOf(1), Now: time.Now})
		if err != nil {
			t.Fatalf("reopen: %v", err)
		}
		have := map[string]bool{}
		for _, tok := range r.View().Tokens() {
			have[tok.ID.String()] = true
		}
		for id := range acknowledged {
			if !have[id] {
				t.Fatalf("round %d: token %s was acknowledged and is lost (%d of %d here)", round, id, len(have), len(acknowledged))
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs a child and kills it when it has acknowledged n writes, which it notes.
func killAfter(t *testing.T, dir string, n int, acknowledged map[string]bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		if id := lines.Text(); len(id) == 64 {
			acknowledged[id] = true
		}
		if seen == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("child ended by itself: %s", stderr.String())
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, keyOf(1))
	if err := r.Update(t.Context(), func(*crdt.Tx) error { return nil }); !errors.Is(err, ErrNoCluster) {
		t.Fatalf("update without a cluster: %v", err)
	}
	if _, err := r.Found("test"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Found("other"); !errors.Is(err, ErrFounded) {
		t.Fatalf("found twice: %v", err)
	}
	for i := range 50 {
		update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n" + strconv.Itoa(i)}) })
	}
	digest, id := r.Digest(), r.ClusterID()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Update(t.Context(), func(*crdt.Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatalf("update after close: %v", err)
	}
	r = open(t, dir, keyOf(1))
	if r.Digest() != digest || r.ClusterID() != id || len(r.View().Hosts()) != 1 || r.View().Hosts()[0].Name != "n49" {
		t.Fatalf("after reopen: %+v", r.View().Hosts())
	}
}

func TestNoSpace(t *testing.T) {
	r := cluster(t, 1)[0]
	digest, free := r.Digest(), uint64(floorBytes-1)
	real := r.disk.free
	r.disk.free = func(string) (uint64, uint64, error) { return free, 100 << 20, nil }
	err := r.Update(t.Context(), func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n1"}) })
	if !errors.Is(err, ErrNoSpace) || r.Digest() != digest || len(r.View().Hosts()) != 0 {
		t.Fatalf("on a full disk: %v, hosts %v", err, r.View().Hosts())
	}
	r.disk.free = real
	update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n1"}) })
}

func TestFailedWriteIsTakenBack(t *testing.T) {
	r := cluster(t, 1)[0]
	update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n1"}) })
	digest := r.Digest()
	broken := errors.New("input/output error")
	r.disk.fail = func() error { return broken }
	if err := r.Update(t.Context(), func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n2"}) }); !errors.Is(err, broken) {
		t.Fatalf("update: %v", err)
	}
	if r.Digest() != digest || r.View().Hosts()[0].Name != "n1" {
		t.Fatalf("what was not written shows: %+v", r.View().Hosts())
	}
	r.disk.fail = nil
	update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "n3"}) })
	if r.View().Hosts()[0].Name != "n3" {
		t.Fatalf("after the failure: %+v", r.View().Hosts())
	}
}

func TestConcurrentUpdates(t *testing.T) {
	r := cluster(t, 1)[0]
	changed, cancel := r.Watch()
	defer cancel()
	var local int
	r.OnLocal(func([]byte) { local++ }) // called by one goroutine; read after the last Update has returned
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			update(t, r, func(tx *crdt.Tx) error {
				_, err := tx.AddAccount(crdt.AccountSpec{Name: fmt.Sprintf("user%d", i)})
				return err
			})
		})
	}
	wg.Wait()
	uids := map[uint32]bool{}
	for _, a := range r.View().Accounts() {
		uids[a.UID] = true
	}
	if len(uids) != 200 || local != 200 {
		t.Fatalf("%d accounts with numbers of their own, %d batches told", len(uids), local)
	}
	select {
	case <-changed:
	default:
		t.Error("no change was signalled")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.Update(ctx, func(*crdt.Tx) error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// copyDir copies the files of a closed store.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestRestoredBackup(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	r := open(t, dir, keyOf(1))
	if _, err := r.Found("test"); err != nil {
		t.Fatal(err)
	}
	peer := open(t, t.TempDir(), keyOf(2))
	f, _ := r.Founding()
	if err := peer.Adopt(f.Raw()); err != nil {
		t.Fatal(err)
	}
	update(t, r, func(tx *crdt.Tx) error { return tx.AdmitMember(peer.Self(), crdt.TokenID{}) })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	copyDir(t, dir, backup)
	r = open(t, dir, keyOf(1))
	update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "newer"}) })
	pull(t, peer, r, 1<<20)

	old := open(t, backup, keyOf(1))
	batches, _, err := peer.Since(old.Heads(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Receive(t.Context(), batches); !errors.Is(err, ErrRestored) {
		t.Fatalf("receive of own newer batches: %v", err)
	}
	put := func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{CPUs: 3}) }
	if err := old.Update(t.Context(), put); !errors.Is(err, ErrRestored) {
		t.Fatalf("update: %v", err)
	}
	old.Recover()
	pull(t, old, peer, 1<<20)
	update(t, old, put)
	if h := old.View().Hosts(); len(h) != 1 || h[0].Name != "newer" || h[0].CPUs != 3 {
		t.Fatalf("after recovery: %+v", h)
	}
}

func TestForkTravels(t *testing.T) {
	rs := cluster(t, 4)
	evil, a, b := rs[3], rs[1], rs[2]
	clone := open(t, t.TempDir(), keyOf(4))
	f, _ := evil.Founding()
	if err := clone.Adopt(f.Raw()); err != nil {
		t.Fatal(err)
	}
	pull(t, clone, rs[0], 1<<20)
	for i, r := range []*Replica{evil, clone} {
		for n := range 3 {
			update(t, r, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: fmt.Sprintf("n%d-%d", i, n)}) })
		}
	}
	pull(t, a, evil, 1<<20)
	pull(t, b, clone, 1<<20)
	syncAll(t, rs[:3])
	for i, r := range rs[:3] {
		if m, _ := r.View().Member(evil.Self()); !m.Frozen || len(r.View().Hosts()) != 0 {
			t.Errorf("replica %d: %+v, hosts %+v", i, m, r.View().Hosts())
		}
	}
	pull(t, evil, a, 1<<20)
	if err := evil.Update(t.Context(), func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{CPUs: 1}) }); !errors.Is(err, crdt.ErrFrozen) {
		t.Errorf("the frozen writes: %v", err)
	}
}

func TestEvictionVoidsAfterRestartToo(t *testing.T) {
	rs := cluster(t, 3)
	update(t, rs[2], func(tx *crdt.Tx) error { _, err := tx.AddAccount(crdt.AccountSpec{Name: "mallory"}); return err })
	pull(t, rs[1], rs[2], 1<<20)
	update(t, rs[0], func(tx *crdt.Tx) error { return tx.Evict(rs[2].Self(), "stolen") })
	pull(t, rs[1], rs[0], 1<<20)
	pull(t, rs[0], rs[1], 1<<20)
	if rs[0].Digest() != rs[1].Digest() || len(rs[1].View().Accounts()) != 0 {
		t.Fatalf("accounts after the eviction: %+v", rs[1].View().Accounts())
	}
	dir, digest := rs[1].disk.dir, rs[1].Digest()
	if err := rs[1].Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, keyOf(2))
	if again.Digest() != digest || again.View().Standing(rs[2].Self()) != crdt.Evicted || len(again.View().Accounts()) != 0 {
		t.Fatal("the restart shows something else")
	}
}

func TestDamagedRecords(t *testing.T) {
	rs := cluster(t, 2)
	for range 3 {
		update(t, rs[0], func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Version: time.Now().String()}) })
	}
	pull(t, rs[1], rs[0], 1<<20)
	dir := rs[1].disk.dir
	if err := rs[1].disk.write([]put{{batchKey(batchPrefix, rs[0].Self(), 2), []byte("rot")}}); err != nil {
		t.Fatal(err)
	}
	if err := rs[1].Close(); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, keyOf(2))
	pull(t, r, rs[0], 1<<20)
	if r.Digest() != rs[0].Digest() {
		t.Fatal("the damaged log was not fetched again")
	}
}

func TestGarbageIsRefused(t *testing.T) {
	rs := cluster(t, 2)
	if _, err := rs[0].Receive(t.Context(), [][]byte{nil, []byte("garbage"), make([]byte, crdt.MaxBatch+1)}); !errors.Is(err, crdt.ErrMalformed) {
		t.Errorf("receive: %v", err)
	}
	if _, _, err := rs[0].Since([]byte("garbage"), 1); !errors.Is(err, crdt.ErrMalformed) {
		t.Errorf("since: %v", err)
	}
	other := cluster(t, 1)[0]
	update(t, other, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Name: "x"}) })
	batches, _, err := other.Since(nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := rs[0].Receive(t.Context(), batches); !errors.Is(err, crdt.ErrCluster) || len(fresh) > 0 {
		t.Errorf("a batch of another cluster: %v", err)
	}
}

func TestWatchEphemeral(t *testing.T) {
	rs := cluster(t, 2)
	loads, stop := rs[1].WatchEphemeral("load")
	links, stopLinks := rs[1].WatchEphemeral("link")
	defer stopLinks()
	send := func(kind string) {
		if err := rs[0].SetEphemeral(kind, "", nil, time.Minute); err != nil {
			t.Fatal(err)
		}
		entries, err := rs[0].EphemeralSince(rs[1].EphemeralDigest(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := rs[1].ReceiveEphemeral(entries); err != nil {
				t.Fatal(err)
			}
		}
	}
	send("load")
	send("load")
	if len(loads) != 1 || len(links) != 0 {
		t.Errorf("%d signals for loads, %d for links after two loads", len(loads), len(links))
	}
	<-loads
	stop()
	send("load")
	send("link")
	if len(loads) != 0 || len(links) != 1 || len(rs[1].eph.watch) != 1 {
		t.Errorf("%d signals after the end of a watch, %d for a link, %d kinds watched", len(loads), len(links), len(rs[1].eph.watch))
	}
}

func TestEphemeral(t *testing.T) {
	rs := cluster(t, 2)
	if err := rs[0].SetEphemeral("load", "", []byte("1"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := rs[0].SetEphemeral("load", "", []byte("2"), time.Minute); err != nil {
		t.Fatal(err)
	}
	entries, err := rs[0].EphemeralSince(rs[1].EphemeralDigest(), 1<<20)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, want := range []int{1, 0} {
		if fresh, err := rs[1].ReceiveEphemeral(entries); err != nil || len(fresh) != want {
			t.Fatalf("receive %d: %d fresh, %v", i, len(fresh), err)
		}
	}
	if got := rs[1].Ephemeral("load"); len(got) != 1 || string(got[0].Value) != "2" || got[0].Author != rs[0].Self() {
		t.Fatalf("%+v", got)
	}
	if entries, _ = rs[0].EphemeralSince(rs[1].EphemeralDigest(), 1<<20); len(entries) != 0 {
		t.Fatalf("%d entries after sync", len(entries))
	}
	rs[1].now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if got := rs[1].Ephemeral("load"); len(got) != 0 {
		t.Fatalf("lives after its time: %+v", got)
	}
	for i := range maxEphemeralAuthor {
		err = errors.Join(err, rs[0].SetEphemeral("link", strconv.Itoa(i), nil, time.Minute))
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("no bound: %v", err)
	}
}
