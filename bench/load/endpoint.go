package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hereis/bench/sipmsg"
)

const (
	// The longest that an endpoint reads without looking at its timers and the clock.
	tick = 20 * time.Millisecond
	// A start this much after it was due is counted as late.
	lateStart  = 10 * time.Millisecond
	readBuffer = 4 << 20
)

// endpoint is one UDP socket with the units that it asks and the calls that
// it answers. One goroutine owns it: it reads, fires timers and starts units
// in turn, so that nothing in here is locked.
type endpoint struct {
	cfg   *Config
	index int
	conn  *net.UDPConn
	local netip.AddrPort
	addr  string // local, as text
	units []unit
	free  []int
	live  int // units under way
	work  *work
	timer timers
	calls map[string]*answered
	phase *Phase
	tally *tally
	msg   sipmsg.Message
	out   sipmsg.Builder
	// next is the number of units begun of this endpoint's share; seen, how many users it has.
	next, seen uint64
	// idle: the scenario had nothing to start when it was last asked.
	idle bool
	// deadline is the socket's read deadline as last set.
	deadline time.Time
}

func newEndpoint(cfg *Config, index int, t *tally) (*endpoint, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(cfg.Bind, 0)))
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(readBuffer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	return &endpoint{
		cfg: cfg, index: index, conn: conn, local: local, addr: local.String(),
		calls: map[string]*answered{}, phase: newPhase(""), tally: t,
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
	for len(e.units) < w.slots {
		e.units = append(e.units, unit{})
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
	buf := make([]byte, 65536)
	for ctx.Err() == nil {
		now := time.Now()
		e.fire(now)
		wake := e.startDue(now)
		if e.work == nil || e.live == 0 && e.exhausted(now) {
			done()
		}
		if wake.Before(e.deadline) || e.deadline.Sub(now) < tick/2 {
			if err := e.conn.SetReadDeadline(wake); err != nil {
				return err
			}
			e.deadline = wake
		}
		// Read what there is before looking at timers again.
		for range 64 {
			n, from, err := e.conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			e.receive(buf[:n], from)
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
	for e.idle = false; len(e.free) > 0 && !e.exhausted(now); {
		if e.idle = !e.work.scenario.ready(e); e.idle {
			return earlier(wake, now.Add(time.Millisecond))
		}
		due := now
		if e.work.rate > 0 {
			// Endpoint i of n starts its j-th unit at (j*n+i)/rate.
			nth := float64(e.next)*float64(e.work.endpoints) + float64(e.index)
			due = e.work.start.Add(time.Duration(nth / e.work.rate * float64(time.Second)))
			if due.After(now) {
				return earlier(wake, due)
			}
			if now.Sub(due) > lateStart {
				e.phase.Late++
			}
		}
		slot := e.free[len(e.free)-1]
		e.free = e.free[:len(e.free)-1]
		e.start(slot, due)
		now = time.Now()
	}
	return wake
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// start begins the endpoint's next unit in a free slot.
func (e *endpoint) start(slot int, due time.Time) {
	u := &e.units[slot]
	u.gen++
	u.slot, u.step, u.busy, u.due = slot, 0, true, due
	mine := e.next % e.seen
	u.user = e.cfg.First + uint64(e.index) + uint64(e.work.endpoints)*mine
	u.round = e.next / e.seen
	u.nth = e.next*uint64(e.work.endpoints) + uint64(e.index)
	e.next++
	e.live++
	e.work.begun.Add(1)
	e.work.scenario.begin(e, u)
}

// end ends a unit under a code; what it measured is recorded by the scenario.
func (e *endpoint) end(u *unit, ok bool, code string) {
	e.phase.Codes[code]++
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

// write sends one datagram. A full send buffer is loss, as on any network;
// the retransmission deals with it.
func (e *endpoint) write(b []byte, to netip.AddrPort) {
	_, _ = e.conn.WriteToUDPAddrPort(b, to) // lost datagrams are what timers are for
}

// receive takes in one datagram.
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
