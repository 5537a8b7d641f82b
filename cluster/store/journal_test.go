package store

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/cluster/store/journal"
	"hereis/messages"
)

// TestPutTakesWhatRecIsNow: a record may be changed when Put has returned.
func TestPutTakesWhatRecIsNow(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	rec := record(1)
	want := proto.CloneOf(rec)
	sub := &messages.Subscription{Id: 7, Watcher: "sip:w@example.com"}
	written := make(chan error, 2)
	done := func(err error) { written <- err }
	gate := make(chan struct{})
	s.commit = func(g group) error { <-gate; return s.commitGroup(g) }
	s.Put(rec, done)
	rec.Leases[0].Payload[0], rec.Leases[0].Edge, rec.Aor = 9, "another", "sip:another@example.com"
	s.PutSubscription(sub, done)
	sub.Watcher = "another"
	close(gate) // nothing has been written before
	for range 2 {
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	if got := load(t, s); len(got) != 1 || !proto.Equal(got[want.Aor], want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := s.LoadSubscriptions(func(sub *messages.Subscription) error {
		if sub.Watcher != "sip:w@example.com" {
			t.Errorf("got watcher %q", sub.Watcher)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestPutAllocates next to nothing: memory for entries and groups is used again.
func TestPutAllocates(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	rec := record(1)
	const group = 64
	var wg sync.WaitGroup
	done := func(error) { wg.Done() }
	perGroup := testing.AllocsPerRun(50, func() {
		wg.Add(group)
		for range group {
			s.Put(rec, done)
		}
		wg.Wait()
	})
	if perGroup > 3*group {
		t.Errorf("%.1f allocations for each Put, want 3 at most", perGroup/group)
	}
}

// TestFolderOfFormat1: a folder without a journal is opened, and is one with a journal from then on.
func TestFolderOfFormat1(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, Name: "n1"})
	putAll(t, s, record(1), record(2))
	if err := s.settle(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, journalFolder)); err != nil {
		t.Fatal(err)
	}
	body := "hereis node folder\nformat 1\nname n1\n"
	if err := writeSynced(filepath.Join(dir, markFile), body+sumLine(body)); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	if got := load(t, s); len(got) != 2 || s.Name() != "n1" {
		t.Errorf("%d records of %s, want 2 of n1", len(got), s.Name())
	}
	mark, err := os.ReadFile(filepath.Join(dir, markFile))
	if err != nil || !strings.Contains(string(mark), "\nformat 2\nname n1\n") {
		t.Errorf("the mark is %q, %v", mark, err)
	}
}

// TestMoreThanTheJournalHolds: who writes without end waits for Badger in time,
// and what was written is there, the last of each key.
func TestMoreThanTheJournalHolds(t *testing.T) {
	dir := t.TempDir()
	const keys, size, feeding = 50, 256 << 10, 32 << 20
	s := open(t, Config{Dir: dir, Level: Async, JournalSize: feeding})
	most := int64(journalFiles(feedAt(feeding)) * journal.SegmentSize)
	n := int(most/size) + 100
	want := map[string]*messages.Record{}
	slots := make(chan error, 64)
	for range cap(slots) {
		slots <- nil
	}
	for i := range n {
		rec := record(i % keys)
		rec.Leases[0].Stamp.Counter = uint32(i)
		rec.Leases[0].Payload = make([]byte, size)
		want[rec.Aor] = rec
		if err := <-slots; err != nil {
			t.Fatal(err)
		}
		s.Put(rec, func(err error) { slots <- err })
	}
	for range cap(slots) {
		if err := <-slots; err != nil {
			t.Fatal(err)
		}
	}
	if held := s.Stats().JournalBytes; held > most {
		t.Errorf("the journal holds %d bytes", held)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got := load(t, open(t, Config{Dir: dir}))
	for aor, rec := range want {
		if !proto.Equal(got[aor], rec) {
			t.Errorf("%s has counter %d, want %d", aor, got[aor].GetLeases()[0].GetStamp().GetCounter(), rec.Leases[0].Stamp.Counter)
		}
	}
	if len(got) != keys {
		t.Errorf("%d records, want %d", len(got), keys)
	}
}

// TestFeedKeepsTheLast: of what several files have of one key, Badger is given what
// came last, and once; also if it had been given something of it before and was
// interrupted.
func TestFeedKeepsTheLast(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), Level: Async})
	seal := func() {
		sealed := make(chan error, 1)
		s.queuePut(put{seal: true, done: func(err error) { sealed <- err }}, nil)
		if err := <-sealed; err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]*messages.Record{}
	for n := range 5 {
		for range 300 {
			rec := record(rng.IntN(200))
			rec.Leases[0].Stamp.Counter = rng.Uint32()
			if rng.IntN(4) == 0 {
				rec = &messages.Record{Aor: rec.Aor}
			}
			putAll(t, s, rec)
			want[rec.Aor] = rec
		}
		seal()
		if n == 2 { // the newest run of these, and then the process was about to end
			runs, _ := s.journal.Sealed()
			some, err := (&lasting{journal: s.journal, at: map[string]int{}}).of(runs[n])
			if err == nil {
				_, err = s.feedSome(some)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	runs, _ := s.journal.Sealed()
	l := lasting{journal: s.journal, at: map[string]int{}}
	given := 0
	for _, r := range slices.Backward(runs) {
		some, err := l.of(r)
		if err != nil {
			t.Fatal(err)
		}
		given += len(some)
	}
	if len(runs) != 5 || given != len(want) {
		t.Errorf("%d values of %d runs are given, want %d of 5", given, len(runs), len(want))
	}
	if err := s.feedAll(); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().JournalBytes; n != 0 {
		t.Errorf("the journal still has %d bytes", n)
	}
	got := load(t, s)
	for aor, rec := range want {
		if rec.Empty() == (got[aor] != nil) || !rec.Empty() && !proto.Equal(got[aor], rec) {
			t.Errorf("%s is %v, want %v", aor, got[aor], rec)
		}
	}
}

// TestGroupLargerThanAFrame: a group that is too much for one Append takes more.
func TestGroupLargerThanAFrame(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	s.commit = func(g group) error { entered <- struct{}{}; <-gate; return s.commitGroup(g) }
	results := make(chan error, 32)
	done := func(err error) { results <- err }
	s.Put(record(0), done)
	<-entered
	want := []*messages.Record{record(0)}
	for i := range 20 {
		rec := record(i + 1)
		rec.Leases[0].Payload = make([]byte, 1_000_000+i)
		rec.Leases[0].Payload[i] = byte(i)
		want = append(want, rec)
		s.Put(rec, done)
	}
	close(gate)
	for range want {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if groups := s.Stats().Groups; groups != 2 {
		t.Errorf("%d groups, want 2", groups)
	}
	s.Close()
	got := load(t, open(t, Config{Dir: dir}))
	for _, rec := range want {
		if !proto.Equal(got[rec.Aor], rec) {
			t.Errorf("%s is not what was put", rec.Aor)
		}
	}
}

// TestBadgerLosesWhatWasNotSynced: what a loss of power takes from the files that
// Badger appends to is in the journal, as long as that has not been told that it
// is on disk. And Badger opens what is left.
func TestBadgerLosesWhatWasNotSynced(t *testing.T) {
	for name, damage := range map[string]func(*os.File, int64) error{
		"all of it": func(f *os.File, _ int64) error { return f.Truncate(0) },
		"the bytes": func(f *os.File, size int64) error {
			return zero(f, 0, size)
		},
		"a page": func(f *os.File, _ int64) error { return zero(f, 4096, 4096) },
		"the head": func(f *os.File, _ int64) error {
			return zero(f, 0, 512)
		},
		"the end": func(f *os.File, size int64) error { return f.Truncate(size / 3) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Config{Dir: dir})
			var recs []*messages.Record
			for i := range 500 {
				recs = append(recs, record(i))
			}
			putAll(t, s, recs...)
			runs := make(chan error, 1)
			s.queuePut(put{seal: true, done: func(err error) { runs <- err }}, nil)
			<-runs
			sealed, _ := s.journal.Sealed()
			if len(sealed) != 1 {
				t.Fatalf("%d runs, want 1", len(sealed))
			}
			all, err := (&lasting{journal: s.journal, at: map[string]int{}}).of(sealed[0])
			if err != nil {
				t.Fatal(err)
			}
			if n, err := s.feedSome(all); err != nil || n != 500 {
				t.Fatal(n, err)
			}
			after := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			logs, err := filepath.Glob(filepath.Join(after, badgerFolder, "*.mem"))
			if err != nil || len(logs) == 0 {
				t.Fatal("Badger has no log", err)
			}
			more, err := filepath.Glob(filepath.Join(after, badgerFolder, "*.vlog"))
			if err != nil {
				t.Fatal(err)
			}
			for _, log := range append(logs, more...) {
				f, err := os.OpenFile(log, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				info, err := f.Stat()
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(f, info.Size()); err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
			if got := load(t, open(t, Config{Dir: after})); len(got) != 500 {
				t.Errorf("%d records, want 500", len(got))
			}
		})
	}
}

func zero(f *os.File, from, n int64) error {
	_, err := f.WriteAt(make([]byte, n), from)
	return err
}

// overwriteForEver is the child process of the kill test below: it prints key and
// count of each Put once it is acknowledged.
func overwriteForEver(dir string, level Level) {
	s, err := Open(Config{Dir: dir, Level: level, JournalSize: 32 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	slots := make(chan struct{}, 64)
	out := bufio.NewWriter(os.Stdout)
	for i := uint32(1); ; i++ {
		rec := record(int(i % overwritten))
		rec.Leases[0].Stamp.Counter = i
		rec.Leases[0].Payload = make([]byte, 40<<10)
		slots <- struct{}{}
		s.Put(rec, func(err error) {
			if err == nil {
				fmt.Fprintln(out, i%overwritten, i)
				out.Flush()
			}
			<-slots
		})
	}
}

const overwritten = 30 // keys that the child writes over and over

// TestKilledWhileFilesAreUsedAgain: the same through many files of the journal,
// with Badger taking what is in them, at both levels.
func TestKilledWhileFilesAreUsedAgain(t *testing.T) {
	for _, level := range []Level{Async, Sync} {
		dir := t.TempDir()
		last := map[int]uint32{}
		for round := range 3 {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childFolder+"="+dir, childLevel+"="+string(level))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			clear(last)
			acked := 0
			for lines := bufio.NewScanner(out); lines.Scan(); acked++ {
				var key int
				var n uint32
				if _, err := fmt.Sscan(lines.Text(), &key, &n); err != nil {
					t.Fatalf("the child says %q", lines.Text())
				}
				last[key] = n
				if acked == 1500*(round+1) {
					cmd.Process.Kill()
				}
			}
			_ = cmd.Wait()
			s := open(t, Config{Dir: dir, Level: level, JournalSize: 32 << 20})
			got := load(t, s)
			for key, n := range last {
				if has := got[record(key).Aor].GetLeases()[0].GetStamp().GetCounter(); has < n {
					t.Errorf("%s, round %d: key %d has %d, acknowledged was %d", level, round, key, has, n)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
