package site

import (
	"slices"
	"strconv"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/exec"
)

// place is where an attempt runs, by name, and what else jobs are told of it.
type place struct {
	site, node string
	env        []string
}

// attemptSpec translates a job's spec to what the executor runs for one attempt.
func attemptSpec(m attemptMeta, g granted, account *exec.Account, at place) (exec.Spec, error) {
	s := &g.Spec
	meta, err := wire.enc.Marshal(m)
	if err != nil {
		return exec.Spec{}, err
	}
	out := exec.Spec{Key: m.key(), Argv: s.Argv, Shell: s.Shell, Account: account, Outputs: s.Outputs, Join: s.Join,
		Slots: s.Slots, MemBytes: s.MemBytes, TimeLimit: s.Time, Meta: meta, Env: environ(m, g, at)}
	out.NoStdout, out.NoStderr = discarded(s.Stdout), discarded(s.Stderr)
	if s.Script != nil {
		out.Script = s.Script.Hash
	}
	for _, f := range s.Inputs {
		out.Inputs = append(out.Inputs, exec.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode})
	}
	return out, nil
}

// environ returns the job's variables and ours. VCPEER_JOB_KEY and VCPEER_EPOCH let a job make its effects on the
// outside idempotent; RESTARTED is 1 from the second attempt on, else 0; VCPEER_SITE, VCPEER_NODE and HOSTNAME name
// where it runs, and at.env says more of that. The rest is what scripts of other queues read.
func environ(m attemptMeta, g granted, at place) []string {
	s := &g.Spec
	restarted := "0"
	if g.Attempt > 1 {
		restarted = "1"
	}
	var env []string
	for k, v := range s.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	r := s.Tasks()
	job, task := strconv.FormatUint(uint64(m.Ref.Job), 10), "undefined"
	env = append(env, "VCPEER_JOB_ID="+job, "VCPEER_JOB_KEY="+string(m.Owner)+"."+job+"."+strconv.Itoa(m.Ref.Task),
		"VCPEER_EPOCH="+strconv.FormatUint(uint64(m.Ref.Epoch), 10), "VCPEER_JOB_NAME="+s.Name)
	if s.Array != nil {
		task = strconv.Itoa(m.Ref.Task)
		env = append(env, "VCPEER_TASK_ID="+task, "SGE_TASK_FIRST="+strconv.Itoa(r.First), "SGE_TASK_LAST="+strconv.Itoa(r.Last),
			"SGE_TASK_STEPSIZE="+strconv.Itoa(r.Step), "PBS_ARRAYID="+task)
	}
	env = append(env, "JOB_ID="+job, "JOB_NAME="+s.Name, "SGE_TASK_ID="+task, "NSLOTS="+strconv.Itoa(s.Slots),
		"VCPEER_SITE="+at.site, "VCPEER_NODE="+at.node, "HOSTNAME="+at.node, "RESTARTED="+restarted)
	return append(env, at.env...)
}

// jobBlobs returns the hashes of what a job needs to start.
func jobBlobs(s *queue.Spec) []string {
	var all []string
	if s.Script != nil {
		all = append(all, s.Script.Hash)
	}
	for _, f := range s.Inputs {
		all = append(all, f.Hash)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// resultBlobs returns the hashes of what an attempt left behind. What is empty everybody has.
func resultBlobs(c *queue.Complete) []string {
	var all []string
	for _, f := range []*queue.File{c.Stdout, c.Stderr} {
		if f != nil && f.Size > 0 {
			all = append(all, f.Hash)
		}
	}
	for _, f := range c.Outputs {
		if f.Size > 0 {
			all = append(all, f.Hash)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// others returns the nodes without this one and without repetitions, in the given order.
func (s *Service) others(nodes []crdt.NodeID) []crdt.NodeID {
	var all []crdt.NodeID
	for _, n := range nodes {
		if n != s.cfg.Self && !n.IsZero() && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}
