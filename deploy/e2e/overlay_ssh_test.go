package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	netlab "vcpeer/deploy/lab"
)

// sshdConfig has nothing of the machine's own sshd. The lines that README tells administrators to write are added to it.
const sshdConfig = `ListenAddress %s:2222
HostKey /etc/ssh/lab_host_key
PidFile /run/sshd-lab.pid
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
`

// TestSshdTakesKeysOfAccounts logs in at another site, by its name in the network, with a key that is in the records alone.
func TestSshdTakesKeysOfAccounts(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, guestTopology))
	if _, err := n.try("alpha-1", "command -v sshd && command -v ssh"); err != nil {
		t.Skip("needs openssh-server and openssh-client")
	}
	n.sshd("alpha-1", readmeLines(t))
	n.sh("beta-1", "mkdir -m 0700 /run/ssh; ssh-keygen -q -t ed25519 -N '' -f /run/ssh/hers; ssh-keygen -q -t ed25519 -N '' -f /run/ssh/his")
	n.sh("beta-1", "vcpeer account add alice --key \"$(cat /run/ssh/hers.pub)\"")
	n.within(soon, "alpha-1 knows alice", func() bool { _, err := n.try("alpha-1", "getent passwd alice"); return err == nil })
	ssh := func(user, key string) (string, error) {
		return n.try("beta-1", fmt.Sprintf("ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/run/ssh/known "+
			"-o IdentitiesOnly=yes -i /run/ssh/%s -p 2222 %s@alpha-1.alpha 'echo $(id -un) at $(hostname)' 2>&1", key, user))
	}
	last := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ssh last said: %s\nsshd: %s", last, n.sh("alpha-1", "tail -20 /run/sshd-lab.log"))
		}
	})
	in := func(what string) {
		t.Helper()
		n.within(soon, "alice gets in "+what, func() bool {
			var err error
			last, err = ssh("alice", "hers")
			return err == nil && strings.Contains(last, "alice at alpha-1")
		})
	}
	out := func(what, user, key string) {
		t.Helper()
		n.within(soon, what, func() bool {
			var err error
			last, err = ssh(user, key)
			return err != nil && strings.Contains(last, "Permission denied")
		})
	}
	in("with her key")
	out("another key is refused", "alice", "his")
	out("a user of the machine alone is refused", "root", "hers")
	out("one whom nobody knows is refused", "mallory", "hers")
	n.sh("beta-1", "vcpeer account key rm alice \"$(cat /run/ssh/hers.pub)\"")
	out("the key that was taken away is refused", "alice", "hers")
	n.sh("beta-1", "vcpeer account key add alice /run/ssh/hers.pub")
	in("with it given back")
	n.must(n.Kill("alpha-1", netlab.VCPeer, syscall.SIGKILL))
	out("nobody is let in without vcpeer", "alice", "hers")
	n.must(n.StartDaemon(n.ctx, "alpha-1", netlab.VCPeer))
	in("with vcpeer running again")
	n.sh("beta-1", "vcpeer account rm alice")
	out("an account that was removed is refused", "alice", "hers")
}

// readmeLines are the lines of README for sshd_config, with the program where a lab has it: /usr/bin is that of the machine
// below, and sshd takes no program from a directory in which others than root may write, as Debian's /usr/local/bin.
func readmeLines(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ +AuthorizedKeys.*\n`).FindAllString(string(readme), -1)
	if len(lines) != 2 {
		t.Fatalf("README has %q for sshd", lines)
	}
	return strings.Replace(strings.Join(lines, ""), "/usr/bin/vcpeer", "/etc/ssh/vcpeer", 1)
}

// sshd starts one of the node's own, at its address in the network.
func (n *testnet) sshd(node, lines string) {
	n.t.Helper()
	n.sh(node, "mkdir -p /run/sshd; touch /etc/ssh/vcpeer; mount --bind /usr/local/bin/vcpeer /etc/ssh/vcpeer; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/lab_host_key")
	n.sh(node, fmt.Sprintf("cat >/etc/ssh/lab_config <<'end'\n%s%send", fmt.Sprintf(sshdConfig, n.addrs[node]), lines))
	n.sh(node, "$(command -v sshd) -t -f /etc/ssh/lab_config && $(command -v sshd) -f /etc/ssh/lab_config -E /run/sshd-lab.log")
}
