package store

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/cluster/store/journal"
	"hereis/messages"
)

// Put keeps rec in the place of what is stored under its AoR; one that is
// empty removes it. done is called once rec is as durable as the level says, or
// with the reason why it is not, from the store's goroutine and never before
// Put returns; it must not block. Puts of one key take effect in their order.
//
// Nothing of rec is kept: it is the caller's again when Put returns, and what is
// written is what it was then.
func (s *Store) Put(rec *messages.Record, done func(error)) {
	var value proto.Message
	if !rec.Empty() {
		value = rec
	}
	e := s.entries.get()
	e.b = append(append(beginEntry(e.b), prefixRecord), rec.Aor...)
	s.putEntry(e, value, done)
}

// PutSubscription keeps sub in the place of what is stored under its id; done and
// sub are as in Put.
func (s *Store) PutSubscription(sub *messages.Subscription, done func(error)) {
	e := s.entries.get()
	e.b = appendSubscriptionKey(beginEntry(e.b), sub.Id)
	s.putEntry(e, sub, done)
}

// DropSubscription forgets a subscription; done is as in Put.
func (s *Store) DropSubscription(id uint64, done func(error)) {
	e := s.entries.get()
	e.b = appendSubscriptionKey(beginEntry(e.b), id)
	s.putEntry(e, nil, done)
}

// putEntry ends an entry that has its key, and queues it.
func (s *Store) putEntry(e *entryBuffer, value proto.Message, done func(error)) {
	p := put{done: done}
	if s.Keeps() {
		e.b, p.err = endEntry(e.b, value)
		s.queuePut(p, e.b)
	} else {
		s.queuePut(p, nil)
	}
	s.entries.put(e)
}

// queuePut has p wait for the next group, and entry with it.
func (s *Store) queuePut(p put, entry []byte) {
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		go p.done(ErrClosed) // the caller may hold a lock that done takes
		return
	case p.err != nil:
		s.refused = append(s.refused, p)
	case len(s.waiting.puts) >= s.cfg.Queue:
		p.err = ErrBusy
		s.refused = append(s.refused, p)
		s.busy.Add(1)
	default:
		s.waiting.add(p, entry)
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
	var spare group
	for closing := false; !closing; {
		select {
		case <-s.wake:
		case <-gather.C:
		case <-probe.C:
			s.probe()
			continue
		case <-s.closing:
			closing = true
		}
		s.mu.Lock()
		g, refused := s.waiting, s.refused
		s.waiting, s.refused = spare, nil
		s.want = math.MaxInt // the writer looks by itself when it has written
		select {
		case <-s.wake: // what it told of is in the group
		default:
		}
		s.mu.Unlock()
		for _, p := range refused {
			p.done(p.err)
		}
		n := len(g.puts)
		took := s.writeGroup(g)
		spare = g.emptied()
		want, wait := pace(n, took, s.cfg.Level)
		if want > 1 {
			gather.Reset(wait)
		} else {
			gather.Stop()
		}
		s.await(want)
	}
}

// probe tries a write when the last one failed.
func (s *Store) probe() {
	switch {
	case s.Err() == nil:
		if err := s.room.check(); err != nil {
			s.note(err) // whoever looks at the node's health need not wait for a write
		}
	case !s.Keeps():
		s.note(s.write(probeKey(), &messages.NodeState{}))
	default:
		entry, err := endEntry(append(beginEntry(nil), probeKey()...), &messages.NodeState{})
		if err == nil {
			var g group
			g.add(put{}, entry)
			err = errors.Join(s.room.check(), s.commitGroup(g))
		}
		s.note(err)
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
func (s *Store) enough() bool { return len(s.waiting.puts) >= s.want || len(s.refused) > 0 }

// writeGroup writes a group and tells of it; it returns how long the writing took.
func (s *Store) writeGroup(g group) (took time.Duration) {
	if len(g.puts) == 0 {
		return 0
	}
	var err error
	if s.Keeps() {
		began := time.Now()
		err = s.commit(g)
		took = time.Since(began)
		s.note(err)
	}
	s.groups.Add(1)
	s.puts.Add(uint64(len(g.puts)))
	s.cfg.Together(func() {
		for _, p := range g.puts {
			if p.seal {
				s.journal.Seal()
			}
			p.done(err)
		}
	})
	return took
}

// watchRoom sees to the reserve, whatever the writer is doing: often while Badger
// may be writing tables by itself.
func (s *Store) watchRoom() {
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.keepRoom(s.room.look())
		case <-s.lookNow:
			s.keepRoom(s.room.look())
		case <-s.closing:
			return
		}
		if s.tablesUnderWay() {
			look.Reset(lookEvery)
		} else {
			look.Reset(lookIdle)
		}
	}
}

// giving is called before Badger is given anything.
func (s *Store) giving() {
	if !s.tablesUnderWay() {
		select {
		case s.lookNow <- struct{}{}:
		default:
		}
	}
	s.given.Store(time.Now().UnixNano())
}

// tablesUnderWay tells whether Badger was given anything so lately that it may not
// have come to rest.
func (s *Store) tablesUnderWay() bool {
	return time.Since(time.Unix(0, s.given.Load())) < badgerRests
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

// commitGroup writes a group by one Append to the journal, or a few if it is large.
func (s *Store) commitGroup(g group) error {
	if err := s.room.forGroup(); err != nil {
		return err
	}
	for len(g.puts) > 0 {
		n, end := 0, 0
		for ; n < len(g.puts) && g.puts[n].end <= journal.Head+journal.MaxPayload; n++ {
			end = g.puts[n].end
		}
		if err := s.append(g.bytes[:end]); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		// The next header is written where the entries before it have been.
		g = g.from(n, end-journal.Head)
	}
	return nil
}

// append is an Append that waits until the journal has room.
func (s *Store) append(b []byte) error {
	defer func() {
		if s.journal.Low() || s.journal.Due(s.feedAt) {
			s.wakeFeeder()
		}
	}()
	for {
		if len(b) <= journal.Head {
			return nil
		}
		err := s.journal.Append(b)
		if !errors.Is(err, journal.ErrFull) {
			return err
		}
		if err := s.makeRoom(); err != nil {
			return err
		}
	}
}
