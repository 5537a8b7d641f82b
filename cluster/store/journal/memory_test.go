package journal

import (
	"errors"
	"io"
	"maps"
	"slices"
)

var (
	errCut  = errors.New("the process has ended")
	errDisk = errors.New("input/output error")
)

const sector = 512

// memory is a folder that knows what would be on disk, and what in the system's
// memory alone, whenever its process or its machine ends.
type memory struct {
	files map[string]*memoryFile
	// budget is how many bytes are written before the process is killed; below 0: any number.
	budget int
	cut    bool
	// failing is how many more Syncs fail.
	failing int
	// survives tells whether a sector that is not on disk gets there all the same.
	survives func() bool
}

type memoryFile struct {
	m           *memory
	cache, disk []byte
	dirty       map[int]bool // sectors
}

func newMemory(survives func() bool) *memory {
	return &memory{files: map[string]*memoryFile{}, budget: -1, survives: survives}
}

// spend is how many of n bytes are still written.
func (m *memory) spend(n int) int {
	if m.cut {
		return 0
	}
	if m.budget < 0 {
		return n
	}
	if n > m.budget {
		n, m.cut = m.budget, true
	}
	m.budget -= n
	return n
}

// reboot is the end of the process, and of the machine if power is lost.
func (m *memory) reboot(power bool) {
	m.cut, m.budget, m.failing = false, -1, 0
	for _, f := range m.files {
		if power {
			f.settle(m.survives)
			f.cache = slices.Clone(f.disk)
		}
	}
}

func (m *memory) list() ([]string, error) { return slices.Sorted(maps.Keys(m.files)), nil }

func (m *memory) open(name string) (file, error) { return m.files[name], nil }

func (m *memory) create(name string, size int64, head []byte) (file, error) {
	if m.spend(1) == 0 {
		return nil, errCut
	}
	b := make([]byte, size)
	copy(b, head)
	m.files[name] = &memoryFile{m: m, cache: b, disk: slices.Clone(b), dirty: map[int]bool{}}
	return m.files[name], nil
}

func (m *memory) remove(name string) error {
	if m.spend(1) == 0 {
		return errCut
	}
	delete(m.files, name)
	return nil
}

func (f *memoryFile) ReadAt(b []byte, at int64) (int, error) {
	if n := copy(b, f.cache[at:]); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

func (f *memoryFile) WriteAt(b []byte, at int64) (int, error) {
	n := f.m.spend(len(b))
	copy(f.cache[at:], b[:n])
	for s := int(at) / sector; s*sector < int(at)+n; s++ {
		f.dirty[s] = true
	}
	if n < len(b) || f.m.cut {
		return n, errCut
	}
	return n, nil
}

func (f *memoryFile) Sync() error {
	switch {
	case f.m.cut:
		return errCut
	case f.m.failing > 0:
		f.m.failing--
		f.settle(f.m.survives) // the rest is taken for written from now on
		return errDisk
	}
	f.settle(func() bool { return true })
	return nil
}

func (f *memoryFile) settle(survives func() bool) {
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		if survives() {
			copy(f.disk[s*sector:], f.cache[s*sector:min((s+1)*sector, len(f.cache))])
		}
	}
	clear(f.dirty)
}

func (f *memoryFile) Size() (int64, error) { return int64(len(f.cache)), nil }
func (f *memoryFile) Close() error         { return nil }
