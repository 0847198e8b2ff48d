package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/api/apitest"
	"vcpeer/peer/config"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// shell runs command lines against a fake node.
type shell struct {
	t    *testing.T
	sys  System
	deps Deps
	out  bytes.Buffer
	errs bytes.Buffer
}

func newShell(t *testing.T, node *apitest.Server) *shell {
	t.Helper()
	vars := map[string]string{"HOME": t.TempDir(), "GREETING": "hello"}
	if node != nil {
		vars["VCPEER_SOCKET"] = node.Socket
	}
	s := &shell{t: t}
	s.sys = System{In: strings.NewReader(""), Out: &s.out, Err: &s.errs, Getenv: func(k string) string { return vars[k] },
		UID: 1000, User: "ann", Host: "kyoto-1", Dir: t.TempDir(), Now: func() time.Time { return noon }}
	s.deps = Deps{Version: "v1.2.3"}
	return s
}

// run returns the exit code; out and errs hold what this line printed.
func (s *shell) run(args ...string) int { return s.runCtx(s.t.Context(), args...) }

func (s *shell) runCtx(ctx context.Context, args ...string) int {
	s.out.Reset()
	s.errs.Reset()
	return Main(ctx, append([]string{"vcpeer"}, args...), s.sys, s.deps)
}

// expect runs a line and compares all of what it did.
func (s *shell) expect(code int, out, errs string, args ...string) {
	s.t.Helper()
	got := s.run(args...)
	if got != code || s.out.String() != out || s.errs.String() != errs {
		s.t.Errorf("vcpeer %s\n--- exit %d, want %d\n--- out\n%s--- want\n%s--- err\n%s--- want\n%s", strings.Join(args, " "), got, code, &s.out, out, &s.errs, errs)
	}
}

func (s *shell) write(name, text string) {
	s.t.Helper()
	p := filepath.Join(s.sys.Dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// blobs answers as a blob store that holds what it was sent.
func blobs(routes apitest.Routes) apitest.Routes {
	var mu sync.Mutex
	have := map[string]bool{}
	routes["PUT /v1/blobs"] = func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, _ := io.Copy(h, r.Body)
		b := api.Blob{Hash: hex.EncodeToString(h.Sum(nil)), Size: n}
		mu.Lock()
		have[b.Hash] = true
		mu.Unlock()
		apitest.WriteLine(w, b)
	}
	routes["HEAD /v1/blobs/{hash}"] = func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !have[r.PathValue("hash")] {
			w.WriteHeader(http.StatusNotFound)
		}
	}
	return routes
}

func TestMistakes(t *testing.T) {
	s := newShell(t, nil)
	for _, tt := range []struct {
		line string
		code int
		want string
	}{
		{"sumbit x", 2, "error: vcpeer has no command \"sumbit\"\nhint: did you mean vcpeer submit?\n"},
		{"account lst", 2, "error: vcpeer account has no command \"lst\"\nhint: did you mean vcpeer account list?\n"},
		{"token revok", 2, "error: vcpeer token has no command \"revok\"\nhint: did you mean vcpeer token revoke?\n"},
		{"jobs --al", 2, "error: vcpeer jobs: unknown flag: --al\nhint: did you mean --all?\n"},
		{"members x", 2, "error: vcpeer members takes no arguments, but got x\n"},
		{"job", 2, "error: vcpeer job wants ID\n"},
		{"job x/y", 2, "error: \"x/y\" names no job"},
		{"members --color red", 2, "error: --color \"red\""},
		{"submit", 2, "error: there is neither a script nor a command\n"},
		{"submit nosuch", 2, "error: there is no script nosuch\nhint: for a command put two dashes before it: vcpeer submit -- nosuch\n"},
		{"submit --array 9-1 -- x", 2, "error: --array: array \"9-1\": the last index is below the first\n"},
		{"submit --mem lots -- x", 2, "error: --mem: size \"lots\""},
		{"submit --max-tasks 3 -- x", 2, "error: --max-tasks is for an array"},
		{"submit --in none -- x", 2, "error: input: "},
		{"evict n1", 2, "error: not asked: evict n1\nhint: add --yes"},
		{"members", 6, "error: no vcpeer is running here: there is no socket "},
		{"logs --stream x 1", 2, "error: --stream \"x\""},
		{"start --slots many", 2, "error: config: flag: slots: \"many\" is not a whole number"},
	} {
		if code := s.run(strings.Fields(tt.line)...); code != tt.code || !strings.HasPrefix(s.errs.String(), tt.want) || s.out.Len() > 0 {
			t.Errorf("vcpeer %s: exit %d\n%s%s\nwant %d %s", tt.line, code, &s.out, &s.errs, tt.code, tt.want)
		}
	}
}

func TestErrorsInJSON(t *testing.T) {
	s := newShell(t, nil)
	for line, want := range map[string]struct {
		code int
		name string
	}{"members --json": {6, api.CodeNoDaemon}, "--json frob": {2, api.CodeBadRequest}, "jobs --json --nope": {2, api.CodeBadRequest}} {
		code := s.run(strings.Fields(line)...)
		var e struct{ Error api.Problem }
		if err := json.Unmarshal(s.out.Bytes(), &e); err != nil || code != want.code || e.Error.Code != want.name || s.errs.Len() > 0 {
			t.Errorf("%s: exit %d, %v\n%s%s", line, code, err, &s.out, &s.errs)
		}
	}
}

func TestPartialAnswer(t *testing.T) {
	l := apitest.List("SiteList", api.Site{Name: "kyoto", Nodes: 2, Alive: 2, Leader: "kyoto-1", Voters: 1, Slots: 4, Free: 4})
	l.Heard = api.Heard{Sites: 1, Of: 2, Missing: []api.Missing{{Site: "osaka", Reason: "no route for 12 s"}}}
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/sites": l}))
	s.expect(3, `SITE   ALIVE  NODES  LEADER   VOTERS  SLOTS  FREE  RUNNING  WAITING  AGE  NOTES
kyoto      2      2  kyoto-1       1      4     4        0        0   0s  
`, "note: not the whole answer: heard 1 of 2 sites\n      osaka: no route for 12 s\n", "sites")
	if code := s.run("sites", "--json"); code != 3 || !strings.Contains(s.out.String(), `"missing"`) {
		t.Errorf("exit %d: %s", code, &s.out)
	}
}

func TestStatus(t *testing.T) {
	st := api.Status{Well: false, Node: api.NodeStatus{ID: "12D3KooWx", Name: "kyoto-1", Site: "kyoto", Version: "v1", PID: 7, Phase: "running", Up: 90 * time.Second},
		Cluster: api.ClusterStatus{Members: 3, Alive: 2, Failed: 1, Sites: 2}, Queue: api.QueueStatus{Role: "follower", Voters: 3, Term: 4, Slots: 2},
		Overlay: api.OverlayStatus{Detail: "off: Open vSwitch is not installed"},
		Checks:  []api.Health{{Code: "OK", Level: "ok", Message: "fine"}, {Code: "NO_LEADER", Level: "fail", Message: "site kyoto has no leader", Hint: "start kyoto-2"}}}
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/status": st}))
	s.expect(1, `node     kyoto-1 at site kyoto, running for 1m30s (version v1, pid 7)
         12D3KooWx
cluster  3 members of 2 sites, 2 alive, 1 failed
queue    follower, leader -, 3 voters, term 4, commit 0
         0 running, 0 waiting, 0 of 2 slots free
overlay  off: Open vSwitch is not installed

✗ fail site kyoto has no leader
  hint: start kyoto-2
✗ not well
`, "", "status")
}

func TestSubmitSendsWhatWasTyped(t *testing.T) {
	var got []api.Submit
	node := apitest.Start(t, blobs(apitest.Routes{
		"POST /v1/jobs": func(w http.ResponseWriter, r *http.Request) {
			var s api.Submit
			_ = json.NewDecoder(r.Body).Decode(&s)
			got = append(got, s)
			apitest.WriteLine(w, api.Submitted{ID: "42.kyoto", Seq: 42, Site: "kyoto", Tasks: 5})
		},
		"GET /v1/jobs": apitest.List("JobList", api.Job{ID: "41.kyoto", Submitted: noon}),
	}))
	s := newShell(t, node)
	s.write("job.sh", "#!/bin/sh\n#VCPEER --slots 2 --mem 1G --in data\n#VCPEER --name fromscript\necho hi\n")
	s.write("data/a", "A")
	s.write("b.txt", "B")
	s.expect(0, "job 42.kyoto submitted (5 tasks, 1-9:2)\n", "", "submit", "--name", "typed", "--array", "1-9:2", "--max-tasks", "2", "--time", "1h30m",
		"--in", "b.txt:c/b", "--out", "*.png", "--env", "A=1", "--env", "GREETING", "--after", "last", "--stdout", "o.$JOB_ID", "--join-output", "--site", "osaka", "job.sh", "x", "--name", "arg")
	j := got[0]
	if j.Name != "typed" || j.Slots != 2 || j.MemBytes != 1<<30 || j.Time != 90*time.Minute || *j.Array != (api.Range{First: 1, Last: 9, Step: 2}) || j.MaxTasks != 2 ||
		j.Site != "osaka" || !j.Join || j.Stdout != "o.$JOB_ID" || j.Retries != 2 || j.Key == "" || j.Dir != s.sys.Dir {
		t.Errorf("%+v", j)
	}
	if fmt.Sprint(j.Argv, j.Env, j.After, j.Outputs) != "[x --name arg] map[A:1 GREETING:hello] [41.kyoto] [*.png]" {
		t.Errorf("%v %v %v %v", j.Argv, j.Env, j.After, j.Outputs)
	}
	if len(j.Inputs) != 2 || j.Inputs[0].Path != "c/b" || j.Inputs[1].Path != "data/a" || j.Script == nil || j.Script.Path != "job.sh" {
		t.Errorf("%+v %+v", j.Inputs, j.Script)
	}
	s.expect(0, "42.kyoto\n", "", "submit", "-q", "--", "sh", "-c", "echo --slots")
	if j := got[1]; j.Script != nil || fmt.Sprintf("%q", j.Argv) != `["sh" "-c" "echo --slots"]` || j.Name != "sh" || j.Slots != 1 || j.Key == got[0].Key {
		t.Errorf("%+v", j)
	}
	puts := 0
	s.run("submit", "job.sh")
	for _, a := range node.Asked() {
		if a.Method == "PUT" {
			puts++
		}
	}
	if puts != 3 { // script, data/a, b.txt: once each, though the script was submitted twice
		t.Errorf("%d contents were sent, want 3", puts)
	}
}

func TestDirectiveErrors(t *testing.T) {
	s := newShell(t, nil)
	for script, want := range map[string]string{
		"#!/bin/sh\n#VCPEER --slots two\n": "error: job.sh: line 2: invalid argument \"two\"",
		"#VCPEER --slotz 2\n":              "error: job.sh: line 1: unknown flag: --slotz",
		"#VCPEER --slots 2 more\n":         "error: job.sh: line 1: \"more\" is not an option",
		"echo\n#VCPEER --slots 2\n":        "error: job.sh: line 2: #VCPEER after the first command",
		"#VCPEER --wait\n":                 "error: job.sh: line 1: unknown flag: --wait",
	} {
		s.write("job.sh", script)
		if code := s.run("submit", "job.sh"); code != 2 || !strings.HasPrefix(s.errs.String(), want) {
			t.Errorf("%q: exit %d %s", script, code, &s.errs)
		}
	}
}

func ended(state string, c api.Counts) api.Job {
	return api.Job{ID: "42.kyoto", Seq: 42, Site: "kyoto", State: state, Tasks: c}
}

func TestWait(t *testing.T) {
	half := ended(api.StateRunning, api.Counts{Total: 2, Running: 1, Done: 1})
	s := newShell(t, apitest.Start(t, apitest.Routes{
		"GET /v1/jobs/1/wait": apitest.Lines{half, ended(api.StateDone, api.Counts{Total: 2, Done: 2})},
		"GET /v1/jobs/2/wait": apitest.Lines{ended(api.StateFailed, api.Counts{Total: 2, Done: 1, Failed: 1})},
		"GET /v1/jobs/3/wait": func(w http.ResponseWriter, r *http.Request) { apitest.WriteLine(w, half); <-r.Context().Done() },
		"GET /v1/jobs/4/wait": &api.Problem{Code: api.CodeNotFound, Message: "no job 4.kyoto"},
	}))
	s.expect(0, "job 42.kyoto done: 2 done of 2\n", "", "wait", "1")
	s.expect(1, "job 42.kyoto failed: 1 failed, 1 done of 2\n", "why: vcpeer why 42.kyoto\n", "wait", "2")
	s.expect(4, "", "error: no job 4.kyoto\n", "wait", "4")
	s.expect(124, "", "error: not over within 50ms\n", "wait", "3", "--timeout", "50ms")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if code := s.runCtx(ctx, "wait", "3"); code != ExitSignal || !strings.Contains(s.errs.String(), "to come back: vcpeer wait 3") {
		t.Errorf("exit %d: %s", code, &s.errs)
	}
}

func TestWaitOutlivesTheNodesRestart(t *testing.T) {
	asked := 0
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/jobs/1/wait": func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 1 {
			apitest.WriteLine(w, ended(api.StateRunning, api.Counts{Total: 1, Running: 1}))
			panic(http.ErrAbortHandler)
		}
		apitest.WriteLine(w, ended(api.StateDone, api.Counts{Total: 1, Done: 1}))
	}}))
	if code := s.run("wait", "1"); code != 0 || asked != 2 || !strings.Contains(s.errs.String(), "lost the node") {
		t.Errorf("exit %d after %d questions: %s", code, asked, &s.errs)
	}
}

func runRoutes(logs any, detail api.JobDetail) apitest.Routes {
	return apitest.Routes{
		"POST /v1/jobs":                 api.Submitted{ID: "42.kyoto", Seq: 42, Site: "kyoto", Tasks: 1},
		"GET /v1/jobs/42.kyoto/logs":    logs,
		"GET /v1/jobs/42.kyoto/wait":    apitest.Lines{detail.Job},
		"GET /v1/jobs/42.kyoto":         detail,
		"POST /v1/jobs/42.kyoto/cancel": api.Cancelled{ID: "42.kyoto", Running: 1},
	}
}

func TestRun(t *testing.T) {
	chunk := func(task int, stream, text string) api.LogChunk {
		return api.LogChunk{Task: task, Stream: stream, Data: []byte(text)}
	}
	failed := api.JobDetail{Job: ended(api.StateFailed, api.Counts{Total: 1, Failed: 1}), TaskList: []api.Task{{State: api.StateFailed, Exit: 7}}}
	s := newShell(t, apitest.Start(t, runRoutes(apitest.Lines{chunk(0, "stdout", "a\nb"), chunk(0, "stderr", "bad\n")}, failed)))
	s.expect(7, "a\nb", "bad\n", "run", "--", "x")

	array := api.JobDetail{Job: ended(api.StateDone, api.Counts{Total: 2, Done: 2}), TaskList: []api.Task{{Index: 1, State: api.StateDone}, {Index: 2, State: api.StateDone}}}
	s = newShell(t, apitest.Start(t, runRoutes(apitest.Lines{chunk(1, "stdout", "on"), chunk(2, "stdout", "two\n"), chunk(1, "stdout", "e\nrest")}, array)))
	s.expect(0, "[2] two\n[1] one\n[1] rest\n", "", "run", "--array", "1-2", "--", "x")

	lost := &api.Problem{Code: api.CodeInternal, Message: "the log is gone"}
	s = newShell(t, apitest.Start(t, runRoutes(apitest.Lines{lost}, failed)))
	s.expect(125, "", "job 42.kyoto goes on; to come back: vcpeer logs -f 42.kyoto\nerror: the log is gone\n", "run", "--", "x")
	s = newShell(t, nil)
	if code := s.run("run", "--", "x"); code != 125 {
		t.Errorf("without a node: exit %d", code)
	}
}

func TestRunLeavesNoFiles(t *testing.T) {
	done := api.JobDetail{Job: ended(api.StateDone, api.Counts{Total: 1, Done: 1})}
	routes := runRoutes(apitest.Lines{}, done)
	var got api.Submit
	routes["POST /v1/jobs"] = func(w http.ResponseWriter, r *http.Request) {
		got = api.Submit{}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		apitest.WriteLine(w, api.Submitted{ID: "42.kyoto", Seq: 42, Site: "kyoto", Tasks: 1})
	}
	s := newShell(t, apitest.Start(t, routes))
	s.expect(0, "", "", "run", "--", "x")
	if got.Stdout != api.OutputKept || got.Stderr != api.OutputKept {
		t.Errorf("stdout %q, stderr %q", got.Stdout, got.Stderr)
	}
	s.expect(0, "", "", "run", "--stdout", "kept", "--", "x")
	if got.Stdout != "kept" || got.Stderr != api.OutputKept {
		t.Errorf("stdout %q, stderr %q", got.Stdout, got.Stderr)
	}
}

func TestStopReturnsWhenTheNodeIsGone(t *testing.T) {
	for _, verb := range []string{"stop", "leave"} {
		told, asked := 0, 0
		var s *shell
		var socket string
		node := apitest.Start(t, apitest.Routes{
			"POST /v1/" + verb: func(http.ResponseWriter, *http.Request) { told++ },
			"GET /v1/status": func(w http.ResponseWriter, _ *http.Request) {
				if asked++; asked == 3 {
					_ = os.Remove(socket) // as the last act of a daemon
				}
				w.Header().Set("Connection", "close") // the next question finds the socket, or nothing
				apitest.WriteLine(w, api.Status{})
			},
		})
		s, socket = newShell(t, node), node.Socket
		args := []string{verb}
		if verb == "leave" {
			args = append(args, "--yes")
		}
		if code := s.run(args...); code != 0 || told != 1 || asked < 3 {
			t.Errorf("%s: exit %d, told %d times, asked %d times\n%s", verb, code, told, asked, &s.errs)
		}
	}
}

func TestRunCancelsOnInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	detail := api.JobDetail{Job: ended(api.StateCancelled, api.Counts{Total: 1, Cancelled: 1})}
	node := apitest.Start(t, runRoutes(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, detail))
	s := newShell(t, node)
	if code := s.runCtx(ctx, "run", "--", "x"); code != ExitSignal || !strings.Contains(s.errs.String(), "job 42.kyoto is cancelled") {
		t.Errorf("exit %d: %s", code, &s.errs)
	}
	asked := false
	for _, a := range node.Asked() {
		asked = asked || a.Path == "/v1/jobs/42.kyoto/cancel"
	}
	if !asked {
		t.Error("the job was not cancelled")
	}
}

func TestJobsTellsWhatItHides(t *testing.T) {
	l := apitest.List("JobList",
		api.Job{ID: "7.kyoto", Name: "a", State: "running", Slots: 1, Submitted: noon, Started: noon.Add(-time.Minute), Nodes: []string{"n1"}},
		api.Job{ID: "8.kyoto", Name: "b\x1b[2J", State: "pending", Slots: 4, Array: &api.Range{First: 1, Last: 4, Step: 1}, Tasks: api.Counts{Total: 4, Pending: 3, Failed: 1}, Submitted: noon})
	l.Hidden = 14
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/jobs": l}))
	s.expect(0, `ID       NAME   STATE    TASKS           SLOTS  SUBMITTED             RAN    NODES
7.kyoto  a      running  -                   1  2026-11-23T12:00:00Z  1m00s  n1
8.kyoto  b?[2J  pending  1/4 (1 failed)      4  2026-11-23T12:00:00Z  -      -
`, "14 jobs that ended not shown; vcpeer jobs -a shows them\n", "jobs")
	s.expect(0, "7.kyoto\n8.kyoto\n", "", "jobs", "-q")
}

func TestStartReadsTheToken(t *testing.T) {
	var got config.Config
	s := newShell(t, nil)
	s.deps.Run = func(_ context.Context, c config.Config) error { got = c; return nil }
	s.sys.In = strings.NewReader("vc1-abc\n")
	dir := t.TempDir()
	s.expect(0, "", "", "start", "--dir", dir, "--site", "osaka", "--seed", "a", "--seed", "b:1", "--token", "-", "--listen", "127.0.0.1:0", "--slots", "2", "--jobs-as", "self")
	if got.Token != "vc1-abc" || got.Site != "osaka" || fmt.Sprint(got.Seeds, got.Listen, got.Slots) != "[a b:1] [127.0.0.1:0] 2" || got.Socket != filepath.Join(dir, "run/vcpeer.sock") {
		t.Errorf("%+v", got)
	}
	s.write("tok", "vc1-file\n")
	s.expect(0, "", "", "start", "--dir", dir, "--token-file", filepath.Join(s.sys.Dir, "tok"))
	if got.Token != "vc1-file" {
		t.Errorf("token %q", got.Token)
	}
	s.sys.In = strings.NewReader("")
	s.expect(2, "", "error: there is no join token in standard input\nhint: vcpeer token, on any member, prints one\n", "start", "--token", "-")
}

func TestToken(t *testing.T) {
	tok := api.Token{ID: "t1", Token: "vc1-abc", Expires: noon, Command: "vcpeer start --seed 192.0.2.1:7475 --token vc1-abc"}
	node := apitest.Start(t, apitest.Routes{"POST /v1/tokens": tok})
	s := newShell(t, node)
	if code := s.run("token", "--ttl", "2h", "--reusable", "--site", "lab"); code != 0 || s.out.String() != tok.Command+"\n" {
		t.Errorf("exit %d: %s", code, &s.out)
	}
	if got := node.Asked()[0].Body; got != `{"ttlNanos":7200000000000,"reusable":true,"site":"lab"}` {
		t.Errorf("asked %s", got)
	}
	s.expect(0, "vc1-abc\n", "", "token", "create", "-q")
}

func TestExitCodesPage(t *testing.T) {
	s := newShell(t, nil)
	if code := s.run("help", "exit-codes"); code != 0 {
		t.Fatal(code)
	}
	want, err := os.ReadFile("testdata/exit-codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if s.out.String() != string(want) {
		t.Errorf("the page differs from testdata/exit-codes.txt:\n%s", &s.out)
	}
	for code, exit := range exitCodes {
		if !strings.Contains(string(want), fmt.Sprintf("\n  %-4d ", exit)) {
			t.Errorf("%s leaves with %d, which the page does not explain", code, exit)
		}
	}
}

func TestColor(t *testing.T) {
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/members": apitest.List("MemberList", api.Member{Name: "n", State: "alive"})}))
	painted := func(args ...string) bool { s.run(args...); return strings.Contains(s.out.String(), "\x1b[") }
	if painted("members") || !painted("members", "--color", "always") || painted("members", "--color", "always", "--json") {
		t.Error("colour without a terminal is for --color always alone")
	}
	s.sys.OutTTY = true
	if !painted("members") || painted("members", "--color", "never") {
		t.Error("colour on a terminal")
	}
}

func TestEvents(t *testing.T) {
	node := apitest.Start(t, apitest.Routes{"GET /v1/events": apitest.Lines{
		api.Event{Time: noon, Type: "member.failed", Text: "osaka-1 is not heard"},
		&api.Problem{Code: api.CodeBusy, Message: "you read too slowly"},
	}})
	s := newShell(t, node)
	s.expect(1, "2026-11-23T12:00:00Z  member.failed     osaka-1 is not heard\n", "error: you read too slowly\n", "events", "--since", "10m")
	if q := node.Asked()[0].Query; q != "since=2026-11-23T11%3A50%3A00Z" {
		t.Errorf("asked %s", q)
	}
	s.expect(1, `{"time":"2026-11-23T12:00:00Z","type":"member.failed","text":"osaka-1 is not heard"}
{
  "error": {
    "code": "BUSY",
    "message": "you read too slowly"
  }
}
`, "", "events", "-f", "--json")
}

func TestGridEngineByNameAndAsCommand(t *testing.T) {
	node := apitest.Start(t, apitest.Routes{"GET /v1/jobs/9": &api.Problem{Code: api.CodeNotFound, Message: "no job 9"}})
	s := newShell(t, nil)
	want := "Following jobs do not exist: \n9\n"
	s.expect(1, "", want, "--socket", node.Socket, "qstat", "-j", "9")
	s.expect(1, "", want, "qstat", "--socket="+node.Socket, "-j", "9")
	s = newShell(t, node)
	if code := Main(t.Context(), []string{"/usr/lib/vcpeer/bin/qstat", "-j", "9"}, s.sys, s.deps); code != 1 || s.errs.String() != want {
		t.Errorf("exit %d: %s", code, &s.errs)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	tab := newTable("ID", "~NAME", ">N")
	tab.add("1", "a-name-that-is-far-too-long", 7)
	var b strings.Builder
	plain := func(_, s string) string { return s }
	if err := tab.print(&b, 20, plain); err != nil {
		t.Fatal(err)
	}
	if want := "ID  NAME           N\n1   a-name-that-…  7\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

func TestEveryCommandTeaches(t *testing.T) {
	s := newShell(t, nil)
	root := New(s.sys, s.deps)
	for _, c := range root.Commands() {
		if c.Short == "" && c.Long == "" {
			t.Errorf("%s has no help", c.Name())
		}
		if code := s.run(c.Name(), "--help"); code != 0 && !c.DisableFlagParsing {
			t.Errorf("%s --help: exit %d", c.Name(), code)
		}
	}
}
