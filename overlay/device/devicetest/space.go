// Package devicetest gives a test network namespaces of its own, which end with it:
//
//	devicetest.Enter(t) // this test's thread; skips, with the reason, where it cannot be
//	there := devicetest.Another(t)
//	devicetest.Veth(t, "here", "there", there)
package devicetest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace. Its Handle changes what is in it, also from another thread.
type Space struct {
	*netlink.Handle
	NS    netns.NsHandle
	leave func()
}

// Enter moves the test into a new namespace. It is to be called by the test's own goroutine, which keeps its thread until
// both end: no other goroutine, nor the next test, is ever in that namespace.
func Enter(t testing.TB) Space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	runtime.LockOSThread() // and never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	ns, err := netns.Get()
	must(t, "namespace", err)
	s := open(t, ns)
	s.Up(t, "lo")
	return s
}

// Alone runs a test once more in a process and a network namespace of its own: where goroutines of any thread are to be in
// the namespace. The test calls it first and goes on where it reports true, in that process.
func Alone(t *testing.T, timeout time.Duration) bool {
	t.Helper()
	const inside = "VCPEER_TEST_ALONE"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+timeout.String())
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to make a network namespace")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// Here is the namespace that the process is in, for a test that runs [Alone].
func Here(t testing.TB) Space {
	t.Helper()
	ns, err := netns.Get()
	must(t, "namespace", err)
	return open(t, ns)
}

// Another makes one more namespace. A process is in it, as in a container: a namespace without is found by nobody.
func Another(t testing.TB) Space {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, "start a process in a namespace", cmd.Start())
	leave := func() { cmd.Process.Kill(); cmd.Wait() } // again: harmless
	t.Cleanup(leave)
	ns, err := netns.GetFromPid(cmd.Process.Pid)
	must(t, "namespace", err)
	s := open(t, ns)
	s.leave = leave
	return s
}

func open(t testing.TB, ns netns.NsHandle) Space {
	t.Helper()
	t.Cleanup(func() { ns.Close() })
	h, err := netlink.NewHandleAt(ns)
	must(t, "handle", err)
	t.Cleanup(h.Close)
	return Space{Handle: h, NS: ns}
}

// Leave ends the process in it. The namespace stays as long as the test.
func (s Space) Leave() { s.leave() }

// Do calls f in the namespace, on a thread that ends with it.
func (s Space) Do(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(s.NS)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	must(t, "in the namespace", <-done)
}

// Veth makes a cable from this thread's namespace to another, both ends down. The zero Space: both ends are here.
func Veth(t testing.TB, here, there string, in Space) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: here}, PeerName: there}
	if in.Handle != nil {
		v.PeerNamespace = netlink.NsFd(in.NS)
	}
	must(t, "veth "+here, netlink.LinkAdd(v))
}

// Link finds an interface.
func (s Space) Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := s.LinkByName(name)
	must(t, name, err)
	return l
}

// Up sets an interface up.
func (s Space) Up(t testing.TB, name string) {
	t.Helper()
	must(t, name+" up", s.LinkSetUp(s.Link(t, name)))
}

// SetMAC gives an interface another MAC address.
func (s Space) SetMAC(t testing.TB, name, mac string) {
	t.Helper()
	m, err := net.ParseMAC(mac)
	must(t, mac, err)
	must(t, name+" "+mac, s.LinkSetHardwareAddr(s.Link(t, name), m))
}

// Add gives addresses to an interface, usable at once.
func (s Space) Add(t testing.TB, name string, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		must(t, p, err)
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		must(t, "give "+p+" to "+name, s.AddrAdd(s.Link(t, name), a))
	}
}

// Addrs lists the addresses of an interface as the kernel does, but for link-local ones.
func (s Space) Addrs(t testing.TB, name string) (out []string) {
	t.Helper()
	list, err := s.AddrList(s.Link(t, name), netlink.FAMILY_ALL)
	must(t, "addresses of "+name, err)
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if !ip.IsLinkLocalUnicast() {
			out = append(out, netip.PrefixFrom(ip.Unmap(), ones).String())
		}
	}
	return out
}

// Until waits for a condition, at most 10 s.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
