package nat

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/lab"
)

// TestManyOnOneRelay: many laboratories behind symmetric NATs have one relay between them. All of them are members, find
// their place at it, and reach one another through it. VCPEER_LABS says how many, for a machine that can run so many nodes.
func TestManyOnOneRelay(t *testing.T) {
	long(t)
	labs, err := strconv.Atoi(os.Getenv("VCPEER_LABS"))
	if err != nil {
		t.Skip("VCPEER_LABS=50 starts 51 nodes")
	}
	var b strings.Builder
	b.WriteString("sites:\n  hub: {nodes: [hub]}\n")
	for i := range labs {
		fmt.Fprintf(&b, "  lab%d: {nodes: [lab%d], nat: symmetric}\n", i, i)
	}
	b.WriteString("links:\n  default: delay=10ms\n")
	began := time.Now()
	l := up(t, b.String())
	t.Logf("%d labs had joined after %v", labs, time.Since(began).Round(time.Second))
	asLongAsItMoves(t, func() string {
		if c := netcheck(t, l, "hub", "hub").Carries; c.Places != labs {
			return fmt.Sprintf("the relay has %d places", c.Places)
		}
		return ""
	})
	// Each asks ten others.
	for i := range 5 {
		name := fmt.Sprintf("lab%d", i*labs/5)
		var others []string
		for j := range 10 {
			others = append(others, fmt.Sprintf("lab%d", (i*labs/5+3*j+1)%labs))
		}
		asLongAsItMoves(t, func() string {
			n := netcheck(t, l, name, others...)
			if n.Lost > 0 {
				return fmt.Sprintf("%s does not reach %d of %d: %+v", name, n.Lost, len(n.Members), n.Members)
			}
			return ""
		})
	}
	asLongAsItMoves(t, func() string {
		if n := netcheck(t, l, "lab7"); n.Lost > 0 || len(n.Members) != labs {
			return fmt.Sprintf("lab7 reaches %d of %d", len(n.Members)-n.Lost, labs)
		}
		return ""
	})
	c := netcheck(t, l, "hub", "hub").Carries
	t.Logf("after %v the relay has %d places, %d circuits, and has carried %d KiB", time.Since(began).Round(time.Second), c.Places, c.Circuits, c.Bytes>>10)
	n := alarms(t, l)
	t.Logf("members were taken for failed %d times while the machine was starting them all", n)
	if few := 10; labs <= few && n > 0 { // so many do not keep two cores busy
		t.Error("nobody has failed")
	}
}

// alarms counts how often any node took another for failed. With fifty nodes on two cores that says that they waited for the
// processor; what a network does to it is seen in the tests of few nodes.
func alarms(t *testing.T, l *lab.Lab) (n int) {
	for _, node := range l.Nodes() {
		c := l.Client(node.Name)
		defer c.Close()
		for e, err := range c.Events(t.Context(), false, time.Time{}) {
			if err != nil {
				t.Error(err)
				break
			}
			if e.Type == "member.failed" {
				n++
			}
		}
	}
	return n
}

// asLongAsItMoves waits until ok says nothing, as long as what it says changes now and then: how fast it goes is the
// machine's business.
func asLongAsItMoves(t *testing.T, ok func() string) {
	t.Helper()
	const still = 2 * time.Minute
	last, since := "", time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		why := ok()
		switch {
		case why == "":
			return
		case why != last:
			last, since = why, time.Now()
		case time.Since(since) > still:
			t.Fatalf("the same for %v: %s", still, why)
		}
		<-tick.C
	}
}
