package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// tools are the programs a lab needs, and the Debian package of each.
var tools = []struct{ program, pkg string }{
	{"ovsdb-server", "openvswitch-switch"}, {"ovs-vswitchd", "openvswitch-switch"}, {"ovsdb-tool", "openvswitch-switch"},
	{"nft", "nftables"}, {"nsenter", "util-linux"}, {"setpriv", "util-linux"}, {"unshare", "util-linux"}, {"mount", "mount"},
}

// CannotRun says why this machine or user cannot have a lab, and what to do; empty: it can.
func CannotRun(ctx context.Context) string {
	if os.Geteuid() != 0 {
		return "needs root, for network and mount namespaces"
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil {
			return fmt.Sprintf("%s is missing: apt-get install --no-install-recommends %s", t.program, t.pkg)
		}
	}
	out, err := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("no right to make namespaces: %v %s", err, strings.TrimSpace(string(out)))
	}
	return ""
}
