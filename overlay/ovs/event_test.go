package ovs

import (
	"context"
	"testing"

	"vcpeer/deploy/test/bubble"
)

// TestEventsThatNobodyTakesAreReplaced: the mailbox holds the last of each kind, bridge and port, in the order of the first.
func TestEventsThatNobodyTakesAreReplaced(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var m mailbox
		m.init()
		for i := range 1000 {
			m.put(Event{Kind: PortMoved, Bridge: "br0", Port: "p1", State: PortState{OFPort: i}})
			m.put(Event{Kind: Changed, Bridge: "br0"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.run(ctx)
		for _, want := range []string{"port br0/p1 999 up=false ", "changed br0"} {
			if got := (<-m.out).String(); got != want {
				t.Errorf("event %q, want %q", got, want)
			}
		}
		bubble.Wait()
		select {
		case ev := <-m.out:
			t.Errorf("one more event: %v", ev)
		default:
		}
	})
}
