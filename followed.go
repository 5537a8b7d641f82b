package hereis

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// followedLook is how often a followed file is looked at for changes.
const followedLook = 2 * time.Second

// followed is a file of settings that may change while the node runs. What
// counts is its last good reading.
type followed[T any] struct {
	path, what string
	parse      func(io.Reader) (T, error)
	log        *slog.Logger
	// changed is called after each reading but the first.
	changed func()
	value   atomic.Pointer[T]
	// seen is the file of the last reading, good or bad; run's alone.
	seen fs.FileInfo

	reloads, failed atomic.Uint64
}

// followedStats count the readings of a changed file: taken, or found unusable.
type followedStats struct{ Reloads, Errors uint64 }

// follow reads a file. The error says what is wrong with it.
func follow[T any](path, what string, log *slog.Logger, parse func(io.Reader) (T, error)) (*followed[T], error) {
	f := &followed[T]{path: path, what: what, parse: parse, log: log, changed: func() {}}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// get is the last good reading.
func (f *followed[T]) get() T { return *f.value.Load() }

func (f *followed[T]) stats() followedStats {
	return followedStats{Reloads: f.reloads.Load(), Errors: f.failed.Load()}
}

// run looks at the file until ctx ends. One that is broken, or gone, changes
// nothing: it is logged and counted.
func (f *followed[T]) run(ctx context.Context) error {
	tick := time.NewTicker(followedLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.look()
		}
	}
}

// look reads the file if it is not the one of the last time.
func (f *followed[T]) look() {
	info, err := os.Stat(f.path)
	switch {
	case err != nil && f.seen == nil:
		return // has been said
	case err != nil:
		f.seen = nil
	case f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size():
		return
	default:
		err = f.read()
	}
	if err != nil {
		f.failed.Add(1)
		f.log.Error("file cannot be used; what it said before still counts", "kind", f.what, "err", err)
		return
	}
	f.reloads.Add(1)
	f.log.Info("file read again", "kind", f.what)
	f.changed()
}

func (f *followed[T]) read() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if f.seen, err = file.Stat(); err != nil {
		return err
	}
	if f.seen.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s: others may change it; run chmod o-w", f.path)
	}
	v, err := f.parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.value.Store(&v)
	return nil
}
