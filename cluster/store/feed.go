package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"hereis/cluster/store/journal"
)

// DefaultJournalSize is how much of the journal is full, in bytes, before Badger is
// given what is in it: some 200,000 registrations.
const DefaultJournalSize = 64 << 20

const (
	// feedBatch is about how many bytes Badger is given at a time.
	feedBatch = 512 << 10
	// feedRetry is how long it takes from a failure to the next try.
	feedRetry = time.Second
	// leastSlack is how many files of the journal there are at least for what is
	// written while Badger is given the full ones.
	leastSlack = 8
)

// feedAt is how many files of the journal are full before Badger is given what is in
// them: of a key that was written more than once it is given the last.
func feedAt(journalSize int64) int {
	return int(max(1, journalSize/journal.SegmentSize))
}

// journalFiles is how many files there are at most.
func journalFiles(feedAt int) int { return feedAt + max(leastSlack, feedAt/2) }

var errEnding = errors.New("store: the rest is left in the journal")

// feedLoop keeps in Badger what the journal's full files hold. It sleeps while
// there are few of them.
func (s *Store) feedLoop() {
	retry := time.NewTimer(feedRetry)
	retry.Stop()
	defer retry.Stop()
	var last error
	for {
		select {
		case <-s.feedNow:
		case <-retry.C:
		case <-s.feedStop:
			return
		}
		err := s.feedWhenDue()
		if err != nil && !errors.Is(err, errEnding) {
			if last == nil {
				s.log.Warn("what is in the journal cannot be kept elsewhere yet", "err", err)
			}
			retry.Reset(feedRetry)
		}
		last = err
	}
}

func (s *Store) feedWhenDue() error {
	s.feeding <- struct{}{}
	defer func() { <-s.feeding }()
	if err := s.journal.Prepare(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for {
		runs, failed := s.journal.Sealed()
		if len(runs) < s.feedAt && !failed {
			return nil
		}
		if err := s.feed(runs[:min(s.feedAt, len(runs))]); err != nil {
			return err
		}
	}
}

// wakeFeeder has the feeder look at the journal, and see to the next file.
func (s *Store) wakeFeeder() {
	select {
	case s.feedNow <- struct{}{}:
	default:
	}
}

// feedAll keeps all in Badger that is in full files.
func (s *Store) feedAll() error {
	s.hurry.Add(1)
	defer s.hurry.Add(-1)
	s.feeding <- struct{}{}
	defer func() { <-s.feeding }()
	for {
		runs, _ := s.journal.Sealed()
		if len(runs) == 0 {
			return nil
		}
		if err := s.feed(runs[:min(s.feedAt, len(runs))]); err != nil {
			return err
		}
	}
}

// makeRoom returns when the journal has a file to go on in.
func (s *Store) makeRoom() error {
	s.hurry.Add(1)
	defer s.hurry.Add(-1)
	s.feeding <- struct{}{}
	defer func() { <-s.feeding }()
	if s.journal.Free() {
		return nil
	}
	runs, _ := s.journal.Sealed()
	return s.feed(runs[:min(1, len(runs))])
}

// feed keeps in Badger what is in runs, has it on disk, and releases them. It is
// called by whoever has s.feeding.
//
// The newest run is the first, so that of each key Badger is given one value, the
// last, and no more than one run and the keys are held in memory. Until all are
// released, what is in them counts for more than what Badger has.
func (s *Store) feed(runs []journal.Run) error {
	if err := s.room.check(); err != nil {
		return err
	}
	l := lasting{journal: s.journal, at: map[string]int{}}
	for _, r := range slices.Backward(runs) {
		some, err := l.of(r)
		if err != nil {
			return err
		}
		if err := s.feedRun(some); err != nil {
			return err
		}
	}
	if err := s.syncBadger(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return s.journal.Release(runs)
}

// feedRun gives Badger what is to be kept of one run.
func (s *Store) feedRun(some []kept) error {
	for len(some) > 0 {
		began := time.Now()
		n, err := s.feedSome(some)
		if err != nil {
			return err
		}
		some = some[n:]
		if err := s.rest(time.Since(began)); err != nil {
			return err
		}
	}
	return nil
}

// kept is what Badger is given of one key.
type kept struct {
	key, value []byte // value is nil if it was removed
}

// lasting finds what is to be kept of runs, which it is given one by one, the newest
// first: the last value of each key.
type lasting struct {
	journal *journal.Journal
	// at are the keys seen so far, and where in the order in which they were; those of
	// the run that is being read begin at first.
	at    map[string]int
	first int
	// What follows is used again for each run.
	some  []kept
	bytes []byte
}

// of is what is to be kept of r, in the order of the keys: tables are made of
// neighbours. It is good until the next run is read.
func (l *lasting) of(r journal.Run) ([]kept, error) {
	l.first, l.some = len(l.at), l.some[:0]
	take := func(key, value []byte) {
		at, known := l.at[string(key)]
		switch {
		case !known:
			l.at[string(key)] = l.first + len(l.some)
			l.some = append(l.some, kept{key, value})
		case at >= l.first:
			l.some[at-l.first].value = value
		}
	}
	err := l.journal.Payloads(r, &l.bytes, func(payload []byte) error { return eachEntry(payload, take) })
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	slices.SortFunc(l.some, func(a, b kept) int { return bytes.Compare(a.key, b.key) })
	return l.some, nil
}

// feedSome gives Badger the first n of all, of which it keeps nothing else.
func (s *Store) feedSome(all []kept) (n int, err error) {
	if err := s.room.check(); err != nil {
		return 0, err
	}
	s.giving()
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	for size := 0; n < len(all) && size < feedBatch; n++ {
		key, value := all[n].key, all[n].value
		if value == nil {
			err = txn.Delete(key)
		} else {
			err = txn.Set(key, value)
		}
		if errors.Is(err, badger.ErrTxnTooBig) && n > 0 {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("store: key %.100q: %w", key, err)
		}
		size += len(key) + len(value)
	}
	if err := txn.Commit(); err != nil {
		return 0, fmt.Errorf("store: %w", err)
	}
	s.keepRoom(s.logs.allocate())
	return n, nil
}

// rest leaves the disk and the processors to others for as long as they have been
// used, unless somebody waits for what is being done.
func (s *Store) rest(took time.Duration) error {
	select {
	case <-s.feedStop:
		return errEnding
	default:
	}
	if s.hurry.Load() > 0 || !s.journal.Free() && s.journal.Crowded() {
		return nil
	}
	pause := time.NewTimer(took)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-s.feedStop:
		return errEnding
	}
}

// syncBadger returns when all that Badger was given is on disk. It has files open
// that its own Sync does not look at: those that it writes no more, and has not
// made tables of yet.
func (s *Store) syncBadger() error {
	return errors.Join(s.db.Sync(), s.logs.sync())
}

// settle has in Badger all that was Put before it.
func (s *Store) settle() error {
	if s.journal.Bytes() == 0 {
		return nil
	}
	sealed := make(chan error, 1)
	s.queuePut(put{seal: true, done: func(err error) { sealed <- err }}, nil)
	if err := <-sealed; err != nil {
		return err
	}
	return s.feedAll()
}
