package sealed

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs/ovstest"
)

// socket is a UDP socket with batches in both directions, as the nodes' own is.
type socket struct {
	c    *net.UDPConn
	pool sync.Pool
}

type socketBuffer struct {
	s *socket
	b [64 << 10]byte
}

func (b *socketBuffer) Release() { b.s.pool.Put(b) }

func listen(at netip.AddrPort) (*socket, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	s := &socket{c: c}
	s.pool.New = func() any { return &socketBuffer{s: s} }
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) {
		for _, o := range [][3]int{{unix.SOL_UDP, unix.UDP_GRO, 1}, {unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 7 << 20}, {unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 7 << 20},
			{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO}} {
			unix.SetsockoptInt(int(fd), o[0], o[1], o[2])
		}
	})
	return s, err
}

func (s *socket) send(_, to netip.AddrPort, b []byte, segment int) error {
	if len(b) <= segment {
		_, err := s.c.WriteToUDPAddrPort(b, to)
		return err
	}
	var mem [24]byte
	oob := mem[:unix.CmsgSpace(2)]
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	at := unix.CmsgLen(0)
	binary.NativeEndian.PutUint32(oob[at-8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[at-4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[at:], uint16(segment))
	_, _, err := s.c.WriteMsgUDPAddrPort(b, oob, to)
	return err
}

func (s *socket) receive(l *Link) {
	oob := make([]byte, 64)
	for {
		buf := s.pool.Get().(*socketBuffer)
		n, k, _, from, err := s.c.ReadMsgUDPAddrPort(buf.b[:], oob)
		if err != nil {
			return
		}
		segment := n
		if k >= unix.CmsgLen(4) {
			segment = int(binary.NativeEndian.Uint32(oob[unix.CmsgLen(0):]))
		}
		l.Receive(Packets{From: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Segment: segment, Data: buf.b[:n], Owner: buf})
	}
}

// nodeConfig is one end of a link, in a process and a network namespace of its own.
type nodeConfig struct {
	N       int // 1 or 2
	Plain   bool
	Offload bool
	MTU     int    // of the TAP
	Profile string // a directory; empty: none
}

// nodeEnv holds such a configuration, as JSON.
const nodeEnv = "VCPEER_TEST_SEALED_NODE"

// TestNode is the process of one end: see startNode.
func TestNode(t *testing.T) {
	text := os.Getenv(nodeEnv)
	if text == "" {
		t.Skip("is started by other tests")
	}
	var c nodeConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	tap, err := OpenTAP("sealed", TAPOptions{MTU: c.MTU, Offload: c.Offload})
	if err != nil {
		t.Fatal(err)
	}
	addr := func(n int) netip.AddrPort { return netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:7475", n)) }
	id := func(n int) crdt.NodeID { return crdt.NodeID{byte(n)} }
	fmt.Println("tap")
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n') // the interfaces are up
	s, err := listen(addr(c.N))
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{Self: id(c.N), Device: tap, Send: s.send, Plain: c.Plain})
	if err != nil {
		t.Fatal(err)
	}
	secret := sha256.Sum256([]byte("a test"))
	peer := 3 - c.N
	l.SetPeers(label.Label(c.N), []Peer{{ID: id(peer), Label: label.Label(peer), Sessions: []Session{{ID: [8]byte{1}, Secret: secret[:], Remote: addr(peer)}}}})
	go s.receive(l)
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- l.Run(ctx) }()
	fmt.Println("up")
	stop := profile(t, c.Profile, c.N)
	in.ReadString('\n')
	stop()
	text2, _ := json.Marshal(l.Stats())
	fmt.Printf("stats %s\n", text2)
	s.c.Close()
	tap.Close()
	<-done
}

// node is a running one.
type node struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func needRoot(t testing.TB, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces and TAPs")
	}
	for _, name := range append(programs, "ip", "nsenter", "ethtool") {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
}

// startNode starts the process; it has its TAP, and waits for up.
func startNode(t testing.TB, c nodeConfig, flags uintptr, in ...string) *node {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	argv := append(in, os.Args[0], "-test.run=^TestNode$", "-test.timeout=20m")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	n := &node{cmd: cmd}
	if n.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.in.Close(); cmd.Process.Kill(); cmd.Wait() })
	n.out = bufio.NewScanner(out)
	n.expect(t, "tap")
	return n
}

// expect reads what the node says until it begins with a word.
func (n *node) expect(t testing.TB, word string) string {
	t.Helper()
	for n.out.Scan() {
		if rest, ok := strings.CutPrefix(n.out.Text(), word); ok {
			return rest
		}
	}
	t.Fatalf("the node ended before it said %q", word)
	return ""
}

func (n *node) up(t testing.TB) {
	t.Helper()
	io.WriteString(n.in, "\n")
	n.expect(t, "up")
}

// stats ends the node and returns what it has done.
func (n *node) stats(t testing.TB) (s Stats) {
	t.Helper()
	io.WriteString(n.in, "\n")
	if err := json.Unmarshal([]byte(n.expect(t, "stats ")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// sh runs commands in the namespace of a process, one a line.
func sh(t testing.TB, pid int, lines ...string) {
	t.Helper()
	for _, l := range lines {
		ovstest.Must(t, ovstest.Inside(pid, strings.Fields(l)...))
	}
}

// pair is two network namespaces with a cable:
//
//	[u: 192.0.2.1] ------ [u: 192.0.2.2]
type pair [2]int // a process in each

func newPair(t testing.TB) (p pair) {
	t.Helper()
	for i := range p {
		cmd := exec.Command("sh", "-c", "echo; exec cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Skipf("no right to make a network namespace: %v", err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		out.Read(make([]byte, 1))
		p[i] = cmd.Process.Pid
	}
	ovstest.Must(t, ovstest.Inside(p[0], "ip", "link", "add", "u", "type", "veth", "peer", "name", "u", "netns", strconv.Itoa(p[1])))
	for i, pid := range p {
		sh(t, pid, "ip link set lo up", "ip link set u up", fmt.Sprintf("ip addr add 192.0.2.%d/24 dev u", i+1))
	}
	return p
}

// join puts the ends of a sealed link in the namespaces.
func (p pair) join(t testing.TB, c nodeConfig) (nodes [2]*node) {
	t.Helper()
	for i, pid := range p {
		c.N = i + 1
		n := startNode(t, c, 0, "nsenter", "-t", strconv.Itoa(pid), "-n")
		sh(t, pid, fmt.Sprintf("ip addr add 10.99.0.%d/24 dev sealed", i+1), "ip link set sealed up")
		nodes[i] = n
	}
	for _, n := range nodes {
		n.up(t)
	}
	return nodes
}

// seconds is the processor time that a process has used.
func seconds(t testing.TB, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}
