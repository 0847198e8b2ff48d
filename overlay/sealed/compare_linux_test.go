package sealed

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vcpeer/overlay/ovs/ovstest"
)

var (
	rounds  = flag.Int("rounds", 5, "of BenchmarkTunnels: how often each tunnel is measured, in turn")
	runTime = flag.String("seconds", "3", "of BenchmarkTunnels: how long")
	lossPct = flag.Int("loss", 0, "of BenchmarkTunnels: percent of datagrams that the network loses, cut apart before")
	only    = flag.String("only", "", "of BenchmarkTunnels: the names of those to measure; empty: all")
	profTo  = flag.String("profiles", "", "of BenchmarkTunnels: a directory for CPU profiles of the sealed link")
)

// tunnel is one to be measured: start gives both namespaces an interface with 10.99.0.1 and 10.99.0.2, and returns the
// processes that do the work.
type tunnel struct {
	name  string
	needs []string
	start func(b *testing.B, p pair) [2]int
	stop  func(b *testing.B)
}

// BenchmarkTunnels measures TCP through one tunnel after the other, TAP to TAP (WireGuard and Nebula: TUN to TUN) on one
// cable, all with 1300 bytes inside, in turn and several rounds, and prints medians:
//
//	go test -run ^$ -bench Tunnels ./overlay/sealed -args -rounds 5 -seconds 3 -loss 1
//
// Tunnels whose programs are not installed are left out.
func BenchmarkTunnels(b *testing.B) {
	needRoot(b, "iperf3", "ss", "nft")
	p := newPair(b)
	if *lossPct > 0 { // each datagram by itself: what goes out as one is cut before
		for _, pid := range p {
			sh(b, pid, "ethtool -K u tso off gso off gro off tx-udp-segmentation off", "nft add table inet t",
				"nft add chain inet t in { type filter hook prerouting priority -300 ; }",
				fmt.Sprintf("nft add rule inet t in iifname u meta l4proto { udp, tcp } numgen random mod 100 < %d drop", *lossPct))
		}
	}
	results := map[string][]result{}
	var names []string
	for range *rounds {
		for _, tu := range tunnels() {
			if missing(tu.needs) || *only != "" && !slices.Contains(strings.Split(*only, ","), tu.name) {
				continue
			}
			if results[tu.name] == nil {
				names = append(names, tu.name)
			}
			results[tu.name] = append(results[tu.name], p.measure(b, tu))
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\nload %s\n%-14s %22s %9s %9s %22s %10s\n", strings.TrimSpace(string(load)), "tunnel", "Mbit/s (range)", "s/GB tx", "s/GB rx", "retransmits/GB (range)", "ping ms")
	for _, n := range names {
		rs := results[n]
		get := func(f func(r result) float64) []float64 {
			var out []float64
			for _, r := range rs {
				out = append(out, f(r))
			}
			slices.Sort(out)
			return out
		}
		speed, again := get(func(r result) float64 { return r.mbits }), get(func(r result) float64 { return float64(r.retransmits) / r.bytes * 1e9 })
		fmt.Printf("%-14s %8.0f (%.0f-%.0f) %9.2f %9.2f %10.0f (%.0f-%.0f) %s\n", n, median(speed), speed[0], speed[len(speed)-1],
			median(get(func(r result) float64 { return r.tx })), median(get(func(r result) float64 { return r.rx })),
			median(again), again[0], again[len(again)-1], rs[len(rs)-1].ping)
	}
}

func median(v []float64) float64 { return v[len(v)/2] }

func missing(programs []string) bool {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return true
		}
	}
	return false
}

type result struct {
	iperf
	tx, rx float64 // CPU seconds per GB
	ping   string
}

func (p pair) measure(b *testing.B, tu tunnel) result {
	b.Helper()
	pids := tu.start(b, p)
	ovstest.Until(b, tu.name+": a ping", func() error { return ovstest.Inside(p[0], "ping", "-c1", "-W1", "10.99.0.2").Run() })
	ping := ovstest.Must(b, ovstest.Inside(p[0], "ping", "-c", "20", "-i", "0.01", "-q", "10.99.0.2"))
	ping = strings.Split(ping[strings.LastIndex(ping, "= ")+2:], " ")[0]
	var before [2]float64
	for i, pid := range pids {
		if pid != 0 {
			before[i] = seconds(b, pid)
		}
	}
	r := result{iperf: p.runIperf(b, "10.99.0.2", "-t", *runTime), ping: ping}
	for i, pid := range pids {
		if pid == 0 {
			continue
		}
		used := (seconds(b, pid) - before[i]) / (r.bytes / 1e9)
		if i == 0 {
			r.tx = used
		} else {
			r.rx = used
		}
	}
	if tu.stop != nil {
		tu.stop(b)
	}
	for _, pid := range p {
		for _, dev := range []string{"sealed", "wg0", "neb0", "tinc0"} {
			ovstest.Inside(pid, "ip", "link", "del", dev).Run() // it may not be there
		}
	}
	for _, pid := range pids {
		if pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return r
}

func tunnels() []tunnel {
	var ends [2]*node
	return []tunnel{
		{"none", nil, func(b *testing.B, p pair) (none [2]int) {
			for i, pid := range p {
				ovstest.Inside(pid, "ip", "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "u").Run()
			}
			return none
		}, nil},
		{"sealed", nil, func(b *testing.B, p pair) (pids [2]int) {
			for i, pid := range p {
				ovstest.Inside(pid, "ip", "addr", "del", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "u").Run()
			}
			ends = p.join(b, nodeConfig{Plain: true, Offload: true, MTU: 1300, Profile: *profTo})
			return [2]int{ends[0].cmd.Process.Pid, ends[1].cmd.Process.Pid}
		}, func(b *testing.B) {
			for _, n := range ends {
				for _, p := range n.stats(b).Peers {
					if d := p.Drops; d.Malformed+d.Forged+d.TooLarge+d.System > 0 {
						b.Errorf("drops %+v", d)
					}
				}
			}
		}},
		{"wireguard-go", []string{"wireguard-go", "wg"}, startWireGuard, nil},
		{"nebula", []string{"nebula", "nebula-cert"}, startNebula, nil},
		{"tinc", []string{"tincd"}, startTinc, nil},
	}
}

// spawn starts a program in a namespace; it ends with the benchmark, or before.
func spawn(b *testing.B, pid int, argv ...string) int {
	cmd := ovstest.Inside(pid, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go cmd.Wait()
	b.Cleanup(func() { cmd.Process.Kill() })
	return cmd.Process.Pid
}

func address(b *testing.B, pid, i int, dev string) {
	ovstest.Until(b, dev+" is there", func() error { return ovstest.Inside(pid, "ip", "link", "show", dev).Run() })
	ovstest.Inside(pid, "ip", "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", dev).Run() // nebula has given it already
	sh(b, pid, "ip link set "+dev+" up mtu 1300")
}

func startWireGuard(b *testing.B, p pair) (pids [2]int) {
	dir := b.TempDir()
	var public [2]string
	for i := range p {
		key := filepath.Join(dir, fmt.Sprint("key", i))
		ovstest.Must(b, exec.Command("sh", "-c", "umask 077; wg genkey > "+key))
		public[i] = strings.TrimSpace(ovstest.Must(b, exec.Command("sh", "-c", "wg pubkey < "+key)))
	}
	for i, pid := range p {
		pids[i] = spawn(b, pid, "unshare", "-m", "sh", "-c", "mkdir -p "+dir+fmt.Sprint("/run", i)+" /var/run/wireguard && mount --bind "+dir+fmt.Sprint("/run", i)+
			" /var/run/wireguard && exec env WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 wireguard-go -f wg0")
		address(b, pid, i, "wg0")
		ovstest.Until(b, "wg0 is set up", func() error {
			return exec.Command("nsenter", "-t", fmt.Sprint(pids[i]), "-n", "-m", "wg", "set", "wg0", "private-key", filepath.Join(dir, fmt.Sprint("key", i)),
				"listen-port", "51820", "peer", public[1-i], "allowed-ips", "0.0.0.0/0", "endpoint", fmt.Sprintf("192.0.2.%d:51820", 2-i)).Run()
		})
	}
	return pids
}

func startNebula(b *testing.B, p pair) (pids [2]int) {
	dir := b.TempDir()
	cert := func(args ...string) {
		cmd := exec.Command("nebula-cert", args...)
		cmd.Dir = dir
		ovstest.Must(b, cmd)
	}
	cert("ca", "-name", "test")
	for i := range p {
		cert("sign", "-name", fmt.Sprint("n", i), "-ip", fmt.Sprintf("10.99.0.%d/24", i+1))
	}
	for i, pid := range p {
		config := fmt.Sprintf(`pki: {ca: %[1]s/ca.crt, cert: %[1]s/n%[2]d.crt, key: %[1]s/n%[2]d.key}
static_host_map: {"10.99.0.%[3]d": ["192.0.2.%[3]d:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242}
cipher: aes
tun: {dev: neb0, mtu: 1300}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, dir, i, 2-i)
		path := filepath.Join(dir, fmt.Sprint(i, ".yml"))
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			b.Fatal(err)
		}
		pids[i] = spawn(b, pid, "nebula", "-config", path)
		address(b, pid, i, "neb0")
	}
	return pids
}

func startTinc(b *testing.B, p pair) (pids [2]int) {
	top := b.TempDir()
	var hosts [2]string
	for i := range p {
		dir := filepath.Join(top, fmt.Sprint(i))
		os.MkdirAll(filepath.Join(dir, "hosts"), 0o700)
		ovstest.Must(b, exec.Command("sh", "-c", fmt.Sprintf("cd %s && openssl genrsa -traditional -out rsa_key.priv 2048 2>/dev/null && openssl rsa -in rsa_key.priv -RSAPublicKey_out -out pub 2>/dev/null", dir)))
		pub, _ := os.ReadFile(filepath.Join(dir, "pub"))
		hosts[i] = fmt.Sprintf("Address = 192.0.2.%d\n%s", i+1, pub)
	}
	for i, pid := range p {
		dir := filepath.Join(top, fmt.Sprint(i))
		os.WriteFile(filepath.Join(dir, "tinc.conf"), fmt.Appendf(nil, "Name = n%d\nMode = switch\nInterface = tinc0\nConnectTo = n%d\n", i, 1-i), 0o600)
		for j, h := range hosts {
			os.WriteFile(filepath.Join(dir, "hosts", fmt.Sprint("n", j)), []byte(h), 0o600)
		}
		pids[i] = spawn(b, pid, "tincd", "-D", "-c", dir, "--pidfile="+filepath.Join(dir, "pid"))
		address(b, pid, i, "tinc0")
	}
	return pids
}
