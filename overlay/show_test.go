package overlay

import (
	"strings"
	"testing"
)

func TestBufferHint(t *testing.T) {
	for _, tt := range []struct{ sysctl, says string }{
		{"212992\n", "208 KiB"}, {"4194304\n", ""}, {"", ""}, {"many", ""},
	} {
		if got := bufferHint(tt.sysctl); !strings.Contains(got, tt.says) || (got == "") != (tt.says == "") {
			t.Errorf("%q: %q", tt.sysctl, got)
		}
	}
}
