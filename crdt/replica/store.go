package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"vcpeer/crdt"
)

// Keys of the store.
//
//	c                          the founding record
//	n                          how often the store was opened, 8 bytes
//	b AUTHOR(32) FIRST(8)      a batch, as received
//	f AUTHOR(32) FIRST(8)      the other batch for a place, which proves a fork
const (
	keyFounding = "c"
	keyBoots    = "n"
	batchPrefix = 'b'
	forkPrefix  = 'f'
)

// memTableBytes also bounds a transaction: Badger takes at most 15% of it, which the largest batch (512 KiB) must fit twice.
const memTableBytes = 8 << 20

// store is the Badger database. Writes are the owner's; reads may come from anywhere.
type store struct {
	db   *badger.DB
	dir  string
	free func(dir string) (free, total uint64, err error)
	fail func() error // nil but in tests: what the next write ends with

	compaction compaction
}

func openStore(dir string, log *slog.Logger) (*store, error) {
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithMemTableSize(memTableBytes).
		WithNumMemtables(2).
		WithNumLevelZeroTables(levelZeroTables).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(0). // see compaction
		WithNumGoroutines(2).
		WithBlockCacheSize(4 << 20).
		WithIndexCacheSize(4 << 20).
		WithValueLogFileSize(1 << 20).
		WithDetectConflicts(false). // one writer
		WithMetricsEnabled(false).
		WithChecksumVerificationMode(options.OnTableAndBlockRead)
	db, err := badger.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open records in %s: %w", dir, err)
	}
	return &store{db: db, dir: dir, free: diskSpace, compaction: startCompaction(db, log)}, nil
}

func (s *store) close() error {
	s.compaction.stop()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close records: %w", err)
	}
	return nil
}

// put is one thing to write.
type put struct{ key, value []byte }

// write makes puts durable, all or none. The caller has checked the space.
func (s *store) write(puts []put) error {
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, p := range puts {
			if err := txn.Set(p.key, p.value); err != nil {
				return err
			}
		}
		if s.fail != nil {
			return s.fail()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	s.compaction.look()
	return nil
}

func (s *store) drop(keys [][]byte) error {
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, k := range keys {
			if err := txn.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop damaged records: %w", err)
	}
	s.compaction.look()
	return nil
}

func (s *store) get(key string) ([]byte, bool, error) {
	var value []byte
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(key))
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read records: %w", err)
	}
	return value, true, nil
}

func (s *store) founding() (crdt.Founding, bool, error) {
	raw, ok, err := s.get(keyFounding)
	if err != nil || !ok {
		return crdt.Founding{}, false, err
	}
	f, err := crdt.DecodeFounding(raw)
	if err != nil {
		return crdt.Founding{}, false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, true, nil
}

// nextBoot counts this opening durably and returns its number, from 1.
func (s *store) nextBoot() (uint64, error) {
	raw, _, err := s.get(keyBoots)
	if err != nil {
		return 0, err
	}
	n := uint64(1)
	if len(raw) == 8 {
		n = binary.BigEndian.Uint64(raw) + 1
	}
	return n, s.write([]put{{[]byte(keyBoots), binary.BigEndian.AppendUint64(nil, n)}})
}

// batchKey is the key of a batch (prefix 'b') or of a fork's other batch ('f').
func batchKey(prefix byte, author crdt.NodeID, first uint64) []byte {
	k := append(make([]byte, 0, 41), prefix)
	return binary.BigEndian.AppendUint64(append(k, author[:]...), first)
}

// each calls f with every value from key start on that begins with prefix, in the order of keys, until f returns false. f
// owns the value; the key is only lent.
func (s *store) each(prefix, start []byte, f func(key, value []byte) bool) error {
	err := s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix, o.PrefetchSize = prefix, 64
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if !f(it.Item().Key(), value) {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	return nil
}

// batchWith returns the batch that holds a change.
func (s *store) batchWith(d crdt.Dot) ([]byte, error) {
	var raw []byte
	prefix := batchKey(batchPrefix, d.Author, 0)[:33]
	err := s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Reverse, o.PrefetchSize = true, 1
		it := txn.NewIterator(o)
		defer it.Close()
		it.Seek(batchKey(batchPrefix, d.Author, d.Seq)) // the last that begins at or before it
		if !it.ValidForPrefix(prefix) {
			return fmt.Errorf("batch with %s/%d: %w", d.Author.Short(), d.Seq, crdt.ErrNotFound)
		}
		var err error
		raw, err = it.Item().ValueCopy(nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return raw, nil
}

// badgerLog gives Badger's messages to slog: its warnings and errors as warnings, the rest not at all.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.warn(f, a) }
func (l badgerLog) Warningf(f string, a ...any) { l.warn(f, a) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}

func (l badgerLog) warn(f string, a []any) {
	l.log.Warn("record store", "message", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
