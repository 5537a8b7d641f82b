package cluster

import (
	"testing"

	"hereis/messages"
)

func TestRule9_StampsRiseWhateverTheClockDoes(t *testing.T) {
	h := &hlc{incarnation: 7}
	last := &messages.Stamp{}
	for _, now := range []int64{100, 100, 50, 101, 10, 500} {
		s := h.next(now)
		if s.Compare(last) <= 0 {
			t.Errorf("at %d: %v is not above %v", now, s, last)
		}
		last = s
	}
	h.raise(1000)
	if s := h.next(501); s.Ms <= 1000 {
		t.Errorf("after raising to 1000: %v", s)
	}
}

func TestRule9_AStampFarAheadDoesNotDragTheClock(t *testing.T) {
	h := &hlc{}
	h.observe(&messages.Record{Leases: []*messages.Lease{{Stamp: &messages.Stamp{Ms: 1_000_000}}}}, 100)
	if s := h.next(101); s.Ms != 101 {
		t.Errorf("got %v, want 101", s)
	}
}

func TestRule9_ObservingItsOwnStampsDoesNotMoveTheClock(t *testing.T) {
	h := &hlc{}
	for range 10_000 {
		s := h.next(100)
		h.observe(&messages.Record{Leases: []*messages.Lease{{Stamp: s}}}, 100)
	}
	if s := h.next(101); s.Ms != 101 {
		t.Errorf("got %v, want 101", s)
	}
}
