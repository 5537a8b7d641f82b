package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"hereis/cluster/store/journal"
)

const (
	// feedAt is how many files of the journal are full before Badger is given what is
	// in them: of a key that was written more than once it is given the last.
	feedAt = 4
	// feedBatch is about how many bytes Badger is given at a time.
	feedBatch = 512 << 10
	// feedRetry is how long it takes from a failure to the next try.
	feedRetry = time.Second
)

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
	for {
		runs, failed := s.journal.Sealed()
		if len(runs) < feedAt && !failed {
			return nil
		}
		if err := s.feed(runs[:min(feedAt, len(runs))]); err != nil {
			return err
		}
	}
}

// wakeFeeder has the feeder look at the journal.
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
		if err := s.feed(runs[:min(feedAt, len(runs))]); err != nil {
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
func (s *Store) feed(runs []journal.Run) error {
	if err := s.room.check(); err != nil {
		return err
	}
	all, err := s.lasting(runs)
	if err != nil {
		return err
	}
	for len(all) > 0 {
		began := time.Now()
		n, err := s.feedSome(all)
		if err != nil {
			return err
		}
		if all = all[n:]; len(all) == 0 {
			break
		}
		if err := s.rest(time.Since(began)); err != nil {
			return err
		}
	}
	if err := s.syncBadger(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return s.journal.Release(runs)
}

// kept is what Badger is given of one key.
type kept struct {
	key   string
	value []byte // nil if it was removed
	run   int    // of which run it is
}

// lasting is what is to be kept of runs: the last value of each key. They are in the
// order of the keys: tables are made of neighbours.
func (s *Store) lasting(runs []journal.Run) ([]kept, error) {
	var all []kept
	at := map[string]int{} // in all
	var scratch []byte
	for run, r := range slices.Backward(runs) { // so that no value is kept that is not the last
		older := len(all)
		take := func(key, value []byte) {
			i, ok := at[string(key)]
			switch {
			case !ok:
				k := string(key)
				at[k] = len(all)
				all = append(all, kept{k, value, run})
			case all[i].run == run:
				all[i].value = value
			}
		}
		err := s.journal.Payloads(r, &scratch, func(payload []byte) error { return eachEntry(payload, take) })
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		for i := range all[older:] { // the next run is read where they are
			all[older+i].value = bytes.Clone(all[older+i].value)
		}
	}
	slices.SortFunc(all, func(a, b kept) int { return strings.Compare(a.key, b.key) })
	return all, nil
}

// feedSome gives Badger the first n of all.
func (s *Store) feedSome(all []kept) (n int, err error) {
	if err := s.room.check(); err != nil {
		return 0, err
	}
	s.giving()
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	for size := 0; n < len(all) && size < feedBatch; n++ {
		key, value := []byte(all[n].key), all[n].value
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
