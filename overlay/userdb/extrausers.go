package userdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vcpeer/overlay/marked"
)

// extrausers is the way of last resort: a block of our own in the files of libnss-extrausers, which has no socket and no
// user database, only files in the forms of passwd(5), group(5) and shadow(5). Its readers skip lines that begin with #.
type extrausers struct {
	dir   string // of the package; without it nothing is ever written
	lock  string
	owner string
}

// lines are the three files' share, in the order in which they are written: an account appears last, when its group is
// known and it is locked if it has to be.
func (s *Snapshot) lines() (shadow, group, passwd []string) {
	for _, a := range s.accounts {
		secret, expired := "*", "" // no password fits, other ways to log in are open
		if a.Disabled {
			secret, expired = "!*", "1" // day 1 of 1970
		}
		shadow = append(shadow, strings.Join([]string{a.Name, secret, "", "", "", "", "", expired, ""}, ":"))
		passwd = append(passwd, strings.Join([]string{a.Name, "x", decimal(a.UID), decimal(a.GID), a.FullName, a.Home, a.Shell}, ":"))
	}
	for _, g := range s.groups {
		group = append(group, strings.Join([]string{g.Name, "x", decimal(g.GID), strings.Join(g.Members, ",")}, ":"))
	}
	return shadow, group, passwd
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// there reports whether the package's directory exists.
func (x extrausers) there() bool {
	info, err := os.Stat(x.dir)
	return err == nil && info.IsDir()
}

// write brings all three files to s; each is replaced atomically. A nil snapshot takes our blocks out.
func (x extrausers) write(ctx context.Context, s *Snapshot) (changed bool, err error) {
	if !x.there() {
		if s == nil {
			return false, nil
		}
		return false, fmt.Errorf("userdb: %s is missing: is libnss-extrausers installed?", x.dir)
	}
	var shadow, group, passwd []string
	if s != nil {
		shadow, group, passwd = s.lines()
	}
	var errs []error
	for _, f := range []struct {
		name  string
		mode  os.FileMode
		lines []string
	}{{"shadow", 0o640, shadow}, {"group", 0o644, group}, {"passwd", 0o644, passwd}} {
		file := marked.File{Path: filepath.Join(x.dir, f.name), Lock: x.lock, Mode: f.mode}
		wrote, err := file.Edit(ctx, func(old []byte) ([]byte, error) { return marked.Set(old, x.owner, f.lines) })
		changed = changed || wrote
		errs = append(errs, err)
		if err != nil && s != nil {
			break // an account without its group or lock is worse than a late one
		}
	}
	return changed, errors.Join(errs...)
}
