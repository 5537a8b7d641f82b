package cluster

import (
	"sync"

	"hereis/messages"
)

// hlc is the hybrid logical clock of a node: its stamps rise whatever the node
// time does (rules 1, 9).
type hlc struct {
	incarnation uint64

	mu      sync.Mutex
	ms      int64
	counter uint32
}

// next makes a stamp above every one that this clock has made or been raised to.
func (h *hlc) next(now int64) *messages.Stamp {
	s := &messages.Stamp{}
	h.write(now, s)
	return s
}

// write is next, into s.
func (h *hlc) write(now int64, s *messages.Stamp) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now > h.ms {
		h.ms, h.counter = now, 0
	} else {
		h.counter++
	}
	s.Ms, s.Counter, s.Incarnation = h.ms, h.counter, h.incarnation
}

// raise makes every later stamp be of ms or above it, and above all stamps of that ms.
func (h *hlc) raise(ms int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ms >= h.ms {
		h.ms, h.counter = ms+1, 0
	}
}

// observe raises the clock to the stamps that a record carries; one further
// ahead than the skew bound is not believed.
func (h *hlc) observe(rec *messages.Record, now int64) {
	top := rec.GetFloor().GetStamp()
	for _, l := range rec.GetLeases() {
		if l.GetStamp().Compare(top) > 0 {
			top = l.Stamp
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch ms := top.GetMs(); {
	case ms > now+messages.SkewBoundMS || ms < h.ms:
	case ms > h.ms:
		h.ms, h.counter = ms, top.GetCounter()
	default:
		h.counter = max(h.counter, top.GetCounter())
	}
}
