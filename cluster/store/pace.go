package store

import "time"

const (
	// mostGather bounds how long a Put waits for company, beside the half of a
	// write that bounds it too.
	mostGather = 2 * time.Millisecond
	// crowd is how many Puts make a group for whose like it is worth waiting
	// crowdGather, however fast the disk is: what a group costs, a write, a few
	// system calls and who is woken for them, is a multiple of what a Put does.
	crowd       = 8
	crowdGather = 600 * time.Microsecond
)

// pace follows a group of n that took so long to write: the next one is written
// when want wait, and after wait in any case.
//
// While a group is written, others gather of themselves. But those who waited for
// it come again together, and a group that begins with the first of them would
// have the rest wait for one more: two small groups take turns where one large
// one would do. So a group waits for as many as were in the one before it, at most
// half as long as that took, or, where a group waits for the disk (level), crowdGather
// if they are many. Who comes alone never waits.
func pace(n int, took time.Duration, level Level) (want int, wait time.Duration) {
	wait = took / 2
	if n >= crowd && level == Sync {
		wait = max(wait, crowdGather)
	}
	return max(n, 1), min(wait, mostGather)
}
