package journal

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A segment is one file: who it is in the first block, written once; in the next
// two, by turns, how far the journal has been released, as far as this file
// knows; then frames to its end.
const (
	block   = 4096
	framing = 3 * block // where frames begin

	fileMagic = "hereis journal 1"
	markMagic = "released"
)

// file is what the journal needs of one.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when what has been written is on disk.
	Sync() error
	Size() (int64, error)
}

// folder is what the journal needs of one.
type folder interface {
	list() ([]string, error)
	open(name string) (file, error)
	// create makes a file that begins with head and has its blocks. It is on disk
	// under its name when create returns, or not at all.
	create(name string, size int64, head []byte) (file, error)
	remove(name string) error
}

type segment struct {
	name string
	file file
	salt uint64
	size int64
	// slot is the block that the next mark is written to, 0 or 1: the other has the one before.
	slot int64
}

// identity is the first block of a segment.
func identity(salt uint64, size int64) []byte {
	b := make([]byte, 0, 64)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint64(b, salt)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	return binary.LittleEndian.AppendUint32(b, sum(b, 0))
}

func openSegment(dir folder, name string) (*segment, error) {
	f, err := dir.open(name)
	if err != nil {
		return nil, err
	}
	s := &segment{name: name, file: f}
	if err := s.identify(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// identify reads who the file is.
func (s *segment) identify() error {
	b := make([]byte, len(identity(0, 0)))
	if _, err := s.file.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	}
	s.salt = binary.LittleEndian.Uint64(b[len(fileMagic):])
	s.size = int64(binary.LittleEndian.Uint64(b[len(fileMagic)+8:]))
	if string(b) != string(identity(s.salt, s.size)) {
		return fmt.Errorf("%w: it does not begin as a journal does", ErrCorrupt)
	}
	if size, err := s.file.Size(); err != nil {
		return err
	} else if size != s.size {
		return fmt.Errorf("%w: it has %d bytes and not %d", ErrCorrupt, size, s.size)
	}
	return nil
}

// mark notes in this file, durably, that all uses up to use have been released.
func (s *segment) mark(use uint64) error {
	b := make([]byte, 0, 32)
	b = append(b, markMagic...)
	b = binary.LittleEndian.AppendUint64(b, use)
	b = binary.LittleEndian.AppendUint32(b, sum(b, s.salt))
	if _, err := s.file.WriteAt(b, (1+s.slot)*block); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		// The system may show it to the next process all the same, and it is not on disk.
		_, _ = s.file.WriteAt(make([]byte, len(b)), (1+s.slot)*block)
		return err
	}
	s.slot = 1 - s.slot
	return nil
}

// released is the use up to which the file knows all to be released. A mark that
// was being written is none, and the one before it counts.
func (s *segment) released() (use uint64, err error) {
	b := make([]byte, 64)
	for slot := range int64(2) {
		if _, err := s.file.ReadAt(b, (1+slot)*block); err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		if u := marked(b, s.salt); u > use {
			use, s.slot = u, 1-slot
		}
	}
	return use, nil
}

// marked is the use in a mark, 0 if it is none.
func marked(m []byte, salt uint64) uint64 {
	n := len(markMagic) + 8
	if string(m[:len(markMagic)]) != markMagic || binary.LittleEndian.Uint32(m[n:]) != sum(m[:n], salt) {
		return 0
	}
	return binary.LittleEndian.Uint64(m[len(markMagic):])
}
