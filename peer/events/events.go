// Package events keeps what has lately happened on a node, for `vcpeer events`: a bounded history and a feed for those
// who follow. It is a convenience for people; no part of vcpeer depends on an event having been seen.
package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	"vcpeer/peer/api"
)

const (
	historyLen  = 1000 // a day of a quiet cluster, a few minutes of a stormy one
	followerBuf = 256  // a follower that is further behind than this loses events and is told how many
)

// Log is the history and its followers. The zero value is not usable; see New. Safe for concurrent use.
type Log struct {
	mu        sync.Mutex
	history   []api.Event // oldest first, at most historyLen
	followers map[chan api.Event]*int
	now       func() time.Time
}

// New returns an empty log that stamps events with now.
func New(now func() time.Time) *Log {
	return &Log{followers: make(map[chan api.Event]*int), now: now}
}

// Add records an event. Pairs are alternating keys and values, as with log/slog.
func (l *Log) Add(kind, text string, pairs ...string) {
	e := api.Event{Type: kind, Text: text}
	for i := 0; i+1 < len(pairs); i += 2 {
		if e.Data == nil {
			e.Data = make(map[string]string, len(pairs)/2)
		}
		e.Data[pairs[i]] = pairs[i+1]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Time = l.now()
	if len(l.history) == historyLen {
		l.history = append(l.history[:0:0], l.history[historyLen/4:]...)
	}
	l.history = append(l.history, e)
	for ch, missed := range l.followers {
		select {
		case ch <- e:
		default:
			*missed++
		}
	}
}

// Since returns the remembered events after t, oldest first.
func (l *Log) Since(t time.Time) []api.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since(t)
}

func (l *Log) since(t time.Time) []api.Event {
	for i, e := range l.history {
		if e.Time.After(t) {
			return append([]api.Event(nil), l.history[i:]...)
		}
	}
	return nil
}

// Follow calls send with every remembered event after since and then with each new one until ctx ends or send fails.
func (l *Log) Follow(ctx context.Context, since time.Time, send func(api.Event) error) error {
	ch := make(chan api.Event, followerBuf)
	missed := new(int)
	l.mu.Lock()
	past := l.since(since)
	l.followers[ch] = missed
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.followers, ch)
		l.mu.Unlock()
	}()
	for _, e := range past {
		if err := send(e); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-ch:
			if err := send(e); err != nil {
				return err
			}
			if n := l.takeMissed(missed); n > 0 {
				gap := api.Event{Time: e.Time, Type: "events.missed", Text: fmt.Sprintf("%d events were missed by this slow reader", n)}
				if err := send(gap); err != nil {
					return err
				}
			}
		}
	}
}

func (l *Log) takeMissed(missed *int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := *missed
	*missed = 0
	return n
}
