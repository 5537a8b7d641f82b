package store

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Put keeps rec in the place of what is stored under its AoR; one that is
// empty removes it. done is called once rec is as durable as the level says, or
// with the reason why it is not, from the store's goroutine and never before
// Put returns; it must not block. Nothing of rec is kept.
func (s *Store) Put(rec *messages.Record, done func(error)) {
	p := put{key: recordKey(rec.Aor), value: rec, done: done}
	if rec.Empty() {
		p.value = nil
	} else if s.Keeps() {
		p.bytes, p.err = proto.Marshal(rec)
	}
	s.queuePut(p)
}

// PutSubscription keeps sub in the place of what is stored under its id; done is as in Put.
func (s *Store) PutSubscription(sub *messages.Subscription, done func(error)) {
	s.queuePut(put{key: subscriptionKey(sub.Id), value: sub, done: done})
}

// DropSubscription forgets a subscription; done is as in Put.
func (s *Store) DropSubscription(id uint64, done func(error)) {
	s.queuePut(put{key: subscriptionKey(id), done: done})
}

func (s *Store) queuePut(p put) {
	done := p.done
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		go done(ErrClosed) // the caller may hold a lock that done takes
		return
	case len(s.queue) >= s.cfg.Queue:
		s.refused = append(s.refused, done)
		s.busy.Add(1)
	default:
		s.queue = append(s.queue, p)
	}
	enough := s.enough()
	s.mu.Unlock()
	if enough {
		s.wakeWriter()
	}
}

func (s *Store) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Keeps tells whether Put keeps anything (Level).
func (s *Store) Keeps() bool { return s.cfg.Level != Memory }

// Err is what keeps the store from writing, or nil. It is cleared by the first
// write that succeeds: one is tried every second.
func (s *Store) Err() error {
	if p := s.err.Load(); p != nil {
		return *p
	}
	return nil
}

// writeLoop takes all Puts that wait and writes them as one group, so that the
// slower the disk, the more of them share an fsync.
func (s *Store) writeLoop() {
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	gather := time.NewTimer(mostGather)
	defer gather.Stop()
	var spare []put
	for closing := false; !closing; {
		select {
		case <-s.wake:
		case <-gather.C:
		case <-probe.C:
			if s.Err() != nil {
				s.note(s.write(probeKey(), &messages.NodeState{}))
			} else if err := s.room.check(); err != nil {
				s.note(err) // whoever looks at the node's health need not wait for a write
			}
			continue
		case <-s.closing:
			closing = true
		}
		s.mu.Lock()
		group, refused := s.queue, s.refused
		s.queue, s.refused = spare[:0], nil
		s.want = math.MaxInt // the writer looks by itself when it has written
		select {
		case <-s.wake: // what it told of is in the group
		default:
		}
		s.mu.Unlock()
		for _, done := range refused {
			done(ErrBusy)
		}
		n := len(group)
		took := s.writeGroup(group)
		clear(group)
		spare = group
		want, wait := pace(n, took)
		if want > 1 {
			gather.Reset(wait)
		} else {
			gather.Stop()
		}
		s.await(want)
	}
}

// await has the writer woken when want Puts wait.
func (s *Store) await(want int) {
	s.mu.Lock()
	s.want = want
	enough := s.enough()
	s.mu.Unlock()
	if enough {
		s.wakeWriter()
	}
}

// enough tells whether the writer is to be woken. mu is held.
func (s *Store) enough() bool { return len(s.queue) >= s.want || len(s.refused) > 0 }

// writeGroup writes a group and tells of it; it returns how long the writing took.
func (s *Store) writeGroup(group []put) (took time.Duration) {
	if s.Keeps() {
		group = encoded(group)
	}
	if len(group) == 0 {
		return 0
	}
	var err error
	if s.Keeps() {
		began := time.Now()
		err = s.commit(group)
		took = time.Since(began)
		s.note(err)
		if err == nil {
			s.keepRoom(s.logs.allocate())
		}
	}
	s.groups.Add(1)
	s.puts.Add(uint64(len(group)))
	s.cfg.Together(func() {
		for _, p := range group {
			p.done(err)
		}
	})
	return took
}

// encoded are the Puts of a group that can be written, in their order. One that
// cannot fails alone: nothing is wrong with the disk, nor with its neighbours.
func encoded(group []put) []put {
	fit := group[:0]
	for _, p := range group {
		if p.value != nil {
			err := p.err
			if err == nil && p.bytes == nil {
				p.bytes, err = proto.Marshal(p.value)
			}
			if err == nil && (len(p.key) > maxKey || len(p.bytes) > maxValue) {
				err = fmt.Errorf("%w: %d bytes under a key of %d", errTooLarge, len(p.bytes), len(p.key))
			}
			if err != nil {
				p.done(fmt.Errorf("store: key %.100q: %w", p.key, err))
				continue
			}
		}
		fit = append(fit, p)
	}
	return fit
}

// watchRoom sees to the reserve, whatever the writer is doing.
func (s *Store) watchRoom() {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.keepRoom(s.room.look())
		case <-s.closing:
			return
		}
	}
}

// keepRoom tells of a precaution that could not be taken. It is no failure to write.
func (s *Store) keepRoom(err error) {
	if err != nil {
		s.log.Debug("no room could be kept on the disk", "err", err)
	}
}

// note keeps the state of the disk as the last write found it.
func (s *Store) note(err error) {
	was := s.Err()
	switch {
	case err == nil && was != nil:
		s.err.Store(nil)
		s.log.Info("the disk takes writes again")
	case err != nil && was == nil:
		s.log.Error("the disk takes no writes", "err", err)
		fallthrough
	case err != nil:
		s.err.Store(&err)
	}
}

// commitGroup writes a group in one transaction, or a few if it is large. Of
// Puts of one key the last one counts.
func (s *Store) commitGroup(group []put) error {
	if err := s.room.check(); err != nil {
		return err
	}
	txn := s.db.NewTransaction(true)
	defer func() { txn.Discard() }()
	for _, p := range group {
		err := set(txn, p)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err := txn.Commit(); err != nil {
				return fmt.Errorf("store: %w", err)
			}
			txn = s.db.NewTransaction(true)
			err = set(txn, p)
		}
		if err != nil {
			return fmt.Errorf("store: key %q: %w", p.key, err)
		}
	}
	if err := txn.Commit(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func set(txn *badger.Txn, p put) error {
	if p.value == nil {
		return txn.Delete(p.key)
	}
	return txn.Set(p.key, p.bytes)
}
