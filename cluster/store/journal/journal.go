package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrFull is that all files are in use: a Release makes room.
var ErrFull = errors.New("journal is full")

const (
	// SegmentSize is the size of a file in bytes, all of it on disk.
	SegmentSize = 8 << 20
	// MaxPayload is the largest payload of one Append, in bytes.
	MaxPayload = 4 << 20
)

// Config says what to open.
type Config struct {
	// Dir is the folder. It is made with the first file.
	Dir string
	// Sync: an Append is on disk when it returns. Else it survives the process alone.
	Sync bool
	// Segments is how many files there are at most. Keep of them are kept for the next
	// use, beside those in use.
	Segments, Keep int
	// Room tells why no file of so many bytes should be made; nil: there is room.
	Room func(bytes int64) error

	// A test's own.
	folder folder
	size   int64
	salt   func() uint64
}

// Journal is a folder of segments, open. One goroutine Appends and Seals; another
// may Release meanwhile.
type Journal struct {
	cfg Config
	// Lost counts the places where something is missing that had not been waited
	// for: a loss of power took it.
	Lost int

	// What follows is the appender's.
	active     *segment // nil: the next Append takes one
	at         int64
	use        uint64 // of active
	frames     uint32 // acknowledged in it
	prevUse    uint64
	prevFrames uint32
	prevLoose  bool // prevUse may not be on disk

	bytes atomic.Int64 // in runs that have not been released, the one under way too

	mu      sync.Mutex // guards what follows
	lastUse uint64
	sealed  []Run
	free    []*segment
	count   int // segments there are
	named   int // the last number in a name
}

// Run is what one file holds, and nothing is added to it any more.
type Run struct {
	seg    *segment
	use    uint64
	end    int64
	failed bool // the file is not to be used again
}

// Open finds what had not been released, to be Released before anything is
// appended. It changes nothing in the folder.
func Open(cfg Config) (*Journal, error) {
	if cfg.folder == nil {
		cfg.folder = directory(cfg.Dir)
	}
	if cfg.size == 0 {
		cfg.size = SegmentSize
	}
	if cfg.salt == nil {
		cfg.salt = newSalt
	}
	if cfg.Room == nil {
		cfg.Room = func(int64) error { return nil }
	}
	j := &Journal{cfg: cfg}
	if err := j.recover(); err != nil {
		j.closeFiles()
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// newSalt is a salt whose half, the magic, is not what an empty file is full of.
func newSalt() uint64 {
	for {
		if salt := rand.Uint64(); uint32(salt) != 0 {
			return salt
		}
	}
}

func (j *Journal) recover() error {
	names, err := j.cfg.folder.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		seg, err := openSegment(j.cfg.folder, name)
		if err != nil {
			return err
		}
		j.free = append(j.free, seg)
		released, err := seg.released()
		if err != nil {
			return err
		}
		j.lastUse = max(j.lastUse, released)
		if n, err := strconv.Atoi(strings.TrimSuffix(name, suffix)); err == nil {
			j.named = max(j.named, n)
		}
	}
	j.count = len(j.free)
	released := j.lastUse
	found, err := j.scanAll(released)
	if err != nil {
		return err
	}
	counts, lost, err := chain(found, released)
	if err != nil {
		return err
	}
	j.Lost = lost
	for _, u := range found {
		j.free = slices.DeleteFunc(j.free, func(s *segment) bool { return s == u.seg })
		run := Run{seg: u.seg, use: u.first.use, failed: !slices.Contains(counts, u)}
		if !run.failed {
			run.end = u.ends[len(u.ends)-1]
			// Its end may be what a disk had refused, and the system shows all the same:
			// it will not be missed. Whoever opens a journal Releases first, so this is rare.
			j.prevUse, j.prevFrames, j.prevLoose = run.use, uint32(len(u.ends)), true
			j.bytes.Add(run.end - framing)
		}
		j.sealed = append(j.sealed, run) // found is in the order of uses
		j.lastUse = max(j.lastUse, run.use)
		// What a process of another level left need not be on disk, and counts from now on.
		if err := u.seg.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// scanAll looks through all files for uses above released.
func (j *Journal) scanAll(released uint64) (found []*use, err error) {
	var b []byte
	for _, seg := range j.free {
		if int64(len(b)) != seg.size {
			b = make([]byte, seg.size)
		}
		if _, err := seg.file.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", seg.name, err)
		}
		if u := scan(seg, b, released); u != nil {
			found = append(found, u)
		}
	}
	return found, nil
}

// Append writes the payload in buf[Head:] and returns when it is as durable as
// Config says; buf[:Head] is written over. After an error, which of what it was to
// write is on disk is not known, and a later Append begins in another file: one
// that has failed once does not tell the truth about itself any more.
func (j *Journal) Append(buf []byte) error {
	if len(buf) > Head+MaxPayload || framing+span(len(buf)-Head) > j.cfg.size {
		return fmt.Errorf("journal: %d bytes are too many at once", len(buf))
	}
	if j.active != nil && j.at+span(len(buf)-Head) > j.active.size {
		j.Seal()
	}
	if j.active == nil {
		if err := j.begin(); err != nil {
			return err
		}
	}
	fr := frame{size: uint32(len(buf) - Head), use: j.use, seq: j.frames, prevUse: j.prevUse, prevFrames: j.prevFrames}
	if !j.cfg.Sync && j.frames > 0 || j.prevLoose && j.frames == 0 {
		fr.flags = loose
	}
	fr.seal(buf, j.active.salt)
	_, err := j.active.file.WriteAt(buf, j.at)
	if err == nil && j.cfg.Sync {
		err = j.active.file.Sync()
	}
	if err != nil {
		j.end(true)
		return fmt.Errorf("journal: %w", err)
	}
	n := span(len(buf) - Head)
	j.at += n
	j.frames++
	j.bytes.Add(n)
	return nil
}

// begin takes a file for the next use.
func (j *Journal) begin() error {
	seg, err := j.take()
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.lastUse++
	j.use = j.lastUse
	j.mu.Unlock()
	j.active, j.at, j.frames = seg, framing, 0
	return nil
}

// take is a free file, or a new one.
func (j *Journal) take() (*segment, error) {
	j.mu.Lock()
	if n := len(j.free); n > 0 {
		seg := j.free[n-1]
		j.free = j.free[:n-1]
		j.mu.Unlock()
		return seg, nil
	}
	waits := len(j.sealed) > 0
	j.mu.Unlock()
	if err := j.cfg.Room(j.cfg.size); err != nil {
		if waits { // for less than a new file: one of those in use
			return nil, ErrFull
		}
		return nil, err
	}
	return j.make(j.cfg.Segments)
}

// Low tells that Prepare would be of use: the file under way is half full, and none
// is at hand for when it is full. The appender alone asks.
func (j *Journal) Low() bool {
	if j.active == nil || j.at < j.active.size/2 {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.free) == 0 && j.count < j.cfg.Segments
}

// Prepare makes a file if none is at hand, so that no Append has to wait for that. It
// is for who Releases. Where there is no room for one, an Append will say so.
func (j *Journal) Prepare() error {
	j.mu.Lock()
	enough := len(j.free) > 0 || j.count >= j.cfg.Segments
	j.mu.Unlock()
	if enough || j.cfg.Room(j.cfg.size) != nil {
		return nil
	}
	seg, err := j.make(j.cfg.Segments)
	if errors.Is(err, ErrFull) {
		return nil // the appender has made the last one
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free = append(j.free, seg)
	return nil
}

// make makes a file, unless there are most of them already (ErrFull). It is on disk
// when make returns.
func (j *Journal) make(most int) (*segment, error) {
	j.mu.Lock()
	if j.count >= most {
		j.mu.Unlock()
		return nil, ErrFull
	}
	j.named++
	j.count++
	name := fmt.Sprintf("%06d%s", j.named, suffix)
	j.mu.Unlock()
	seg := &segment{name: name, salt: j.cfg.salt(), size: j.cfg.size}
	var err error
	if seg.file, err = j.cfg.folder.create(name, seg.size, identity(seg.salt, seg.size)); err != nil {
		j.mu.Lock()
		j.count--
		j.mu.Unlock()
		return nil, fmt.Errorf("journal: a new file: %w", err)
	}
	return seg, nil
}

// Seal ends the use of the file under way: what is in it is Sealed, and the next
// Append takes another.
func (j *Journal) Seal() {
	if j.active != nil {
		j.end(false)
	}
}

func (j *Journal) end(failed bool) {
	run := Run{seg: j.active, use: j.use, end: j.at, failed: failed}
	if j.frames > 0 {
		j.prevUse, j.prevFrames, j.prevLoose = j.use, j.frames, !j.cfg.Sync
	}
	j.active = nil
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sealed = append(j.sealed, run)
}

// Bytes is how much is in the journal that has not been released.
func (j *Journal) Bytes() int64 { return j.bytes.Load() }

// Free tells whether the next file is at hand.
func (j *Journal) Free() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.free) > 0
}

// Crowded tells that there will be no more files than there are.
func (j *Journal) Crowded() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count >= j.cfg.Segments
}

// Close puts on disk what an Append did not wait for, and closes the files. What
// has not been released is found by the next Open.
func (j *Journal) Close() error {
	j.Seal()
	j.mu.Lock()
	runs := slices.Clone(j.sealed)
	j.mu.Unlock()
	var errs []error
	for _, r := range runs {
		switch {
		case j.cfg.Sync || r.end <= framing: // it is, or it is nothing
		case r.failed:
			errs = append(errs, fmt.Errorf("journal: %s has failed, and what it holds may not be on disk", r.seg.name))
		default:
			errs = append(errs, r.seg.file.Sync())
		}
	}
	return errors.Join(append(errs, j.closeFiles())...)
}

func (j *Journal) closeFiles() error {
	var errs []error
	for _, r := range j.sealed {
		errs = append(errs, r.seg.file.Close())
	}
	for _, s := range j.free {
		errs = append(errs, s.file.Close())
	}
	j.sealed, j.free = nil, nil
	return errors.Join(errs...)
}
