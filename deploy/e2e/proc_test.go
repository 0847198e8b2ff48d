package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"vcpeer/deploy/harness"
)

// residentKiB reads VmRSS of the node's daemon (proc(5)).
func residentKiB(t *testing.T, n *harness.Node) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatalf("%s has no VmRSS", n.Name)
	return 0
}
