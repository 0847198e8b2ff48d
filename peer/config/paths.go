package config

import (
	"os/user"
	"path/filepath"
	"strconv"
)

// Who is the user a node or a client runs as, and the environment that says where his files live.
type Who struct {
	UID    int
	Home   string
	Getenv func(string) string
}

// CurrentUser describes this process. Home is $HOME, else what the system's user database says.
func CurrentUser(uid int, getenv func(string) string) Who {
	w := Who{UID: uid, Home: getenv("HOME"), Getenv: getenv}
	if w.Home == "" {
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			w.Home = u.HomeDir
		}
	}
	return w
}

// Paths are the places of one node.
type Paths struct {
	File   string // vcpeer.yaml
	State  string
	Socket string
}

// SystemSocket is where the machine's own node, started by root, is reached.
const SystemSocket = "/run/vcpeer/vcpeer.sock"

// DefaultPaths returns where a node of w lives: all under dir if there is one, else for root in the places of the
// system and for others in those of the XDG base directory specification.
func DefaultPaths(dir string, w Who) Paths {
	if dir != "" {
		return Paths{
			File:   filepath.Join(dir, "vcpeer.yaml"),
			State:  filepath.Join(dir, "state"),
			Socket: filepath.Join(dir, "run", "vcpeer.sock"),
		}
	}
	if w.UID == 0 {
		return Paths{File: "/etc/vcpeer/vcpeer.yaml", State: "/var/lib/vcpeer", Socket: SystemSocket}
	}
	p := Paths{
		File:  filepath.Join(w.xdg("XDG_CONFIG_HOME", ".config"), "vcpeer", "vcpeer.yaml"),
		State: filepath.Join(w.xdg("XDG_STATE_HOME", ".local/state"), "vcpeer"),
	}
	p.Socket = filepath.Join(p.State, "run", "vcpeer.sock") // private to the user, unlike anything below /tmp
	if run := w.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		p.Socket = filepath.Join(run, "vcpeer", "vcpeer.sock")
	}
	return p
}

// xdg reads a base directory; the specification has relative ones ignored.
func (w Who) xdg(env, under string) string {
	if dir := w.Getenv(env); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(w.Home, under)
}
