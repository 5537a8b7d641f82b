package sipfront

import (
	"errors"
	"strings"
	"sync"
	"time"

	"hereis/actors"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// elsewhere is the Reason of a CANCEL to the devices that were not quick
// enough, so that they show no missed call (RFC 3326 3.1).
const elsewhere = `SIP;cause=200;text="Call completed elsewhere"`

// fork is the response context of one request (RFC 3261 16.7). Everything in
// it happens in functions given to do, one at a time and in order, whichever
// goroutine they come from; so nothing is locked while anything is sent.
type fork struct {
	s      *Server
	tx     serverTx
	r      *request
	asked  asked
	plan   *plan
	invite bool
	// loop is the request's loopHash, once it has been needed.
	loop string

	mu sync.Mutex
	// queue has the functions that wait for their turn; running: somebody works it off.
	queue   []func()
	running bool

	// All below belongs to the running function.

	// waiting are devices that no branch has been made for, best q first.
	waiting  []device
	branches []*branch
	// open counts branches without a final answer, of the devices with q.
	open int
	q    uint32
	// asking: the cluster has been asked where the user is, and has not answered.
	asking bool
	// final: a final answer has been sent.
	final bool
	// cancelled by the caller, or by a 6xx: nothing new is begun.
	cancelled bool
	sixth     bool
	// mayRelocate: what the cluster has said may be incomplete (CONSISTENCY rule 13).
	// forgetRest ends the question whose rest is awaited while devices are called;
	// nil: none is.
	mayRelocate bool
	forgetRest  func()
	// tried are the targets that have been taken in; nil: the cluster has named none so far.
	tried []*target
	// redirects counts targets that a 3xx named.
	redirects int
	// store: the message is kept if nobody takes it (mail.go), at the latest when
	// timerMail fires; keptKey is under what it was. letter: it comes from there.
	store, letter bool
	timerMail     *time.Timer
	keptKey       []byte
	// timerGroup ends the ringing of a group while others wait.
	timerGroup *time.Timer
	best       best
	// call is the call as dialog events follow it, nil if they do not; leaving is
	// a BYE that they wait for the answer of.
	call    *followedCall
	leaving *leaving
	// released: nothing is left to be done but to pass a late 2xx on.
	released bool
}

func (s *Server) newFork(tx serverTx, r *request, p *plan) *fork {
	return &fork{s: s, tx: tx, r: r, asked: r.asked, plan: p, invite: r.method == "INVITE", asking: p.way == wayUser}
}

// do runs fn after all that was given before. If another goroutine is at it,
// that one runs fn; so fn must not wait for do.
func (f *fork) do(fn func()) {
	f.mu.Lock()
	f.queue = append(f.queue, fn)
	if f.running {
		f.mu.Unlock()
		return
	}
	f.running = true
	for len(f.queue) > 0 {
		fn := f.queue[0]
		f.queue = f.queue[1:]
		f.mu.Unlock()
		fn()
		f.release()
		f.mu.Lock()
	}
	f.queue, f.running = nil, false
	f.mu.Unlock()
}

// release lets go of the request when it has been answered for good. The
// transactions stay for half a minute, for a 2xx that comes late (RFC 6026),
// and a busy node has a hundred thousand of them: they need not hold what it
// took to make the call.
func (f *fork) release() {
	if f.released || !f.final || f.open > 0 || f.asking {
		return
	}
	f.released = true
	f.s.dialogs.ended(f.call) // a late 2xx may still begin it
	f.stopRinging()
	if f.invite {
		f.tx.Keep(nil) // there is nothing to be cancelled
	}
	if f.asked.callID = ""; f.s.debug {
		f.asked.callID = strings.Clone(f.r.callID) // of its own, not a part of the request's text
	}
	if f.asked.method = "INVITE"; !f.invite {
		f.asked.method = strings.Clone(f.r.method)
	}
	if f.keptKey == nil {
		f.plan = &f.s.gone.plan
	} else {
		f.plan = &plan{aor: f.plan.aor}
	}
	f.r = &f.s.gone.request
	f.waiting, f.tried, f.branches, f.best, f.loop = nil, nil, nil, best{}, ""
}

// unlocated ends a request whose user has no device, or none that can be found.
func (f *fork) unlocated(a answer) {
	if f.store && storable(a.status) {
		f.keep(func() { f.finish(a) })
		return
	}
	f.finish(a)
}

// add takes devices in that have not been tried.
func (f *fork) add(devices []device) {
	if f.tried == nil {
		f.tried = make([]*target, 0, len(devices))
	}
	for _, d := range devices {
		fresh := d[:0]
		for _, t := range d {
			if !f.hasTried(t) {
				f.tried = append(f.tried, t)
				fresh = append(fresh, t)
			}
		}
		if len(fresh) > 0 {
			f.waiting = append(f.waiting, fresh)
		}
	}
}

// hasTried tells whether a target has been taken in already. One that a 3xx named
// is the same as any with its URI.
func (f *fork) hasTried(t *target) bool {
	for _, x := range f.tried {
		if x.key == t.key || t.key.way == wayRedirected && x.uri.text == t.uri.text {
			return true
		}
	}
	return false
}

// next goes on when nothing is under way: the devices of the next q, all at
// once (RFC 3261 16.6); or late targets; or the end. A device that there was no
// breadth for joins those of its q when one of them has ended, and one that the
// cluster names late joins those that it should have been with or before.
func (f *fork) next() {
	for !f.asking && !f.final {
		switch {
		case f.open > 0 && !f.mayJoin():
			return
		case f.open > 0 || !f.cancelled && !f.sixth && len(f.waiting) > 0:
			f.begin()
		case f.mayRelocate && !f.cancelled && !f.sixth:
			f.complete()
			f.mayRelocate, f.asking = false, true
			f.relocate()
		default:
			f.end()
			return
		}
	}
}

// begin calls the first of those that wait, and all others of their q that
// there is breadth for.
func (f *fork) begin() {
	joins := f.open > 0
	q := f.waiting[0][0].q
	if !joins {
		f.q = q
	}
	n := 0
	for n < len(f.waiting) && f.waiting[n][0].q == q {
		n++
	}
	if breadth := f.breadthLeft(); n > breadth {
		if !joins {
			f.s.count.breadthExceeded.Add(uint64(n - breadth))
		}
		n = breadth
	}
	if room := f.s.cfg.MaxBranches - len(f.branches); n > room {
		n = max(room, 0)
		f.s.count.branchesCut.Add(uint64(len(f.waiting) - n))
		f.waiting = f.waiting[:n]
	}
	breadth, group := f.breadthLeft(), f.waiting[:n]
	if f.forgetRest != nil {
		breadth = max(n, breadth/2) // the rest is for those that are named late
	}
	f.waiting = f.waiting[n:]
	// Counted first: a branch may end while it begins.
	f.open += len(group)
	switch {
	case !joins:
		f.ringing()
	case len(f.waiting) == 0:
		f.stopRinging()
	}
	first := len(f.branches)
	for i, d := range group {
		f.branches = append(f.branches, &branch{f: f, targets: d, breadth: share(breadth, n, i)})
	}
	for _, b := range f.branches[first:] {
		b.try()
	}
}

// mayJoin tells whether a device waits for nothing but breadth, and there is some.
func (f *fork) mayJoin() bool {
	return !f.cancelled && !f.sixth && len(f.waiting) > 0 && f.waiting[0][0].q >= f.q && f.breadthLeft() > 0
}

// breadth is the sum of Max-Breadth that may be under way (RFC 5393 5.3.3).
func (f *fork) breadth() int { return f.s.breadth(f.r) }

func (s *Server) breadth(r *request) int {
	if n := r.maxBreadth; n >= 0 {
		return min(n, s.cfg.MaxBreadth)
	}
	return s.cfg.MaxBreadth
}

// breadthLeft is what the open branches leave of it: what has ended gives its
// share back (RFC 5393 5.3.3.1).
func (f *fork) breadthLeft() int {
	n := f.breadth()
	for _, b := range f.branches {
		if !b.done {
			n -= b.breadth
		}
	}
	return n
}

// share is what the branch i of n gets of a breadth.
func share(breadth, n, i int) int {
	if i < breadth%n {
		return breadth/n + 1
	}
	return breadth / n
}

// ringing starts the time of a group, if others wait for it to end.
func (f *fork) ringing() {
	f.stopRinging()
	if !f.invite || len(f.waiting) == 0 {
		return
	}
	first := len(f.branches)
	f.timerGroup = time.AfterFunc(f.s.cfg.RingTimeout, func() { f.do(func() { f.ranOut(first) }) })
}

// waitToKeep bounds how long devices may be silent before the message is kept:
// the sender waits for an answer, which it would not get from a 408 (RFC 4320).
func (f *fork) waitToKeep() {
	f.timerMail = time.AfterFunc(f.s.cfg.MessageWait, func() {
		f.do(func() {
			if f.store && !f.final && !f.asking {
				f.keep(func() {})
			}
		})
	})
}

func (f *fork) stopMailTimer() {
	if f.timerMail != nil {
		f.timerMail.Stop()
		f.timerMail = nil
	}
}

func (f *fork) stopRinging() {
	if f.timerGroup != nil {
		f.timerGroup.Stop()
		f.timerGroup = nil
	}
}

// ranOut leaves the group that begins with a branch behind; a 2xx of it that
// crosses the CANCEL is passed on all the same.
func (f *fork) ranOut(first int) {
	if f.final || f.cancelled || f.sixth || f.timerGroup == nil {
		return
	}
	f.timerGroup = nil
	for _, b := range f.branches[first:] {
		b.abandon()
	}
	f.next()
}

// ended says that a branch has its final answer.
func (f *fork) ended() {
	f.open--
	f.next()
}

// provisional passes a 1xx of an INVITE on (RFC 3261 16.7 step 5): all but 100.
// Another request has none (RFC 4320 4.1).
func (f *fork) provisional(r reply) {
	if f.invite && !f.final && !f.cancelled {
		f.s.dialogs.answered(f.call, r)
		f.pass(r)
	}
}

// pass passes an answer from below on.
func (f *fork) pass(r reply) error {
	f.s.answering(&f.asked, r.status, time.Now())
	return f.s.answered(&f.asked, r.status, f.tx.RespondWith(r.by, r.status, r.raw))
}

// trying tells the caller that its INVITE is in good hands.
func (f *fork) trying() {
	if !f.final {
		f.s.send(f.tx, f.r, 100, f.s.answerBytes(f.r, answer{status: 100, reason: "Trying"}, ""))
	}
}

// success passes a 2xx on at once, each one of an INVITE (RFC 3261 16.7 steps 5
// and 10). All branches but from, which may be nil, are given up.
func (f *fork) success(from *branch, r reply) {
	if f.final && !f.invite {
		if f.keptKey != nil {
			f.s.mail.drop(f.plan.aor, f.keptKey)
			f.keptKey = nil
		}
		return
	}
	f.conclude(r.status)
	f.stopRinging()
	f.stopMailTimer()
	f.s.dialogs.answered(f.call, r)
	if err := f.pass(r); errors.Is(err, transaction.ErrFinalSent) {
		// RFC 3261 16.7 step 5: also after another final answer, which RFC 6026
		// 7.1 leaves no transaction for. It is a call that somebody has taken.
		f.s.late(f.tx.Message(), r)
	}
	for _, b := range f.branches {
		if b != from {
			b.cancel(elsewhere)
		}
	}
}

// cancelAll is the caller's CANCEL (RFC 3261 16.10), or the effect of a 6xx.
func (f *fork) cancelAll(reason string) {
	f.waiting = nil
	for _, b := range f.branches {
		b.cancel(reason)
	}
	f.next()
}

// cancel takes in a CANCEL for an INVITE.
func (s *Server) cancel(tx serverTx, msg *transport.Message) {
	f, ok := tx.Kept().(*fork)
	if !ok {
		return
	}
	reason := ""
	if msg != nil {
		if _, headers, _, err := splitMessage(msg.Text()); err == nil {
			for _, h := range headers {
				if h.name == "Reason" {
					reason = h.value
				}
			}
		}
	}
	f.do(func() {
		if !f.final && !f.cancelled {
			f.cancelled = true
			f.cancelAll(reason)
		}
	})
}

// end sends the best of what came, or keeps the message that nobody took.
func (f *fork) end() {
	if f.store && f.unreached() {
		f.keep(f.endAnswered)
		return
	}
	f.endAnswered()
}

// endAnswered is RFC 3261 16.7 step 6.
func (f *fork) endAnswered() {
	f.stopMailTimer()
	switch best, status := f.best.choose(f.invite); {
	case f.cancelled && !f.best.sixth():
		f.finish(f.own(errCancelled))
	case best != nil && status == 503 && !best.own:
		// RFC 3261 16.7 step 6: a 503 says something of that server, not of us.
		f.finish(answer{500, "Server Internal Error", nil})
	case best == nil && f.best.silent && !f.invite:
		// RFC 4320 4.2: nobody waits for a 408 any more, but for who sent it here.
		f.conclude(408)
		if f.letter {
			_ = f.tx.RespondRaw(408, nil)
		}
	case best != nil:
		f.conclude(status)
		r := best.with(f.best.challenges(best))
		f.pass(r)
	case f.best.silent:
		f.finish(f.own(errTimeout))
	case f.best.insecure && !f.best.flowGone && f.r.target.scheme != "sips":
		f.finish(f.own(errSecure))
	case f.best.insecure && !f.best.flowGone:
		f.finish(f.own(errInsecure))
	case f.best.flowGone && f.plan.marked:
		f.finish(f.own(errFlowGone))
	default:
		f.finish(f.own(actors.ErrUnavailable))
	}
}

func (f *fork) own(err error) answer { return status(err, f.s.cfg.RetryAfter) }

// finish ends the request with an answer of our own.
func (f *fork) finish(a answer) {
	if f.final {
		return
	}
	f.conclude(a.status)
	f.s.send(f.tx, f.r, a.status, f.s.answerBytes(f.r, a, f.tx.Tag()))
}

// conclude says that a final answer is given.
func (f *fork) conclude(status int) {
	f.final = true
	f.complete()
	if f.leaving != nil {
		f.s.dialogs.left(f.leaving, status)
		f.leaving = nil
	}
}
