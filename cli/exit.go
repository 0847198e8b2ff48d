package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vcpeer/peer/api"
)

// Exit codes. `vcpeer help exit-codes` explains them; scripts may rely on them.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitPartial  = 3
	ExitNotFound = 4
	ExitRefused  = 5
	ExitNoDaemon = 6
	ExitDeadline = 124
	ExitAttached = 125
	ExitSignal   = 130 // ended by Ctrl-C, as shells report it
)

// exitCodes says how each code of a Problem leaves; others leave with ExitFailed.
var exitCodes = map[string]int{
	api.CodeBadRequest: ExitUsage,
	api.CodeNotFound:   ExitNotFound,
	api.CodeRefused:    ExitRefused,
	api.CodeNoDaemon:   ExitNoDaemon,
	api.CodeDeadline:   ExitDeadline,
}

// exitStatus ends the program with a code after everything was said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usage is a mistake in what was typed.
func usage(hint, format string, args ...any) error {
	return &api.Problem{Code: api.CodeBadRequest, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// attachedError marks a failure of vcpeer while it stood for a job, whose own codes must not be mistaken for it.
type attachedError struct{ error }

func (e attachedError) Unwrap() error { return e.error }

// report tells an error in the form asked for and returns the exit code. It is the only place that does either.
func (e *env) report(err error) int {
	var status exitStatus
	if err == nil {
		return ExitOK
	}
	if errors.As(err, &status) {
		return int(status)
	}
	p, code := explain(err)
	if errors.As(err, new(attachedError)) {
		code = ExitAttached
	}
	if e.json {
		_ = writeJSON(e.Out, map[string]*api.Problem{"error": p})
		return code
	}
	fmt.Fprintf(e.Err, "%s %s\n", e.paintErr(red, "error:"), p.Message)
	if p.Hint != "" {
		fmt.Fprintf(e.Err, "%s %s\n", e.paintErr(bold, "hint:"), p.Hint)
	}
	return code
}

// explain turns any error into a Problem and an exit code.
func explain(err error) (*api.Problem, int) {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		q := *p
		q.Message = err.Error() // with what was being done, where the caller said it
		if code, ok := exitCodes[p.Code]; ok {
			return &q, code
		}
		return &q, ExitFailed
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Problem{Code: api.CodeDeadline, Message: err.Error()}, ExitDeadline
	case errors.Is(err, context.Canceled):
		return &api.Problem{Code: "INTERRUPTED", Message: "interrupted"}, ExitSignal
	}
	return &api.Problem{Code: "FAILED", Message: err.Error()}, ExitFailed
}

// heard tells when an answer is not whole; the result is the command's.
func (e *env) heard(h api.Heard) error {
	if h.Complete() {
		return nil
	}
	fmt.Fprintf(e.Err, "%s not the whole answer: heard %d of %d sites\n", e.paintErr(yellow, "note:"), h.Sites, h.Of)
	for _, m := range h.Missing {
		fmt.Fprintf(e.Err, "      %s: %s\n", m.Site, m.Reason)
	}
	return exitStatus(ExitPartial)
}

func discardWhenNil(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
