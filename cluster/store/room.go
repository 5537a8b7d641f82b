package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hereis/cluster/store/journal"
)

// Badger writes by mapped files, and running out of room under a mapping ends
// the process. (The journal's files have their blocks before, and are not mapped.)
// So nothing is written when there is little room; what Badger
// appends to has its blocks before; and what it still writes by itself, tables
// from what it holds in memory, has a reserve that is let go when another fills
// the disk.
const (
	// minRoom is the free disk space, in bytes, below which nothing is written.
	minRoom = 64 << 20
	// reserveSize is the size in bytes of the file that is given up then: more
	// than the tables that are under way (two of what is held in memory).
	reserveSize = 32 << 20
	// closeRoom is what an orderly end needs, in bytes.
	closeRoom = 20 << 20
	// lookEvery is how often the room is looked at between writes, and lookIdle when
	// Badger has been given nothing for so long that it has no more to do (badgerRests);
	// askEvery, how often for groups of writes while there is twice minRoom.
	lookEvery   = 50 * time.Millisecond
	askEvery    = 10 * time.Millisecond
	lookIdle    = time.Second
	badgerRests = time.Minute
)

const reserveFile = "RESERVE"

// room is what can be told of a folder's disk without risk.
type room struct {
	dir string
	// lock is a file that may be written to at any time.
	lock *os.File
	// held: the reserve exists.
	held bool
	// plenty is until when there is so much that it need not be asked for each group
	// of writes, in ns since 1970.
	plenty atomic.Int64
}

// free is the free space in bytes.
func (r *room) free() (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.dir, &fs); err != nil {
		return 0, fmt.Errorf("store: free space: %w", err)
	}
	return uint64(fs.Bavail) * uint64(fs.Bsize), nil
}

// spare tells why bytes more should not be taken (ErrDiskFull).
func (r *room) spare(bytes int64) error {
	free, err := r.free()
	if err != nil {
		return err
	}
	if free < minRoom+uint64(bytes) {
		return fmt.Errorf("%w: %d MiB are free", ErrDiskFull, free>>20)
	}
	return nil
}

// forGroup is spare for a group that goes into a file which has its blocks. Where
// there was plenty a moment ago, it is not asked again.
func (r *room) forGroup() error {
	now := time.Now().UnixNano()
	if now < r.plenty.Load() {
		return nil
	}
	if r.spare(minRoom) == nil {
		r.plenty.Store(now + int64(askEvery))
		return nil
	}
	return r.spare(0)
}

// check tells why nothing should be written to a mapped file: there is too
// little room (ErrDiskFull), or a plain write fails, as on a disk that has gone
// read-only.
func (r *room) check() error {
	if err := r.spare(0); err != nil {
		return err
	}
	if _, err := r.lock.WriteAt([]byte{'\n'}, 0); err != nil {
		return fmt.Errorf("store: the disk takes no writes: %w", err)
	}
	return nil
}

// look gives the reserve up when the disk is almost full, and takes it again
// when there is room for more than it.
func (r *room) look() error {
	free, err := r.free()
	switch {
	case err != nil:
		return err
	case free < minRoom/2:
		return r.release()
	case !r.held && free >= minRoom+reserveSize:
		return r.hold()
	}
	return nil
}

func (r *room) path() string { return filepath.Join(r.dir, reserveFile) }

func (r *room) hold() error {
	f, err := os.OpenFile(r.path(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = journal.Allocate(f, reserveSize)
	r.held = err == nil
	return errors.Join(err, f.Close())
}

// release gives up the reserve, also one of an earlier process.
func (r *room) release() error {
	r.held = false
	if err := os.Remove(r.path()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// logs are the files that Badger appends to: it makes them with a size and no blocks.
type logs struct {
	dir string
	// allocated are those that have their blocks.
	allocated map[string]bool
	looked    time.Time
}

// allocate gives those their blocks that are new, at most every lookEvery.
func (l *logs) allocate() error {
	if time.Since(l.looked) < lookEvery {
		return nil
	}
	l.looked = time.Now()
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	before := l.allocated
	l.allocated = make(map[string]bool, len(entries))
	for _, e := range entries {
		name := e.Name()
		if before[name] {
			l.allocated[name] = true
			continue
		}
		if !appended(name) && name != "DISCARD" {
			continue
		}
		f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // written out and removed meanwhile
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = journal.Allocate(f, info.Size())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		l.allocated[name] = true
	}
	return nil
}

// clear removes files that a loss of power has left without a byte: Badger had made
// them, and takes them for another's when it is opened.
func (l *logs) clear() error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		info, failed := e.Info()
		if failed == nil && info.Size() == 0 && appended(e.Name()) {
			failed = os.Remove(filepath.Join(l.dir, e.Name()))
		}
		err = errors.Join(err, failed)
	}
	return err
}

// appended tells whether Badger appends to a file of this name.
func appended(name string) bool {
	return strings.HasSuffix(name, ".mem") || strings.HasSuffix(name, ".vlog")
}

// sync puts on disk what has been appended to them, and that they are there.
func (l *logs) sync() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !appended(e.Name()) {
			continue
		}
		err := syncFile(filepath.Join(l.dir, e.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a table has what was in it
			return err
		}
	}
	return syncFile(l.dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
