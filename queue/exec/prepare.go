package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	markName    = "VCPEER_ATTEMPT"
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultMode = 0o644
)

// prepare fills the attempt's directory and returns what its shim is to do.
func (e *Executor) prepare(ctx context.Context, a *attempt) (*order, error) {
	spec := &a.rec.Spec
	if !a.spare {
		if err := makeOwnDirs(a); err != nil {
			return nil, err
		}
	}
	if err := e.placeInputs(ctx, a); err != nil {
		return nil, err
	}
	argv := spec.Argv
	if spec.Script != "" {
		var err error
		if argv, err = e.placeScript(ctx, a); err != nil {
			return nil, err
		}
	}
	o := &order{Dir: a.dir, Argv: argv, Env: environ(a), Join: spec.Join, NoStdout: spec.NoStdout, NoStderr: spec.NoStderr, TimeLimit: spec.TimeLimit, Grace: e.cfg.Grace,
		MemBytes: spec.MemBytes, MaxProcs: max(0, e.cfg.MaxProcs), OutBytes: e.cfg.OutputBytes}
	if acc := spec.Account; acc != nil && os.Geteuid() == 0 {
		o.Cred = &credential{UID: acc.UID, GID: acc.GID, Groups: acc.Groups}
	}
	return o, nil
}

// makeOwnDirs makes the directories in which the job works.
func makeOwnDirs(a *attempt) error {
	for _, name := range []string{dirWork, dirTmp} {
		dir := filepath.Join(a.dir, name)
		if err := os.Mkdir(dir, ownMode); err != nil {
			return err
		}
		if err := own(a.rec.Spec.Account, func(uid, gid int) error { return os.Lchown(dir, uid, gid) }); err != nil {
			return err
		}
	}
	return nil
}

// own gives something to the account, if there is one and we may.
func own(a *Account, chown func(uid, gid int) error) error {
	if a == nil || os.Geteuid() != 0 {
		return nil
	}
	return chown(int(a.UID), int(a.GID))
}

// placeInputs copies the inputs into the working directory (in the kernel, sharing blocks where the file system can):
// the job may change its files, never a blob.
func (e *Executor) placeInputs(ctx context.Context, a *attempt) error {
	spec := &a.rec.Spec
	if len(spec.Inputs) == 0 {
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(a.dir, dirWork))
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range spec.Inputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := makeParents(root, path.Dir(f.Path), spec.Account); err != nil {
			return fmt.Errorf("input %s: %w", f.Path, err)
		}
		if err := e.place(root, f, spec.Account); err != nil {
			return fmt.Errorf("input %s: %w", f.Path, err)
		}
	}
	return nil
}

func makeParents(root *os.Root, dir string, acc *Account) error {
	if dir == "." {
		return nil
	}
	err := root.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeParents(root, path.Dir(dir), acc); err != nil {
			return err
		}
		err = root.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return own(acc, func(uid, gid int) error { return root.Lchown(dir, uid, gid) })
}

// place copies one blob. A file that may be executed is written while no other goroutine forks: a child that is just
// being made holds our descriptors, and a program open for writing cannot be run (ETXTBSY).
func (e *Executor) place(root *os.Root, f File, acc *Account) error {
	src, size, err := e.cfg.Blobs.Open(f.Hash)
	if err != nil {
		return err
	}
	defer src.Close()
	if f.Size != size {
		return fmt.Errorf("%w: said to have %d bytes, blob has %d", ErrSpec, f.Size, size)
	}
	mode := os.FileMode(f.Mode)
	if mode == 0 {
		mode = defaultMode
	}
	if mode&0o111 != 0 {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	dst, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close() // for the ways out below; a second Close does nothing
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := own(acc, dst.Chown); err != nil {
		return err
	}
	if err := dst.Chmod(mode); err != nil {
		return err
	}
	return dst.Close()
}

// placeScript puts the script beside the working directory, where it hides no file of the job, and returns the command.
func (e *Executor) placeScript(ctx context.Context, a *attempt) ([]string, error) {
	spec := &a.rec.Spec
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	src, size, err := e.cfg.Blobs.Open(spec.Script)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	var head [2]byte
	_, headErr := io.ReadFull(src, head[:])
	src.Close()
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := e.place(root, File{Path: fileScript, Hash: spec.Script, Size: size, Mode: 0o500}, spec.Account); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	file := filepath.Join(a.dir, fileScript)
	if headErr == nil && string(head[:]) == "#!" {
		return append([]string{file}, spec.Argv...), nil
	}
	shell := spec.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	return append([]string{shell, file}, spec.Argv...), nil
}

// environ is the job's whole environment: what the Spec gives; HOME, USER, LOGNAME, SHELL, PATH, TMPDIR and TMP where it does
// not; and VCPEER_JOB_KEY (the attempt's key), VCPEER_DIR (its directory), VCPEER_SLOTS and VCPEER_ATTEMPT (the mark by
// which its processes are found), always. Of a name given twice the last counts.
func environ(a *attempt) []string {
	spec := &a.rec.Spec
	work, tmp := filepath.Join(a.dir, dirWork), filepath.Join(a.dir, dirTmp)
	home, user, shell := work, "", "/bin/sh"
	if acc := spec.Account; acc != nil {
		user = acc.Name
		home, shell = firstOf(acc.Home, home), firstOf(acc.Shell, shell)
	} else {
		home, user = firstOf(os.Getenv("HOME"), home), os.Getenv("USER")
	}
	mark, _ := strings.CutPrefix(a.rec.Mark, markName+"=")
	env := make([]string, 0, len(spec.Env)+10)
	at := map[string]int{}
	set := func(name, value string) {
		i, ok := at[name]
		if !ok {
			i = len(env)
			at[name] = i
			env = append(env, "")
		}
		env[i] = name + "=" + value
	}
	for _, d := range [][2]string{{"HOME", home}, {"USER", user}, {"LOGNAME", user}, {"SHELL", shell}, {"PATH", defaultPath}, {"TMPDIR", tmp}, {"TMP", tmp}} {
		set(d[0], d[1])
	}
	for _, v := range spec.Env {
		name, value, _ := strings.Cut(v, "=")
		set(name, value)
	}
	set("VCPEER_JOB_KEY", spec.Key)
	set("VCPEER_DIR", work)
	set("VCPEER_SLOTS", strconv.Itoa(max(1, spec.Slots)))
	set(markName, mark)
	return env
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
