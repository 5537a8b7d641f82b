package main

import "testing"

// TestGCPercent: a small node collects every gcRoom bytes, a large one before
// it has grown by a third.
func TestGCPercent(t *testing.T) {
	for _, row := range []struct {
		live uint64
		want int
	}{{0, gcMost}, {1 << 20, gcMost}, {16 << 20, 800}, {64 << 20, 200}, {100 << 20, 125}, {256 << 20, 50}, {8 << 30, gcLeast}} {
		if got := gcPercent(row.live); got != row.want {
			t.Errorf("%d bytes live: got %d, want %d", row.live, got, row.want)
		}
	}
}
