package main

import (
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"vcpeer/cli"
	"vcpeer/peer/config"
)

// system is this process as the commands see it.
func system() cli.System {
	s := cli.System{In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY: isTerminal(os.Stdin), OutTTY: isTerminal(os.Stdout), ErrTTY: isTerminal(os.Stderr),
		Getenv: os.Getenv, Environ: os.Environ(), UID: os.Getuid(), Now: time.Now}
	if s.OutTTY {
		if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
			s.Width = w
		}
	}
	s.User = userName(s.UID)
	s.Host, _ = os.Hostname() // empty where the kernel has none
	if dir, err := os.Getwd(); err == nil {
		s.Dir = dir
	} else {
		s.Dir = "/" // the directory was removed: relative names are not found, which is true
	}
	return s
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// userName is what the caller is called in answers. The node does not believe it: it asks the kernel who is calling.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return strconv.Itoa(uid)
}

// logger writes the daemon's log: for people on a terminal, else as the configuration says. Under systemd the journal
// has the time already, but a file does not, so it is always there.
func logger(w *os.File, c config.Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		panic(err) // Validate lets no other word pass
	}
	return slog.New(handler(w, c.LogFormat, level, isTerminal(w)))
}

func handler(w io.Writer, format string, level slog.Level, tty bool) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	switch {
	case format == "json":
		return slog.NewJSONHandler(w, opts)
	case format == "text" || os.Getenv("NO_COLOR") != "" || !tty:
		return slog.NewTextHandler(w, opts)
	}
	return tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly})
}
