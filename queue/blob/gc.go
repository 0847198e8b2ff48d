package blob

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// partialAge is how long a partly fetched blob waits to be resumed.
const partialAge = 24 * time.Hour

// Policy tells GC what may go. Blobs for which Keep says true always stay.
type Policy struct {
	Keep       func(hash string) bool // nil: nothing is referenced
	MinAge     time.Duration          // younger blobs always stay: whoever put them may not have recorded it yet; 0: one hour, negative: none
	MaxAge     time.Duration          // unreferenced blobs older than this go; 0: only for room
	QuotaBytes int64                  // unreferenced blobs go, oldest first, until this is kept; 0: the store's own quota
}

// Collected is what a GC did.
type Collected struct {
	Removed   int
	Freed     int64 // bytes
	UsedBytes int64 // bytes left
}

type aged struct {
	hash string
	size int64
	at   time.Time
}

// GC removes what the policy lets go, and partial fetches a day old. Readers that are open stay good.
func (s *Store) GC(ctx context.Context, p Policy, now time.Time) (Collected, error) {
	if p.MinAge == 0 {
		p.MinAge = time.Hour
	}
	p.QuotaBytes = orDefault(p.QuotaBytes, s.opt.QuotaBytes)
	var loose []aged
	err := s.walk(func(hash string, info fs.FileInfo) {
		if now.Sub(info.ModTime()) >= p.MinAge && (p.Keep == nil || !p.Keep(hash)) {
			loose = append(loose, aged{hash, info.Size(), info.ModTime()})
		}
	})
	if err != nil {
		return Collected{}, fmt.Errorf("blob: gc: %w", err)
	}
	slices.SortFunc(loose, func(a, b aged) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.hash, b.hash))
	})
	var done Collected
	for _, b := range loose {
		tooOld := p.MaxAge > 0 && now.Sub(b.at) >= p.MaxAge
		tooFull := p.QuotaBytes > 0 && s.Used() > p.QuotaBytes
		if !tooOld && !tooFull {
			continue
		}
		if err := ctx.Err(); err != nil {
			return done, err
		}
		gone, err := s.removeIfStill(b)
		if err != nil {
			return done, err
		}
		if gone {
			done.Removed++
			done.Freed += b.size
		}
	}
	done.UsedBytes = s.Used()
	return done, s.dropPartials(now)
}

// removeIfStill removes the blob unless somebody put it again (hold) since it was looked at.
func (s *Store) removeIfStill(b aged) (bool, error) {
	s.names.Lock()
	defer s.names.Unlock()
	info, err := os.Lstat(s.path(b.hash))
	if err != nil || !info.ModTime().Equal(b.at) {
		return false, nil
	}
	return true, s.remove(b.hash)
}

func (s *Store) dropPartials(now time.Time) error {
	list, err := os.ReadDir(s.partialDir())
	if err != nil {
		return fmt.Errorf("blob: gc: %w", err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err == nil && now.Sub(info.ModTime()) > partialAge {
			os.Remove(filepath.Join(s.partialDir(), e.Name())) // a running fetch keeps its open file; the next GC tries again
		}
	}
	return nil
}

// walk visits every blob. One that goes away meanwhile is passed over.
func (s *Store) walk(visit func(hash string, info fs.FileInfo)) error {
	for i := range 256 {
		list, err := os.ReadDir(filepath.Join(s.opt.Dir, hex.EncodeToString([]byte{byte(i)})))
		if err != nil {
			return err
		}
		for _, e := range list {
			info, err := e.Info()
			if err == nil && ValidHash(e.Name()) && info.Mode().IsRegular() {
				visit(e.Name(), info)
			}
		}
	}
	return nil
}

// Verify reads the blob and compares its hash. A blob that fails is removed, so that it is fetched anew, and the error
// wraps ErrCorrupt.
func (s *Store) Verify(ctx context.Context, hash string) error {
	r, err := s.OpenVerified(hash)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := s.buf.Get().(*[chunkBytes]byte)
	defer s.buf.Put(buf)
	for err == nil {
		if err = ctx.Err(); err == nil {
			_, err = r.Read(buf[:])
		}
	}
	if err == io.EOF {
		return nil
	}
	if errors.Is(err, ErrCorrupt) {
		return errors.Join(err, s.Delete(hash))
	}
	return fmt.Errorf("blob: verify %s: %w", hash, err)
}

// OpenVerified returns a reader that hashes as it goes: instead of io.EOF it ends with ErrCorrupt when the content is
// not what its name says. What was read before the end is not yet proved.
func (s *Store) OpenVerified(hash string) (io.ReadCloser, error) {
	r, _, err := s.Open(hash)
	if err != nil {
		return nil, err
	}
	return &verifier{ReadCloser: r, sum: sha256.New(), want: hash}, nil
}

type verifier struct {
	io.ReadCloser
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
	want string
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n])
	if err == io.EOF && hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		err = fmt.Errorf("blob: %s: %w", v.want, ErrCorrupt)
	}
	return n, err
}
