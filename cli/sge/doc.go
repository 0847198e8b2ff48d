// Package sge answers as Grid Engine's qsub, qstat and qdel do, over the queue of a vcpeer node: the same options and
// #$ directives, the same wording on the same streams, the same exit codes, since programs read all three (after
// Grid Engine 8.1.9). What a vcpeer cluster cannot do is refused in Grid Engine's form; nothing is silently dropped
// but mail, notification and accounting strings, which change no result.
//
// Job numbers are those of the site of the node that is asked, so a site looks like one Grid Engine cell.
package sge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vcpeer/peer/api"
)

// Node is what the front end asks of a node; [api.Client] is one.
type Node interface {
	HasBlob(ctx context.Context, hash string) (bool, error)
	PutBlob(ctx context.Context, r io.Reader) (*api.Blob, error)
	Submit(ctx context.Context, s api.Submit) (*api.Submitted, error)
	Jobs(ctx context.Context, ask api.JobsAsk) (*api.List[api.Job], error)
	Job(ctx context.Context, id string) (*api.JobDetail, error)
	Cancel(ctx context.Context, id string, task *int) (*api.Cancelled, error)
	Hosts(ctx context.Context) (*api.List[api.Host], error)
}

// Env is what a command needs of the process it runs in.
type Env struct {
	In         io.Reader
	Out, Err   io.Writer
	Environ    []string // NAME=VALUE, all of the caller's
	User, Home string
	Host       string
	Dir        string // working directory, absolute
	Node       Node
	Await      func(ctx context.Context, id string) error // returns when a job has ended
}

// Names are the commands this package answers as.
var Names = [...]string{"qsub", "qstat", "qdel"}

// Main runs one command by its name and returns Grid Engine's exit code for what happened.
func Main(ctx context.Context, name string, env Env, args []string) int {
	switch name {
	case "qsub":
		return qsub(ctx, &env, args)
	case "qstat":
		return qstat(ctx, &env, args)
	case "qdel":
		return qdel(ctx, &env, args)
	}
	fmt.Fprintf(env.Err, "error: no Grid Engine command %q\n", name)
	return 1
}

// refusal is an error whose text and exit code are Grid Engine's.
type refusal struct {
	text string
	code int
}

func (r *refusal) Error() string { return r.text }

// misuse is a mistake in an option: one line, exit code 2.
func misuse(format string, args ...any) error {
	return &refusal{fmt.Sprintf("qsub: "+format, args...), 2}
}

// denied is a request that the cluster does not take: two lines, exit code 1.
func denied(format string, args ...any) error {
	return &refusal{"Unable to run job: " + fmt.Sprintf(format, args...) + "\nExiting.", 1}
}

// fail prints an error and returns its exit code.
func (e *Env) fail(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		fmt.Fprintln(e.Err, r.text)
		return r.code
	}
	fmt.Fprintf(e.Err, "Unable to run job: %v\n", err)
	var p *api.Problem
	if errors.As(err, &p) && p.Hint != "" {
		fmt.Fprintf(e.Err, "hint: %s\n", p.Hint)
	}
	fmt.Fprintln(e.Err, "Exiting.")
	return 1
}

// isNotFound reports whether a job is not there.
func isNotFound(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == api.CodeNotFound
}
