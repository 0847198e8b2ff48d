package bubble_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
)

// Timers that fire at once in many goroutines end the process under synctest alone, with the race detector and more than
// one thread.
func TestTimersAtOnce(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	bubble.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 10_000 {
					fired := make(chan struct{})
					time.AfterFunc(0, func() { close(fired) })
					<-fired
				}
			})
		}
		wg.Wait()
	})
	if now := runtime.GOMAXPROCS(0); now != threads {
		t.Errorf("GOMAXPROCS is %d after the bubble, was %d", now, threads)
	}
}
