package transaction

import (
	"testing"
	"time"
)

// 4.1: no 100 before a client's timer E is T2, and one by then, whatever the
// transport; a repeat gets it again, and the final answer after it.
func TestRFC4320_4_1_A100WhenTimerEIsT2(t *testing.T) {
	for _, reliable := range []bool{false, true} {
		bubble(t, nil, func(r *rig) {
			r.flow.reliable = reliable
			r.receive("MESSAGE", branch)
			r.wait(3490 * time.Millisecond)
			r.sent()
			r.wait(20 * time.Millisecond)
			r.sent("3.5 100")
			r.wait(490 * time.Millisecond)
			r.receive("MESSAGE", branch)
			r.sent("4 100")
			if err := r.respond(r.tx(), 200); err != nil {
				t.Fatal(err)
			}
			r.wait(30 * time.Second)
			r.sent("4 200")
			r.heard("request MESSAGE")
		})
	}
}

// 4.1: what has been answered gets no 100, nor does what its user has sent one for.
func TestRFC4320_4_1_No100AfterAnAnswer(t *testing.T) {
	for _, status := range []int{100, 200} {
		bubble(t, nil, func(r *rig) {
			r.receive("MESSAGE", branch)
			r.wait(time.Second)
			if err := r.respond(r.tx(), status); err != nil {
				t.Fatal(err)
			}
			r.flow.take()
			r.wait(10 * time.Second)
			r.sent()
		})
	}
}

// The time follows the timers: with T1 = 1 s and T2 = 4 s, E is T2 after 3 s.
func TestRFC4320_4_1_TheTimeFollowsTheTimers(t *testing.T) {
	bubble(t, func(c *Config) { c.T1 = time.Second }, func(r *rig) {
		r.receive("MESSAGE", branch)
		r.wait(3500 * time.Millisecond)
		r.sent("3 100")
	})
}
