package credentials

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"hereis/actors"
)

// ErrMode says that others may read or change the file.
var ErrMode = errors.New("others may read or change it; run chmod o=")

// File is a users file as a node sees it: the last good reading.
type File struct {
	path string
	log  *slog.Logger
	set  atomic.Pointer[Set]
	// seen is the file of the last reading, good or bad; Run's alone.
	seen fs.FileInfo

	reloads, failed atomic.Uint64
}

// Stats are the number of users, and how often a changed file has been read
// since the start: taken, or found unusable and so left alone.
type Stats struct {
	Count           int
	Reloads, Errors uint64
}

// Open reads a users file.
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	info, set, err := load(path)
	if err != nil {
		return nil, err
	}
	f.seen = info
	f.set.Store(set)
	return f, nil
}

// Run looks at the file at each tick and takes it in when it is another. A
// file that is broken, or gone, changes nothing: it is logged and counted. It
// returns nil when ctx ends.
func (f *File) Run(ctx context.Context, tick <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
			f.look()
		}
	}
}

// look reads the file if it is not the one of the last time.
func (f *File) look() {
	info, err := os.Stat(f.path)
	if err != nil {
		if f.seen != nil {
			f.seen = nil
			f.refused(err)
		}
		return
	}
	if f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) &&
		info.Size() == f.seen.Size() && info.Mode() == f.seen.Mode() {
		return
	}
	read, set, err := load(f.path)
	if f.seen = read; read == nil {
		f.seen = info
	}
	if err != nil {
		f.refused(err)
		return
	}
	f.set.Store(set)
	f.reloads.Add(1)
	f.log.Info("users file read again", "users", set.Len())
}

func (f *File) refused(err error) {
	f.failed.Add(1)
	f.log.Error("users file cannot be used; the users are those of before", "users", f.set.Load().Len(), "err", err)
}

// HA1, Offered and Has are those of the last good Set.
func (f *File) HA1(user, realm string, a Algorithm) (string, bool) {
	return f.set.Load().HA1(user, realm, a)
}

// Offered are the algorithms that a challenge may name.
func (f *File) Offered(realm string) Algorithms { return f.set.Load().Offered(realm) }

// Has tells whether there is a user of an address-of-record.
func (f *File) Has(aor actors.AoR) bool { return f.set.Load().Has(aor) }

// Domains are those that the users are of.
func (f *File) Domains() []string { return f.set.Load().Domains() }

// Stats reads the counters.
func (f *File) Stats() Stats {
	return Stats{Count: f.set.Load().Len(), Reloads: f.reloads.Load(), Errors: f.failed.Load()}
}

// load reads a file, and says which it was.
func load(path string) (fs.FileInfo, *Set, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return info, nil, fmt.Errorf("%s is not a file", path)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return info, nil, fmt.Errorf("%s has mode %#o: %w", path, mode, ErrMode)
	}
	set, err := Parse(file)
	if err != nil {
		return info, nil, fmt.Errorf("%s: %w", path, err)
	}
	return info, set, nil
}
