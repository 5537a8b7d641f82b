package transaction

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// late is an owner that tells when it was woken.
type late struct {
	timerNode
	at chan time.Duration // one slot, for the one appointment
}

func (l *late) expire(now time.Duration) { l.at <- now }

// The wheels stand still while they are empty, and an appointment that is made
// then is kept like any other.
func TestWheelsRestWhileTheyAreEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(DefaultConfig(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for i, in := range []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond, 3 * time.Second, 50 * time.Second} {
			time.Sleep(7*time.Second + time.Duration(i)*123*time.Millisecond)
			synctest.Wait()
			if !l.pause.asleep.Load() {
				t.Fatal("the wheels turn, and are empty")
			}
			o := &late{at: make(chan time.Duration, 1)}
			o.owner = o
			want := l.now() + in
			l.shards[i].wheel.arm(&o.timerNode, want)
			if got := <-o.at; got < want || got > want+2*wheelTick {
				t.Errorf("woken at %v for %v", got, want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
