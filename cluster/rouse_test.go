package cluster_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hereis/cluster"
	"hereis/messages"
)

// A node at which nothing happens is told the time once a second; one at which
// something does, every 10 ms, from the next 10 ms on.
func TestTicksPauseWhenNothingHappens(t *testing.T) {
	bubble(t, 3, func(ctx context.Context, nodes []*cluster.Node) {
		time.Sleep(30 * time.Second) // what the start has left goes by
		quiet := func() {
			t.Helper()
			for _, n := range nodes {
				before := n.Ticks()
				time.Sleep(20 * time.Second)
				// One a second, and a few more when digests are compared.
				if got := n.Ticks() - before; got < 19 || got > 60 {
					t.Errorf("%s: %d ticks in 20 quiet seconds", n.Name(), got)
				}
			}
		}
		quiet()
		before := make(map[string]uint64)
		for _, n := range nodes {
			before[n.Name()] = n.Ticks()
		}
		time.Sleep(333 * time.Millisecond)
		if err := registerAt(ctx, nodes[0], "sip:alice@example.com", "x", 60); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
		synctest.Wait()
		for _, n := range nodes {
			// What has been worked with is packed again by the next tick.
			if got := n.Ticks() - before[n.Name()]; n.Tables().AoRs > 0 && got == 0 {
				t.Errorf("%s: no tick in the 30 ms after a registration", n.Name())
			}
		}
		own := func() int { return nodes[0].Own(messages.LeaseKind_LEASE_KIND_BINDING)["sip:alice@example.com"] }
		if own() != 1 {
			t.Error("no registration")
		}
		time.Sleep(61 * time.Second)
		if own() != 0 {
			t.Error("a registration outlives its time")
		}
		time.Sleep(5 * time.Minute) // and its tombstone
		quiet()
	})
}
