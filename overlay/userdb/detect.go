package userdb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mode is the way by which the machine's programs see the accounts.
type Mode string

// The modes. In ModeOff the socket is served all the same if it can be, so that the accounts are there as soon as the
// machine reads them.
const (
	ModeUserdb     Mode = "userdb"     // by nss-systemd from our socket
	ModeExtrausers Mode = "extrausers" // by libnss-extrausers from files
	ModeOff        Mode = "off"        // not at all; Hint says what to do
)

// facts are what a machine says of itself, as far as it decides the mode.
type facts struct {
	passwd, group      []string // sources in /etc/nsswitch.conf, in order
	libSystemd         bool     // the C library's modules are installed
	libExtra, extraDir bool
	serveErr           error // why our socket is not served
	debian             bool
	anyLib             bool // some NSS module of the C library was found: without, it is another C library, or an odd place
}

// choose decides the mode; detail is for ModeOff, hint what would better things.
func choose(f facts) (mode Mode, detail, hint string) {
	reads := func(source string) bool { return slices.Contains(f.passwd, source) && slices.Contains(f.group, source) }
	switch {
	case f.serveErr == nil && f.libSystemd && reads("systemd"):
		return ModeUserdb, "", ""
	case f.libExtra && f.extraDir && reads("extrausers"):
		return ModeExtrausers, "", ""
	case errors.Is(f.serveErr, ErrServed):
		return ModeOff, f.serveErr.Error(), "one daemon of this machine gives out accounts; switch it off for the others"
	case errors.Is(f.serveErr, fs.ErrPermission):
		return ModeOff, "this needs root: " + f.serveErr.Error(), "run vcpeer as root to have the accounts on this machine"
	case f.serveErr != nil:
		return ModeOff, f.serveErr.Error(), ""
	case f.libSystemd:
		return ModeOff, "nss-systemd is installed, but /etc/nsswitch.conf does not use it for both passwd and group",
			"add the word systemd to the lines passwd: and group: of /etc/nsswitch.conf, after files"
	case f.libExtra:
		return ModeOff, "libnss-extrausers is installed, but /etc/nsswitch.conf does not use it for both passwd and group",
			"add the word extrausers to the lines passwd:, group: and shadow: of /etc/nsswitch.conf, after files"
	case f.debian:
		return ModeOff, "the C library has no module that reads the accounts", "apt-get install libnss-systemd"
	case !f.anyLib:
		return ModeOff, "no modules of a C library were found (musl has none)", "use a distribution with glibc and nss-systemd"
	}
	return ModeOff, "the C library has no module that reads the accounts", "install nss-systemd, part of the package systemd in most distributions"
}

// sources returns what a database of nsswitch.conf(5) is read from, without the actions in brackets.
func sources(conf []byte, database string) []string {
	for line := range strings.Lines(string(conf)) {
		line, _, _ = strings.Cut(line, "#")
		name, rest, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(name) != database {
			continue
		}
		var out []string
		inAction := false
		for _, word := range strings.Fields(strings.NewReplacer("[", " [ ", "]", " ] ").Replace(rest)) {
			switch {
			case word == "[":
				inAction = true
			case word == "]":
				inAction = false
			case !inAction:
				out = append(out, word)
			}
		}
		return out
	}
	return nil
}

// look gathers the facts from the file system, all but serveErr.
func look(p Paths) facts {
	conf, _ := os.ReadFile(p.NSSwitch) // a missing file names no sources
	_, notDebian := os.Stat(p.AptGet)
	f := facts{
		passwd: sources(conf, "passwd"), group: sources(conf, "group"),
		extraDir: extrausers{dir: p.Extrausers}.there(), debian: notDebian == nil,
	}
	for _, pattern := range p.Modules {
		found, _ := filepath.Glob(filepath.Join(pattern, "libnss_*.so.2")) // a bad pattern finds nothing
		for _, module := range found {
			f.anyLib = true
			switch filepath.Base(module) {
			case "libnss_systemd.so.2":
				f.libSystemd = true
			case "libnss_extrausers.so.2":
				f.libExtra = true
			}
		}
	}
	return f
}
