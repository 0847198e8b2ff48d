package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"vcpeer/cli/parse"
	"vcpeer/cli/stage"
	"vcpeer/peer/api"
)

// maxScriptBytes bounds a script, which is read whole for its directives.
const maxScriptBytes = 16 << 20

// directivePrefix begins the lines of a script that hold options.
const directivePrefix = "#VCPEER"

// prepare turns flags, script and arguments into a job whose files are in the node's store.
func (e *env) prepare(ctx context.Context, typed *pflag.FlagSet, args []string) (*api.Submit, error) {
	if len(args) == 0 {
		return nil, usage("for instance: vcpeer submit job.sh, or vcpeer submit -- hostname", "there is neither a script nor a command")
	}
	command := typed.ArgsLenAtDash() == 0
	var script []byte
	if !command {
		var err error
		if script, err = e.readScript(args[0]); err != nil {
			return nil, err
		}
	}
	o, err := mergeOptions(typed, args[0], script)
	if err != nil {
		return nil, err
	}
	s, err := o.request(e, args[0])
	if err != nil {
		return nil, err
	}
	s.Argv = args
	if !command {
		s.Argv = args[1:]
	}
	return s, e.sendFiles(ctx, s, o, args[0], script, command)
}

// readScript reads a script; the name of a program instead gets the hint to put dashes before it.
func (e *env) readScript(name string) ([]byte, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(e.Dir, name)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, usage("for a command put two dashes before it: vcpeer submit -- "+name, "there is no script %s", name)
	case err != nil:
		return nil, usage("", "script: %v", err)
	case !info.Mode().IsRegular():
		return nil, usage("", "script %s is not a file", name)
	case info.Size() > maxScriptBytes:
		return nil, usage("send it with --in and name it as a command: vcpeer submit --in "+name+" -- ./"+filepath.Base(name), "script %s has %s; at most %s are read", name, size(info.Size()), size(maxScriptBytes))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("", "script: %v", err)
	}
	return b, nil
}

// mergeOptions reads a script's directives and lays what was typed over them.
func mergeOptions(typed *pflag.FlagSet, name string, script []byte) (*jobOptions, error) {
	o := new(jobOptions)
	f := pflag.NewFlagSet("#VCPEER", pflag.ContinueOnError)
	f.Usage = func() {}
	o.flags(f)
	ds, err := parse.Directives(bytes.NewReader(script), directivePrefix, true)
	if err != nil {
		return nil, usage("", "%s: %v", name, err)
	}
	for _, d := range ds {
		before := f.NArg()
		if err := f.Parse(d.Words); err != nil {
			return nil, usage("vcpeer submit --help lists the options", "%s: line %d: %v", name, d.Line, err)
		}
		if f.NArg() > before {
			return nil, usage("", "%s: line %d: %q is not an option", name, d.Line, f.Arg(0))
		}
	}
	typed.Visit(func(fl *pflag.Flag) {
		into := f.Lookup(fl.Name)
		if into == nil {
			return // one of the command alone, such as --wait
		}
		if more, ok := fl.Value.(pflag.SliceValue); ok {
			have := into.Value.(pflag.SliceValue)
			err = errors.Join(err, have.Replace(append(have.GetSlice(), more.GetSlice()...)))
			return
		}
		err = errors.Join(err, into.Value.Set(fl.Value.String()))
	})
	return o, err
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// request checks the options and fills in everything but files and arguments.
func (o *jobOptions) request(e *env, what string) (*api.Submit, error) {
	s := &api.Submit{Key: rand.Text(), Name: o.name, Slots: o.slots, Site: o.site, MaxTasks: o.maxTasks, Outputs: o.out,
		AfterAny: o.afterAny, Stdout: o.stdout, Stderr: o.stderr, Join: o.join, Shell: o.shell, Retries: o.retries, Env: map[string]string{}}
	if s.Name == "" {
		s.Name = strings.Trim(notInName.ReplaceAllString(filepath.Base(what), "_"), "_")
		s.Name = s.Name[:min(len(s.Name), 128)]
		if s.Name == "" {
			s.Name = "job"
		}
	}
	if o.slots < 1 {
		return nil, usage("", "--slots %d: want at least 1", o.slots)
	}
	if o.maxTasks < 0 || o.retries < 0 {
		return nil, usage("", "--max-tasks and --retries cannot be below zero")
	}
	if o.join && o.stderr != "" {
		return nil, usage("", "--stderr and --join-output contradict each other")
	}
	if s.Dir = o.dir; !filepath.IsAbs(s.Dir) {
		s.Dir = filepath.Join(e.Dir, o.dir)
	}
	if err := o.amounts(s); err != nil {
		return nil, err
	}
	for _, v := range o.env {
		name, value, set := strings.Cut(v, "=")
		if !set {
			value = e.Getenv(name)
		}
		if name == "" || strings.ContainsAny(name, " \t\x00") {
			return nil, usage("", "--env %q: want NAME=VALUE or NAME", v)
		}
		s.Env[name] = value
	}
	return s, nil
}

func (o *jobOptions) amounts(s *api.Submit) (err error) {
	if o.mem != "" {
		if s.MemBytes, err = parse.Size(o.mem); err != nil {
			return usage("", "--mem: %v", err)
		}
	}
	if o.time != "" {
		if s.Time, err = parse.Time(o.time); err != nil {
			return usage("", "--time: %v", err)
		}
	}
	if o.array != "" {
		r, err := parse.Range(o.array)
		if err != nil {
			return usage("", "--array: %v", err)
		}
		s.Array = &r
	}
	if o.maxTasks > 0 && s.Array == nil {
		return usage("", "--max-tasks is for an array; add --array")
	}
	return nil
}

// sendFiles resolves the jobs to wait for and puts script and inputs into the store.
func (e *env) sendFiles(ctx context.Context, s *api.Submit, o *jobOptions, name string, script []byte, command bool) error {
	items, err := stage.Collect(e.Dir, o.in)
	if err != nil {
		return usage("", "%v", err)
	}
	return e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		for _, typed := range o.after {
			id, task, err := e.resolve(ctx, c, typed)
			if err != nil {
				return fmt.Errorf("--after: %w", err)
			}
			if task != nil {
				return usage("", "--after %s: want a whole job, not a task", typed)
			}
			s.After = append(s.After, id)
		}
		if !command {
			blob, err := stage.SendBytes(ctx, c, script)
			if err != nil {
				return fmt.Errorf("script: %w", err)
			}
			s.Script = &api.File{Path: filepath.Base(name), Hash: blob.Hash, Size: blob.Size, Mode: 0o755}
		}
		p := e.progress()
		s.Inputs, err = stage.Send(ctx, c, items, func(at stage.Progress) {
			p.show("sending %d of %s, %s of %s", at.Files, plural(at.OfFiles, "file"), size(at.Bytes), size(at.OfBytes))
		})
		p.clear()
		return err
	})
}
