package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	collectTries = 6               // a full disk gets half a minute before the outputs are given up
	collectWait  = 5 * time.Second // between tries
	storing      = 4               // blobs of one attempt at once
)

// collectResult stores the outputs and gives out the Result. Outputs that cannot be stored make the attempt lost: it ran,
// but what it made is not to be had here.
func (e *Executor) collectResult(a *attempt, end endRecord) {
	select {
	case e.collect <- struct{}{}:
	case <-e.life.Done():
		return // the next daemon collects
	}
	defer func() { <-e.collect }()
	r := Result{Key: a.rec.Spec.Key, Meta: a.rec.Spec.Meta, Exit: end.Exit, Reason: end.Reason, Started: end.Started, Ended: end.Ended,
		CPU: end.CPU, MaxRSS: end.MaxRSS, Lost: end.Lost, Killed: end.Cause}
	tries, began := 0, time.Now()
	err := every(e.life, collectWait, func() bool {
		tries++
		err := e.gather(e.life, a, &r)
		if err == nil {
			return true
		}
		e.cfg.Log.Warn("outputs are not stored yet", "attempt", r.Key, "error", err, "since", began)
		if tries < collectTries || e.life.Err() != nil {
			return false
		}
		r.Lost, r.Exit = true, -1
		r.Reason = join(r.Reason, fmt.Sprintf("outputs could not be stored: %v", err))
		return true
	})
	if err != nil {
		return
	}
	e.mu.Lock()
	a.phase = done
	e.out = append(e.out, r)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default: // it is awake
	}
}

// join adds a sentence to a reason.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// reason adds what is to be said of the outputs to how the job ended, which comes first: missing outputs most often
// follow from it.
func reason(exit int, ended, outputs string) string {
	if outputs != "" && ended == "" && exit > 0 {
		ended = fmt.Sprintf("exit code %d", exit)
	}
	return join(ended, outputs)
}

// gather stores standard output, standard error and the outputs of an attempt, and fills r.
func (e *Executor) gather(ctx context.Context, a *attempt, r *Result) error {
	var g errgroup.Group
	g.SetLimit(storing)
	if !a.rec.Spec.NoStdout {
		g.Go(func() (err error) { r.Stdout, err = e.storeStream(ctx, a, fileStdout); return err })
	}
	if !a.rec.Spec.Join && !a.rec.Spec.NoStderr {
		g.Go(func() (err error) { r.Stderr, err = e.storeStream(ctx, a, fileStderr); return err })
	}
	var warn string
	if len(a.rec.Spec.Outputs) > 0 && !r.Lost {
		files, w, err := e.storeOutputs(ctx, a)
		if err != nil {
			g.Wait()
			return err
		}
		r.Outputs, warn = files, w
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.Reason = reason(r.Exit, r.Reason, warn)
	return nil
}

func (e *Executor) storeStream(ctx context.Context, a *attempt, name string) (Ref, error) {
	f, err := os.OpenFile(filepath.Join(a.dir, name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) { // never started
		return e.put(ctx, strings.NewReader(""))
	}
	if err != nil {
		return Ref{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Ref{}, err
	}
	return e.put(ctx, bounded(f, info.Size(), e.cfg.OutputBytes))
}

// storeOutputs stores what the patterns match. The warning names what is missing or cannot be taken.
func (e *Executor) storeOutputs(ctx context.Context, a *attempt) ([]File, string, error) {
	root, err := openWork(a.dir)
	if err != nil {
		return nil, fmt.Sprintf("no output is kept: the job removed its working directory (%v)", err), nil
	}
	defer root.Close()
	found, missing := expand(root.FS(), a.rec.Spec.Outputs)
	warn := ""
	for _, p := range missing {
		warn = join(warn, "no output matches "+p)
	}
	if len(found) > maxFiles {
		warn = join(warn, fmt.Sprintf("only %d of %d outputs are kept", maxFiles, len(found)))
		found = found[:maxFiles]
	}
	files := make([]File, len(found))
	skipped := make([]error, len(found))
	var g errgroup.Group
	g.SetLimit(storing)
	for i, p := range found {
		g.Go(func() (err error) {
			files[i], skipped[i], err = e.storeFile(ctx, root, p, a.rec.Spec.Account)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, "", err
	}
	kept := files[:0]
	for i, f := range files {
		if skipped[i] != nil {
			warn = join(warn, fmt.Sprintf("output %s is not kept: %v", found[i], skipped[i]))
			continue
		}
		kept = append(kept, f)
	}
	return kept, warn, nil
}

// openWork opens the working directory itself: a job that runs as our own user can put a link to anywhere in its place.
func openWork(dir string) (*os.Root, error) {
	attempt, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer attempt.Close()
	info, err := attempt.Lstat(dirWork)
	if err != nil {
		return nil, err
	}
	work, err := attempt.OpenRoot(dirWork)
	if err != nil {
		return nil, err
	}
	now, err := work.Stat(".")
	if err == nil && !os.SameFile(info, now) {
		err = errors.New("it is not a directory any more")
	}
	if err != nil {
		work.Close()
		return nil, err
	}
	return work, nil
}

// storeFile stores one output. A file that the job could not have made (another owner: a hard link to somebody's file), a
// link that leads out, a device or pipe is skipped for the reason given.
func (e *Executor) storeFile(ctx context.Context, root *os.Root, path string, acc *Account) (file File, skip, err error) {
	f, skip := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if skip != nil {
		return File{}, skip, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, nil, err
	}
	if !info.Mode().IsRegular() {
		return File{}, errors.New("not a regular file"), nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && acc != nil && os.Geteuid() == 0 && st.Uid != acc.UID {
		return File{}, errors.New("it belongs to another user"), nil
	}
	ref, err := e.put(ctx, f)
	return File{Path: path, Hash: ref.Hash, Size: ref.Size, Mode: uint32(info.Mode().Perm())}, nil, err
}

func (e *Executor) put(ctx context.Context, r io.Reader) (Ref, error) {
	hash, size, err := e.cfg.Blobs.Put(ctx, r)
	return Ref{hash, size}, err
}
