package transport

import (
	"testing"
	"time"
)

// A queue is too long if all that is read from it has waited too long for a
// while: not after a pause of the process, not if one was read in time, and not
// for two that were late far apart.
func TestLatenessIsThatOfALongQueue(t *testing.T) {
	var l lateness
	now := time.Unix(1000, 0)
	see := func(waited time.Duration) bool {
		now = now.Add(time.Millisecond)
		return l.see(waited, now)
	}
	for i := range 100 {
		if see(time.Second) {
			t.Fatalf("late %d ms after a pause of the process", i)
		}
	}
	if see(lateAfter) || see(time.Second) {
		t.Error("late, though one was read in time just now")
	}
	for range 100 {
		see(lateAfter + time.Millisecond)
	}
	if !see(lateAfter + time.Millisecond) {
		t.Error("not late, though everything has been for 100 ms")
	}
	now = now.Add(time.Minute)
	if see(time.Second) {
		t.Error("late for one that was so a minute after the last")
	}
	if see(0) {
		t.Error("late without having waited")
	}
}
