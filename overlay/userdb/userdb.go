package userdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"vcpeer/overlay/marked"
)

// Config of a DB. The zero value of each field but Instance is usable.
type Config struct {
	Instance string        // names our blocks in files, so that daemons on one machine keep theirs apart; see marked.CheckOwner
	Service  string        // file name of the socket; default io.vcpeer. Of daemons with one name the first serves
	Paths    Paths         // where things are on this machine
	Coalesce time.Duration // how long changes gather before they take effect together; default 200 ms
	Recheck  time.Duration // how often the machine is looked at again (packages, files, local users); default 1 min
	Log      *slog.Logger  // default: slog.Default()
}

// Paths of the operating system; empty fields have the usual place.
type Paths struct {
	Sockets    string   // /run/systemd/userdb
	NSSwitch   string   // /etc/nsswitch.conf
	Passwd     string   // /etc/passwd
	Group      string   // /etc/group
	Extrausers string   // /var/lib/extrausers
	Lock       string   // lock file for the files of Extrausers: /run/vcpeer-extrausers.lock
	Modules    []string // directories, or patterns of such, with the C library's libnss_*.so.2
	AptGet     string   // /usr/bin/apt-get: tells Debian's kin, for the hint
}

var serviceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (c Config) withDefaults() (Config, error) {
	c.Service = cmp.Or(c.Service, "io.vcpeer")
	p := &c.Paths
	p.Sockets = cmp.Or(p.Sockets, "/run/systemd/userdb")
	p.NSSwitch = cmp.Or(p.NSSwitch, "/etc/nsswitch.conf")
	p.Passwd = cmp.Or(p.Passwd, "/etc/passwd")
	p.Group = cmp.Or(p.Group, "/etc/group")
	p.Extrausers = cmp.Or(p.Extrausers, "/var/lib/extrausers")
	p.Lock = cmp.Or(p.Lock, "/run/vcpeer-extrausers.lock")
	p.AptGet = cmp.Or(p.AptGet, "/usr/bin/apt-get")
	if len(p.Modules) == 0 {
		p.Modules = []string{"/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	}
	c.Coalesce = cmp.Or(c.Coalesce, 200*time.Millisecond)
	c.Recheck = cmp.Or(c.Recheck, time.Minute)
	c.Log = cmp.Or(c.Log, slog.Default())
	switch {
	case c.Coalesce < 0 || c.Recheck < 0:
		return c, errors.New("userdb: negative interval")
	case !serviceForm.MatchString(c.Service) || strings.HasPrefix(c.Service, "io.systemd."):
		return c, fmt.Errorf("userdb: %q cannot name the socket", c.Service)
	}
	return c, marked.CheckOwner(c.Instance)
}

func (c Config) extrausers() extrausers {
	return extrausers{dir: c.Paths.Extrausers, lock: c.Paths.Lock, owner: c.Instance}
}

// Status says whether the programs of this machine see the accounts. Err is set when something that should work does not.
type Status struct {
	Mode     Mode
	Detail   string // what is given out, or why nothing is
	Hint     string // what to type or do; may be empty
	Accounts int
	Groups   int
	Refused  []Refused // not given out, with reasons; shared, not to be changed
	Err      error
}

// DB gives accounts to the machine. Set and Status may be called from anywhere; Run once.
type DB struct {
	cfg      Config
	want     atomic.Pointer[wanted]
	wake     chan struct{} // holds one: more changes than one still are one
	snapshot atomic.Pointer[Snapshot]
	status   atomic.Pointer[Status]
}

type wanted struct {
	accounts []Account
	groups   []Group
}

// New checks the configuration; nothing is touched before Run.
func New(cfg Config) (*DB, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, wake: make(chan struct{}, 1)}
	db.status.Store(&Status{Mode: ModeOff, Detail: "the accounts are not known yet"})
	return db, nil
}

// Set says which accounts and groups there are from now on. It copies them and never blocks. Until the first Set,
// lookups are answered with "service not available", so that nobody takes an account for removed.
func (db *DB) Set(accounts []Account, groups []Group) {
	w := &wanted{accounts: slices.Clone(accounts), groups: slices.Clone(groups)}
	for i, g := range w.groups {
		w.groups[i].Members = slices.Clone(g.Members)
	}
	db.want.Store(w)
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// Status returns how things stand.
func (db *DB) Status() Status { return *db.status.Load() }

// Run gives the accounts out until ctx ends. Then the socket is closed and removed, while blocks in files stay until
// Uninstall: the accounts are true without the daemon too. A failure is logged once, shown in Status, and tried again.
func (db *DB) Run(ctx context.Context) error {
	var srv *server
	defer func() {
		if srv != nil {
			srv.close()
		}
	}()
	recheck := time.NewTicker(db.cfg.Recheck)
	defer recheck.Stop()
	machine := look(db.cfg.Paths)
	for {
		srv = db.round(ctx, srv, machine)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-recheck.C:
			machine = look(db.cfg.Paths)
		case <-db.wake:
			if err := wait(ctx, db.cfg.Coalesce); err != nil {
				return err
			}
			select { // what came while waiting is done along
			case <-db.wake:
			default:
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// round brings the machine to what is wanted, publishes how that went and returns the server that now runs, if one does.
// machine is what was last seen of it: to look costs more than all else here, and records change often while sites join.
func (db *DB) round(ctx context.Context, srv *server, machine facts) *server {
	want := db.want.Load()
	snap, err := db.load(want)
	if err == nil && snap != nil {
		db.snapshot.Store(snap)
	}
	srv, serveErr := db.keepServing(srv)
	machine.serveErr = serveErr
	mode, detail, hint := choose(machine)
	now := Status{Mode: mode, Detail: detail, Hint: hint}
	if err == nil {
		err = db.writeFiles(ctx, mode)
	}
	if s := db.snapshot.Load(); s != nil {
		now.Accounts, now.Groups, now.Refused = len(s.accounts), len(s.groups), s.refused
	}
	now.Err = err
	if mode != ModeOff {
		now.Detail = db.describe(mode, now)
	}
	if want == nil {
		now.Mode, now.Detail = ModeOff, "the accounts are not known yet"
	}
	db.report(now)
	return srv
}

func (db *DB) describe(mode Mode, s Status) string {
	place := db.cfg.Paths.Sockets + "/" + db.cfg.Service
	if mode == ModeExtrausers {
		place = "the files in " + db.cfg.Paths.Extrausers
	}
	text := fmt.Sprintf("%d accounts and %d groups in %s", s.Accounts, s.Groups, place)
	if n := len(s.Refused); n > 0 {
		text += fmt.Sprintf(", %d left out", n)
	}
	return text
}

// report publishes and logs what is new.
func (db *DB) report(now Status) {
	last := db.status.Load()
	db.status.Store(&now)
	switch {
	case now.Err != nil && (last.Err == nil || last.Err.Error() != now.Err.Error()):
		db.cfg.Log.Error("accounts are not up to date on this machine", "err", now.Err)
	case now.Err == nil && (now.Mode != last.Mode || now.Detail != last.Detail):
		db.cfg.Log.Info("accounts on this machine", "mode", now.Mode, "detail", now.Detail, "hint", now.Hint)
	}
}

// load makes the snapshot; nil: nothing is wanted yet. A panic becomes an error: accounts come from records of any site,
// and a record that finds a fault of ours must not stop every daemon of the cluster. What was given out last stays.
func (db *DB) load(want *wanted) (s *Snapshot, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("userdb: panic: %v\n%s", p, debug.Stack())
		}
	}()
	if want == nil {
		return nil, nil
	}
	passwd, err := os.ReadFile(db.cfg.Paths.Passwd)
	if err != nil {
		return nil, fmt.Errorf("userdb: local users: %w", err)
	}
	group, err := os.ReadFile(db.cfg.Paths.Group)
	if err != nil {
		return nil, fmt.Errorf("userdb: local groups: %w", err)
	}
	return NewSnapshot(want.accounts, want.groups, ParseLocal(passwd, group)), nil
}

// keepServing returns srv while its socket is there, or a new server.
func (db *DB) keepServing(srv *server) (*server, error) {
	if srv != nil {
		if srv.there() {
			return srv, nil
		}
		srv.close()
	}
	srv, err := serve(db.cfg.Paths.Sockets, db.cfg.Service, db.snapshot.Load)
	if err != nil {
		return nil, err
	}
	return srv, nil
}

// writeFiles has our blocks in the files of libnss-extrausers exactly when they are the way: with both ways open, every
// account would be listed twice.
func (db *DB) writeFiles(ctx context.Context, mode Mode) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // for the lock
	defer cancel()
	x := db.cfg.extrausers()
	if mode != ModeExtrausers {
		if mode == ModeOff && os.Geteuid() != 0 {
			return nil
		}
		_, err := x.write(ctx, nil)
		return err
	}
	s := db.snapshot.Load()
	if s == nil {
		return nil
	}
	_, err := x.write(ctx, s)
	return err
}

// Uninstall takes away what a DB with this configuration has left on the machine. ErrServed: its daemon still runs.
func Uninstall(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if err := removeSocket(cfg.Paths.Sockets, cfg.Service); err != nil {
		return err
	}
	_, err = cfg.extrausers().write(ctx, nil)
	return err
}
