package nat

import (
	"os"
	"testing"
)

// long skips a test that is not asked for: laboratories behind many kinds of NAT take minutes, and a machine that does
// nothing else, since what they wait for are timeouts of the network.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("VCPEER_LONG") == "" {
		t.Skip("takes minutes and a machine of its own: VCPEER_LONG=1 go test ./deploy/e2e/nat")
	}
}
