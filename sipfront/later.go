package sipfront

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// In a storm most REGISTERs are told to come later (pace.go), and what that costs
// decides how many are lost in front of the process. So one that is plain is
// refused as a server without state does it (RFC 3261 8.2.7): no transaction is
// kept and no answer, but a number and its appointment, without which a repeat
// would be given another.

const (
	// toldSlots and toldWays are how many of those that were told are remembered, in
	// sets of so many: about as many as a node refuses in the seconds in which most
	// repeats come. One that is forgotten has another appointment if it is repeated.
	toldSlots, toldWays = 1 << 17, 4
	// toldFor is how long one may be repeated (64*T1, RFC 3261 17.1.2.2).
	toldFor = 32 * time.Second
)

// told are the REGISTERs that were told when to come again.
type told struct {
	epoch time.Time
	// last is when the last of them was, in ms since epoch; 0: none was so far.
	last atomic.Int64

	mu    sync.Mutex
	slots []appointment // made for the first of them
}

// appointment is of one REGISTER: when it was told, and of when. Both are ms since
// the epoch, modulo 2^32.
type appointment struct {
	mark     uint64
	told, at uint32
}

func newTold(now time.Time) *told { return &told{epoch: now.Add(-toldFor)} }

func (t *told) ms(now time.Time) int64 { return now.Sub(t.epoch).Milliseconds() }

// any tells whether there can be repeats of those that were told.
func (t *told) any(now time.Time) bool {
	last := t.last.Load()
	return last != 0 && t.ms(now)-last < toldFor.Milliseconds()
}

// tell remembers that one was told to come again after a time, which it returns.
func (t *told) tell(mark uint64, wait time.Duration, now time.Time) time.Duration {
	ms := t.ms(now)
	t.last.Store(ms)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots == nil {
		t.slots = make([]appointment, toldSlots)
	}
	set := t.set(mark)
	oldest := &set[0]
	for i := range set {
		if a := &set[i]; a.mark == mark || uint32(ms)-a.told > uint32(ms)-oldest.told {
			if oldest = a; a.mark == mark {
				break
			}
		}
	}
	*oldest = appointment{mark, uint32(ms), uint32(ms + wait.Milliseconds())}
	return wait
}

// set is where a mark may be. mu is held.
func (t *told) set(mark uint64) []appointment {
	first := mark % (toldSlots / toldWays) * toldWays
	return t.slots[first : first+toldWays]
}

// of finds the appointment of one that is repeated, if it lies ahead: how long it
// is until then, and when it was told.
func (t *told) of(mark uint64, now time.Time) (wait time.Duration, since time.Time, ok bool) {
	ms := t.ms(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots == nil {
		return 0, since, false
	}
	set := t.set(mark)
	for i := range set {
		a := &set[i]
		ago, left := uint32(ms)-a.told, int32(a.at-uint32(ms))
		if a.mark == mark && time.Duration(ago)*time.Millisecond < toldFor && left > 0 {
			return time.Duration(left) * time.Millisecond, t.epoch.Add(time.Duration(ms-int64(ago)) * time.Millisecond), true
		}
	}
	return 0, since, false
}

// markOf is what a REGISTER is known by.
func (s *Server) markOf(x *plain) uint64 {
	if x.mark == 0 {
		x.mark = s.plain.Mark(x.branch, x.host, int(x.sentPort), x.req.method)
	}
	return x.mark
}

// toldLater sees to a REGISTER that repeats one that was told to come later: it is
// told the same. If it came to the socket before that, and the socket's queue is
// too long, it has crossed its answer and needs none.
func (s *Server) toldLater(x *plain, m *transport.Message, now time.Time) bool {
	if !s.told.any(now) {
		return false
	}
	wait, since, ok := s.told.of(s.markOf(x), now)
	if !ok {
		return false
	}
	s.count.pacedRepeats.Add(1)
	if m.Late && m.At.Before(since) {
		m.Spent = true
		return true
	}
	x.take(m)
	s.writeLater(x, m, wait)
	return true
}

// tellLater answers a REGISTER that is to come later, and is done with it.
func (s *Server) tellLater(x *plain, m *transport.Message, wait time.Duration) {
	s.count.answered(503)
	if s.parts.Observe != nil && !m.At.IsZero() {
		s.parts.Observe(x.req.method, time.Since(m.At))
	}
	s.writeLater(x, m, wait)
	s.release(&x.req)
}

// writeLater sends the 503, as refuse has it.
func (s *Server) writeLater(x *plain, m *transport.Message, wait time.Duration) {
	var tag [32]byte
	b := appendAnswerTo(x.room.answer[:0], &x.req, 503, "Service Unavailable", textOf(transaction.AppendTag(tag[:0], s.markOf(x))))
	b = append(b, "Retry-After: "...)
	b = append(strconv.AppendInt(b, int64((wait+time.Second-1)/time.Second), 10), "\r\n"...)
	b = s.endAnswer(b, 503)
	x.room.answer, m.Spent = b, true
	_ = transport.SendSoonCopy(m.Flow, b) // counted there; the client repeats
}
