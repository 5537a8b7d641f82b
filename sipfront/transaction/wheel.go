package transaction

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// wheelTick is how late a timer may fire.
	wheelTick = 10 * time.Millisecond
	// wheelSlots ticks are 41 s: with the usual T1 every timer fits in one turn.
	// One that does not is passed over until its turn comes.
	wheelSlots = 4096
)

// expirer is told that a time it asked for has come.
type expirer interface{ expire(now time.Duration) }

// timerNode is a transaction's place in a wheel; all but owner belongs to the wheel's lock.
type timerNode struct {
	owner      expirer
	prev, next *timerNode
	tick       int64 // 0 if not in the wheel
}

// wheel is a hashed timing wheel: arming and disarming are O(1), and a
// transaction with several timers stands in it once, for the earliest.
type wheel struct {
	// pause is woken when the first appointment is made; nil: nobody pauses.
	pause *pause

	mu    sync.Mutex
	n     int   // appointments
	now   int64 // the last tick that was served
	slots [wheelSlots]*timerNode
}

// arm asks for n.owner.expire at at or up to two ticks later. An earlier
// appointment of n is kept: waking too early is harmless and cheaper than moving.
func (w *wheel) arm(n *timerNode, at time.Duration) {
	tick := int64((at + wheelTick - 1) / wheelTick)
	w.mu.Lock()
	defer w.mu.Unlock()
	tick = max(tick, w.now+1)
	if n.tick != 0 {
		if n.tick <= tick {
			return
		}
		w.unlink(n)
	}
	w.n++
	n.tick = tick
	head := &w.slots[tick%wheelSlots]
	n.next = *head
	if n.next != nil {
		n.next.prev = n
	}
	*head = n
	w.pause.end()
}

func (w *wheel) disarm(n *timerNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.tick != 0 {
		w.unlink(n)
	}
}

func (w *wheel) unlink(n *timerNode) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		w.slots[n.tick%wheelSlots] = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.prev, n.next, n.tick = nil, nil, 0
	w.n--
}

// advance takes out every appointment up to now and appends the owners to due.
func (w *wheel) advance(now time.Duration, due []expirer) []expirer {
	target := int64(now / wheelTick)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == 0 {
		w.now = max(w.now, target)
		return due
	}
	// After a long pause one turn finds everything.
	for t := max(w.now+1, target-wheelSlots+1); t <= target; t++ {
		for n := w.slots[t%wheelSlots]; n != nil; {
			next := n.next
			if n.tick <= target {
				w.unlink(n)
				due = append(due, n.owner)
			}
			n = next
		}
	}
	w.now = max(w.now, target)
	return due
}

// idle tells whether there is no appointment.
func (w *wheel) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n == 0
}

const (
	// answersTick is how late an answer may be forgotten while no timer runs, and
	// idleTick how soon it is seen that there are any.
	answersTick = 100 * time.Millisecond
	idleTick    = time.Second
)

// pause is that of whoever turns the wheels: it sleeps longer while all of them
// are empty.
type pause struct {
	asleep atomic.Bool
	// over is kicked when an appointment has been made meanwhile; one slot, read by Run.
	over chan struct{}
}

// end ends the pause, if there is one: an appointment has been made.
func (p *pause) end() {
	if p == nil || !p.asleep.Load() || !p.asleep.CompareAndSwap(true, false) {
		return
	}
	select {
	case p.over <- struct{}{}:
	default:
	}
}

// rest is how long the wheels need not be turned. When it is more than wheelTick,
// the first appointment ends the pause.
func (l *Layer) rest() time.Duration {
	// Said before the wheels are looked at: who makes an appointment after that sees it.
	l.pause.asleep.Store(true)
	wait := idleTick
	for i := range l.shards {
		s := &l.shards[i]
		if !s.wheel.idle() {
			l.pause.asleep.Store(false)
			return wheelTick
		}
		s.mu.Lock()
		if s.answers.any() {
			wait = answersTick
		}
		s.mu.Unlock()
	}
	return wait
}
