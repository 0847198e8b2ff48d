package events_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/peer/api"
	"vcpeer/peer/events"
)

func TestHistoryIsBoundedAndInOrder(t *testing.T) {
	now := time.Unix(0, 0)
	l := events.New(func() time.Time { now = now.Add(time.Second); return now })
	for i := range 5000 {
		l.Add("test", fmt.Sprint(i), "n", fmt.Sprint(i))
	}
	got := l.Since(time.Time{})
	if len(got) > 1000 || len(got) < 700 {
		t.Fatalf("%d events kept", len(got))
	}
	if last := got[len(got)-1]; last.Text != "4999" || last.Data["n"] != "4999" {
		t.Errorf("newest is %+v", last)
	}
	if n := len(l.Since(now.Add(-10 * time.Second))); n != 10 {
		t.Errorf("%d events of the last ten seconds, want 10", n)
	}
}

func TestFollowGivesPastThenNewAndOwnsUpToGaps(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := events.New(time.Now)
		l.Add("test", "past")
		ctx, cancel := context.WithCancel(t.Context())
		read := make(chan api.Event)
		done := make(chan error)
		go func() {
			done <- l.Follow(ctx, time.Time{}, func(e api.Event) error {
				select {
				case read <- e:
				case <-ctx.Done():
				}
				return nil
			})
		}()
		if e := <-read; e.Text != "past" {
			t.Errorf("first event %q, want the past one", e.Text)
		}
		for range 1000 {
			l.Add("test", "flood")
		}
		bubble.Wait()
		seen, missed := 0, false
		for range 300 {
			select {
			case e := <-read:
				seen++
				missed = missed || e.Type == "events.missed"
			case <-time.After(time.Second):
			}
		}
		if !missed || seen > 300 {
			t.Errorf("a reader that missed hundreds of events was not told (saw %d)", seen)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow: %v", err)
		}
	})
}
