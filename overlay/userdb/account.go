// Package userdb gives the cluster's accounts and groups to the operating system of a node, so that `id`, `ls -l`, sshd and
// every program that asks the C library see the same users with the same numbers on all nodes. It decides what is safe to
// give out; which account holds a contested name or number is decided by the records.
//
// Accounts are served as systemd's varlink service io.systemd.UserDatabase on a socket below /run/systemd/userdb, where
// nss-systemd reads them (https://systemd.io/USER_GROUP_API); neither systemd as init nor systemd-userdbd need run. Where
// only libnss-extrausers is set up, they are written as a block of our own into its files. Status says which of the two
// the machine reads, and what to install when it is neither.
//
//	db, err := userdb.New(userdb.Config{Instance: "default", Log: log})
//	go db.Run(ctx)
//	db.Set(accounts, groups) // never blocks
//	db.Status()              // {Mode: "userdb", Detail: "12 accounts and 3 groups on /run/systemd/userdb/io.vcpeer"}
//
// Home directories are not made here: whoever starts something as an account makes its home first.
package userdb

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Account is a user as the records have it. Members of groups are named in the groups.
type Account struct {
	Name     string
	UID      uint32
	GID      uint32 // primary group; when no group has this number, one is made up with the account's name
	FullName string
	Home     string // absolute; empty: /home/NAME
	Shell    string // absolute; empty: /bin/sh
	Disabled bool   // known to the machine, so that files show an owner, but expired, locked and without a shell
}

// Group is a set of accounts. Members that are no accounts of ours are left out: a record must not put a user of the
// machine itself into a group.
type Group struct {
	Name    string
	GID     uint32
	Members []string
}

// nologin is the shell of a disabled account.
const nologin = "/usr/sbin/nologin"

// nameForm is what useradd of Debian and Fedora accepts, at most 31 bytes as utmp holds.
var nameForm = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)

// checkName says why a name cannot be that of a cluster's account or group; nil: it can.
func checkName(name string) error {
	switch {
	case !nameForm.MatchString(name):
		return fmt.Errorf("%q is not a name: want at most 31 of a-z 0-9 _ - with a letter first", printable(name))
	case systemName(name):
		return fmt.Errorf("%q is a name of the system", name)
	}
	return nil
}

// checkID says why a number cannot be a cluster's uid or gid; nil: it can. The ranges are those of
// https://systemd.io/UIDS-GIDS: below 1000 belongs to the system, some above to services of systemd, and numbers from
// 2^31 on are negative to some programs.
func checkID(id uint32) error {
	switch {
	case id < 1000:
		return fmt.Errorf("%d belongs to the system (below 1000)", id)
	case id >= 60001 && id <= 60513, id >= 61184 && id <= 65519:
		return fmt.Errorf("%d belongs to systemd", id)
	case id == 65534, id == 65535:
		return fmt.Errorf("%d means nobody", id)
	case id >= 1<<31:
		return fmt.Errorf("%d is 2^31 or more", id)
	}
	return nil
}

// systemNames are accounts and groups that distributions give to the machine itself, or whose members may become root.
// What a machine has in /etc/passwd and /etc/group is kept from us apart from this; the list is for names that
// mean something even where they are not there (yet).
const systemNames = `
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup nfsnobody
adm tty disk kmem dialout fax voice cdrom floppy tape audio dip operator src shadow utmp video sasl plugdev staff users
input sgx kvm render crontab netdev messagebus sshd ssh polkitd uuidd tss rtkit avahi colord geoclue saned
sudo admin wheel halt shutdown ftp http nginx apache mysql postgres docker podman lxd libvirt libvirt-qemu qemu
vboxusers wireshark bluetooth lock mem dbus chrony ntp rpc rpcuser statd munge slurm sgeadmin ceph vcpeer`

func systemName(name string) bool {
	return strings.HasPrefix(name, "systemd-") || slices.Contains(strings.Fields(systemNames), name)
}

// normal returns the account in the form in which it is given out, with defaults filled in. The error says which field
// cannot be used.
func (a Account) normal() (Account, error) {
	if err := checkName(a.Name); err != nil {
		return a, err
	}
	if err := checkID(a.UID); err != nil {
		return a, fmt.Errorf("uid %w", err)
	}
	if err := checkID(a.GID); err != nil {
		return a, fmt.Errorf("gid %w", err)
	}
	if a.Home == "" {
		a.Home = "/home/" + a.Name
	}
	if a.Shell == "" {
		a.Shell = "/bin/sh"
	}
	for what, p := range map[string]string{"home directory": a.Home, "shell": a.Shell} {
		if !plainPath(p) {
			return a, fmt.Errorf("%s %q is not a plain absolute path", what, printable(p))
		}
	}
	if a.Disabled {
		a.Shell = nologin
	}
	a.FullName = strings.TrimSpace(strings.NewReplacer(":", " ", ",", " ").Replace(printable(a.FullName)))
	return a, nil
}

// plainPath reports a path that every consumer of passwd(5) reads the same way.
func plainPath(p string) bool {
	return len(p) <= 1024 && path.IsAbs(p) && path.Clean(p) == p && p == printable(p) && !strings.Contains(p, ":")
}

// printable drops what would break a line or a terminal.
func printable(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return -1
		}
		return r
	}, s)
}
