package gossip

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// libraryLog returns where Serf and memberlist write. What they call an error or a warning is mostly somebody else's
// packet, and a flood of those must not become a flood of lines: all is for debugging, at most linesPerSecond of it.
// What users should know, the membership says itself. io.Discard saves even the formatting.
func libraryLog(l *slog.Logger) io.Writer {
	if !l.Enabled(context.Background(), slog.LevelDebug) {
		return io.Discard
	}
	return &libraryWriter{log: l}
}

const linesPerSecond = 20

// libraryWriter turns lines such as "[WARN] memberlist: text" into records.
type libraryWriter struct {
	log *slog.Logger

	mu      sync.Mutex
	second  time.Time // start of the current one
	lines   int       // written in it
	dropped int
}

func (w *libraryWriter) Write(line []byte) (int, error) {
	dropped, ok := w.allow(time.Now())
	if !ok {
		return len(line), nil
	}
	level, text, found := bytes.Cut(bytes.TrimSpace(line), []byte("] "))
	if !found || len(level) == 0 || level[0] != '[' {
		level, text = []byte("[?"), bytes.TrimSpace(line)
	}
	attrs := []any{"library", string(level[1:])}
	if dropped > 0 {
		attrs = append(attrs, "dropped", dropped)
	}
	w.log.Debug(string(text), attrs...)
	return len(line), nil
}

// allow reports whether one more line may be written and how many were not since the last.
func (w *libraryWriter) allow(now time.Time) (dropped int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.second) >= time.Second {
		w.second, w.lines = now, 0
	}
	if w.lines >= linesPerSecond {
		w.dropped++
		return 0, false
	}
	w.lines++
	dropped, w.dropped = w.dropped, 0
	return dropped, true
}
