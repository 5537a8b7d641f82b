package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What the garbage collector may waste. Go's own default lets the heap double
// between collections: with a small heap that is a collection every few
// thousand requests, and with a large one a node of twice the size. But a
// collection costs what there is to scan, and of what a node keeps of its users
// nearly nothing is: so it need not wait for longer because they are many.
const (
	// gcRoom is how many bytes a node may allocate at least between two
	// collections. It may allocate more if there is more than that to scan.
	gcRoom = 128 << 20
	// gcLeast and gcMost bound the percentage (GOGC) that comes of it.
	gcLeast, gcMost = 5, 1600
	// gcLook is how often the live heap is looked at.
	gcLook = 2 * time.Second
)

// paceGC keeps the distance between collections in step with the live heap
// until ctx ends. It belongs to the process, not to the node in it, and leaves
// everything alone where the operator has set GOGC.
func paceGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	before := debug.SetGCPercent(gcMost)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(gcLook)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	percent := gcMost
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if next := gcPercent(sample[0].Value.Uint64(), sample[1].Value.Uint64()); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
	}
}

// gcPercent is the room between two collections as a percentage of the live
// heap, of which scan bytes are looked at, in coarse steps: each change of the
// percentage stops the world for a moment.
func gcPercent(live, scan uint64) int {
	if live == 0 {
		return gcMost
	}
	percent := int(min(uint64(gcMost), max(gcRoom, scan)*100/live))
	if percent >= 100 {
		return percent / 25 * 25
	}
	return max(gcLeast, percent/gcLeast*gcLeast)
}
