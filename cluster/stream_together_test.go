package cluster

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"hereis/messages"
)

// quietStreams are two nodes whose streams send nothing of their own while a test runs.
func quietStreams(t *testing.T, change func(*StreamConfig), atB func(*messages.Envelope)) (a, b *streamNode) {
	t.Helper()
	quiet := func(c *StreamConfig) {
		c.RideDelay, c.Heartbeat, c.Timeout = time.Hour, time.Hour, time.Minute
		if change != nil {
			change(c)
		}
	}
	a, b = startStreams(t, "a", 1, quiet), startStreams(t, "b", 2, quiet)
	b.failing(atB)
	a.SetMembers([]Member{b.member}) // one dials, so that there is one connection
	eventually(t, "both up", func() bool { return a.up("b") && b.up("a") })
	eventually(t, "nothing is under way", func() bool {
		return a.Stats().ReceivedFrames == 2 && b.Stats().ReceivedFrames == 2 // ping and pong
	})
	return a, b
}

func TestTogether_WhatABatchSendsIsOneWrite(t *testing.T) {
	a, b := quietStreams(t, nil, nil)
	before := a.Stats().Writes
	a.Begin()
	a.Begin()
	for i := range 50 {
		a.Send("b", note(i))
	}
	if n := a.Stats().Writes - before; n != 0 {
		t.Fatalf("%d writes in a batch", n)
	}
	a.End() // the first to be through sends what all have
	if n := a.Stats().Writes - before; n != 1 {
		t.Fatalf("%d writes at the end of a batch, want 1, before End returns", n)
	}
	a.End()
	eventually(t, "all arrived", func() bool { return len(b.envelopes()) == 50 })
	a.Send("b", note(50))
	eventually(t, "what is sent outside of one arrives", func() bool { return len(b.envelopes()) == 51 })
}

// What a socket has no room for is the writer's, and nothing overtakes it.
func TestTogether_APeerThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			hold := make(chan struct{}) // closed when b may go on
			a, b := quietStreams(t, func(c *StreamConfig) {
				c.QueueBytes = 64 << 20
				if secure {
					c.Keys = testKeys(t)
				}
			}, func(*messages.Envelope) { <-hold })
			release := sync.OnceFunc(func() { close(hold) })
			defer release()
			payload := make([]byte, 256<<10)
			const n = 100 // far more than the buffers of a loopback connection take
			for i := range n {
				a.Begin()
				env := note(i)
				env.Payload = payload
				if !a.Send("b", env) {
					t.Fatalf("%d has no room", i)
				}
				a.End()
			}
			release()
			eventually(t, "all arrived", func() bool { return len(b.envelopes()) == n })
			for i, env := range b.envelopes() {
				if env.Id != uint64(i) {
					t.Fatalf("got %d at %d", env.Id, i)
				}
			}
		})
	}
}

func TestTogether_NothingIsLostBetweenBatches(t *testing.T) {
	a, b := quietStreams(t, func(c *StreamConfig) { c.RideDelay = time.Millisecond }, nil)
	const each, n = 8, 2000
	var wg sync.WaitGroup
	for g := range each {
		wg.Go(func() {
			for i := range n {
				together := (i+g)%3 != 0
				if together {
					a.Begin()
				}
				if env := note(g*n + i); i%5 == 0 {
					a.Ride("b", env)
				} else {
					a.Send("b", env)
				}
				if together {
					a.End()
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all arrived", func() bool { return len(b.envelopes()) == each*n })
	next := make([]uint64, each)
	for _, env := range b.envelopes() {
		g := env.Id / n
		if env.Id%n != next[g] {
			t.Fatalf("%d came in place of %d", env.Id, g*n+next[g])
		}
		next[g]++
	}
}
