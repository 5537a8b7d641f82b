package store

import "time"

// mostGather bounds how long a Put waits for company, beside the half of a
// write that bounds it too.
const mostGather = 2 * time.Millisecond

// pace follows a group of n that took so long to write: the next one is written
// when want wait, and after wait in any case.
//
// While a group is written, others gather of themselves. But those who waited for
// it come again together, and a group that begins with the first of them would
// have the rest wait for one more: two small groups take turns where one large
// one would do. So a group waits for as many as were in the one before it, at most
// half as long as that took. Who comes alone never waits.
func pace(n int, took time.Duration) (want int, wait time.Duration) {
	return max(n, 1), min(took/2, mostGather)
}
