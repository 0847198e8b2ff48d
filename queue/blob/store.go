package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a Store.
type Options struct {
	Dir        string // made with mode 0700 if absent; one process at a time
	FloorBytes int64  // free space that Put leaves on the disk; 0: 256 MiB, negative: none
	QuotaBytes int64  // most that the store holds; 0: no limit but the floor
	MaxBytes   int64  // largest single blob; 0: 1 TiB
}

const (
	defaultFloor = 256 << 20
	defaultMax   = 1 << 40
	chunkBytes   = 256 << 10 // unit of copying; a buffer of a transfer or Put
	spaceEvery   = 64 << 20  // free space is looked at again after so many bytes of one blob
)

// Store keeps blobs in one directory. Safe for concurrent use.
//
//	Dir/ab/abcd…   content, mode 0444, complete and verified: a name here is never wrong about its content
//	Dir/tmp/       content being written; emptied by Open
//	Dir/partial/   fetched in part, kept to be resumed; removed by GC after a day
type Store struct {
	opt    Options
	lock   *os.File
	used   atomic.Int64 // bytes of all blobs
	buf    sync.Pool    // *[chunkBytes]byte
	commit committer
	names  sync.Mutex // orders "is it there" with GC's removal, see hold
}

// Open opens or makes the store and counts what is in it (one stat a blob).
func Open(opt Options) (*Store, error) {
	opt.FloorBytes = orDefault(opt.FloorBytes, defaultFloor)
	opt.MaxBytes = orDefault(opt.MaxBytes, defaultMax)
	s := &Store{opt: opt}
	s.buf.New = func() any { return new([chunkBytes]byte) }
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("blob: open store: %w", err)
	}
	return s, nil
}

func orDefault(v, def int64) int64 {
	if v == 0 {
		return def
	}
	return v
}

func (s *Store) prepare() error {
	if err := os.MkdirAll(s.opt.Dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.opt.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("%s is in use by another process: %w", s.opt.Dir, err)
	}
	s.lock = lock
	if err := s.makeDirs(); err != nil {
		lock.Close()
		return err
	}
	return s.walk(func(_ string, info fs.FileInfo) { s.used.Add(info.Size()) })
}

// makeDirs makes all shards at once, so that no later Put has to make a directory durable.
func (s *Store) makeDirs() error {
	if err := os.RemoveAll(s.tmpDir()); err != nil {
		return err
	}
	dirs := []string{s.tmpDir(), s.partialDir()}
	for i := range 256 {
		dirs = append(dirs, filepath.Join(s.opt.Dir, hex.EncodeToString([]byte{byte(i)})))
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syncDir(s.opt.Dir)
}

// Close releases the directory. Open readers stay good.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) tmpDir() string           { return filepath.Join(s.opt.Dir, "tmp") }
func (s *Store) partialDir() string       { return filepath.Join(s.opt.Dir, "partial") }
func (s *Store) path(hash string) string  { return filepath.Join(s.opt.Dir, hash[:2], hash) }
func (s *Store) shard(hash string) string { return filepath.Join(s.opt.Dir, hash[:2]) }

// Has reports whether the store holds the blob. A text that is no hash is not held.
func (s *Store) Has(hash string) bool {
	_, err := s.Size(hash)
	return err == nil
}

// Size returns the blob's length in bytes, or ErrNotFound.
func (s *Store) Size(hash string) (int64, error) {
	if err := checkHash(hash); err != nil {
		return 0, err
	}
	if hash == Empty {
		return 0, nil
	}
	info, err := os.Lstat(s.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("blob: %s: %w", hash, ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("blob: size: %w", err)
	}
	return info.Size(), nil
}

// Open returns the content and its length, or ErrNotFound. A reader stays good when the blob is removed meanwhile. The
// content is not checked again: see OpenVerified. The reader is an *os.File unless the blob is empty, so that io.Copy
// into another file stays in the kernel.
func (s *Store) Open(hash string) (io.ReadSeekCloser, int64, error) {
	if err := checkHash(hash); err != nil {
		return nil, 0, err
	}
	if hash == Empty {
		return noContent{bytes.NewReader(nil)}, 0, nil
	}
	f, err := os.Open(s.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("blob: %s: %w", hash, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob: open: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("blob: open: %w", err)
	}
	return f, info.Size(), nil
}

type noContent struct{ *bytes.Reader }

func (noContent) Close() error { return nil }

// Delete removes the blob; one that is not there is no error.
func (s *Store) Delete(hash string) error {
	if err := checkHash(hash); err != nil {
		return err
	}
	s.names.Lock()
	defer s.names.Unlock()
	return s.remove(hash)
}

// remove needs s.names.
func (s *Store) remove(hash string) error {
	info, err := os.Lstat(s.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob: delete: %w", err)
	}
	if err := os.Remove(s.path(hash)); err != nil {
		return fmt.Errorf("blob: delete: %w", err)
	}
	s.used.Add(-info.Size())
	return nil
}

// hold reports whether the blob is here and, if so, makes it young again: GC will not take it for MinAge, in which the
// caller records that it is needed.
func (s *Store) hold(hash string) bool {
	if hash == Empty {
		return true
	}
	s.names.Lock()
	defer s.names.Unlock()
	now := time.Now()
	return os.Chtimes(s.path(hash), time.Time{}, now) == nil
}

// Used returns the bytes of all blobs held.
func (s *Store) Used() int64 { return s.used.Load() }

// room returns an error when n more bytes would break the quota or the free-space floor.
func (s *Store) room(n int64) error {
	if q := s.opt.QuotaBytes; q > 0 && s.used.Load()+n > q {
		return fmt.Errorf("%w (%d MiB of %d MiB used)", ErrQuota, s.used.Load()>>20, q>>20)
	}
	if s.opt.FloorBytes < 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.opt.Dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", s.opt.Dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if need := s.opt.FloorBytes + n; free < need {
		return &NoSpaceError{Dir: s.opt.Dir, FreeBytes: free, NeededBytes: need}
	}
	return nil
}

// Put stores what r gives and returns its hash and length; durable when it returns. ctx is looked at between chunks.
// Errors: ErrTooLarge, ErrQuota, ErrNoSpace, or what r or the disk said; nothing is kept then.
func (s *Store) Put(ctx context.Context, r io.Reader) (hash string, size int64, err error) {
	refs, err := s.PutAll(ctx, r)
	if err != nil {
		return "", 0, err
	}
	return refs[0].Hash, refs[0].Size, nil
}

// Ref names a blob and tells its length.
type Ref struct {
	Hash string
	Size int64
}

// PutAll stores several contents with the flushes of one commit. On error some may have been kept.
func (s *Store) PutAll(ctx context.Context, rs ...io.Reader) ([]Ref, error) {
	var batch []*staged
	defer func() {
		for _, st := range batch {
			st.discard()
		}
	}()
	refs := make([]Ref, 0, len(rs))
	for _, r := range rs {
		ref, st, err := s.stage(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("blob: put: %w", err)
		}
		refs = append(refs, ref)
		if st != nil {
			batch = append(batch, st)
		}
	}
	if err := s.commit.do(s, batch); err != nil {
		return nil, fmt.Errorf("blob: put: %w", err)
	}
	return refs, nil
}

// stage hashes r and, unless the content is held already (nil then), writes it to a temporary file.
func (s *Store) stage(ctx context.Context, r io.Reader) (Ref, *staged, error) {
	buf := s.buf.Get().(*[chunkBytes]byte)
	defer s.buf.Put(buf)
	n, err := io.ReadFull(r, buf[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF { // all of it: its hash is known before a file is made
		sum := sha256.Sum256(buf[:n])
		ref := Ref{hex.EncodeToString(sum[:]), int64(n)}
		if s.hold(ref.Hash) {
			return ref, nil, nil
		}
		st, err := s.stageSmall(ref, buf[:n])
		return ref, st, err
	}
	if err != nil {
		return Ref{}, nil, err
	}
	return s.stageLarge(ctx, buf, n, r)
}

func (s *Store) stageSmall(ref Ref, content []byte) (*staged, error) {
	if ref.Size > s.opt.MaxBytes {
		return nil, ErrTooLarge
	}
	st, err := s.newStaged(ref.Size)
	if err != nil {
		return nil, err
	}
	st.ref = ref
	if _, err := st.file.Write(content); err != nil {
		st.discard()
		return nil, err
	}
	return st, nil
}

// stageLarge goes on after the first n bytes, which are in buf.
func (s *Store) stageLarge(ctx context.Context, buf *[chunkBytes]byte, n int, r io.Reader) (Ref, *staged, error) {
	st, err := s.newStaged(int64(n))
	if err != nil {
		return Ref{}, nil, err
	}
	sum := sha256.New()
	var size, looked int64
	for n > 0 {
		sum.Write(buf[:n])
		if _, err = st.file.Write(buf[:n]); err != nil {
			break
		}
		if size += int64(n); size > s.opt.MaxBytes {
			err = ErrTooLarge
			break
		}
		if size-looked >= spaceEvery {
			looked = size
			if err = s.room(0); err != nil {
				break
			}
		}
		if err = ctx.Err(); err != nil {
			break
		}
		n, err = io.ReadFull(r, buf[:])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil // the next round writes what came and ends
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		st.discard()
		return Ref{}, nil, err
	}
	st.ref = Ref{hex.EncodeToString(sum.Sum(nil)), size}
	if s.hold(st.ref.Hash) {
		st.discard()
		return st.ref, nil, nil
	}
	return st.ref, st, nil
}
