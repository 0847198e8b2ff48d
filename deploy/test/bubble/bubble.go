// Package bubble runs tests in virtual time. It is testing/synctest, made safe for the race detector:
//
//	bubble.Test(t, func(t *testing.T) {
//		time.Sleep(time.Hour) // no real hour passes
//	})
//
// The runtime of Go 1.26 keeps one race context for all timers of a bubble and does not guard it. A timer may fire on
// the thread that moves the bubble's time, or on one that sets a timer whose time has come or receives from its channel.
// Where two do so at once, the race detector's memory is damaged, and the process dies of SIGSEGV in ThreadSanitizer, or
// of a failed check there: see golang.org/issue/78156. Four goroutines that each set timers of zero length show it
// within a second. With one thread for all Go code no two can meet.
//
// That takes little from the race detector: it compares what happened before what, not what happened at once, and with
// it the scheduler picks among the goroutines at random.
package bubble

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// threads guards GOMAXPROCS, which is the process's.
var threads sync.Mutex

// Test is synctest.Test. With the race detector bubbles run one at a time, and all Go code on one thread while they do.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if race {
		threads.Lock()
		defer threads.Unlock()
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}

// Wait is synctest.Wait: it returns when all other goroutines of the bubble are durably blocked.
func Wait() { synctest.Wait() }
