package sipfront

import "time"

// timerF is how long the sender of a request other than INVITE waits (64*T1).
const timerF = 32 * time.Second

// start sets the timers of an attempt.
func (b *branch) start(w wayOut, n int) {
	cfg := &b.f.s.cfg
	if b.f.invite {
		b.timerC = time.AfterFunc(cfg.TimerC, func() { b.f.do(func() { b.fireC(n) }) })
	}
	if others := len(b.ways); others > 0 && !b.f.invite && !w.node {
		// RFC 3263 4.3 waits for timer F, with which the caller's ends too: each
		// server has its share of that time.
		b.timerHop = time.AfterFunc(timerF/time.Duration(others+1), func() { b.f.do(func() { b.fireShare(n) }) })
	}
	if w.node {
		wait := cfg.NodeHopOther
		if b.f.invite {
			wait = cfg.NodeHop
		}
		b.watchHop(n, wait)
	}
}

// hopLook is how often a node that has not answered is looked at: one that has
// died is not waited for.
const hopLook = 100 * time.Millisecond

// watchHop gives a node of ours some time for its first answer.
func (b *branch) watchHop(n int, left time.Duration) {
	wait := min(left, hopLook)
	b.timerHop = time.AfterFunc(wait, func() {
		b.f.do(func() {
			switch {
			case n != b.attempt || b.done || b.answered:
			case left <= wait || !b.f.s.parts.Cluster.Up(b.now.edge):
				b.fireHop(n)
			default:
				b.watchHop(n, left-wait)
			}
		})
	})
}

func (b *branch) stop() {
	for _, t := range []*time.Timer{b.timerC, b.timerHop} {
		if t != nil {
			t.Stop()
		}
	}
	b.timerC, b.timerHop = nil, nil
}

// fireC is Timer C (RFC 3261 16.8).
func (b *branch) fireC(n int) {
	if n != b.attempt || b.done || b.timedOut {
		return
	}
	b.timedOut = true
	if b.rung || b.answered {
		b.client.Cancel("")
		return
	}
	b.f.best.silent = true
	b.client.Terminate()
	b.finish()
}

// fireShare says that a server has not answered in its share of the time, and
// the next one has its turn.
func (b *branch) fireShare(n int) {
	if n != b.attempt || b.done || b.answered {
		return
	}
	b.client.Terminate()
	b.f.best.silent = true
	b.skipSpare()
	b.try()
}

// fireHop says that a node of ours has not answered in time (CONSISTENCY rule
// 17). An INVITE may have arrived all the same: it is cancelled as soon as the
// node says anything, and a 2xx that crosses is passed on.
func (b *branch) fireHop(n int) {
	if n != b.attempt || b.done || b.answered {
		return
	}
	if b.f.invite {
		b.client.Cancel("")
	} else {
		b.client.Terminate()
	}
	b.dead()
	b.skipSpare()
	b.try()
}
