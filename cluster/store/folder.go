package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

var (
	// ErrForeign refuses a folder that has things in it and is not one of a node.
	ErrForeign = errors.New("folder is not a Hereis node's")
	// ErrFormat refuses the folder of a release with another layout.
	ErrFormat = errors.New("folder has a layout that this release does not know")
	// ErrOtherNode refuses the folder of a node with another name.
	ErrOtherNode = errors.New("folder belongs to another node")
	// ErrCorrupt refuses a folder whose contents are damaged.
	ErrCorrupt = errors.New("folder is damaged")
	// ErrInUse refuses a folder that another process has open.
	ErrInUse = errors.New("folder is in use by another process")
)

const (
	// folderFormat 2 has a journal, which a release that knows 1 alone would not
	// read: it would be without what is in there. A folder of 1 is made one of 2.
	folderFormat = 2
	markFile     = "HEREIS-NODE"
	lockFile     = "LOCK"
	badgerFolder = "badger"

	journalFolder = "journal"
)

// folder is a node's data folder, locked for this process.
type folder struct {
	dir, name string
	unmarked  bool // no mark yet, or an older one
	lock      *os.File
}

// openFolder checks dir and locks it. It changes nothing but to make the
// folder and its lock file, if they are not there. name may be empty: the one
// in the mark is taken.
func openFolder(dir, name string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &folder{dir: dir, name: name}
	marked, format, err := readMark(filepath.Join(dir, markFile))
	f.unmarked = format != folderFormat
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := onlyOurs(dir); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case name != "" && name != marked:
		return nil, fmt.Errorf("%w: it is %q's, not %q's", ErrOtherNode, marked, name)
	default:
		f.name = marked
	}
	if err := f.acquire(); err != nil {
		return nil, err
	}
	if marked != "" {
		if err := verifyBadger(f.badger()); err != nil {
			f.release()
			return nil, err
		}
	}
	return f, nil
}

func (f *folder) badger() string  { return filepath.Join(f.dir, badgerFolder) }
func (f *folder) journal() string { return filepath.Join(f.dir, journalFolder) }

// onlyOurs accepts a folder without a mark if it is empty, the files of an
// interrupted first start apart.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != markFile+".new" {
			return fmt.Errorf("%w: it has %q and no %s", ErrForeign, e.Name(), markFile)
		}
	}
	return nil
}

func (f *folder) acquire() error {
	path := filepath.Join(f.dir, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrInUse
		}
		return fmt.Errorf("lock: %w", err)
	}
	f.lock = file
	return nil
}

func (f *folder) release() { f.lock.Close() }

// mark makes the folder this node's.
func (f *folder) mark() error {
	if !f.unmarked {
		return nil
	}
	body := fmt.Sprintf("hereis node folder\nformat %d\nname %s\n", folderFormat, f.name)
	tmp := filepath.Join(f.dir, markFile+".new")
	if err := writeSynced(tmp, body+sumLine(body)); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(f.dir, markFile)); err != nil {
		return err
	}
	f.unmarked = false
	return syncFile(f.dir)
}

func sumLine(body string) string {
	return fmt.Sprintf("sum %08x\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
}

func writeSynced(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// readMark returns the name and the format in a folder's mark.
func readMark(path string) (name string, format int, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", 0, err
	}
	text := string(raw)
	first, rest, _ := strings.Cut(text, "\n")
	if first != "hereis node folder" {
		return "", 0, fmt.Errorf("%w: %s does not say so", ErrForeign, markFile)
	}
	layout, rest, _ := strings.Cut(rest, "\n")
	for format = folderFormat; layout != fmt.Sprintf("format %d", format); format-- {
		if format == 0 {
			return "", 0, fmt.Errorf("%w: %q", ErrFormat, layout)
		}
	}
	name, _, _ = strings.Cut(rest, "\n")
	body := first + "\n" + layout + "\n" + name + "\n"
	name, ok := strings.CutPrefix(name, "name ")
	if !ok || text != body+sumLine(body) {
		return "", 0, fmt.Errorf("%w: %s", ErrCorrupt, markFile)
	}
	return name, format, nil
}

// verifyBadger reads all tables of a Badger folder and their checksums, without
// writing. Opening it would already change it.
func verifyBadger(dir string) error {
	fp, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			return fmt.Errorf("%w: %s has no %s", ErrCorrupt, badgerFolder, badger.ManifestFilename)
		}
		return nil // marked, and ended before Badger was opened
	}
	if err != nil {
		return err
	}
	defer fp.Close()
	manifest, _, err := badger.ReplayManifestFile(fp, 0, badgerOptions(dir))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, badger.ManifestFilename, err)
	}
	for id := range manifest.Tables {
		path := table.NewFilename(id, dir)
		if err := verifyTable(path); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, filepath.Base(path), err)
		}
	}
	return nil
}

func verifyTable(path string) (err error) {
	defer func() {
		// Badger panics on some kinds of damage.
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	file, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if len(file.Data) == 0 {
		return errors.Join(errors.New("table is empty"), file.Close(-1))
	}
	t, err := table.OpenTable(file, table.Options{ReadOnly: true, Compression: options.None, ChkMode: options.NoVerification})
	if err != nil {
		return errors.Join(err, file.Close(-1))
	}
	return errors.Join(t.VerifyChecksum(), t.Close(-1))
}
