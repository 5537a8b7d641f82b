package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hereis/bench/sipmsg"
)

const (
	// The longest that an endpoint reads without looking at its timers and the clock.
	tick = 20 * time.Millisecond
	// A start this much after it was due is counted as late.
	lateStart = 10 * time.Millisecond
)

// endpoint is one socket (or listener with its connections), the units that it
// asks and the calls that it answers. One goroutine owns it: it reads, fires
// timers and starts units in turn, so that nothing in here is locked.
type endpoint struct {
	cfg   *Config
	index int // among those of all processes
	line  line
	addr  string // of the line, as text
	// device makes what is written next come from a user's own address; nil: all have the line's.
	device func(user uint64)
	units  []unit
	free   []int
	live   int // units under way
	// later are units that a server told to come again (503 with Retry-After).
	later agenda[postponement]
	work  *work
	timer agenda[event]
	calls map[string]*answered
	// watching has the slot of the unit that waits for a NOTIFY of a user.
	watching map[uint64]int
	phase    *Phase
	tally    *tally
	msg      sipmsg.Message
	out      sipmsg.Builder
	// next is the number of units begun of this endpoint's share; seen, how many users it has.
	next, seen uint64
	// idle: the scenario had nothing to start when it was last asked.
	idle bool
}

func newEndpoint(cfg *Config, index int, t *tally) (*endpoint, error) {
	var l line
	var err error
	var device func(uint64)
	switch {
	case cfg.Transport == TCP:
		l, err = newTCPLine(cfg.Bind)
	case cfg.Devices:
		var udp *udpLine
		if udp, err = newUDPLine(netip.IPv4Unspecified()); err == nil {
			l, device = udp, udp.from
		}
	default:
		l, err = newUDPLine(cfg.Bind)
	}
	if err != nil {
		return nil, err
	}
	return &endpoint{
		cfg: cfg, index: cfg.Worker*cfg.Sockets + index, line: l, device: device, addr: l.local().String(),
		calls: map[string]*answered{}, watching: map[uint64]int{}, phase: newPhase(""), tally: t,
	}, nil
}

// work is what endpoints have to do together in one phase.
type work struct {
	scenario scenario
	// endpoints share the units and the users evenly: endpoint i takes users i, i+n, i+2n...
	endpoints int
	requests  uint64 // 0: no limit
	start     time.Time
	end       time.Time // zero: none
	rate      float64   // of all endpoints; 0: closed loop
	slots     int
	burst     bool // everything is due at the start
	// main tells that this work is what is measured: progress counts it.
	main bool
	// stopped ends the work beside a main one.
	stopped atomic.Bool
	// begun is the number of units that have been started.
	begun atomic.Uint64
}

// begin takes on a phase's work, or none; what is counted from now on is in a new Phase.
func (e *endpoint) begin(w *work) {
	e.work, e.phase = w, newPhase("")
	if w == nil {
		return
	}
	e.next = 0
	e.seen = share(e.cfg.Users, e.index, w.endpoints)
	if len(e.units) < w.slots {
		e.units = slices.Grow(e.units, w.slots-len(e.units))[:w.slots]
	}
	e.free = e.free[:0]
	for i := range w.slots {
		e.free = append(e.free, i)
	}
}

// share is how many of 0..total-1 are index modulo n.
func share(total uint64, index, n int) uint64 {
	return (total + uint64(n) - 1 - uint64(index)) / uint64(n)
}

// run works, calls done when the endpoint's share is done (at once without
// work), and goes on to answer until ctx ends.
func (e *endpoint) run(ctx context.Context, done func()) error {
	done = sync.OnceFunc(done)
	defer done()
	defer e.line.flush()
	for ctx.Err() == nil {
		now := time.Now()
		e.fire(now)
		wake := e.startDue(now)
		if e.work == nil || e.live == 0 && e.later.len() == 0 && e.exhausted(now) {
			done()
		}
		// Read what there is before looking at timers again.
		for range 64 {
			b, from, err := e.line.read(wake)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			e.receive(b, from)
			if e.work != nil && e.work.rate == 0 && len(e.free) > 0 && !e.idle {
				break
			}
		}
	}
	return nil
}

// exhausted tells that no unit of this endpoint's share is left to start.
func (e *endpoint) exhausted(now time.Time) bool {
	w := e.work
	return w.stopped.Load() || e.seen == 0 || w.requests > 0 && e.next >= share(w.requests, e.index, w.endpoints) || !w.end.IsZero() && !now.Before(w.end)
}

// startDue starts the units that are due and for which there is room, and says
// when to look again.
func (e *endpoint) startDue(now time.Time) (wake time.Time) {
	wake = now.Add(tick)
	if e.work == nil {
		return wake
	}
	for len(e.free) > 0 && e.later.due(now) {
		e.resume(e.later.take())
	}
	if e.later.len() > 0 && len(e.free) > 0 { // without a slot, an answer is what to wait for
		wake = earlier(wake, e.later.next())
	}
	for e.idle = false; len(e.free) > 0 && !e.exhausted(now); {
		if e.idle = !e.work.scenario.ready(e); e.idle {
			return earlier(wake, now.Add(time.Millisecond))
		}
		due := e.due(now)
		if due.After(now) {
			return earlier(wake, due)
		}
		if e.work.rate > 0 && now.Sub(due) > lateStart {
			e.phase.Late++
		}
		e.start(due)
		now = time.Now()
	}
	return wake
}

// due is when the endpoint's next unit should start.
func (e *endpoint) due(now time.Time) time.Time {
	switch {
	case e.work.burst:
		return e.work.start
	case e.work.rate <= 0:
		return now
	}
	// Endpoint i of n starts its j-th unit at (j*n+i)/rate.
	nth := float64(e.next)*float64(e.work.endpoints) + float64(e.index)
	return e.work.start.Add(time.Duration(nth / e.work.rate * float64(time.Second)))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// start begins the endpoint's next unit.
func (e *endpoint) start(due time.Time) {
	u := e.take()
	u.due = due
	mine := e.next % e.seen
	u.user = e.cfg.First + uint64(e.index) + uint64(e.work.endpoints)*mine
	u.round = e.next / e.seen
	u.nth = e.next*uint64(e.work.endpoints) + uint64(e.index)
	e.next++
	e.work.begun.Add(1)
	e.work.scenario.begin(e, u)
}

// take readies a free slot for a unit.
func (e *endpoint) take() *unit {
	slot := e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	e.live++
	u := &e.units[slot]
	u.gen++
	u.slot, u.step, u.tx, u.busy = slot, 0, 0, true
	u.auth, u.etag, u.answered, u.notified, u.ack, u.ackTx = "", "", 0, false, u.ack[:0], 0
	return u
}

// end ends a unit under a code; what it measured is recorded by the scenario.
func (e *endpoint) end(u *unit, ok bool, code string) {
	e.phase.Codes[code]++
	if b := e.bucket(u); b != nil && ok {
		b.OK++
	} else if b != nil {
		b.Failed++
	}
	if ok {
		e.phase.OK++
		if e.work.main {
			e.tally.ok.Add(1)
		}
	} else {
		e.phase.Failed++
		if e.work.main {
			e.tally.failed.Add(1)
		}
	}
	u.busy, u.waiting = false, false
	e.live--
	e.free = append(e.free, u.slot)
}

func (e *endpoint) write(b []byte, to netip.AddrPort) { e.line.write(b, to) }

// receive takes in one message.
func (e *endpoint) receive(b []byte, from netip.AddrPort) {
	if len(b) <= 4 { // keep-alive (RFC 5626 3.5.1)
		return
	}
	if err := e.msg.Scan(b); err != nil {
		e.phase.Codes["invalid: "+err.Error()]++
		return
	}
	if e.msg.Status == 0 {
		e.answer(&e.msg, from)
		return
	}
	e.response(&e.msg, time.Now())
}
