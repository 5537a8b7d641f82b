package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"google.golang.org/protobuf/proto"

	"hereis/cluster/store/journal"
	"hereis/messages"
)

var (
	// ErrBusy is what done gets when the queue of writes is full.
	ErrBusy = errors.New("store: too many writes are waiting")
	// ErrClosed is what done gets after Close.
	ErrClosed = errors.New("store: closed")
	// ErrDiskFull keeps the store from writing while the disk has no room.
	ErrDiskFull = errors.New("store: the disk is almost full")
)

// Level is how durable a Put is once it is done.
type Level string

const (
	// Memory keeps no Record; node and members are kept all the same.
	Memory Level = "memory"
	// Async survives the process, and not always the machine.
	Async Level = "async"
	// Sync survives both: one fsync for all Puts that wait.
	Sync Level = "sync"
)

// DefaultQueue is how many Puts may wait to be written.
const DefaultQueue = 16384

// Config says what to open.
type Config struct {
	// Dir is the node's data folder; it is made if it is not there.
	Dir string
	// Name is the node's stable name. Empty: the one in the folder, or for a
	// new folder a random one.
	Name string
	// Level is Sync if empty.
	Level Level
	// Queue bounds the Puts that wait to be written (0: DefaultQueue).
	Queue int
	// JournalSize is how much of the journal is full, in bytes, before Badger is given
	// what is in it (0: DefaultJournalSize). The journal takes half as much again, and
	// 64 MiB more at least, while that is being done.
	JournalSize int64
	// Together runs what tells of a group's Puts, so that whatever these make can
	// leave together: it calls what it is given, once. Nil: nothing is gained by it.
	Together func(func())
}

// Store is a node's folder, open.
type Store struct {
	cfg    Config
	log    *slog.Logger
	folder *folder
	db     *badger.DB
	// journal is what a Put waits for; the writer appends. What it holds gets into
	// Badger later (feed.go).
	journal *journal.Journal
	feedAt  int
	// room is the disk's: watchRoom alone sees to its reserve. logs are Badger's
	// files, which belong to who has feeding.
	room *room
	logs *logs
	// commit writes one group; a test has its own.
	commit  func(group) error
	entries entryBuffers

	// wake tells the writer that there are Puts enough; one slot.
	wake    chan struct{}
	closing chan struct{} // closed by Close
	written sync.WaitGroup
	err     atomic.Pointer[error]
	busy    atomic.Uint64
	groups  atomic.Uint64
	puts    atomic.Uint64
	given   atomic.Int64 // when Badger was last given anything, in ns since 1970

	lookNow  chan struct{} // tells watchRoom that it will be; one slot
	feedNow  chan struct{} // tells the feeder to look; one slot
	feedStop chan struct{} // closed by Close, when the writer has ended
	feeding  chan struct{} // one slot: who has put something in gives Badger what is in the journal
	hurry    atomic.Int32  // how many wait for that
	fed      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	waiting group
	// want is how many Puts the writer is woken for.
	want    int
	refused []put // those that are not written, to be told so
	closed  bool
	ended   error
}

// Open checks the folder, locks it and opens it. Of a folder that is refused
// nothing is changed; the error wraps ErrForeign, ErrFormat, ErrOtherNode,
// ErrCorrupt or ErrInUse.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if cfg.Level == "" {
		cfg.Level = Sync
	}
	if cfg.Level != Memory && cfg.Level != Async && cfg.Level != Sync {
		return nil, fmt.Errorf("store: unknown Level %q", cfg.Level)
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.JournalSize <= 0 {
		cfg.JournalSize = DefaultJournalSize
	}
	if cfg.Together == nil {
		cfg.Together = func(f func()) { f() }
	}
	f, err := openFolder(cfg.Dir, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", cfg.Dir, err)
	}
	s, err := openIn(f, cfg, log)
	if err != nil {
		f.release()
		return nil, fmt.Errorf("store: %s: %w", cfg.Dir, err)
	}
	return s, nil
}

// openIn opens the folder f, the journal first: that changes nothing.
func openIn(f *folder, cfg Config, log *slog.Logger) (*Store, error) {
	s := &Store{
		cfg: cfg, log: log, folder: f,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), want: 1,
		lookNow: make(chan struct{}, 1), feedNow: make(chan struct{}, 1), feedStop: make(chan struct{}), feeding: make(chan struct{}, 1),
		room: &room{dir: f.dir, lock: f.lock}, logs: &logs{dir: f.badger()},
	}
	s.feedAt = feedAt(cfg.JournalSize)
	var err error
	s.journal, err = journal.Open(journal.Config{
		Dir: f.journal(), Sync: cfg.Level == Sync, Room: s.room.spare,
		Segments: journalFiles(s.feedAt), Keep: s.feedAt,
	})
	if errors.Is(err, journal.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.openBadger(); err != nil {
		return nil, errors.Join(err, s.journal.Close())
	}
	if s.journal.Lost > 0 {
		log.Warn("a loss of power took what had not been waited for", "places", s.journal.Lost)
	}
	s.keepRoom(errors.Join(s.room.look(), s.logs.allocate()))
	if err := s.feedAll(); err != nil { // what the process before had not come to
		return nil, errors.Join(err, s.journal.Close(), s.closeBadger())
	}
	s.giving()
	s.commit = s.commitGroup
	s.written.Go(s.watchRoom)
	s.written.Go(s.writeLoop)
	s.fed.Go(s.feedLoop)
	return s, nil
}

func (s *Store) openBadger() error {
	if s.folder.name == "" {
		s.folder.name = "node-" + strings.ToLower(rand.Text()[:10])
	}
	if err := s.folder.mark(); err != nil {
		return err
	}
	err := s.logs.clear()
	if err != nil {
		return err
	}
	if s.db, err = badger.Open(badgerOptions(s.folder.badger()).WithLogger(badgerLog{s.log})); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// badgerOptions keep an idle store small: values are a few hundred bytes, are
// read once, at start, all of them in their order, and live in the tables. So
// blocks are large, nothing tells which keys a table has, and what has come lately
// is merged with the rest in large pieces.
func badgerOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(5).
		WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(8 << 20).
		WithBlockSize(16 << 10).
		WithBloomFalsePositive(0).
		WithNumCompactors(2).
		WithValueLogFileSize(maxValue).
		WithValueThreshold(512 << 10).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithSyncWrites(false). // syncBadger is called when that is to be waited for
		WithLogger(nil)
}

// Name is the node's stable name.
func (s *Store) Name() string { return s.folder.name }

// Start begins a new incarnation at node time nowMS, in ms since 1970: it is
// above every one that this folder has seen and above least, and on disk when
// Start returns.
func (s *Store) Start(nowMS int64, least uint64) (*messages.NodeState, error) {
	last := &messages.NodeState{}
	if err := s.read(nodeKey(), last); err != nil {
		return nil, fmt.Errorf("store: node state: %w", err)
	}
	next := uint64(nowMS)<<20 | uint64(mrand.Uint32N(1<<20))
	if above := max(last.Incarnation, least); next <= above {
		next = above + 1
	}
	st := &messages.NodeState{Name: s.Name(), Incarnation: next, Format: folderFormat}
	if err := s.write(nodeKey(), st); err != nil {
		return nil, fmt.Errorf("store: node state: %w", err)
	}
	return st, nil
}

// read fills msg with a value; it stays empty if there is none.
func (s *Store) read(key []byte, msg proto.Message) error {
	return s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error { return proto.Unmarshal(v, msg) })
	})
}

// write puts a value on disk; nil removes it.
func (s *Store) write(key []byte, msg proto.Message) error {
	if err := s.room.check(); err != nil {
		return err
	}
	s.giving()
	err := s.db.Update(func(txn *badger.Txn) error {
		if msg == nil {
			return txn.Delete(key)
		}
		v, err := proto.Marshal(msg)
		if err != nil {
			return err
		}
		return txn.Set(key, v)
	})
	if err != nil {
		return err
	}
	return s.syncBadger()
}

// LoadMembers lists the members that are remembered.
func (s *Store) LoadMembers() ([]*messages.RememberedMember, error) {
	var list []*messages.RememberedMember
	err := s.each(prefixMember, func(v []byte) error {
		m := &messages.RememberedMember{}
		list = append(list, m)
		return proto.Unmarshal(v, m)
	})
	return list, err
}

// SaveMember remembers m in the place of what is known of its name.
func (s *Store) SaveMember(m *messages.RememberedMember) error {
	return s.write(memberKey(m.Name), m)
}

// DropMember forgets a member.
func (s *Store) DropMember(name string) error { return s.write(memberKey(name), nil) }

// Close writes what waits, closes the store and unlocks the folder. It may be
// called more than once. What is in the journal is left there: the next Open reads
// it, and a node that stops need not wait.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		defer s.mu.Unlock()
		return s.ended
	}
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	s.written.Wait()
	close(s.feedStop)
	s.fed.Wait()
	err := errors.Join(s.journal.Close(), s.closeBadger())
	s.folder.release()
	s.mu.Lock()
	s.ended = err
	s.mu.Unlock()
	return err
}

// closeBadger ends Badger in order, unless the disk has no room for what it
// would write then: its log has all of it, and is read at the next start.
func (s *Store) closeBadger() error {
	s.keepRoom(s.room.release())
	if free, err := s.room.free(); err == nil && free < closeRoom {
		s.log.Warn("the disk is full: the store ends as if it were killed", "err", ErrDiskFull)
		return s.syncBadger()
	}
	return s.db.Close()
}

// Stats are counts since Open.
type Stats struct {
	// Puts were written in Groups, each with one fsync at Sync; Busy were refused.
	Puts, Groups, Busy uint64
	// Waiting Puts are in the queue now. LSMBytes and LogBytes are on disk.
	Waiting            int
	LSMBytes, LogBytes int64
	// JournalBytes are in the journal and not in Badger's tables yet.
	JournalBytes int64
}

// Stats reads the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	waiting := len(s.waiting.puts)
	s.mu.Unlock()
	st := Stats{Puts: s.puts.Load(), Groups: s.groups.Load(), Busy: s.busy.Load(), Waiting: waiting, JournalBytes: s.journal.Bytes()}
	st.LSMBytes, st.LogBytes = s.db.Size()
	return st
}

// badgerLog lets Badger's complaints through and nothing else.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) {
	l.log.Warn("badger", "err", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (l badgerLog) Warningf(f string, a ...any) {
	l.log.Debug("badger", "said", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (badgerLog) Infof(string, ...any)  {}
func (badgerLog) Debugf(string, ...any) {}

// probeEvery is how often a store that cannot write tries again.
const probeEvery = time.Second
