package sge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// maxScriptBytes bounds a script, which is read whole for its directives.
const maxScriptBytes = 16 << 20

// qsub reads default files, then the script's directives, then the command line: what comes later wins.
func qsub(ctx context.Context, e *Env, args []string) int {
	r, words, script, err := read(e, args)
	if err != nil {
		return e.fail(err)
	}
	s, err := r.job(ctx, words, script)
	if err != nil {
		return e.fail(err)
	}
	if r.host != "" {
		return e.fail(r.hostRefusal(ctx))
	}
	if r.verify {
		return e.verify(ctx, s)
	}
	sub, err := e.Node.Submit(ctx, *s)
	if err != nil {
		return e.fail(err)
	}
	e.announce(r, s, sub)
	if r.sync {
		return e.sync(ctx, sub)
	}
	return 0
}

// read finds out what the script is, which takes the command line, and then lets the command line win over it.
func read(e *Env, args []string) (r *request, words []string, script []byte, err error) {
	first := newRequest(e)
	if words, err = scan(qsubOptions(), first, args, badQsub); err != nil {
		return nil, nil, nil, err
	}
	if !first.binary {
		if script, err = e.readScript(words); err != nil {
			return nil, nil, nil, err
		}
	} else if len(words) == 0 {
		return nil, nil, nil, misuse("command required for a binary job")
	}
	r = newRequest(e)
	for _, f := range []string{filepath.Join(e.Home, ".sge_request"), filepath.Join(e.Dir, ".sge_request")} {
		if err := r.file(f, false); err != nil {
			return nil, nil, nil, err
		}
	}
	r.prefix = first.prefix
	if err := r.directives(script); err != nil {
		return nil, nil, nil, err
	}
	_, err = scan(qsubOptions(), r, args, badQsub)
	r.binary = first.binary
	return r, words, script, err
}

// readScript reads the named file, or standard input when there is none or it is a dash.
func (e *Env) readScript(words []string) ([]byte, error) {
	var in io.Reader = e.In
	if len(words) > 0 && words[0] != "-" {
		name := words[0]
		if !filepath.IsAbs(name) {
			name = filepath.Join(e.Dir, name)
		}
		f, err := os.Open(name)
		if err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			return nil, &refusal{fmt.Sprintf("Unable to read script file because of error: error opening %s: %v\nExiting.", words[0], err), 14}
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxScriptBytes+1))
	if err != nil {
		return nil, &refusal{fmt.Sprintf("Unable to read script file because of error: %v\nExiting.", err), 14}
	}
	if len(b) > maxScriptBytes {
		return nil, denied("the script is larger than %d MiB", maxScriptBytes>>20)
	}
	if len(bytes.TrimSpace(b)) == 0 && (len(words) == 0 || words[0] == "-") {
		return nil, misuse("No input file specified")
	}
	return b, nil
}

// number of a job with its range, as -terse prints it.
func jobNumber(sub *api.Submitted, array *api.Range) string {
	if array == nil {
		return strconv.FormatUint(sub.Seq, 10)
	}
	return fmt.Sprintf("%d.%d-%d:%d", sub.Seq, array.First, array.Last, array.Step)
}

func (e *Env) announce(r *request, s *api.Submit, sub *api.Submitted) {
	number := jobNumber(sub, s.Array)
	switch {
	case r.terse:
		fmt.Fprintln(e.Out, number)
	case s.Array != nil:
		fmt.Fprintf(e.Out, "Your job-array %s (\"%s\") has been submitted\n", number, s.Name)
	default:
		fmt.Fprintf(e.Out, "Your job %s (\"%s\") has been submitted\n", number, s.Name)
	}
}

// verify answers -w v: whether any machine could ever run the job. Nothing is submitted.
func (e *Env) verify(ctx context.Context, s *api.Submit) int {
	hosts, err := e.Node.Hosts(ctx)
	if err != nil {
		return e.fail(err)
	}
	for _, h := range hosts.Items {
		if h.CPUs >= s.Slots && (h.MemBytes == 0 || h.MemBytes >= s.MemBytes) {
			fmt.Fprintln(e.Out, "verification: found suitable queue(s)")
			return 0
		}
	}
	fmt.Fprintln(e.Out, "verification: no suitable queues")
	return 1
}

// hostRefusal says why a request for one machine is not taken.
func (r *request) hostRefusal(ctx context.Context) error {
	hosts, err := r.env.Node.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, h := range hosts.Items {
		if ok, _ := path.Match(r.host, h.Name); ok {
			return denied("a request for one host (%q) is not supported by vcpeer", r.host)
		}
	}
	return denied("can't resolve hostname %q", r.host)
}

// sync waits for the job and leaves with the highest exit code of its tasks.
func (e *Env) sync(ctx context.Context, sub *api.Submitted) int {
	if err := e.Await(ctx, sub.ID); err != nil {
		return e.fail(err)
	}
	j, err := e.Node.Job(ctx, sub.ID)
	if err != nil {
		return e.fail(err)
	}
	code := 0
	for _, t := range j.TaskList {
		name := strconv.FormatUint(sub.Seq, 10)
		if j.Array != nil {
			name += "." + strconv.Itoa(t.Index)
		}
		code = max(code, e.tellEnd(name, t))
	}
	if code == 0 && j.State != api.StateDone {
		fmt.Fprintf(e.Err, "Job %d was %s\n", sub.Seq, j.State)
		return 1
	}
	return code
}

// tellEnd says how one task ended, failures on standard error.
func (e *Env) tellEnd(name string, t api.Task) int {
	switch {
	case t.State == api.StateDone:
		fmt.Fprintf(e.Out, "Job %s exited with exit code 0.\n", name)
		return 0
	case t.State == api.StateCancelled:
		fmt.Fprintf(e.Err, "Job %s was deleted\n", name)
		return 1
	case t.Exit > 128 && signalName(t.Exit-128) != "":
		fmt.Fprintf(e.Err, "Job %s exited because of signal %s\n", name, signalName(t.Exit-128))
		return 1
	case t.Exit == 0:
		fmt.Fprintf(e.Err, "Job %s failed: %s\n", name, t.Reason)
		return 1
	}
	fmt.Fprintf(e.Err, "Job %s exited with exit code %d.\n", name, t.Exit)
	return t.Exit
}

// signalName names the signals that end programs (signal(7)).
func signalName(n int) string {
	return map[int]string{1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
		10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ"}[n]
}

// holds turns -hold_jid words (numbers, names, patterns of names) into IDs of jobs that have not ended; as in Grid
// Engine one that is gone holds nobody back.
func (r *request) holds(ctx context.Context) ([]string, error) {
	var ids []string
	var mine *api.List[api.Job]
	for _, word := range r.hold {
		if sel, err := parse.Select(word); err == nil && !sel.Last && sel.Task == nil {
			j, err := r.env.Node.Job(ctx, sel.ID())
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if !j.Tasks.Ended() {
				ids = append(ids, j.ID)
			}
			continue
		}
		if mine == nil {
			var err error
			if mine, err = r.env.Node.Jobs(ctx, api.JobsAsk{Site: "."}); err != nil {
				return nil, err
			}
		}
		for _, j := range mine.Items {
			if ok, _ := path.Match(word, j.Name); ok {
				ids = append(ids, j.ID)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// expandHere replaces the pseudo variables of a path that are known at submission.
func (e *Env) expandHere(p string) string {
	return strings.NewReplacer("${USER}", e.User, "$USER", e.User, "${HOME}", e.Home, "$HOME", e.Home).Replace(p)
}
