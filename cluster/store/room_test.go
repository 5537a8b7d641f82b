package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRoom: the reserve is there when there is room for it, is let go, and the
// files that Badger appends to have their blocks.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	if err := s.room.check(); err != nil {
		t.Skipf("this disk has no room: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, reserveFile))
	if err != nil || info.Size() != reserveSize && info.Size() != 0 {
		t.Errorf("reserve: %v, %v", info, err)
	}
	if len(s.logs.allocated) == 0 {
		t.Error("no file of Badger has its blocks")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, reserveFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is left: %v", err)
	}
}

// TestRoom_DiskTakesNoWrites: a plain write that fails keeps Badger from its mapped ones.
func TestRoom_DiskTakesNoWrites(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	readOnly, err := os.Open(s.folder.lock.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	broken := &room{dir: s.room.dir, lock: readOnly}
	if err := broken.check(); err == nil || errors.Is(err, ErrDiskFull) {
		t.Errorf("got %v, want that the disk takes no writes", err)
	}
}
