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
// thousand requests, and with a large one a node of twice the size.
const (
	// gcRoom is how many bytes a node with little state may allocate between two collections.
	gcRoom = 128 << 20
	// gcLeast and gcMost bound the percentage (GOGC) that comes of it.
	gcLeast, gcMost = 50, 1600
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
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := gcMost
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if next := gcPercent(sample[0].Value.Uint64()); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
	}
}

// gcPercent is gcRoom as a percentage of the live heap, in coarse steps: each
// change of the percentage stops the world for a moment.
func gcPercent(live uint64) int {
	if live == 0 {
		return gcMost
	}
	percent := int(min(uint64(gcMost), gcRoom*100/live))
	return max(gcLeast, percent/25*25)
}
