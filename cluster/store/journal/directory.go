package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	suffix  = ".journal"
	halfWay = ".new" // a file that is being made
)

// directory is a folder of the file system.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) list() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d directory) open(name string) (file, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d directory) create(name string, size int64, head []byte) (file, error) {
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// Also if it was there: who made it may have been killed before this.
	if err := syncFolder(filepath.Dir(string(d))); err != nil {
		return nil, err
	}
	half := d.path(name + halfWay)
	f, err := os.OpenFile(half, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(size), Allocate(f, size))
	if err == nil {
		err = written(f, size)
	}
	if err == nil {
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(half, d.path(name))
	}
	if err == nil {
		err = syncFolder(string(d))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(half))
	}
	return osFile{f}, nil
}

// written fills f. Of a block that has been allocated and not written, a file system
// notes with its first write that it has been: that would be half the cost of each
// fdatasync, in a file that is used for the first time.
func written(f *os.File, size int64) error {
	zeros := make([]byte, 128<<10)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

func (d directory) remove(name string) error {
	return errors.Join(os.Remove(d.path(name)), syncFolder(string(d)))
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// osFile is a file of the file system.
type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
