package sge

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
)

// node is a cell with one machine in memory; jobs are numbered from 2089.
type node struct {
	jobs    []api.JobDetail
	blobs   []string
	subs    []api.Submit
	after   func(*api.JobDetail) // what becomes of a job that is waited for
	refused error
}

var stamp = time.Date(2026, 11, 23, 1, 15, 0, 0, time.Local)

func (n *node) HasBlob(context.Context, string) (bool, error) { return false, nil }

func (n *node) PutBlob(_ context.Context, r io.Reader) (*api.Blob, error) {
	b, err := io.ReadAll(r)
	n.blobs = append(n.blobs, string(b))
	return &api.Blob{Hash: "h", Size: int64(len(b))}, err
}

func (n *node) Submit(_ context.Context, s api.Submit) (*api.Submitted, error) {
	if n.refused != nil {
		return nil, n.refused
	}
	n.subs = append(n.subs, s)
	seq := uint64(2089 + len(n.jobs))
	total := 1
	if s.Array != nil {
		total = (s.Array.Last-s.Array.First)/s.Array.Step + 1
	}
	n.add(api.Job{Seq: seq, Name: s.Name, State: api.StatePending, Slots: s.Slots, Array: s.Array, Tasks: api.Counts{Total: total, Pending: total}}).Submit = s
	return &api.Submitted{ID: fmt.Sprintf("%d.kyoto", seq), Seq: seq, Site: "kyoto", Tasks: total}, nil
}

func (n *node) add(j api.Job) *api.JobDetail {
	j.Site, j.ID, j.Submitted = "kyoto", fmt.Sprintf("%d.kyoto", j.Seq), stamp
	if j.User == "" {
		j.User = "bench"
	}
	n.jobs = append(n.jobs, api.JobDetail{Job: j, Submit: api.Submit{Slots: j.Slots}})
	return &n.jobs[len(n.jobs)-1]
}

func (n *node) Jobs(_ context.Context, ask api.JobsAsk) (*api.List[api.Job], error) {
	l := &api.List[api.Job]{SeenFrom: api.Place{Node: "bench1", Site: "kyoto"}}
	for _, j := range n.jobs {
		if ask.User == "*" || j.User == ask.User || (ask.User == "" && j.User == "bench") {
			l.Items = append(l.Items, j.Job)
		}
	}
	return l, nil
}

func (n *node) get(id string) *api.JobDetail {
	for i, j := range n.jobs {
		if j.ID == id || fmt.Sprint(j.Seq) == id {
			return &n.jobs[i]
		}
	}
	return nil
}

func (n *node) Job(_ context.Context, id string) (*api.JobDetail, error) {
	if j := n.get(id); j != nil {
		return j, nil
	}
	return nil, &api.Problem{Code: api.CodeNotFound, Message: "no job " + id}
}

func (n *node) Cancel(_ context.Context, id string, task *int) (*api.Cancelled, error) {
	j := n.get(id)
	if j == nil {
		return nil, &api.Problem{Code: api.CodeNotFound, Message: "no job " + id}
	}
	c := &api.Cancelled{ID: j.ID, Pending: j.Tasks.Pending + j.Tasks.Held, Running: j.Tasks.Running}
	if task != nil {
		c.Pending, c.Running = 0, min(1, j.Tasks.Running)
		if c.Running == 0 {
			c.Pending = 1
		}
	}
	return c, nil
}

func (n *node) Hosts(context.Context) (*api.List[api.Host], error) {
	return &api.List[api.Host]{Items: []api.Host{{Name: "bench1", Arch: "amd64", CPUs: 8, MemBytes: 8 << 30, State: "alive"}}}, nil
}

// session runs command lines in a directory with the scripts of the transcript.
type session struct {
	t    *testing.T
	node *node
	env  Env
	in   string
	out  bytes.Buffer
	errs bytes.Buffer
}

func newSession(t *testing.T) *session {
	s := &session{t: t, node: &node{}}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"s.sh":   "#!/bin/sh\n#$ -N scripted -j y\n#$ -l h_rt=600\nsleep 5\n",
		"x3.sh":  "#!/bin/sh\nexit 3\n",
		"opts":   "-N fromfile # a comment\n-pe smp 2\n",
		"bad.sh": "#!/bin/sh\n#$ -zzz\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.env = Env{Out: &s.out, Err: &s.errs, Environ: []string{"PATH=/bin", "FOO=bar"}, User: "bench", Home: t.TempDir(), Host: "bench1", Dir: dir, Node: s.node,
		Await: func(_ context.Context, id string) error { s.node.after(s.node.get(id)); return nil }}
	return s
}

// run answers as the transcripts are written: | standard output, ! standard error, = exit code.
func (s *session) run(args ...string) string {
	s.t.Helper()
	s.out.Reset()
	s.errs.Reset()
	s.env.In = strings.NewReader(s.in)
	code := Main(s.t.Context(), args[0], s.env, args[1:])
	var b strings.Builder
	for _, stream := range []struct {
		mark string
		buf  *bytes.Buffer
	}{{"| ", &s.out}, {"! ", &s.errs}} {
		for line := range strings.Lines(stream.buf.String()) {
			b.WriteString(stream.mark + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return fmt.Sprintf("%s= rc %d\n", b.String(), code)
}

func (s *session) expect(line, want string) {
	s.t.Helper()
	if got := s.run(strings.Fields(line)...); got != want {
		s.t.Errorf("$ %s\n%swant\n%s", line, got, want)
	}
}

// The answers are those of Grid Engine 8.1.9.
func TestQsubAnswers(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"qsub s.sh", "| Your job 2089 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -N fromstdin", "| Your job 2089 (\"fromstdin\") has been submitted\n= rc 0\n"},
		{"qsub", "| Your job 2089 (\"STDIN\") has been submitted\n= rc 0\n"},
		{"qsub -t 1-10:3 s.sh", "| Your job-array 2089.1-10:3 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -t 5 s.sh", "| Your job-array 2089.5-5:1 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -t 1-4 -tc 2 s.sh", "| Your job-array 2089.1-4:1 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -terse s.sh", "| 2089\n= rc 0\n"},
		{"qsub -terse -t 2-4 s.sh", "| 2089.2-4:1\n= rc 0\n"},
		{"qsub -pe make 4 s.sh", "| Your job 2089 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -q main.q -m bea -M a@b -notify -r y -A x s.sh", "| Your job 2089 (\"scripted\") has been submitted\n= rc 0\n"},
		{"qsub -b y -N bad/name sleep 1", "! qsub: argument to -N option must not contain / \n= rc 2\n"},
		{"qsub -N 1bad s.sh", "! Unable to run job: denied: \"1bad\" is not a valid object name (cannot start with a digit)\n! Exiting.\n= rc 1\n"},
		{"qsub -l bogus=1 s.sh", "! Unable to run job: unknown resource \"bogus\"\n! Exiting.\n= rc 1\n"},
		{"qsub -pe nosuch 4 s.sh", "! Unable to run job: job rejected: the requested parallel environment \"nosuch\" does not exist\n! Exiting.\n= rc 1\n"},
		{"qsub -zzz s.sh", "! qsub: invalid option argument \"-zzz\"\n= rc 2\n"},
		{"qsub bad.sh", "! qsub: invalid option argument \"-zzz\"\n= rc 2\n"},
		{"qsub -t 1-100000 s.sh", "! Unable to run job: job rejected: you tried to submit a job with more than 75000 tasks\n! Exiting.\n= rc 1\n"},
		{"qsub -P nop s.sh", "! Unable to run job: job rejected: the requested project \"nop\" does not exist\n! Exiting.\n= rc 1\n"},
		{"qsub -w v s.sh", "| verification: found suitable queue(s)\n= rc 0\n"},
		{"qsub -w v -pe smp 64 s.sh", "| verification: no suitable queues\n= rc 1\n"},
		{"qsub -w v -l h=nohost s.sh", "! Unable to run job: can't resolve hostname \"nohost\"\n! Exiting.\n= rc 1\n"},
		{"qsub -w e -l h=nohost s.sh", "! Unable to run job: can't resolve hostname \"nohost\"\n! Exiting.\n= rc 1\n"},
		{"qsub -p 5 s.sh", "! Unable to run job: job rejected: positive submission priority requires operator privileges\n! Exiting.\n= rc 1\n"},
		{"qsub -a 01010000 s.sh", "! Unable to run job: option \"-a\" is not supported by vcpeer\n! Exiting.\n= rc 1\n"},
		{"qsub nosuch.sh", "! Unable to read script file because of error: error opening nosuch.sh: no such file or directory\n! Exiting.\n= rc 14\n"},
	} {
		s := newSession(t)
		s.in = "sleep 1\n"
		s.expect(tt.line, tt.want)
	}
}

func TestQsubAsks(t *testing.T) {
	s := newSession(t)
	if err := os.WriteFile(filepath.Join(s.env.Home, ".sge_request"), []byte("-S /bin/bash\n-l h_vmem=1G\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run("qsub", "-cwd", "-@", "opts", "-l", "h_rt=0:1:30,h_vmem=2G", "-v", `A=1,B="x,y",FOO`, "-o", "host:logs/$JOB_NAME.$TASK_ID", "-e", "err", "-j", "n", "-t", "2-6:2", "-tc", "1", "-hold_jid", "999", "s.sh", "-N", "arg")
	j := s.node.subs[0]
	if j.Name != "fromfile" || j.Slots != 2 || j.MemBytes != 4<<30 || j.Time != 90*time.Second || j.MaxTasks != 1 || j.Join || j.Dir != s.env.Dir || j.Shell != "/bin/bash" ||
		!j.AfterAny || j.Dialect != api.DialectGridEngine || len(j.After) != 0 {
		t.Errorf("%+v", j)
	}
	if fmt.Sprintf("%q", j.Argv) != `["-N" "arg"]` || j.Stdout != s.env.Dir+"/logs/$JOB_NAME.$TASK_ID" || j.Stderr != s.env.Dir+"/err" {
		t.Errorf("%q %s %s", j.Argv, j.Stdout, j.Stderr)
	}
	for k, want := range map[string]string{"A": "1", "B": "x,y", "FOO": "bar", "PE": "smp", "NSLOTS": "2", "QUEUE": "main.q", "JOB_NAME": "fromfile", "SGE_TASK_FIRST": "2", "SGE_TASK_LAST": "6", "SGE_TASK_STEPSIZE": "2", "SGE_O_WORKDIR": s.env.Dir} {
		if j.Env[k] != want {
			t.Errorf("%s=%q, want %q", k, j.Env[k], want)
		}
	}
	if !strings.HasPrefix(s.node.blobs[0], "#!/bin/bash\n") {
		t.Errorf("-S does not win over the script's first line: %q", s.node.blobs[0])
	}
	s.run("qsub", "-V", "-b", "y", "-hold_jid", "fromfile,2089", "-o", s.env.Dir, "echo", "$JOB_ID", "a b")
	j = s.node.subs[1]
	if fmt.Sprintf("%q", j.Argv) != `["/bin/bash" "-c" "echo \"$JOB_ID\" \"a b\""]` || j.Env["PATH"] != "/bin" || j.Dir != s.env.Home || j.Script != nil ||
		fmt.Sprint(j.After) != "[2089.kyoto]" || j.Stdout != s.env.Dir+"/$JOB_NAME.o$JOB_ID" || j.Env["SGE_TASK_FIRST"] != "undefined" {
		t.Errorf("%+v", j)
	}
	s.run("qsub", "-b", "y", "-shell", "n", "echo", "a b")
	if j := s.node.subs[2]; fmt.Sprintf("%q", j.Argv) != `["echo" "a b"]` {
		t.Errorf("%q", j.Argv)
	}
}

func TestQsubSync(t *testing.T) {
	s := newSession(t)
	end := func(tasks ...api.Task) func(*api.JobDetail) {
		return func(j *api.JobDetail) {
			j.TaskList, j.State = tasks, api.StateFailed
			if tasks[0].State == api.StateDone {
				j.State = api.StateDone
			}
		}
	}
	s.node.after = end(api.Task{State: api.StateDone})
	s.expect("qsub -sync y x3.sh", "| Your job 2089 (\"x3.sh\") has been submitted\n| Job 2089 exited with exit code 0.\n= rc 0\n")
	s.node.after = end(api.Task{Index: 1, State: api.StateFailed, Exit: 3}, api.Task{Index: 2, State: api.StateFailed, Exit: 3})
	s.expect("qsub -sync y -t 1-2 x3.sh", "| Your job-array 2090.1-2:1 (\"x3.sh\") has been submitted\n! Job 2090.1 exited with exit code 3.\n! Job 2090.2 exited with exit code 3.\n= rc 3\n")
	s.node.after = end(api.Task{State: api.StateFailed, Exit: 137})
	s.expect("qsub -cwd -sync y x3.sh", "| Your job 2091 (\"x3.sh\") has been submitted\n! Job 2091 exited because of signal SIGKILL\n= rc 1\n")
}

// busy fills the cell as in the transcript.
func busy(s *session) {
	run := func(j api.Job, tasks ...int) *api.JobDetail {
		j.Started, j.Nodes = stamp, []string{"bench1"}
		d := s.node.add(j)
		for _, i := range tasks {
			d.TaskList = append(d.TaskList, api.Task{Index: i, State: api.StateRunning, Node: "bench1", Started: stamp})
		}
		return d
	}
	run(api.Job{Seq: 2089, Name: "scripted", State: api.StateRunning, Slots: 1, Tasks: api.Counts{Total: 1, Running: 1}})
	run(api.Job{Seq: 2093, Name: "scripted", State: api.StateRunning, Slots: 1, Array: &api.Range{First: 1, Last: 10, Step: 3}, Tasks: api.Counts{Total: 4, Running: 2, Pending: 2}}, 1, 4)
	s.node.add(api.Job{Seq: 2095, Name: "a-name-that-is-long", State: api.StatePending, Slots: 4, Array: &api.Range{First: 2, Last: 4, Step: 1}, Tasks: api.Counts{Total: 3, Pending: 3}})
	s.node.add(api.Job{Seq: 2096, Name: "held", State: api.StateHeld, Slots: 2, Tasks: api.Counts{Total: 1, Held: 1}})
	s.node.add(api.Job{Seq: 2097, Name: "over", State: api.StateDone, Slots: 2, Tasks: api.Counts{Total: 1, Done: 1}})
	s.node.add(api.Job{Seq: 2098, Name: "other", User: "carol", State: api.StatePending, Slots: 1, Tasks: api.Counts{Total: 1, Pending: 1}})
}

const head = `| job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID 
| -----------------------------------------------------------------------------------------------------------------
`

func TestQstatLists(t *testing.T) {
	s := newSession(t)
	s.expect("qstat", "= rc 0\n")
	busy(s)
	s.expect("qstat", head+`|    2089 0.50000 scripted   bench        r     11/23/2026 01:15:00 main.q@bench1                      1        
|    2093 0.50000 scripted   bench        r     11/23/2026 01:15:00 main.q@bench1                      1 1
|    2093 0.50000 scripted   bench        r     11/23/2026 01:15:00 main.q@bench1                      1 4
|    2093 0.50000 scripted   bench        qw    11/23/2026 01:15:00                                    1 7,10
|    2095 0.50000 a-name-tha bench        qw    11/23/2026 01:15:00                                    4 2-4:1
|    2096 0.00000 held       bench        hqw   11/23/2026 01:15:00                                    2        
= rc 0
`)
	s.expect("qstat -s p -g d -u ca*,bench", head+`|    2093 0.50000 scripted   bench        qw    11/23/2026 01:15:00                                    1 7
|    2093 0.50000 scripted   bench        qw    11/23/2026 01:15:00                                    1 10
|    2095 0.50000 a-name-tha bench        qw    11/23/2026 01:15:00                                    4 2
|    2095 0.50000 a-name-tha bench        qw    11/23/2026 01:15:00                                    4 3
|    2095 0.50000 a-name-tha bench        qw    11/23/2026 01:15:00                                    4 4
|    2096 0.00000 held       bench        hqw   11/23/2026 01:15:00                                    2        
|    2098 0.50000 other      carol        qw    11/23/2026 01:15:00                                    1        
= rc 0
`)
	s.expect("qstat -s h", head+"|    2096 0.00000 held       bench        hqw   11/23/2026 01:15:00                                    2        \n= rc 0\n")
	s.expect("qstat -u nobody-known", "= rc 0\n")
	s.expect("qstat -zzz", "! qstat: invalid option argument \"-zzz\"\n= rc 1\n")
	s.expect("qstat -f -s r -u carol,bench", `| queuename                      qtype resv/used/tot. load_avg arch          states
| ---------------------------------------------------------------------------------
| main.q@bench1                  BIP   0/3/8          -NA-     lx-amd64      
|    2089 0.50000 scripted   bench        r     11/23/2026 01:15:00     1        
|    2093 0.50000 scripted   bench        r     11/23/2026 01:15:00     1 1
|    2093 0.50000 scripted   bench        r     11/23/2026 01:15:00     1 4
= rc 0
`)
	s.expect("qstat -f -s h", `| queuename                      qtype resv/used/tot. load_avg arch          states
| ---------------------------------------------------------------------------------
| main.q@bench1                  BIP   0/0/8          -NA-     lx-amd64      
| 
| ############################################################################
|  - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS
| ############################################################################
|    2096 0.00000 held       bench        hqw   11/23/2026 01:15:00     2        
= rc 0
`)
}

func TestQstatNeeds(t *testing.T) {
	s := newSession(t)
	d := s.node.add(api.Job{Seq: 2102, Name: "scripted", State: api.StateRunning, Slots: 4, Tasks: api.Counts{Total: 1, Running: 1}, Started: stamp, Nodes: []string{"bench1"}})
	d.Submit = api.Submit{Slots: 4, Env: map[string]string{"PE": "make"}, Time: time.Minute, MemBytes: 4 << 30}
	s.expect("qstat -r", head+`|    2102 0.50000 scripted   bench        r     11/23/2026 01:15:00 main.q@bench1                      4        
|        Full jobname:     scripted
|        Master Queue:     main.q@bench1
|        Requested PE:     make 4
|        Granted PE:       make 4
|        Hard Resources:   h_rt=60 (0.000000)
|                          h_vmem=1G (0.000000)
|        Soft Resources:   
|        Binding:          NONE
= rc 0
`)
}

func TestQstatXML(t *testing.T) {
	s := newSession(t)
	busy(s)
	for _, line := range []string{"qstat -xml -u *", "qstat -f -xml"} {
		s.run(strings.Fields(line)...)
		var x struct {
			Running []struct {
				Number int    `xml:"JB_job_number"`
				State  string `xml:"state"`
				Tasks  string `xml:"tasks"`
			} `xml:"queue_info>job_list"`
			Queues []struct {
				Name string `xml:"name"`
				Jobs []struct {
					Number int `xml:"JB_job_number"`
				} `xml:"job_list"`
			} `xml:"queue_info>Queue-List"`
			Pending []struct {
				Owner string `xml:"JB_owner"`
			} `xml:"job_info>job_list"`
		}
		if err := xml.Unmarshal(s.out.Bytes(), &x); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, &s.out)
		}
		full := strings.Contains(line, "-f")
		if !full && (len(x.Running) != 3 || x.Running[1].Number != 2093 || x.Running[1].Tasks != "1" || x.Running[0].State != "r" || len(x.Pending) != 4) {
			t.Errorf("%s: %+v", line, x)
		}
		if full && (len(x.Queues) != 1 || x.Queues[0].Name != "main.q@bench1" || len(x.Queues[0].Jobs) != 3 || len(x.Pending) != 3) {
			t.Errorf("%s: %+v", line, x)
		}
	}
}

func TestQstatJob(t *testing.T) {
	s := newSession(t)
	d := s.node.add(api.Job{Seq: 2114, Name: "held", State: api.StateHeld, Slots: 2, Tasks: api.Counts{Total: 1, Held: 1}})
	d.Submit = api.Submit{Slots: 2, Join: true, Time: time.Minute, MemBytes: 4 << 30, After: []string{"2113"}, Argv: []string{"5"}, Script: &api.File{Path: "s.sh"},
		Env: map[string]string{"PE": "make", "A": "1", "B": "two", "SGE_O_HOME": "/home/bench", "SGE_O_LOGNAME": "bench", "SGE_O_HOST": "bench1"}}
	s.node.add(api.Job{Seq: 2115, Name: "over", State: api.StateDone, Tasks: api.Counts{Total: 1, Done: 1}})
	s.expect("qstat -j 2114", `| ==============================================================
| job_number:                 2114
| exec_file:                  job_scripts/2114
| submission_time:            Mon Nov 23 01:15:00 2026
| owner:                      bench
| sge_o_home:                 /home/bench
| sge_o_log_name:             bench
| sge_o_host:                 bench1
| account:                    sge
| merge:                      y
| hard resource_list:         h_rt=60,h_vmem=2G
| notify:                     FALSE
| job_name:                   held
| jobshare:                   0
| env_list:                   A=1,B=two
| job_args:                   5
| script_file:                s.sh
| parallel environment:  make range: 2
| jid_predecessor_list (req): 2113
| binding:                    NONE
| job_type:                   NONE
| scheduling info:            Job is in hold state
= rc 0
`)
	s.expect("qstat -j 999999", "! Following jobs do not exist: \n! 999999\n= rc 1\n")
	s.expect("qstat -j 2115", "! Following jobs do not exist: \n! 2115\n= rc 1\n")
}

func TestQdel(t *testing.T) {
	s := newSession(t)
	busy(s)
	s.node.add(api.Job{Seq: 2120, Name: "arr", State: api.StateRunning, Array: &api.Range{First: 1, Last: 4, Step: 1}, Tasks: api.Counts{Total: 4, Running: 2, Pending: 2}})
	s.expect("qdel 2089 2096", "| bench has registered the job 2089 for deletion\n| bench has deleted job 2096\n= rc 0\n")
	s.expect("qdel 2120.3", "| bench has registered the job-array task 2120.3 for deletion\n= rc 0\n")
	s.expect("qdel 2120 -t 1-3:2", "| bench has registered the job-array task 2120.1 for deletion\n| bench has registered the job-array task 2120.3 for deletion\n= rc 0\n")
	s.expect("qdel 999999", "| denied: job \"999999\" does not exist\n= rc 1\n")
	s.expect("qdel 2097", "| denied: job \"2097\" does not exist\n= rc 1\n")
	s.expect("qdel scri*", "| bench has registered the job 2089 for deletion\n| bench has registered the job 2093 for deletion\n= rc 0\n")
	s.expect("qdel -u carol", "| bench has deleted job 2098\n= rc 0\n")
	s.expect("qdel", "! qdel: no jobs and no users were named\n= rc 1\n")
}

func TestNodeRefuses(t *testing.T) {
	s := newSession(t)
	s.node.refused = &api.Problem{Code: api.CodeRefused, Message: "no node of the cluster has 64 CPUs", Hint: "vcpeer hosts"}
	s.expect("qsub s.sh", "! Unable to run job: no node of the cluster has 64 CPUs\n! hint: vcpeer hosts\n! Exiting.\n= rc 1\n")
}

func TestAmounts(t *testing.T) {
	for in, want := range map[string]int64{"1G": 1 << 30, "1g": 1e9, "1.5M": 3 << 19, "100": 100, "INFINITY": 0} {
		if got, ok := memory(in); !ok || got != want {
			t.Errorf("memory %s: %d %v", in, got, ok)
		}
	}
	for in, want := range map[string]time.Duration{"60": time.Minute, "1:0:0": time.Hour, "::5": 5 * time.Second, "infinity": 0} {
		if got, ok := clock(in); !ok || got != want {
			t.Errorf("clock %s: %v %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "x", "1X", "-1", "1:2:3:4", "1GG"} {
		_, ok1 := memory(in)
		_, ok2 := clock(in)
		if ok1 || ok2 {
			t.Errorf("%q was taken", in)
		}
	}
}

func FuzzQsub(f *testing.F) {
	f.Add("-pe smp 4 -cwd -t 1-9:2 -l h_rt=1:0,h_vmem=1G -v A=1 x.sh", "#$ -N a\n")
	f.Add("-@ x -clear -S h:/bin/sh -soft -l q=main.q", "#$ -q all.q@h\n#$ 'x\n")
	f.Fuzz(func(t *testing.T, line, script string) {
		e := &Env{Home: "/nonexistent", Dir: "/nonexistent"}
		r := newRequest(e)
		rest, err := scan(qsubOptions(), r, strings.Fields(line), badQsub)
		if err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
		if err == nil && len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' && !strings.Contains(line, "-- ") {
			t.Errorf("%q: stopped at the option %q", line, rest[0])
		}
		_ = r.directives([]byte(script))
		if r.slots < 0 || r.memBytes < 0 || r.time < 0 {
			t.Errorf("%q: %+v", line, r)
		}
	})
}

func FuzzTaskList(f *testing.F) {
	f.Add([]byte{1, 2, 3, 7}, 1)
	f.Fuzz(func(t *testing.T, skip []byte, step int) {
		if step < 1 || step > 50 {
			return
		}
		started := map[int]bool{}
		for _, i := range skip {
			started[int(i)] = true
		}
		a := &api.Range{First: 1, Last: 200, Step: step}
		left := remaining(a, started)
		var back []int
		for part := range strings.SplitSeq(taskList(left, step), ",") {
			var first, last, by int
			if n, _ := fmt.Sscanf(part, "%d-%d:%d", &first, &last, &by); n != 3 {
				if _, err := fmt.Sscanf(part, "%d", &first); err != nil {
					continue
				}
				last, by = first, 1
			}
			for i := first; i <= last; i += by {
				back = append(back, i)
			}
		}
		if fmt.Sprint(back) != fmt.Sprint(left) {
			t.Errorf("%v became %v", left, back)
		}
	})
}
