package site

import (
	"context"
	"crypto/rand"
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

	"vcpeer/queue"
	"vcpeer/queue/exec"
)

// Files is the Deliver that writes results as files below the submit directory. Each file appears whole or not at all,
// in place of a regular file of the same name and of nothing else; /dev/null as a path of standard output or error means
// that nothing is written. Nothing is written outside the directory, whatever links it holds, except standard
// output and error where the user gave an absolute path. A daemon that is root writes with the rights of the job's
// owner: a user gets no file where that user could not write one.
type Files struct {
	Blobs   Blobs
	Account func(ctx context.Context, id string) (*exec.Account, error) // see Config.Account
}

// Deliver writes the results of one task.
func (f Files) Deliver(ctx context.Context, d Delivery) (problem string, err error) {
	owner, err := f.Account(ctx, d.Spec.Account)
	if err != nil {
		return "", err
	}
	for _, file := range results(d) {
		err := f.write(file, owner)
		if cannot := new(cannotWrite); errors.As(err, &cannot) {
			return cannot.Error(), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// result is one file to write: path is relative to dir.
type result struct {
	dir, path string
	file      queue.File
	mode      fs.FileMode
}

// results returns what a task brings back, and where to.
func results(d Delivery) []result {
	var all []result
	stream := func(file *queue.File, template, letter string) {
		if file == nil || template == queue.Kept {
			return
		}
		name := expand(template, d, letter)
		if template == "" {
			name = defaultName(d, letter)
		}
		if discarded(name) {
			return
		}
		r := result{dir: d.Spec.Dir, path: path.Clean(name), file: *file, mode: 0o644}
		if path.IsAbs(name) {
			r.dir, r.path = path.Split(path.Clean(name))
		}
		all = append(all, r)
	}
	stream(d.Task.Stdout, d.Spec.Stdout, "o")
	if !d.Spec.Join {
		stream(d.Task.Stderr, d.Spec.Stderr, "e")
	}
	for _, o := range d.Task.Outputs {
		mode := fs.FileMode(o.Mode).Perm()
		if mode == 0 {
			mode = 0o644
		}
		all = append(all, result{dir: d.Spec.Dir, path: o.Path, file: o, mode: mode})
	}
	return all
}

// discarded reports whether a path means that nothing is written: it is the null device.
func discarded(name string) bool { return path.Clean(name) == os.DevNull }

// defaultName is NAME.oSEQ, with .TASK for an array.
func defaultName(d Delivery, letter string) string {
	name := d.Spec.Name + "." + letter + strconv.FormatUint(uint64(d.Job), 10)
	if d.Spec.Array != nil {
		name += "." + strconv.Itoa(d.Task.Index)
	}
	return name
}

// expand replaces the names that a path may hold: $JOB_ID, $TASK_ID, $JOB_NAME, with or without braces. A path that ends
// with a slash is a directory for the default name.
func expand(template string, d Delivery, letter string) string {
	text := os.Expand(template, func(name string) string {
		switch name {
		case "JOB_ID":
			return strconv.FormatUint(uint64(d.Job), 10)
		case "TASK_ID", "SGE_TASK_ID":
			if d.Spec.Array == nil {
				return "undefined"
			}
			return strconv.Itoa(d.Task.Index)
		case "JOB_NAME":
			return d.Spec.Name
		}
		return "$" + name
	})
	if strings.HasSuffix(text, "/") {
		text += defaultName(d, letter)
	}
	return text
}

// cannotWrite is a failure that trying again does not mend: the directory is gone, or the path is not a place for a file.
type cannotWrite struct{ err error }

func (c *cannotWrite) Error() string { return "results could not be written: " + c.err.Error() }
func (c *cannotWrite) Unwrap() error { return c.err }

// final reports whether an error of the file system will stay. A full or read-only disk and an I/O error may pass.
func final(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ESTALE} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

func (f Files) write(r result, owner *exec.Account) error {
	content, _, err := f.Blobs.Open(r.file.Hash)
	if err != nil {
		return fmt.Errorf("queue/site: deliver %s: %w", r.path, err)
	}
	defer content.Close()
	err = as(owner, func() error {
		root, err := os.OpenRoot(r.dir)
		if err != nil {
			return err
		}
		defer root.Close()
		return replace(root, r, content)
	})
	if err != nil && final(err) {
		return &cannotWrite{err}
	}
	if err != nil {
		return fmt.Errorf("queue/site: deliver %s: %w", r.path, err)
	}
	return nil
}

// replace writes content beside its path and renames it there.
func replace(root *os.Root, r result, content io.Reader) error {
	name := filepath.FromSlash(r.path)
	if err := replaceable(root, name); err != nil {
		return err
	}
	if err := makeDirs(root, filepath.Dir(name)); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(name), ".vcpeer-"+rand.Text())
	file, err := root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = fill(file, r, content)
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}

// errKind says that something else than a file stands at a result's path: a device, a link, a directory.
var errKind = errors.New("is not a regular file and is not replaced")

// replaceable returns an error unless name is free or a regular file. A rename would replace anything but a directory,
// even a device where the daemon is root.
func replaceable(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !info.Mode().IsRegular():
		return &fs.PathError{Op: "replace", Path: name, Err: errKind}
	}
	return err
}

func fill(file *os.File, r result, content io.Reader) error {
	_, err := io.Copy(file, content)
	if err == nil {
		err = file.Chmod(r.mode)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// makeDirs makes the missing directories of a path.
func makeDirs(root *os.Root, dir string) error {
	made := ""
	for _, name := range strings.Split(dir, string(filepath.Separator)) {
		if name == "." || name == "" {
			continue
		}
		made = filepath.Join(made, name)
		if err := root.Mkdir(made, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
