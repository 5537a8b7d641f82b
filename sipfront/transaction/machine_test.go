package transaction

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testTiming() *timing {
	c := DefaultConfig()
	return &timing{t1: c.T1, t2: c.T2, t4: c.T4, trying: c.Trying}
}

// moment is one effect at its time, as a machine has it and as the model says.
type moment struct {
	at  time.Duration
	eff effect
}

// driver runs a machine through time.
type driver struct {
	now  time.Duration
	step func(event, int, time.Duration) effect
	due  *deadlines
	seen []moment
}

func (d *driver) event(ev event, status int) {
	if eff := d.step(ev, status, d.now); eff != 0 {
		d.seen = append(d.seen, moment{d.now, eff})
	}
}

// wait lets every timer up to now+span fire at its own time.
func (d *driver) wait(span time.Duration) {
	until := d.now + span
	for {
		next := d.due.next()
		if next == 0 || next > until {
			break
		}
		d.now = next
		ev, _ := d.due.due(next)
		d.event(ev, 0)
	}
	d.now = until
}

// done is one thing that happened to a transaction: the models below read the
// whole history each time and keep no state of their own.
type done struct {
	at     time.Duration
	ev     event
	status int
}

// repeats lists when something first sent at start is sent again, below end:
// T1 later, then doubling up to limit (0: without limit).
func repeats(start, end, limit time.Duration) (out []time.Duration) {
	wait := 500 * time.Millisecond
	for at := start + wait; at < end; at += wait {
		out = append(out, at)
		wait *= 2
		if limit != 0 {
			wait = min(wait, limit)
		}
	}
	return out
}

const patience = 32 * time.Second

// modelInviteServer is 17.2.1 with RFC 6026 told as a story: what was sent when.
func modelInviteServer(history []done, until time.Duration, reliable bool) (out []moment) {
	var final, acked, ended time.Duration = -1, -1, -1
	status, sent := 0, false
	add := func(at time.Duration, eff effect) { out = append(out, moment{at, eff}) }
	add(0, doDeliver)
	end := func(at time.Duration) {
		if at <= until && ended < 0 {
			ended = at
		}
	}
	trying := 200 * time.Millisecond
	for _, h := range history {
		if h.ev == evResponse {
			trying = min(trying, h.at)
		}
	}
	if trying == 200*time.Millisecond && trying <= until && !slices.ContainsFunc(history, func(h done) bool { return h.ev == evResponse && h.at <= trying }) {
		add(trying, doTrying)
	}
	for _, h := range history {
		if final >= 0 && (status/100 == 2 && h.at >= final+patience || status/100 != 2 && acked < 0 && h.at >= final+patience ||
			acked >= 0 && (reliable || h.at >= acked+5*time.Second)) {
			if h.ev == evResponse {
				add(h.at, doRefuse)
			}
			continue
		}
		sent = sent || h.at >= 200*time.Millisecond
		switch {
		case h.ev == evResponse && final < 0:
			add(h.at, doSend)
			sent = true
			if h.status >= 200 {
				final, status = h.at, h.status
			}
		case h.ev == evResponse && status/100 == 2 && h.status/100 == 2:
			add(h.at, doSend)
		case h.ev == evResponse:
			add(h.at, doRefuse)
		case h.ev == evRequest && sent && (final < 0 || status >= 300 && acked < 0):
			add(h.at, doResend)
		case h.ev == evAck && final >= 0 && status/100 == 2:
			add(h.at, doDeliver)
		case h.ev == evAck && final >= 0 && acked < 0:
			acked = h.at
			if reliable {
				add(h.at, doEnd)
				ended = h.at
			}
		}
	}
	if final < 0 {
		return sorted(out)
	}
	stop := final + patience
	switch {
	case status/100 == 2:
		end(stop)
		if ended >= 0 {
			add(ended, doEnd)
		}
		return sorted(out)
	case acked >= 0:
		stop = acked
		if !reliable && acked+5*time.Second <= until {
			add(acked+5*time.Second, doEnd)
		}
	case stop <= until:
		add(stop, doTimeout|doEnd)
	}
	if !reliable {
		for _, at := range repeats(final, min(stop, until+1), 4*time.Second) {
			add(at, doResend)
		}
	}
	return sorted(out)
}

func sorted(m []moment) []moment {
	slices.SortStableFunc(m, func(a, b moment) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return int(a.eff) - int(b.eff)
	})
	return m
}

// drawHistory makes events whose times never meet a timer: they are a
// millisecond beside the grid that all timers stand on.
func drawHistory(t *rapid.T, d *driver, events []event, statuses []int) (history []done) {
	d.event(evStart, 0)
	for range rapid.IntRange(0, 12).Draw(t, "events") {
		span := time.Duration(rapid.SampledFrom([]int{1, 3, 20, 101, 301, 703, 2_503, 6_007, 33_001}).Draw(t, "ms")) * time.Millisecond
		d.wait(span + 7*time.Microsecond*time.Duration(len(history)+1))
		h := done{at: d.now, ev: rapid.SampledFrom(events).Draw(t, "event")}
		if h.ev == evResponse {
			h.status = rapid.SampledFrom(statuses).Draw(t, "status")
		}
		d.event(h.ev, h.status)
		history = append(history, h)
	}
	d.wait(40*time.Second + 13*time.Microsecond)
	return history
}

func checkModel(t *rapid.T, d *driver, want []moment, history []done) {
	if got := sorted(d.seen); !slices.Equal(got, want) {
		t.Fatalf("history %v\ngot  %v\nwant %v", history, got, want)
	}
	if next := d.due.next(); next != 0 && next <= d.now {
		t.Fatalf("a timer at %v was missed at %v", next, d.now)
	}
}

func TestInviteServerMachineEqualsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newServerMachine(true, rapid.Bool().Draw(t, "reliable"), testTiming())
		d := &driver{step: m.step, due: &m.due}
		history := drawHistory(t, d, []event{evRequest, evAck, evResponse}, []int{180, 200, 404, 600})
		checkModel(t, d, modelInviteServer(history, d.now, m.reliable), history)
	})
}

// modelInviteClient is 17.1.1 with RFC 6026 and 9.1, as a story.
func modelInviteClient(history []done, until time.Duration, reliable bool) (out []moment) {
	const never = time.Duration(1 << 62)
	var first, final, cancel, gone time.Duration = never, never, never, never
	status := 0
	add := func(at time.Duration, eff effect) { out = append(out, moment{at, eff}) }
	limit := patience // when nobody is waited for any longer; never while ringing
	for _, h := range history {
		if h.at >= limit {
			break
		}
		switch {
		case h.ev == evCancel && cancel == never:
			cancel = h.at
			if first != never && final == never {
				add(h.at, doSendCancel)
				limit = h.at + patience
			}
		case h.ev == evCancel:
		case final != never && h.at >= gone:
		case h.status < 200 && final == never:
			eff := doDeliver
			if first == never {
				first, limit = h.at, never
				if cancel != never {
					eff |= doSendCancel
					limit = h.at + patience
				}
			}
			add(h.at, eff)
		case h.status < 200:
		case final == never:
			final, status, limit, gone = h.at, h.status, never, h.at+patience
			first = min(first, h.at)
			switch {
			case status < 300:
				add(h.at, doDeliver)
			case reliable:
				gone = h.at
				add(h.at, doDeliver|doSendAck|doEnd)
			default:
				add(h.at, doDeliver|doSendAck)
			}
		case status < 300 && h.status < 300:
			add(h.at, doDeliver)
		case status >= 300 && h.status >= 300:
			add(h.at, doSendAck)
		case status >= 300:
			add(h.at, doStray)
		}
	}
	add(0, doSendRequest)
	if !reliable {
		for _, at := range repeats(0, min(first, patience, until+1), 0) {
			add(at, doSendRequest)
		}
	}
	if final == never && limit <= until {
		add(limit, doTimeout|doEnd)
	}
	if gone <= until && (status < 300 || !reliable) {
		add(gone, doEnd)
	}
	return sorted(out)
}

func TestInviteClientMachineEqualsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newClientMachine(true, rapid.Bool().Draw(t, "reliable"), testTiming())
		d := &driver{step: m.step, due: &m.due}
		history := drawHistory(t, d, []event{evResponse, evResponse, evCancel}, []int{100, 180, 200, 404})
		checkModel(t, d, modelInviteClient(history, d.now, m.reliable), history)
	})
}

// modelClient is 17.1.2.
func modelClient(history []done, until time.Duration, reliable bool) (out []moment) {
	var first, final time.Duration = patience, -1
	add := func(at time.Duration, eff effect) { out = append(out, moment{at, eff}) }
	for _, h := range history {
		switch {
		case h.at >= patience || final >= 0:
		case h.status < 200:
			first = min(first, h.at)
			add(h.at, doDeliver)
		case reliable:
			final = h.at
			add(h.at, doDeliver|doEnd)
		default:
			final = h.at
			add(h.at, doDeliver)
			add(h.at+5*time.Second, doEnd)
		}
	}
	end := patience
	if final >= 0 {
		end = final
	} else {
		add(patience, doTimeout|doEnd)
	}
	add(0, doSendRequest)
	wait := 500 * time.Millisecond
	for at := wait; at < end && !reliable; at += wait {
		add(at, doSendRequest)
		wait = min(2*wait, 4*time.Second)
		if at > first {
			wait = 4 * time.Second
		}
	}
	return slices.DeleteFunc(sorted(out), func(m moment) bool { return m.at > until })
}

func TestClientMachineEqualsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newClientMachine(false, rapid.Bool().Draw(t, "reliable"), testTiming())
		d := &driver{step: m.step, due: &m.due}
		history := drawHistory(t, d, []event{evResponse}, []int{100, 180, 200, 404})
		checkModel(t, d, modelClient(history, d.now, m.reliable), history)
	})
}

// wheelOwner notes when it was woken.
type wheelOwner struct {
	timerNode
	asked, woken time.Duration
}

func (o *wheelOwner) expire(now time.Duration) { o.woken = now }

func TestWheelWakesInTimeAndOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		var owners []*wheelOwner
		now := time.Duration(rapid.IntRange(0, 100_000).Draw(t, "start")) * time.Millisecond
		w.advance(now, nil)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				o := &wheelOwner{asked: now + time.Duration(rapid.SampledFrom([]int{-5, 0, 7, 20, 20, 25, 500, 40_960, 40_980, 100_000}).Draw(t, "ms"))*time.Millisecond}
				o.owner = o
				w.arm(&o.timerNode, o.asked)
				owners = append(owners, o)
			case 2:
				if len(owners) > 0 {
					o := rapid.SampledFrom(owners).Draw(t, "owner")
					w.disarm(&o.timerNode)
					if o.woken == 0 {
						o.woken = -1
					}
				}
			case 3:
				now += time.Duration(rapid.SampledFrom([]int{1, 9, 10, 15, 480, 20_000, 90_000}).Draw(t, "pass")) * time.Millisecond
				for _, e := range w.advance(now, nil) {
					if o := e.(*wheelOwner); o.woken != 0 {
						t.Fatalf("woken at %v, and again at %v", o.woken, now)
					}
					e.expire(now)
				}
				for _, o := range owners {
					if o.woken > 0 && o.woken < o.asked {
						t.Fatalf("asked for %v, woken at %v", o.asked, o.woken)
					}
					if o.woken == 0 && o.asked <= now-2*wheelTick {
						t.Fatalf("asked for %v, asleep at %v", o.asked, now)
					}
				}
			}
		}
	})
}
