package sge

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// qstatJobs answers -j. A job that has ended is no more, as in Grid Engine: scripts take exit code 1 for "over".
func (e *Env) qstatJobs(ctx context.Context, q *question) int {
	var found []*api.JobDetail
	var missing []string
	for _, word := range q.jobs {
		js, err := e.find(ctx, word)
		if err != nil {
			return e.failStat(err)
		}
		if len(js) == 0 {
			missing = append(missing, word)
		}
		found = append(found, js...)
	}
	for _, j := range found {
		writeDetail(e.Out, j)
	}
	if len(missing) > 0 {
		fmt.Fprintf(e.Err, "Following jobs do not exist: \n%s\n", strings.Join(missing, "\n"))
		return 1
	}
	return 0
}

// find returns the live jobs of a number, or of a pattern of names.
func (e *Env) find(ctx context.Context, word string) ([]*api.JobDetail, error) {
	var ids []string
	if sel, err := parse.Select(word); err == nil && !sel.Last {
		ids = []string{sel.ID()}
	} else {
		l, err := e.Node.Jobs(ctx, api.JobsAsk{Site: "."})
		if err != nil {
			return nil, err
		}
		for _, j := range l.Items {
			if ok, _ := path.Match(word, j.Name); ok {
				ids = append(ids, j.ID)
			}
		}
	}
	var found []*api.JobDetail
	for _, id := range ids {
		j, err := e.Node.Job(ctx, id)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !j.Tasks.Ended() {
			found = append(found, j)
		}
	}
	return found, nil
}

// dateForm is that of ctime(3), as Grid Engine writes times of a job.
const dateForm = "Mon Jan _2 15:04:05 2006"

func writeDetail(w io.Writer, j *api.JobDetail) {
	s := &j.Submit
	fmt.Fprintln(w, strings.Repeat("=", 62))
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-27s %s\n", name+":", value)
		}
	}
	field("job_number", fmt.Sprint(j.Seq))
	field("exec_file", fmt.Sprintf("job_scripts/%d", j.Seq))
	field("submission_time", j.Submitted.Local().Format(dateForm))
	field("owner", j.User)
	for _, v := range []string{"HOME", "LOGNAME", "PATH", "WORKDIR", "HOST"} {
		field("sge_o_"+strings.Replace(strings.ToLower(v), "logname", "log_name", 1), s.Env["SGE_O_"+v])
	}
	field("account", "sge")
	if s.Join {
		field("merge", "y")
	}
	field("hard resource_list", strings.Join(resourceList(s), ","))
	field("notify", "FALSE")
	field("job_name", j.Name)
	field("stdout_path_list", pathList(s.Stdout))
	field("stderr_path_list", pathList(s.Stderr))
	field("jobshare", "0")
	field("env_list", envList(s.Env))
	writeCommand(field, s)
	if pe := s.Env["PE"]; pe != "" {
		fmt.Fprintf(w, "parallel environment:  %s range: %d\n", pe, s.Slots)
	}
	field("jid_predecessor_list (req)", strings.Join(s.After, ","))
	if a := j.Array; a != nil {
		field("job-array tasks", fmt.Sprintf("%d-%d:%d", a.First, a.Last, a.Step))
	}
	field("binding", "NONE")
	kind := "NONE"
	if s.Script == nil {
		kind = "binary"
	}
	field("job_type", kind)
	writeUsage(w, j)
	writeReasons(w, j)
}

func writeCommand(field func(name, value string), s *api.Submit) {
	if s.Script != nil {
		field("job_args", strings.Join(s.Argv, ","))
		field("script_file", s.Script.Path)
		return
	}
	if len(s.Argv) > 0 {
		field("job_args", strings.Join(s.Argv[1:], ","))
		field("script_file", s.Argv[0])
	}
}

func pathList(p string) string {
	if p == "" {
		return ""
	}
	return "NONE:NONE:" + p
}

// envList is what the user set; what the front end adds is not repeated.
func envList(env map[string]string) string {
	var list []string
	for k, v := range env {
		if !ownVariable(k) {
			list = append(list, k+"="+v)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func ownVariable(name string) bool {
	switch name {
	case "ENVIRONMENT", "JOB_NAME", "REQNAME", "REQUEST", "QUEUE", "NSLOTS", "NHOSTS", "NQUEUES", "PE":
		return true
	}
	return strings.HasPrefix(name, "SGE_")
}

func writeUsage(w io.Writer, j *api.JobDetail) {
	for _, t := range j.TaskList {
		if t.State == api.StateRunning || t.State == api.StateUnknown {
			cpu := int(t.CPU.Seconds())
			fmt.Fprintf(w, "%-28scpu=%02d:%02d:%02d, mem=0.00000 GB s, io=0.00000 GB, vmem=N/A, maxvmem=%s\n",
				fmt.Sprintf("usage %9d:", max(1, t.Index)), cpu/3600, cpu/60%60, cpu%60, maxMemory(t.MaxRSS))
		}
	}
}

func maxMemory(b int64) string {
	if b == 0 {
		return "N/A"
	}
	return fmt.Sprintf("%.3fM", float64(b)/(1<<20))
}

func writeReasons(w io.Writer, j *api.JobDetail) {
	name := "scheduling info:"
	if j.State == api.StateHeld {
		fmt.Fprintf(w, "%-27s Job is in hold state\n", name)
		return
	}
	for _, r := range j.Reasons {
		fmt.Fprintf(w, "%-27s %s\n", name, r.Text)
		name = ""
	}
}
