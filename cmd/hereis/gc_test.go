package main

import "testing"

// TestGCPercent: a node collects every gcRoom bytes, however large it is, or
// when it has allocated as much as there is to scan.
func TestGCPercent(t *testing.T) {
	for _, row := range []struct {
		live, scan uint64
		want       int
	}{
		{0, 0, gcMost}, {1 << 20, 1 << 20, gcMost}, {16 << 20, 4 << 20, 800}, {64 << 20, 0, 200}, {100 << 20, 0, 125},
		{256 << 20, 100 << 20, 50}, {345 << 20, 40 << 20, 35}, {1 << 30, 64 << 20, 10}, {8 << 30, 64 << 20, gcLeast},
		{1 << 30, 600 << 20, 55}, {1 << 30, 1 << 30, 100},
	} {
		if got := gcPercent(row.live, row.scan); got != row.want {
			t.Errorf("%d bytes live, %d to scan: got %d, want %d", row.live, row.scan, got, row.want)
		}
	}
}
