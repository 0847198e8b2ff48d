package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vcpeer/deploy/lab/machine"
	"vcpeer/deploy/lab/topology"
	"vcpeer/peer/api"
)

// State is what a lab leaves in its directory for others to find it: state.json. It says who holds the lab; what may
// change without it is in Status.
type State struct {
	Name     string          `json:"name"`
	Dir      string          `json:"dir"`
	Holder   Process         `json:"holder"` // the process that has the lab
	Since    time.Time       `json:"since"`
	Machines []MachineState  `json:"machines"`
	Matrix   topology.Matrix `json:"rttMillis"` // between the sites, in their order, as it was when the lab came up
	Sites    []string        `json:"sites"`
}

// MachineState is one machine of a lab.
type MachineState struct {
	Name  string       `json:"name"`
	Site  string       `json:"site,omitempty"`
	Kind  string       `json:"kind"` // node, router or wan
	First Process      `json:"first"`
	Group string       `json:"cgroup,omitempty"`
	Addrs []netip.Addr `json:"addrs"`
	NAT   topology.NAT `json:"nat,omitempty"`
	Dir   string       `json:"dir"`
}

// Process tells a process from a later one with its number.
type Process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // in clock ticks since boot
}

func processOf(pid int) Process { return Process{pid, startOf(pid)} }

// Alive reports whether the process runs.
func (p Process) Alive() bool { return p.PID > 0 && p.Start != "" && startOf(p.PID) == p.Start }

// startOf reads the 22nd field of /proc/PID/stat; empty: there is no such process, or it is a zombie.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

func statePath(dir string) string { return filepath.Join(dir, "state.json") }

// claim takes the lab's directory: a lab of that name that is up is an error, what one left is removed.
func (l *Lab) claim() error {
	old, err := Find(l.Name)
	switch {
	case err == nil && old.Holder.Alive():
		return &api.Problem{Code: api.CodeRefused, Message: fmt.Sprintf("a lab named %s is up", l.Name),
			Hint: fmt.Sprintf("vcpeer lab down --name %s ends it; --name gives another name to this one", l.Name)}
	case err == nil:
		if err := old.Remove(); err != nil {
			return err
		}
	}
	if err := checkDir(l.Dir, l.plan); err != nil {
		return err
	}
	if err := os.MkdirAll(Base, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(l.Dir, 0o755); errors.Is(err, fs.ErrExist) { // without state: its end came before its beginning
		if err := os.RemoveAll(l.Dir); err != nil {
			return err
		}
		err = os.Mkdir(l.Dir, 0o755)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return l.save()
}

// longestSocket is the longest path of a socket below a machine's directory.
const longestSocket = "/run/openvswitch/ovs-vswitchd.1234567.ctl"

func checkDir(dir string, p plan) error {
	for _, m := range p.machines {
		if n := len(dir) + 1 + len(m.name) + len(longestSocket); n > 107 {
			return fmt.Errorf("the name of the lab is too long: a unix socket's path has at most 107 bytes, that of %s would have %d", m.name, n)
		}
	}
	return nil
}

// save writes the state, whole or not at all.
func (l *Lab) save() error {
	s, err := l.state()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := statePath(l.Dir)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (l *Lab) state() (*State, error) {
	m, err := l.Topology.Matrix()
	if err != nil {
		return nil, err
	}
	s := &State{Name: l.Name, Dir: l.Dir, Holder: processOf(os.Getpid()), Since: l.since, Matrix: m, Sites: l.Topology.SiteNames()}
	for _, p := range l.plan.machines {
		ms := MachineState{Name: p.name, Site: p.site, Kind: p.kind, Addrs: l.plan.addrs(p.name), Dir: filepath.Join(l.Dir, p.name)}
		if site, ok := l.Topology.Site(p.site); ok {
			ms.NAT = site.NAT
		}
		if m := l.machines[p.name]; m != nil {
			ms.First, ms.Group = processOf(m.PID), m.Space.Group
		}
		s.Machines = append(s.Machines, ms)
	}
	return s, nil
}

// Find reads the state of a lab; fs.ErrNotExist: there is none of that name.
func Find(name string) (*State, error) {
	b, err := os.ReadFile(statePath(filepath.Join(Base, name)))
	if err != nil {
		return nil, err
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", statePath(filepath.Join(Base, name)), err)
	}
	return s, nil
}

// Names lists the labs that have a directory, up or not.
func Names() ([]string, error) {
	dirs, err := os.ReadDir(Base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, d := range dirs {
		if d.IsDir() {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// Remove ends what is left of a lab without its holder, and takes its directory away.
func (s *State) Remove() error {
	for _, m := range s.Machines {
		if m.First.Alive() {
			_ = syscall.Kill(m.First.PID, syscall.SIGKILL) // the kernel ends the rest of the machine
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for slices.ContainsFunc(s.Machines, func(m MachineState) bool { return m.First.Alive() }) {
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: %s: some machines do not end", s.Name)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, m := range s.Machines {
		if err := machine.RemoveGroup(m.Group); err != nil {
			return fmt.Errorf("lab: control group of %s: %w", m.Name, err)
		}
		if m.Group != "" {
			_ = os.Remove(filepath.Dir(m.Group)) // with the last one of the lab
		}
	}
	return RemoveDir(s.Name)
}

// groupOf is the control group that holds those of a lab's machines.
func groupOf(lab string) string { return "vcpeer-lab." + lab }

// Space is where commands run on the machine.
func (m MachineState) Space() machine.Space { return machine.Space{PID: m.First.PID, Group: m.Group} }

// Machine finds a machine by its name, or a node by its site's when that has only one.
func (s *State) Machine(name string) (MachineState, error) {
	var names []string
	var ofSite []MachineState
	for _, m := range s.Machines {
		if m.Name == name {
			return m, nil
		}
		if m.Kind == KindNode {
			names = append(names, m.Name)
			if m.Site == name {
				ofSite = append(ofSite, m)
			}
		}
	}
	if len(ofSite) == 1 {
		return ofSite[0], nil
	}
	return MachineState{}, noMachine(name, names)
}

// RemoveDir takes away the directory of a lab whose end came before it had a state.
func RemoveDir(name string) error {
	if name == "" || filepath.Base(name) != name || name == ".." || name == "." {
		return fmt.Errorf("lab: no such name %q", name)
	}
	if err := os.RemoveAll(filepath.Join(Base, name)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	_ = os.Remove(Base) // when it was the last one
	return nil
}
