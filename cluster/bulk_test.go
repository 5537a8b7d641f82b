package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// What did not fit into a message is sent first in the next, also if all had
// been taken and others came meanwhile.
func TestBulkQueueKeepsItsOrder(t *testing.T) {
	var q bulkQueue
	var want []string
	add := func(n int) {
		for range n {
			aor := fmt.Sprintf("sip:u%d@example.com", len(want))
			want = append(want, aor)
			q.push(aor)
		}
	}
	add(3*bulkChunk + 10)
	var got []string
	for round := 0; q.waiting() > 0; round++ {
		batch, aors := q.take(int64(round), 4)
		fit := min(len(aors), 100+round)
		if round%3 == 0 && round < 30 {
			add(round)
		}
		got = append(got, aors[:fit]...)
		q.untake(batch, aors[fit:], true)
		q.acked(batch)
		if len(got)+q.waiting() != len(want) {
			t.Fatalf("round %d: %d sent and %d wait, want %d together", round, len(got), q.waiting(), len(want))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("sent in another order than queued")
	}
	if q.aors != nil || q.first != 0 {
		t.Errorf("an empty queue keeps room for %d", cap(q.aors))
	}
}

// A message costs what is in it, however many wait behind.
func TestBulkQueueDoesNotMoveWhatWaits(t *testing.T) {
	cost := func(n int) float64 {
		q := bulkQueue{}
		for range n {
			q.push("sip:u@example.com")
		}
		return float64(testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				batch, aors := q.take(0, 4)
				q.untake(batch, aors, false)
			}
		}).AllocedBytesPerOp())
	}
	if few, many := cost(2*bulkChunk), cost(1000*bulkChunk); many > 2*few {
		t.Errorf("%v bytes for a message with %d waiting, %v with %d", many, 1000*bulkChunk, few, 2*bulkChunk)
	}
}
