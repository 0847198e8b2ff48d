package group

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger passes raft's own log on. Raft speaks of every vote, so its information is our debugging.
type raftLogger struct{ log *slog.Logger }

// raftPanic is what raft finds impossible. The usual reason is a member whose disk was put back from an older copy.
type raftPanic struct{ text string }

func (l raftLogger) Debug(v ...any)              {}
func (l raftLogger) Debugf(f string, v ...any)   {}
func (l raftLogger) Info(v ...any)               { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Infof(f string, v ...any)    { l.debugf(f, v...) }
func (l raftLogger) Warning(v ...any)            { l.log.Debug("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Warningf(f string, v ...any) { l.debugf(f, v...) }
func (l raftLogger) Error(v ...any)              { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLogger) Errorf(f string, v ...any)   { l.log.Warn("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLogger) Fatal(v ...any)              { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(raftPanic{fmt.Sprintf(f, v...)}) }
func (l raftLogger) Panic(v ...any)              { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(raftPanic{fmt.Sprintf(f, v...)}) }

// debugf formats only what somebody reads: raft's arguments print slowly.
func (l raftLogger) debugf(f string, v ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("raft: " + fmt.Sprintf(f, v...))
	}
}

// guard runs f and turns a panic of raft into an error that wraps ErrRolledBack.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p, ok := r.(raftPanic)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("group: %w: raft: %s", ErrRolledBack, p.text)
		}
	}()
	return f()
}
