package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/config"
)

// answerWithin bounds every request whose answer does not depend on how long a job takes.
const answerWithin = time.Minute

// System is the process as commands see it; main fills it from package os, tests from buffers.
type System struct {
	In       io.Reader
	Out, Err io.Writer
	InTTY    bool
	OutTTY   bool
	ErrTTY   bool
	Width    int // columns of the terminal; 0: unknown
	Getenv   func(string) string
	Environ  []string
	UID      int
	User     string // name of the calling user
	Host     string
	Dir      string // working directory, absolute
	Now      func() time.Time
}

// env is what every command gets: the system, and what the global flags say.
type env struct {
	System
	deps Deps

	json    bool
	color   string // auto, always, never
	socket  string
	dir     string
	config  string
	timeout time.Duration // 0: answerWithin, and none for what follows a job
}

// newEnv makes output safe for the goroutines that tell of a slow answer.
func newEnv(sys System, deps Deps) *env {
	sys.Out, sys.Err = discardWhenNil(sys.Out), discardWhenNil(sys.Err)
	sys.Err = &lockedWriter{w: sys.Err}
	return &env{System: sys, deps: deps}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (e *env) who() config.Who {
	return config.CurrentUser(e.UID, e.Getenv)
}

// load merges the configuration; flags holds what a command got besides the global flags.
func (e *env) load(flags map[string][]string) (*config.Loaded, error) {
	if flags == nil {
		flags = map[string][]string{}
	}
	if e.socket != "" {
		flags["socket"] = []string{e.socket}
	}
	l, err := config.Load(config.Sources{Flags: flags, Dir: e.dir, File: e.config, User: e.who()})
	if err != nil {
		return nil, &api.Problem{Code: api.CodeBadRequest, Message: err.Error(), Hint: "vcpeer start --help lists the settings"}
	}
	return l, nil
}

// client finds the node: --socket, VCPEER_SOCKET, --dir, the configuration, the user's own node, the machine's node.
func (e *env) client() (*api.Client, error) {
	l, err := e.load(nil)
	if err != nil {
		return nil, err
	}
	socket := l.Socket
	if l.Source("socket") == config.SourceDefault && l.Dir == "" {
		if _, err := os.Stat(socket); err != nil {
			if _, err := os.Stat(config.SystemSocket); err == nil {
				socket = config.SystemSocket
			}
		}
	}
	return api.NewClient(socket), nil
}

// ask runs one exchange with the node under the usual deadline, and says after a second what it waits for.
func (e *env) ask(ctx context.Context, do func(ctx context.Context, c *api.Client) error) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	within := answerWithin
	if e.timeout > 0 {
		within = e.timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, &api.Problem{Code: api.CodeDeadline,
		Message: fmt.Sprintf("no answer from %s within %v", c.Socket(), within), Hint: "vcpeer status tells how the node is; --timeout waits longer"})
	defer cancel()
	defer e.patience("waiting for the node at " + c.Socket())()
	return do(ctx, c)
}

// follow runs an exchange that lasts as long as a job does; --timeout still bounds it.
func (e *env) follow(ctx context.Context, do func(ctx context.Context, c *api.Client) error) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if e.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, e.timeout, &api.Problem{Code: api.CodeDeadline, Message: fmt.Sprintf("not over within %v", e.timeout)})
		defer cancel()
	}
	return do(ctx, c)
}

// patience tells people what is being waited for, once a second has passed, until the returned function is called.
func (e *env) patience(what string) (done func()) {
	if !e.ErrTTY {
		return func() {}
	}
	t := time.AfterFunc(time.Second, func() { fmt.Fprintf(e.Err, "%s … (Ctrl-C gives up)\n", what) })
	return func() { t.Stop() }
}

// note tells people something that is not the result.
func (e *env) note(format string, args ...any) { fmt.Fprintf(e.Err, format+"\n", args...) }

// show prints a result: as JSON when that was asked for, else as text does.
func (e *env) show(v any, text func()) error {
	if e.json {
		return writeJSON(e.Out, v)
	}
	text()
	return nil
}

// done answers a command that has nothing to tell but that it worked.
func (e *env) done(format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	return e.show(map[string]string{"apiVersion": api.Version, "kind": "Done", "message": msg}, func() { fmt.Fprintln(e.Out, msg) })
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
