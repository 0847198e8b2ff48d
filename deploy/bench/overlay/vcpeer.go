package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vcpeer/deploy/lab"
)

// address waits until the node reaches as many other sites and returns its address in the network.
func address(ctx context.Context, l *lab.Lab, node string, others int) (string, error) {
	c := l.Client(node)
	defer c.Close()
	addr := ""
	err := until(ctx, 50*time.Millisecond, time.Minute, node+" reaches all sites", func() bool {
		o, err := c.Overlay(ctx, "")
		if err != nil || !o.Up || o.Sites < others {
			return false
		}
		addr = o.Address
		return true
	})
	return addr, err
}

// addresses is as address, for several nodes, by their names.
func addresses(ctx context.Context, l *lab.Lab, others int, nodes ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range nodes {
		a, err := address(ctx, l, n, others)
		if err != nil {
			return nil, err
		}
		out[n] = a
	}
	return out, nil
}

// pids lists the processes of a name in a machine.
func pids(m *lab.Node, comm string) []int {
	space, err := os.Readlink(m.Machine.Namespace("pid"))
	if err != nil {
		return nil
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range procs {
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		if string(bytes.TrimSpace(name)) != comm {
			continue
		}
		if in, _ := os.Readlink(filepath.Join(dir, "ns/pid")); in == space {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			out = append(out, pid)
		}
	}
	return out
}

// cpuSeconds is the CPU time that processes have used (proc(5); a tick is 10 ms).
func cpuSeconds(pids []int) (s float64) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		for _, f := range fields[11:13] {
			ticks, _ := strconv.ParseFloat(string(f), 64)
			s += ticks / 100
		}
	}
	return s
}

// residentMiB is the memory of processes.
func residentMiB(pids []int) (m float64) {
	for _, pid := range pids {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				m += kib / 1024
			}
		}
	}
	return m
}
