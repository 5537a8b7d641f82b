package store

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

const (
	childFolder = "HEREIS_TEST_STORE_CHILD"
	childLevel  = "HEREIS_TEST_STORE_LEVEL"
)

func TestMain(m *testing.M) {
	dir, level := os.Getenv(childFolder), os.Getenv(childLevel)
	switch {
	case level != "":
		overwriteForEver(dir, Level(level))
	case dir != "":
		writeForEver(dir)
	}
	// Badger's caches of glog and the like start goroutines at import, if any.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// writeForEver is the child process of the kill test: it prints the number of
// each Put once it is acknowledged.
func writeForEver(dir string) {
	s, err := Open(Config{Dir: dir, Level: Sync}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for i := 0; ; i++ {
		s.Put(record(i), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				fmt.Println(i)
			}
		})
		if i%16 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

func record(i int) *messages.Record {
	return &messages.Record{Aor: fmt.Sprintf("sip:user%06d@example.com", i), Leases: []*messages.Lease{{
		Key: []byte("k"), Edge: "n1", Stamp: &messages.Stamp{Ms: int64(i)}, Payload: make([]byte, 200),
	}}}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func putAll(t *testing.T, s *Store, recs ...*messages.Record) {
	t.Helper()
	errs := make(chan error, len(recs))
	for _, r := range recs {
		s.Put(r, func(err error) { errs <- err })
	}
	for range recs {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, s *Store) map[string]*messages.Record {
	t.Helper()
	got := map[string]*messages.Record{}
	var mu sync.Mutex
	if err := s.Load(func(r *messages.Record) error {
		mu.Lock()
		defer mu.Unlock()
		got[r.Aor] = r
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRecordsComeBack(t *testing.T) {
	for _, level := range []Level{Async, Sync} {
		dir := t.TempDir()
		s := open(t, Config{Dir: dir, Level: level})
		var recs []*messages.Record
		for i := range 1000 {
			recs = append(recs, record(i))
		}
		putAll(t, s, recs...)
		putAll(t, s, &messages.Record{Aor: recs[0].Aor})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got := load(t, open(t, Config{Dir: dir, Level: level}))
		if len(got) != 999 || !proto.Equal(got[recs[7].Aor], recs[7]) {
			t.Fatalf("%s: got %d records, want 999", level, len(got))
		}
	}
}

func TestMemoryKeepsNodeStateAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, Level: Memory})
	st, err := s.Start(1_700_000_000_000, 0)
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, s, record(1))
	if err := s.SaveMember(&messages.RememberedMember{Name: "n2", Gossip: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, Config{Dir: dir, Level: Memory})
	if got := load(t, s); len(got) != 0 {
		t.Fatalf("got %d records, want none", len(got))
	}
	if s.Name() != st.Name {
		t.Fatalf("got name %q, want %q", s.Name(), st.Name)
	}
	if ms, err := s.LoadMembers(); err != nil || len(ms) != 1 || ms[0].Name != "n2" {
		t.Fatalf("got members %v, %v", ms, err)
	}
}

func TestRule18_NameIsStableAndIncarnationsRise(t *testing.T) {
	dir := t.TempDir()
	now := int64(1_700_000_000_000)
	var last uint64
	var name string
	for range 3 {
		s := open(t, Config{Dir: dir})
		if name == "" {
			name = s.Name()
		}
		st, err := s.Start(now, 0)
		if err != nil {
			t.Fatal(err)
		}
		if st.Name != name || !strings.HasPrefix(name, "node-") {
			t.Fatalf("got name %q, want %q", st.Name, name)
		}
		if st.Incarnation <= last {
			t.Fatalf("got incarnation %d, want above %d", st.Incarnation, last)
		}
		last = st.Incarnation
		now -= 3_600_000 // the wall clock goes back between starts
		s.Close()
	}
	s := open(t, Config{Dir: dir})
	if st, err := s.Start(now, last+1000); err != nil || st.Incarnation <= last+1000 {
		t.Fatalf("got %v, %v, want above %d", st, err, last+1000)
	}
}

func TestMembersAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	for _, n := range []string{"a", "b"} {
		if err := s.SaveMember(&messages.RememberedMember{Name: n, Incarnation: 5}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DropMember("a"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	ms, err := open(t, Config{Dir: dir}).LoadMembers()
	if err != nil || len(ms) != 1 || ms[0].Name != "b" {
		t.Fatalf("got %v, %v", ms, err)
	}
}

func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, Config{Dir: dir})
	if _, err := Open(Config{Dir: dir}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
}

func TestRefusedFoldersAreLeftUntouched(t *testing.T) {
	whole := t.TempDir()
	s := open(t, Config{Dir: whole, Name: "n1"})
	for i := range 3000 {
		s.Put(record(i), func(error) {})
	}
	s.Close()
	open(t, Config{Dir: whole}).Close() // writes the table of what the journal has
	s = open(t, Config{Dir: whole})
	putAll(t, s, record(1), record(2))
	putAll(t, s, record(3))
	s.Close() // and here the journal has something again
	node := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cases := []struct {
		name string
		want error
		cfg  Config
		spot func(t *testing.T, dir string)
	}{
		{"something else", ErrForeign, Config{}, func(t *testing.T, dir string) {
			os.RemoveAll(filepath.Join(dir, badgerFolder))
			os.Remove(filepath.Join(dir, markFile))
			os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600)
		}},
		{"badger of another program", ErrForeign, Config{}, func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, markFile))
		}},
		{"other node", ErrOtherNode, Config{Name: "n2"}, func(*testing.T, string) {}},
		{"other format", ErrFormat, Config{}, func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, markFile), []byte("hereis node folder\nformat 9\nname n1\n"), 0o600)
		}},
		{"mark damaged", ErrCorrupt, Config{}, func(t *testing.T, dir string) { flip(t, filepath.Join(dir, markFile), 42) }},
		{"manifest damaged", ErrCorrupt, Config{}, func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, badgerFolder, "MANIFEST"), 1)
		}},
		{"manifest gone", ErrCorrupt, Config{}, func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, badgerFolder, "MANIFEST"))
		}},
		{"table damaged in the middle", ErrCorrupt, Config{}, func(t *testing.T, dir string) { flip(t, aTable(t, dir), 5000) }},
		{"table cut off", ErrCorrupt, Config{}, func(t *testing.T, dir string) {
			if err := os.Truncate(aTable(t, dir), 1000); err != nil {
				t.Fatal(err)
			}
		}},
		{"journal damaged in the middle", ErrCorrupt, Config{}, func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, journalFolder, "000001.journal"), 3*4096+100)
		}},
		{"journal cut off", ErrCorrupt, Config{}, func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, journalFolder, "000001.journal"), 1<<20); err != nil {
				t.Fatal(err)
			}
		}},
		{"table gone", ErrCorrupt, Config{}, func(t *testing.T, dir string) { os.Remove(aTable(t, dir)) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := node(t)
			c.spot(t, dir)
			before := sums(t, dir)
			cfg := c.cfg
			cfg.Dir = dir
			s, err := Open(cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if after := sums(t, dir); after != before {
				t.Fatalf("the folder was changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func aTable(t *testing.T, dir string) string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, badgerFolder, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	return tables[0]
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x5a
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func sums(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s %d %x\n", d.Name(), len(b), sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestQueueIsBounded(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), Queue: 4})
	gate, entered := make(chan struct{}), make(chan struct{}, 16)
	s.commit = func(g group) error { entered <- struct{}{}; <-gate; return s.commitGroup(g) }
	results := make(chan error, 16)
	done := func(err error) { results <- err }
	s.Put(record(0), done)
	<-entered
	for i := range 6 {
		s.Put(record(i+1), done)
	}
	close(gate)
	busy := 0
	for range 7 {
		if errors.Is(<-results, ErrBusy) {
			busy++
		}
	}
	if busy != 2 || s.Stats().Busy != 2 {
		t.Fatalf("got %d busy, want 2", busy)
	}
}

func TestGroupCommitSharesAnFsync(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	var recs []*messages.Record
	for i := range 5000 {
		recs = append(recs, record(i))
	}
	putAll(t, s, recs...)
	if st := s.Stats(); st.Puts != 5000 || st.Groups > 1000 {
		t.Fatalf("got %d groups for %d puts", st.Groups, st.Puts)
	}
}

func TestErrUntilAWriteSucceeds(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	broken := errors.New("input/output error")
	s.commit = func(group) error { return broken }
	result := make(chan error, 1)
	s.Put(record(1), func(err error) { result <- err })
	if err := <-result; !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	if err := s.Err(); !errors.Is(err, broken) {
		t.Fatalf("Err: got %v, want %v", err, broken)
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.Err() != nil { // the probe writes by itself
		if time.Now().After(deadline) {
			t.Fatal("the probe did not clear Err")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestPutAfterClose(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	s.Close()
	result := make(chan error, 1)
	s.Put(record(1), func(err error) { result <- err })
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

// What was acknowledged at sync is there after kill -9, whenever that comes.
func TestKilledAtSyncLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := 0
	for round := range 3 {
		last := runAndKill(t, dir, 1000*(round+1))
		s := open(t, Config{Dir: dir})
		got := load(t, s)
		for i := range last + 1 {
			if got[record(i).Aor] == nil {
				t.Fatalf("round %d: %d was acknowledged and is gone (%d of %d there)", round, i, len(got), last+1)
			}
		}
		acked += last + 1
		s.Close()
	}
	t.Logf("%d acknowledged", acked)
}

func runAndKill(t *testing.T, dir string, after int) (last int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childFolder+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last = -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // a line cut off by the kill, or an error
		}
		last = n
		if n == after {
			cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if last < after {
		t.Fatalf("the child ended at %d: %s", last, lines.Text())
	}
	return last
}

// A record that cannot be written fails alone: the disk is well, and so are
// those that are written with it.
func TestWhatCannotBeWrittenFailsAlone(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), Level: Sync})
	notText := record(1)
	notText.Leases[0].CallId = "\xff"
	large := record(2)
	large.Leases[0].Payload = make([]byte, maxValue)
	longKey := record(3)
	longKey.Aor = "sip:" + strings.Repeat("a", maxKey) + "@example.com"
	results := make(chan error, 6)
	for _, rec := range []*messages.Record{record(4), notText, record(5), large, record(6), longKey} {
		s.Put(rec, func(err error) { results <- err })
	}
	failed := 0
	for range cap(results) {
		if err := <-results; err != nil {
			failed++
		}
	}
	if err := s.Err(); failed != 3 || err != nil {
		t.Fatalf("%d of 3 failed, and the disk is said to have %v", failed, err)
	}
	var kept sync.Map
	if err := s.Load(func(rec *messages.Record) error { kept.Store(rec.Aor, true); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{4, 5, 6} {
		if _, ok := kept.Load(record(i).Aor); !ok {
			t.Errorf("%s is not kept", record(i).Aor)
		}
	}
}

// TestGroupsAreOneWhereTwoWouldTakeTurns: those who wait for a group and come
// again together are one group again, although one of them is always first.
func TestGroupsAreOneWhereTwoWouldTakeTurns(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	const company, rounds = 8, 50
	var mu sync.Mutex
	sizes := map[int]int{}
	s.commit = func(g group) error {
		time.Sleep(2 * time.Millisecond) // a disk
		mu.Lock()
		defer mu.Unlock()
		sizes[len(g.puts)]++
		return s.commitGroup(g)
	}
	var wg sync.WaitGroup
	for i := range company {
		wg.Go(func() {
			for range rounds {
				putAll(t, s, record(i))
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	t.Logf("groups of each size: %v", sizes)
	if st.Puts != company*rounds {
		t.Errorf("%d Puts written, want %d", st.Puts, company*rounds)
	}
	if st.Groups > st.Puts/3 {
		t.Errorf("%d groups for %d Puts of %d at a time", st.Groups, st.Puts, company)
	}
}

// TestPace: company is waited for only by those who had some.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		n     int
		took  time.Duration
		level Level
		want  int
		wait  time.Duration
	}{
		{0, 0, Sync, 1, 0},
		{1, 4 * time.Millisecond, Sync, 1, 2 * time.Millisecond},
		{7, time.Millisecond, Sync, 7, 500 * time.Microsecond},
		{7, 200 * time.Microsecond, Sync, 7, 100 * time.Microsecond},
		{8, 200 * time.Microsecond, Sync, 8, crowdGather},
		{8, 200 * time.Microsecond, Async, 8, 100 * time.Microsecond},
		{8, 0, Memory, 8, 0},
		{30, 1500 * time.Microsecond, Sync, 30, 750 * time.Microsecond},
		{30, time.Second, Sync, 30, mostGather},
	} {
		if want, wait := pace(c.n, c.took, c.level); want != c.want || wait != c.wait {
			t.Errorf("pace(%d, %v, %s) = %d, %v, want %d, %v", c.n, c.took, c.level, want, wait, c.want, c.wait)
		}
	}
}
