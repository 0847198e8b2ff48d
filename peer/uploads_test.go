package peer

import (
	"fmt"
	"testing"
)

func TestUploadsAreOnesOwnAndBounded(t *testing.T) {
	u := newUploads()
	u.add(1000, "a")
	if !u.has(1000, "a") || u.has(1001, "a") {
		t.Error("a content belongs to another user than the one who sent it")
	}
	for i := range maxUploads + 1 {
		u.add(1000, fmt.Sprint(i))
	}
	if u.has(1000, "a") || !u.has(1000, fmt.Sprint(maxUploads)) {
		t.Error("the oldest is kept or the newest forgotten")
	}
	if n := len(u.by[1000].known); n > maxUploads || n != len(u.by[1000].order) {
		t.Errorf("%d contents are remembered, in an order of %d", n, len(u.by[1000].order))
	}
}
