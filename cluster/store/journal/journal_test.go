package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// testSize is small: a few frames fill a file.
const testSize = framing + 1024

func small(m *memory, sync bool) Config {
	return Config{Sync: sync, folder: m, size: testSize, Segments: 5, Keep: 4}
}

// book is what a user of the journal does, and a naive model of what must come of it.
type book struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	m    *memory
	sync bool
	j    *Journal
	// elsewhere is where released runs are kept, durably.
	elsewhere map[byte]uint64
	// wrote is the value last given for a key, acked the one last acknowledged.
	wrote, acked map[byte]uint64
	next         uint64
}

func newBook(t *rapid.T, m *memory, sync bool) *book {
	b := &book{t: t, m: m, sync: sync, elsewhere: map[byte]uint64{}, wrote: map[byte]uint64{}, acked: map[byte]uint64{}}
	b.open()
	return b
}

func (b *book) open() {
	b.t.Helper()
	j, err := Open(small(b.m, b.sync))
	if err != nil {
		b.t.Fatalf("open: %v", err)
	}
	b.j = j
}

// put gives a value for each key, in one Append with some bytes more.
func (b *book) put(more int, keys ...byte) error {
	buf := make([]byte, Head, Head+9*len(keys)+more)
	for _, k := range keys {
		b.next++
		b.wrote[k] = b.next
		buf = binary.LittleEndian.AppendUint64(append(buf, k), b.next)
	}
	buf = append(buf, make([]byte, more)...)
	err := b.j.Append(buf)
	if err == nil {
		for _, k := range keys {
			b.acked[k] = b.wrote[k]
		}
	}
	return err
}

// feed keeps the oldest n runs elsewhere and releases them.
func (b *book) feed(n int) error {
	runs, _ := b.j.Sealed()
	runs = runs[:min(n, len(runs))]
	fed := map[byte]uint64{}
	for _, r := range runs {
		if err := b.j.Payloads(r, new([]byte), func(p []byte) error { return take(fed, p) }); err != nil {
			return err
		}
	}
	if b.m.cut {
		return errCut
	}
	maps.Copy(b.elsewhere, fed)
	err := b.j.Release(runs)
	if err == nil { // and there it stays
		for k, v := range fed {
			b.acked[k] = max(b.acked[k], v)
		}
	}
	return err
}

func take(into map[byte]uint64, p []byte) error {
	for len(p) >= 9 && p[0] != 0 {
		into[p[0]] = binary.LittleEndian.Uint64(p[1:])
		p = p[9:]
	}
	return nil
}

// check compares what a restart finds with what was acknowledged.
func (b *book) check(exact bool) {
	b.t.Helper()
	now := maps.Clone(b.elsewhere)
	runs, _ := b.j.Sealed()
	for _, r := range runs {
		if err := b.j.Payloads(r, new([]byte), func(p []byte) error { return take(now, p) }); err != nil {
			b.t.Fatalf("after a restart: %v", err)
		}
	}
	for k, want := range b.acked {
		got := now[k]
		if exact && got < want || got > b.wrote[k] {
			b.t.Fatalf("key %d has %d, acknowledged was %d, written at most %d", k, got, want, b.wrote[k])
		}
		if got < want {
			b.acked[k] = got
		}
	}
}

// TestJournalKeepsWhatItAcknowledged: whatever happens to process, machine and
// disk, what was acknowledged at Sync is there, in order, and at the other level
// after the end of the process.
func TestJournalKeepsWhatItAcknowledged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(func() bool { return rapid.Bool().Draw(t, "survives") })
		b := newBook(t, m, rapid.Bool().Draw(t, "sync"))
		// loose: what was appended was not waited for. soft: and then the disk has failed.
		var loose, soft bool
		restart := func(power, kept bool) {
			for again := true; again; {
				m.reboot(power)
				b.sync = rapid.Bool().Draw(t, "sync")
				b.open()
				b.check(kept || !power || !loose && !soft)
				loose, kept = false, false // Open has it on disk
				again, power = rapid.IntRange(0, 3).Draw(t, "again") == 0, rapid.Bool().Draw(t, "power")
			}
			if err := b.feed(1 << 20); err != nil { // as whoever opens a journal does first
				t.Fatalf("feed: %v", err)
			}
			soft = false
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				keys := rapid.SliceOfN(rapid.ByteRange(1, 4), 1, 4).Draw(t, "keys")
				loose = loose || !b.sync
				err := b.put(rapid.IntRange(0, 700).Draw(t, "more"), keys...)
				if errors.Is(err, ErrFull) {
					err = b.feed(1)
				}
				if err != nil && !errors.Is(err, errDisk) && !errors.Is(err, errCut) {
					t.Fatalf("put: %v", err)
				}
			},
			"feed": func(t *rapid.T) {
				err := b.feed(rapid.IntRange(1, 3).Draw(t, "runs"))
				if err != nil && !errors.Is(err, errDisk) && !errors.Is(err, errCut) {
					t.Fatalf("feed: %v", err)
				}
			},
			"seal": func(*rapid.T) { b.j.Seal() },
			"prepare": func(t *rapid.T) {
				err := b.j.Prepare()
				if err != nil && !errors.Is(err, errDisk) && !errors.Is(err, errCut) {
					t.Fatalf("prepare: %v", err)
				}
			},
			"disk fails": func(t *rapid.T) {
				m.failing = rapid.IntRange(1, 2).Draw(t, "times")
				soft = soft || !b.sync
			},
			"killed soon": func(t *rapid.T) {
				m.budget = rapid.IntRange(0, 3000).Draw(t, "bytes")
			},
			"killed":     func(*rapid.T) { restart(false, false) },
			"power lost": func(*rapid.T) { restart(true, false) },
			"closed": func(t *rapid.T) {
				if m.cut || m.failing > 0 {
					return
				}
				err := b.j.Close()
				restart(true, err == nil && !soft) // it is on disk now, at any level
			},
		})
	})
}

// TestJournalKilledAtEveryByte runs one script to each of its bytes.
func TestJournalKilledAtEveryByte(t *testing.T) {
	for _, power := range []bool{false, true} {
		for budget := 0; ; budget++ {
			r := rand.New(rand.NewPCG(uint64(budget), 1))
			m := newMemory(func() bool { return r.IntN(2) == 0 })
			b := &book{t: t, m: m, sync: true, elsewhere: map[byte]uint64{}, wrote: map[byte]uint64{}, acked: map[byte]uint64{}}
			b.open()
			m.budget = budget
			for i := range 48 { // through each file several times
				b.put(i*37%250, byte(1+i%4), byte(1+i%3))
				if i%5 == 4 {
					b.feed(1)
				}
			}
			ended := !m.cut
			m.reboot(power)
			b.open()
			b.check(true)
			if ended {
				break
			}
		}
	}
}

// TestJournalDamage: what was acknowledged and cannot be read is damage, wherever
// it is but in the last frame, which cannot be told from one that was not finished.
func TestJournalDamage(t *testing.T) {
	m := newMemory(func() bool { return true })
	b := &book{t: t, m: m, sync: true, elsewhere: map[byte]uint64{}, wrote: map[byte]uint64{}, acked: map[byte]uint64{}}
	b.open()
	for range 3 {
		b.put(600, 1, 2)
	}
	b.put(0, 3)
	for name, f := range m.files {
		seg := &segment{name: name, salt: binary.LittleEndian.Uint64(f.cache[len(fileMagic):])}
		var inFrame [testSize]bool
		at, last := framing, 0
		for fr, _, ok := parse(f.cache[at:], seg.salt); ok; fr, _, ok = parse(f.cache[at:], seg.salt) {
			last = at
			for i := range Head + int(fr.size) {
				inFrame[at+i] = true
			}
			at += int(span(int(fr.size)))
		}
		if name != "000003.journal" {
			last = testSize // not the last of all
		}
		for at := range testSize {
			f.cache[at] ^= 0x10
			_, err := Open(small(m, true))
			told := errors.Is(err, ErrCorrupt)
			if want := at < len(identity(0, 0)) || inFrame[at] && at < last; told != want || err != nil && !told {
				t.Fatalf("%s: another bit at %d, and Open says %v; want damage: %v", name, at, err, want)
			}
			f.cache[at] ^= 0x10
		}
	}
}

// TestJournalForgedFrames: payloads full of headers are payloads; looking through
// them takes no longer than reading them.
func TestJournalForgedFrames(t *testing.T) {
	m := newMemory(func() bool { return true })
	cfg := Config{Sync: true, folder: m, size: SegmentSize, Segments: 2, Keep: 4}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	forged := make([]byte, Head+MaxPayload)
	for at := Head; at+Head <= len(forged); at += Head {
		frame{size: MaxPayload / 2, use: 2, seq: 7}.seal(forged[at:at+Head], 1)
	}
	if err := j.Append(forged); err != nil {
		t.Fatal(err)
	}
	f := m.files["000001.journal"]
	f.cache[framing+Head] ^= 1 // torn, with all of that behind
	began := time.Now()
	if _, err := Open(cfg); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Open took %v", took)
	}
}

// TestJournalFailedFile: after an fdatasync that failed, the file is not written
// to again, and what it had acknowledged before is there.
func TestJournalFailedFile(t *testing.T) {
	m := newMemory(func() bool { return false })
	b := &book{t: t, m: m, sync: true, elsewhere: map[byte]uint64{}, wrote: map[byte]uint64{}, acked: map[byte]uint64{}}
	b.open()
	if err := b.put(0, 1); err != nil {
		t.Fatal(err)
	}
	failed := b.j.active
	m.failing = 1
	if err := b.put(0, 1); !errors.Is(err, errDisk) {
		t.Fatalf("got %v, want what the disk said", err)
	}
	if err := b.put(0, 2); err != nil || b.j.active == failed {
		t.Fatalf("got %v, in the file that failed: %v", err, b.j.active == failed)
	}
	if runs, soon := b.j.Sealed(); len(runs) != 1 || !soon {
		t.Fatalf("got %v, want the failed file's", runs)
	}
	if err := b.feed(1); err != nil || m.files[failed.name] != nil {
		t.Errorf("got %v; the failed file is there: %v", err, m.files[failed.name] != nil)
	}
	m.reboot(true)
	b.open()
	b.check(true)
}

// TestJournalIsFull: it takes nothing more than its files hold, and goes on after a Release.
func TestJournalIsFull(t *testing.T) {
	m := newMemory(func() bool { return true })
	b := &book{t: t, m: m, sync: true, elsewhere: map[byte]uint64{}, wrote: map[byte]uint64{}, acked: map[byte]uint64{}}
	b.open()
	n := 0
	for ; ; n++ {
		if err := b.put(900, 1); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != 5 || len(m.files) != 5 {
		t.Errorf("%d Appends in %d files, want 5 in 5", n, len(m.files))
	}
	if err := b.feed(1); err != nil {
		t.Fatal(err)
	}
	if err := b.put(900, 1); err != nil {
		t.Errorf("after a Release: %v", err)
	}
	if err := b.put(2000, 1); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("more than a file holds: %v", err)
	}
}

// TestJournalNoRoom: no file is made that the disk has no room for; those that are there go on.
func TestJournalNoRoom(t *testing.T) {
	m := newMemory(func() bool { return true })
	full := errors.New("no room")
	cfg := small(m, true)
	cfg.Room = func(int64) error { return full }
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(make([]byte, Head+10)); !errors.Is(err, full) {
		t.Errorf("got %v, want that there is no room", err)
	}
	j.cfg.Room = func(int64) error { return nil }
	if err := j.Append(make([]byte, Head+900)); err != nil {
		t.Fatal(err)
	}
	j.cfg.Room = func(int64) error { return full }
	if err := j.Append(make([]byte, Head+900)); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want that a Release is waited for", err)
	}
}

// TestDirectory: the same on a disk.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	open := func() *Journal {
		t.Helper()
		j, err := Open(Config{Dir: dir, Sync: true, Segments: 2})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	if err := open().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder was made for nothing: %v", err)
	}
	j := open()
	var want []string
	for i := range 100 {
		p := fmt.Sprint("payload ", i)
		want = append(want, p)
		if err := j.Append(append(make([]byte, Head), p...)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "000009.journal.new"), []byte("half"), 0o600)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open()
	defer j.Close()
	runs, _ := j.Sealed()
	var got []string
	for _, r := range runs {
		if err := j.Payloads(r, new([]byte), func(p []byte) error { got = append(got, string(p)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d payloads %q, want %d", len(got), got, len(want))
	}
	if err := j.Release(runs); err != nil {
		t.Fatal(err)
	}
	if runs, _ := j.Sealed(); len(runs) != 0 || j.Bytes() != 0 || !j.Free() {
		t.Errorf("after the release: %d runs, %d bytes", len(runs), j.Bytes())
	}
}

// FuzzRecover: whatever is in a file, it is read, or refused as damaged; and what
// is read out of it is what a journal has written.
func FuzzRecover(f *testing.F) {
	const salt = 0x0102030405060708
	whole := func(n int) []byte {
		m := newMemory(func() bool { return true })
		cfg := small(m, true)
		cfg.salt = func() uint64 { return salt }
		j, err := Open(cfg)
		if err != nil {
			f.Fatal(err)
		}
		for i := range n {
			if err := j.Append(append(make([]byte, Head), make([]byte, i*50)...)); err != nil {
				f.Fatal(err)
			}
		}
		return m.files["000001.journal"].cache[framing:]
	}
	f.Add([]byte{}, []byte{})
	f.Add(whole(5), whole(1))
	f.Add(whole(1)[:60], whole(3)[40:])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		m := newMemory(func() bool { return true })
		for i, content := range [][]byte{a, b} {
			m.create(fmt.Sprintf("%06d.journal", i+1), testSize, identity(salt, testSize))
			copy(m.files[fmt.Sprintf("%06d.journal", i+1)].cache[block:], content)
			copy(m.files[fmt.Sprintf("%06d.journal", i+1)].cache[framing:], content)
		}
		j, err := Open(small(m, true))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		runs, _ := j.Sealed()
		for _, r := range runs {
			if err := j.Payloads(r, new([]byte), func([]byte) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Append(make([]byte, Head+10)); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	})
}
