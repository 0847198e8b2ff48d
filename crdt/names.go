package crdt

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// ErrInvalid says that a chosen value breaks a rule that holds whatever the state; the text says which.
var ErrInvalid = errors.New("not allowed")

// maxText bounds a free text such as a full name or a reason, in bytes.
const maxText = 256

var patterns = sync.OnceValue(func() (p struct{ label, account, key *regexp.Regexp }) {
	p.label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	p.account = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	p.key = regexp.MustCompile(`^(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-(ssh|ecdsa)-[a-z0-9@.-]+) [A-Za-z0-9+/]+={0,3}( [ -~]*)?$`)
	return p
})

// systemNames are accounts and groups of operating systems. Records never make or change one of these, whoever signs:
// a node must not become root elsewhere by way of a record. Sorted.
func systemNames() []string {
	return []string{
		"_apt", "adm", "admin", "audio", "avahi", "backup", "bin", "cdrom", "chrony", "daemon", "dbus", "dialout", "dip", "disk",
		"docker", "fax", "floppy", "ftp", "games", "gnats", "halt", "input", "irc", "kmem", "kvm", "libvirt", "list", "lp", "lxd",
		"mail", "man", "messagebus", "munge", "mysql", "news", "nfsnobody", "nobody", "nogroup", "ntp", "operator", "plugdev",
		"polkitd", "postfix", "postgres", "proxy", "render", "root", "rpc", "sasl", "sgx", "shadow", "shutdown", "slurm", "src",
		"sshd", "staff", "sudo", "sync", "sys", "syslog", "tape", "tcpdump", "tss", "tty", "users", "utmp", "uucp", "uuidd", "vcpeer",
		"video", "voice", "wheel", "www-data",
	}
}

// CheckLabel returns an error wrapping ErrInvalid unless s can name a host, a site or a cluster: one DNS label in lower
// case (RFC 1123), 1 to 63 letters, digits and hyphens, no hyphen at an end. what begins the message.
func CheckLabel(what, s string) error {
	if !patterns().label.MatchString(s) {
		return fmt.Errorf("%s %q: %w: want 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'", what, s, ErrInvalid)
	}
	return nil
}

// CheckAccountName returns an error wrapping ErrInvalid unless s can name an account or a group: portable by POSIX, in lower
// case, at most 32 bytes, and not one of the operating system's own.
func CheckAccountName(what, s string) error {
	if !patterns().account.MatchString(s) {
		return fmt.Errorf("%s %q: %w: want 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or '_'", what, s, ErrInvalid)
	}
	if _, ok := slices.BinarySearch(systemNames(), s); ok || strings.HasPrefix(s, "systemd-") {
		return fmt.Errorf("%s %q: %w: the name belongs to the operating system", what, s, ErrInvalid)
	}
	return nil
}

// CheckID returns an error wrapping ErrInvalid unless n can be a uid or gid: at least 1,000 (below are the system's), below
// 2^31, and not 65,534 or 65,535 (nobody, and the 16-bit -1).
func CheckID(what string, n uint32) error {
	if n < minID || n >= endID || n == 65534 || n == 65535 {
		return fmt.Errorf("%s %d: %w: want %d to %d, without 65534 and 65535", what, n, ErrInvalid, minID, endID-1)
	}
	return nil
}

// CheckKey returns an error wrapping ErrInvalid unless s is one line of an OpenSSH public key without options: an option
// such as command="…" would be run by every node.
func CheckKey(s string) error {
	if len(s) > 8<<10 || !patterns().key.MatchString(s) {
		return fmt.Errorf("ssh key %.40q: %w: want a line such as \"ssh-ed25519 AAAA… comment\"", s, ErrInvalid)
	}
	return nil
}

// checkField refuses what would break a line of passwd(5): colons and control characters, and too much.
func checkField(what, s string) error {
	bad := func(r rune) bool { return r == ':' || unicode.IsControl(r) }
	if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("%s %q: %w: want at most %d bytes of text without ':' and control characters", what, s, ErrInvalid, maxText)
	}
	return nil
}

// checkPath accepts an absolute path that fits in a line of passwd(5).
func checkPath(what, s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%s %q: %w: want an absolute path", what, s, ErrInvalid)
	}
	return checkField(what, s)
}
