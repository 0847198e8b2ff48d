package machine

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func newMachine(t *testing.T) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	k := NewKeeper()
	t.Cleanup(k.Close)
	m, err := k.Make(Spec{Name: "alpha", Dir: t.TempDir(), Binary: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestCommandSeesTheMachine(t *testing.T) {
	m := newMachine(t)
	out, err := m.Command(t.Context(), "sh", "-c", "hostname; cat /etc/hostname; ls -A /run /home | wc -w; test -e /etc/passwd && vcpeer && ls -d /proc/[0-9]* | wc -w; ls /sys/class/net; test -n \"$(ls /sys/fs/cgroup)\" && echo groups").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(strings.Fields(string(out)), " "), "alpha alpha 2 4 lo groups"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStartedProcessIsOurs(t *testing.T) {
	m := newMachine(t)
	var out bytes.Buffer
	cmd := exec.Command("sh", "-c", "hostname; echo $HOME; exec sleep 1000")
	cmd.Stdout, cmd.Env = &out, []string{"HOME=/nowhere"}
	if err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	comm := func() string {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/comm")
		return strings.TrimSpace(string(b))
	}
	for deadline := time.Now().Add(5 * time.Second); comm() != "sleep" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := comm(); got != "sleep" {
		t.Errorf("its process is %q", got)
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("ended with %v", err)
	}
	if got := out.String(); got != "alpha\n/nowhere\n" {
		t.Errorf("printed %q", got)
	}
}

func TestEndOfCommandAndMachine(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := m.Command(ctx, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a cancelled command ended well")
	}
	orphan := m.Command(t.Context(), "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & sleep 1000")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	m.Close()
	_ = orphan.Wait()
	if _, err := os.Stat(m.Namespace("net")); err == nil {
		t.Error("the machine is still there")
	}
}
