package fabric

import (
	"context"
	"log/slog"
	"os"

	"github.com/libp2p/go-libp2p/gologshim"
)

// QuietLibraries sends what libp2p logs to log, errors lowered to warnings and the rest to debug, and silences quic-go's
// line about UDP buffer sizes (an environment variable is its only switch). Both are settings of the whole process that
// libp2p reads once, so this is for main to call, before the first [New]. Without it libp2p writes its errors to
// standard error.
func QuietLibraries(log *slog.Logger) {
	gologshim.SetDefaultHandler(lowered{log.Handler()})
	// Setenv fails only for a name or value with a zero byte or '='.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
}

// lowered is a handler that takes libp2p's levels for less: what it calls an error is one stranger's broken connection.
type lowered struct{ slog.Handler }

func lower(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (h lowered) Enabled(ctx context.Context, l slog.Level) bool {
	return l > slog.LevelDebug && h.Handler.Enabled(ctx, lower(l))
}

func (h lowered) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h lowered) WithAttrs(as []slog.Attr) slog.Handler { return lowered{h.Handler.WithAttrs(as)} }
func (h lowered) WithGroup(name string) slog.Handler    { return lowered{h.Handler.WithGroup(name)} }
