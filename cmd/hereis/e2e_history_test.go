package main_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The histories of docs/consistency.md: each user has one device, which writes
// one thing after the other (it registers here, moves there, is removed), while
// others look it up at any node. What is promised is a register for each user
// whose last acknowledged value every lookup sees that begins late enough.

// write is one REGISTER of a user's device.
type write struct {
	call, ack time.Time // ack is zero if there was no 200
	// value is what answers from then on: the device and the number of this write, so
	// that no two writes have the same; "": nobody.
	value string
}

// lookup is one OPTIONS for a user, and what answered it; "": nobody is registered.
type lookup struct {
	call, end time.Time
	value     string
}

// history is what was written and looked up of one user, the writes in order.
type history struct {
	user    string
	writes  []write
	lookups []lookup
}

// check finds the lookups that no order of events explains, and how much later
// than its acknowledgement a write was still not seen.
//
// A lookup may see a write that had been sent when it ended, unless a later one
// had been acknowledged by its beginning: if so, it has seen an old value, and
// by how much is the delay of visibility. Nothing is asked of two lookups
// within the delay: they may disagree.
func (h *history) check() (delay time.Duration, wrong []string) {
	for _, l := range h.lookups {
		explained, least := l.value == "" && !slices.ContainsFunc(h.writes, func(w write) bool { return !w.ack.IsZero() && w.ack.Before(l.call) }), time.Duration(-1)
		if explained {
			continue // nothing was registered yet
		}
		for i, w := range h.writes {
			if w.value != l.value || w.call.After(l.end) {
				continue
			}
			late := time.Duration(0)
			for _, next := range h.writes[i+1:] {
				if !next.ack.IsZero() && next.ack.Before(l.call) {
					late = l.call.Sub(next.ack)
					break
				}
			}
			if least < 0 || late < least {
				least = late
			}
		}
		if least < 0 && l.value == "" && len(h.writes) > 0 && !h.writes[0].ack.IsZero() {
			least = l.call.Sub(h.writes[0].ack) // the value of before the first write
		}
		if least < 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %q was found and nobody has written it", h.user, l.value))
		}
		delay = max(delay, least)
	}
	return delay, wrong
}

// historian lets devices come, move and go, and callers look them up, until it
// is stopped.
type historian struct {
	t     *testing.T
	row   *chaosRow
	began time.Time
	// at are the nodes at which devices may register and which may be asked, now.
	at      atomic.Pointer[[]*node]
	stop    chan struct{} // closed by finish
	wg      sync.WaitGroup
	callers []*device  // of the users in all
	mu      sync.Mutex // guards what follows
	all     []*history
	refused int
}

// startHistory begins with n users.
func startHistory(t *testing.T, row *chaosRow, at []*node, n int) *historian {
	t.Helper()
	h := &historian{t: t, row: row, began: time.Now(), stop: make(chan struct{})}
	h.at.Store(&at)
	run := fmt.Sprintf("h%d-", rand.IntN(1_000_000))
	for i := range n {
		user := fmt.Sprintf("%s%d", run, i)
		hist := &history{user: user}
		h.all = append(h.all, hist)
		here, there := newDevice(t, user, user+"-here"), newDevice(t, user, user+"-there")
		here.instance = fmt.Sprintf("urn:uuid:00000000-0000-4000-8000-%012d", rand.IntN(1_000_000_000))
		there.instance = here.instance
		here.numbered, there.numbered = true, true
		h.wg.Go(func() { h.write(hist, []*device{here, there}) })
		caller := newDevice(t, "caller", fmt.Sprintf("%scaller%d", run, i))
		h.callers = append(h.callers, caller)
		h.wg.Go(func() { h.look(hist, caller) })
	}
	t.Cleanup(h.end)
	return h
}

// only lets devices and callers use these nodes alone from now on.
func (h *historian) only(nodes []*node) { h.at.Store(&nodes) }

// moved waits until every device has registered or gone since, so that none of
// them is at a node that is not used any more.
func (h *historian) moved() {
	h.t.Helper()
	since := time.Now()
	within(h.t, 60*time.Second, "every device has moved", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, hist := range h.all {
			if !slices.ContainsFunc(hist.writes, func(w write) bool { return w.call.After(since) && !w.ack.IsZero() }) {
				return fmt.Errorf("%s has not", hist.user)
			}
		}
		return nil
	})
}

func (h *historian) some() *node {
	at := *h.at.Load()
	return at[rand.IntN(len(at))]
}

// pause is a rate, not a wait; false when it is over.
func (h *historian) pause(d time.Duration) bool {
	select {
	case <-h.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// write is the life of one user's device. It changes its node in one of two
// writes, and has one outstanding.
func (h *historian) write(hist *history, sockets []*device) {
	cseq, value := 0, ""
	for h.pause(time.Duration(50+rand.IntN(250)) * time.Millisecond) {
		cseq++
		d, expires := sockets[rand.IntN(2)], 3600
		next := fmt.Sprintf("%s#%d", d.name, cseq)
		if rand.IntN(4) == 0 && value != "" {
			expires, next = 0, ""
			// What it removes is its own binding, wherever that came from.
		}
		d.cseq = cseq - 1
		began := time.Now()
		status, ok := d.tryOnce(h.some(), expires, 4*time.Second)
		took := time.Since(began)
		w := write{call: began, value: next}
		if ok && status == 200 {
			w.ack = time.Now()
		}
		h.mu.Lock()
		hist.writes = append(hist.writes, w)
		h.mu.Unlock()
		failed := uint64(0)
		if w.ack.IsZero() {
			failed = 1
		}
		h.row.count("REGISTERs", 1, failed, took)
		value = next
	}
}

// look asks for the user again and again.
func (h *historian) look(hist *history, caller *device) {
	for h.pause(time.Duration(20+rand.IntN(40)) * time.Millisecond) {
		began := time.Now()
		status, by, ok := caller.probeOnce(h.some(), hist.user, 4*time.Second)
		l := lookup{call: began, end: time.Now(), value: by}
		h.mu.Lock()
		switch {
		case ok && (status == 200 || status == 404 || status == 480):
			hist.lookups = append(hist.lookups, l)
		default:
			h.refused++ // 503 or no answer in time: nothing is said of the user
		}
		h.mu.Unlock()
	}
}

func (h *historian) end() {
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	h.wg.Wait()
}

// finish stops all and checks what has happened. bar is the promise for the
// delay of visibility; ten times that is an error.
func (h *historian) finish(bar time.Duration) {
	h.t.Helper()
	h.end()
	h.last(slack * bar)
	var delay time.Duration
	writes, acked, lookups := 0, 0, 0
	for _, hist := range h.all {
		d, wrong := hist.check()
		delay = max(delay, d)
		for _, w := range wrong {
			h.t.Error(w)
		}
		lookups += len(hist.lookups)
		for _, w := range hist.writes {
			writes++
			if !w.ack.IsZero() {
				acked++
			}
		}
	}
	h.row.count("lookups", uint64(lookups+h.refused), uint64(h.refused), 0)
	h.row.note(h.t, "history: %d writes (%d acknowledged) and %d lookups of %d users agree with the model; a write was seen %v after its 200 at the latest; %d lookups refused",
		writes, acked, lookups, len(h.all), delay.Round(time.Millisecond), h.refused)
	if delay > slack*bar {
		h.row.late(h.t, h.began, "a write was not seen %v after its acknowledgement, the bar is %v", delay, bar)
	}
	if acked == 0 || lookups == 0 {
		h.t.Errorf("%d writes acknowledged, %d lookups: nothing was tried", acked, lookups)
	}
}

// last looks everybody up once more at every node: a copy that stays as it was must
// not hide among lookups that were late for a moment.
func (h *historian) last(limit time.Duration) {
	h.t.Helper()
	for i, hist := range h.all {
		may := hist.lastValues()
		for _, n := range *h.at.Load() {
			within(h.t, limit, "the last write is seen", func() error {
				status, by, ok := h.callers[i].probeOnce(n, hist.user, 4*time.Second)
				if !ok || status == 503 || !slices.Contains(may, by) {
					return fmt.Errorf("%s at %s: %d by %q, want one of %q", hist.user, n.name, status, by, may)
				}
				return nil
			})
		}
	}
}

// lastValues are those that may be in force after all writes: the last that was
// acknowledged, and what has been sent since.
func (h *history) lastValues() (may []string) {
	for _, w := range slices.Backward(h.writes) {
		may = append(may, w.value)
		if !w.ack.IsZero() {
			return may
		}
	}
	return append(may, "")
}

// TestHistoryCheck: the checker finds what it is for.
func TestHistoryCheck(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	w := func(call, ack int, value string) write {
		w := write{call: at(call), value: value}
		if ack > 0 {
			w.ack = at(ack)
		}
		return w
	}
	l := func(call, end int, value string) lookup { return lookup{at(call), at(end), value} }
	for name, c := range map[string]struct {
		h     history
		delay time.Duration
		wrong string
	}{
		"before all":           {history{writes: []write{w(100, 110, "a")}, lookups: []lookup{l(50, 60, "")}}, 0, ""},
		"seen":                 {history{writes: []write{w(100, 110, "a")}, lookups: []lookup{l(120, 130, "a")}}, 0, ""},
		"concurrent, old":      {history{writes: []write{w(1, 2, "a"), w(100, 110, "b")}, lookups: []lookup{l(105, 130, "a")}}, 0, ""},
		"concurrent, new":      {history{writes: []write{w(1, 2, "a"), w(100, 110, "b")}, lookups: []lookup{l(90, 101, "b")}}, 0, ""},
		"stale":                {history{writes: []write{w(1, 2, "a"), w(100, 110, "b")}, lookups: []lookup{l(150, 160, "a")}}, 40 * time.Millisecond, ""},
		"lost":                 {history{writes: []write{w(1, 2, "a")}, lookups: []lookup{l(500, 510, "")}}, 498 * time.Millisecond, ""},
		"ghost":                {history{writes: []write{w(1, 2, "a"), w(3, 4, "")}, lookups: []lookup{l(504, 510, "a")}}, 500 * time.Millisecond, ""},
		"unanswered, in force": {history{writes: []write{w(1, 2, "a"), w(3, 0, "b")}, lookups: []lookup{l(504, 510, "b")}}, 0, ""},
		"unanswered, not so":   {history{writes: []write{w(1, 2, "a"), w(3, 0, "b")}, lookups: []lookup{l(504, 510, "a")}}, 0, ""},
		"back to an old place": {history{writes: []write{w(1, 2, "a"), w(3, 4, "b"), w(5, 6, "a")}, lookups: []lookup{l(504, 510, "a")}}, 0, ""},
		// A copy that is never brought up to date, with a device that comes back to where it was.
		"stale for ever":  {history{writes: []write{w(1, 2, "a#1"), w(3, 4, "b#2"), w(400, 404, "a#3"), w(450, 454, "b#4")}, lookups: []lookup{l(504, 510, "a#1")}}, 500 * time.Millisecond, ""},
		"from the future": {history{writes: []write{w(1, 2, "a"), w(100, 110, "b")}, lookups: []lookup{l(50, 60, "b")}}, 0, "nobody has written"},
	} {
		delay, wrong := c.h.check()
		if delay != c.delay || (c.wrong == "") != (len(wrong) == 0) || !strings.Contains(strings.Join(wrong, ""), c.wrong) {
			t.Errorf("%s: got %v and %q, want %v and %q", name, delay, wrong, c.delay, c.wrong)
		}
	}
}
