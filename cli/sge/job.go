package sge

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vcpeer/cli/stage"
	"vcpeer/peer/api"
)

// job makes the node's form of the request; the script goes into the store.
func (r *request) job(ctx context.Context, words []string, script []byte) (*api.Submit, error) {
	e := r.env
	name, err := r.jobName(words)
	if err != nil {
		return nil, err
	}
	if r.slots < 1 {
		return nil, misuse("invalid option argument \"-l slots=%d\"", r.slots)
	}
	s := &api.Submit{Key: rand.Text(), Name: name, Slots: r.slots, MemBytes: r.memBytes * int64(r.slots), Time: r.time, Array: r.array,
		MaxTasks: r.maxTasks, AfterAny: true, Join: r.join, Retries: r.retries, Dialect: api.DialectGridEngine, Shell: r.shell}
	if s.Dir = r.dir; !filepath.IsAbs(s.Dir) {
		s.Dir = filepath.Join(e.Dir, s.Dir)
	}
	if s.Stdout, err = r.output(s, r.stdout, "o"); err != nil {
		return nil, err
	}
	if !r.join {
		if s.Stderr, err = r.output(s, r.stderr, "e"); err != nil {
			return nil, err
		}
	}
	if s.After, err = r.holds(ctx); err != nil {
		return nil, err
	}
	s.Env = r.jobEnv(s)
	if r.binary {
		s.Argv = r.command(words)
		return s, nil
	}
	if len(words) > 0 {
		s.Argv = words[1:]
	}
	blob, err := stage.SendBytes(ctx, e.Node, withShell(script, r.shell))
	if err != nil {
		return nil, err
	}
	s.Script = &api.File{Path: name, Hash: blob.Hash, Size: blob.Size, Mode: 0o755}
	return s, nil
}

// jobName is -N, else the last element of script or command, else STDIN.
func (r *request) jobName(words []string) (string, error) {
	name := r.name
	if name == "" && (len(words) == 0 || words[0] == "-") {
		name = "STDIN"
	}
	if name == "" {
		first, _, _ := strings.Cut(words[0], " ")
		name = filepath.Base(first)
	}
	return name, checkName(name)
}

// withShell lets -S win over a script's own first line, as it does in Grid Engine.
func withShell(script []byte, shell string) []byte {
	if shell == "" || !bytes.HasPrefix(script, []byte("#!")) {
		return script
	}
	_, rest, _ := bytes.Cut(script, []byte("\n"))
	return append([]byte("#!"+shell+"\n"), rest...)
}

// command is what -b y runs: through a shell, so that $JOB_ID and the like in the words are the job's, or with -shell n as it is.
func (r *request) command(words []string) []string {
	plain := r.noShell || strings.Trim(strings.Join(words, ""), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=./:,@%") == ""
	if plain {
		return words
	}
	line := []string{words[0]} // may be a whole command line
	for _, w := range words[1:] {
		line = append(line, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`").Replace(w)+`"`)
	}
	shell := r.shell
	if shell == "" {
		shell = "/bin/sh"
	}
	return []string{shell, "-c", strings.Join(line, " ")}
}

// output is the path for a stream: [HOST]:PATH with pseudo variables, relative to the job's directory; in a directory
// that exists it gets the usual name.
func (r *request) output(s *api.Submit, p, letter string) (string, error) {
	if p == "" {
		return "", nil
	}
	if host, after, ok := strings.Cut(p, ":"); ok && !strings.Contains(host, "/") {
		p = after
	}
	p = r.env.expandHere(p)
	if strings.Contains(p, "$HOSTNAME") || strings.Contains(p, "${HOSTNAME}") {
		return "", denied("$HOSTNAME in an output path is not supported by vcpeer")
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(s.Dir, p) + slashIf(strings.HasSuffix(p, "/"))
	}
	if info, err := os.Stat(p); (err == nil && info.IsDir()) || strings.HasSuffix(p, "/") {
		p = filepath.Join(p, "$JOB_NAME."+letter+"$JOB_ID")
		if s.Array != nil {
			p += ".$TASK_ID"
		}
	}
	return p, nil
}

func slashIf(yes bool) string {
	if yes {
		return "/"
	}
	return ""
}

// jobEnv is what a job's environment holds that is known now; who starts it adds the rest (see api.DialectGridEngine).
func (r *request) jobEnv(s *api.Submit) map[string]string {
	e := r.env
	env := map[string]string{}
	if r.allVars {
		for _, kv := range e.Environ {
			if k, v, ok := strings.Cut(kv, "="); ok && k != "" && k != "_" {
				env[k] = v
			}
		}
	}
	for k, v := range r.vars {
		env[k] = v
	}
	shellVar, _ := e.lookup("SHELL")
	pathVar, _ := e.lookup("PATH")
	fixed := map[string]string{"ENVIRONMENT": "BATCH", "JOB_NAME": s.Name, "REQNAME": s.Name, "REQUEST": s.Name, "QUEUE": "main.q",
		"NSLOTS": strconv.Itoa(s.Slots), "NHOSTS": "1", "NQUEUES": "1", "SGE_ACCOUNT": "sge", "SGE_CELL": "default", "SGE_STDIN_PATH": "/dev/null",
		"SGE_O_HOME": e.Home, "SGE_O_HOST": e.Host, "SGE_O_LOGNAME": e.User, "SGE_O_PATH": pathVar, "SGE_O_SHELL": shellVar, "SGE_O_WORKDIR": e.Dir,
		"SGE_TASK_FIRST": "undefined", "SGE_TASK_LAST": "undefined", "SGE_TASK_STEPSIZE": "undefined"}
	if r.pe != "" {
		fixed["PE"] = r.pe
	}
	if a := s.Array; a != nil {
		fixed["SGE_TASK_FIRST"], fixed["SGE_TASK_LAST"], fixed["SGE_TASK_STEPSIZE"] = strconv.Itoa(a.First), strconv.Itoa(a.Last), strconv.Itoa(a.Step)
	}
	for k, v := range fixed {
		env[k] = v
	}
	return env
}
