package sipfront

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"hereis/actors"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// errWay says that there is no way to a target.
var errWay = errors.New("no way to target")

// branch is one device being tried: its targets in turn, each by its ways in
// turn, until one of them answers. It runs inside its fork's do.
type branch struct {
	f       *fork
	targets device
	// breadth is the Max-Breadth of what it sends.
	breadth int
	// now is the target being tried, ways those of it that are left.
	now  *target
	ways []wayOut
	// attempt counts; what an older one says is heard no more, but for a 2xx.
	attempt int
	client  clientTx
	// answered: something came on this attempt, if only a 100; rung: a 1xx above it.
	answered, rung bool
	// cancelled: a CANCEL is on its way; timedOut: by Timer C.
	cancelled, timedOut bool
	done                bool
	// dialling: the way is being looked for.
	dialling bool
	timerC   *time.Timer
	timerHop *time.Timer
}

// wayOut is a flow, and whether a node of ours is at its other end.
type wayOut struct {
	flow transport.Flow
	node bool
	// large is where requests go by TCP that are too large for the flow; it is
	// not set for a flow that must be kept.
	large netip.AddrPort
	// spare: the same peer by UDP, for when it refuses TCP (RFC 3261 18.1.1).
	spare bool
}

// try begins the next attempt, or ends the branch if there is none.
func (b *branch) try() {
	b.stop()
	for {
		switch {
		case b.done:
			return
		case b.cancelled:
			b.finish()
			return
		case len(b.ways) > 0:
			w := b.ways[0]
			b.ways = b.ways[1:]
			if b.send(w) == nil {
				return
			}
		case len(b.targets) > 0:
			b.now, b.targets = b.targets[0], b.targets[1:]
			b.now.breadth = b.breadth
			if !b.find() {
				return
			}
		default:
			b.finish()
			return
		}
	}
}

// finish ends the branch.
func (b *branch) finish() {
	if !b.done {
		b.done = true
		b.release()
		b.f.ended()
	}
}

// find looks for the ways to the present target. It is false if that takes a
// name server: then the branch goes on when it has answered.
func (b *branch) find() bool {
	s := b.f.s
	ways, err := s.ways(b.now)
	if err != errResolve {
		b.found(ways, err)
		return true
	}
	u := b.now.next()
	b.dialling = true
	ok := s.ask(b.f.tx.Context(), func(ctx context.Context) {
		ways, err := s.resolve(ctx, u, large(b.f.r))
		b.f.do(func() {
			b.dialling = false
			b.found(ways, err)
			b.try()
		})
	})
	if !ok {
		b.dialling = false
		b.f.best.add(b.f.ownReply(actors.ErrOverloaded))
	}
	return !ok
}

func (b *branch) found(ways []wayOut, err error) {
	b.ways = ways
	if err != nil || len(ways) == 0 {
		b.f.s.log.Debug("no way to target", "call_id", b.f.r.callID, "err", err)
		if errors.Is(err, errLoop) {
			b.f.best.add(b.f.ownReply(err))
			return
		}
		if u := b.now.next(); u.scheme == "sips" {
			b.f.best.insecure = true
			return
		}
		b.dead()
	}
}

// dead says that the present way leads nowhere: 430 (RFC 5626 5.3).
func (b *branch) dead() {
	b.f.best.flowGone = true
	b.f.s.count.deadFlows.Add(1)
}

// send makes an attempt by one way.
func (b *branch) send(w wayOut) error {
	f := b.f
	s := f.s
	b.attempt++
	b.answered, b.rung, b.client = false, false, nil
	d := s.draft(f, b.now, w)
	if stream, ok := s.byStream(w, d.size()); ok {
		w.spare, w.large = true, netip.AddrPort{}
		b.ways = append([]wayOut{w}, b.ways...)
		w = stream
		d = s.draft(f, b.now, w)
	}
	n := b.attempt
	s.count.branches.Add(1)
	o := d.outgoing()
	o.With = f.r.msg.Flow
	c, err := s.layer.RequestRaw(o, w.flow, func(msg *transport.Message, err error) {
		f.do(func() { b.event(n, msg, err) })
	})
	if err != nil {
		b.refused(err)
		return err
	}
	b.client = c
	b.start(w, n)
	return nil
}

// refused says that an attempt could not begin.
func (b *branch) refused(err error) {
	if len(b.ways) > 0 && b.ways[0].spare && !errors.Is(err, transaction.ErrOverloaded) {
		return
	}
	if errors.Is(err, transaction.ErrOverloaded) {
		b.f.best.add(b.f.ownReply(actors.ErrOverloaded))
		return
	}
	b.dead()
}

// event is what the client transaction of attempt n says.
func (b *branch) event(n int, msg *transport.Message, err error) {
	old := n != b.attempt || b.done
	if err != nil {
		if !old {
			b.failed(err)
		}
		return
	}
	r, _, err := readReply(msg.Text())
	if err != nil {
		b.f.s.count.dropped.Add(1)
		return
	}
	r.by = msg.Flow
	switch {
	case r.status >= 200 && r.status < 300 && old:
		// What has taken this attempt's place must not go on ringing.
		b.f.success(nil, r)
	case r.status >= 200 && r.status < 300:
		b.f.success(b, r)
		b.finish()
	case old:
	case r.status < 200:
		b.provisional(r)
	default:
		b.final(r)
	}
}

func (b *branch) provisional(r reply) {
	b.answered = true
	if b.timerHop != nil {
		b.timerHop.Stop()
	}
	if r.status == 100 {
		return
	}
	b.rung = true
	if b.timerC != nil {
		// RFC 3261 16.7 step 2.
		b.timerC.Reset(b.f.s.cfg.TimerC)
	}
	if !b.cancelled {
		b.f.provisional(r)
	}
}

func (b *branch) final(r reply) {
	f := b.f
	switch {
	case r.status == 430:
		b.dead()
		b.try()
		return
	case r.status == 503 && b.anotherServer():
		// RFC 3263 4.3: it may be this server alone that is overloaded or down.
		b.f.s.count.failovers.Add(1)
		b.try()
		return
	case b.timedOut && r.status == 487:
		f.best.silent = true
	case r.status == 408 && !f.invite:
		// RFC 4320 4.2: it is not passed on, whatever else there is.
		f.best.silent = true
	case r.status < 400 && f.redirect(&r):
	default:
		f.best.add(r)
	}
	if r.status >= 600 && !f.sixth && !f.final {
		f.sixth = true
		b.targets = nil
		b.finishQuietly()
		f.cancelAll("")
		return
	}
	b.finish()
}

// finishQuietly ends the branch without a look at what comes next.
func (b *branch) finishQuietly() {
	b.done = true
	b.release()
	b.f.open--
}

// release lets go of what a branch that has ended needs no more; its
// transaction may hold the branch itself for a while.
func (b *branch) release() {
	b.stop()
	b.targets, b.ways, b.now = nil, nil, nil
}

// failed is a timeout or a transport error of the present attempt.
func (b *branch) failed(err error) {
	f := b.f
	if errors.Is(err, transaction.ErrTransport) {
		if len(b.ways) > 0 && b.ways[0].spare {
			b.try()
			return
		}
		// RFC 3261 16.9 has a 503 here; by RFC 5626 a flow that breaks is a 430.
		b.dead()
		b.try()
		return
	}
	b.skipSpare()
	if !b.cancelled {
		f.best.silent = true
		if !b.answered && (len(b.ways) > 0 || len(b.targets) > 0) {
			// RFC 3263 4.3, RFC 5626 5.3: silence is a reason to try the next; a 100 was none.
			b.try()
			return
		}
	}
	b.finish()
}

// anotherServer tells whether RFC 3263 gave this target a further server; the
// same one by another transport is none.
func (b *branch) anotherServer() bool {
	b.skipSpare()
	return len(b.ways) > 0 && !b.cancelled && !b.f.final
}

// skipSpare leaves out another way to a peer that was reached and is silent.
func (b *branch) skipSpare() {
	if len(b.ways) > 0 && b.ways[0].spare {
		b.ways = b.ways[1:]
	}
}

// cancel ends what a branch is about, whatever its state.
func (b *branch) cancel(reason string) {
	b.targets, b.ways = nil, nil
	if b.done || b.cancelled {
		return
	}
	b.cancelled = true
	switch {
	case b.client == nil:
		// Still looking for a way: try will end it.
	case b.f.invite:
		b.client.Cancel(reason)
	default:
		b.client.Terminate()
		b.finishQuietly()
	}
}

// abandon leaves a branch behind that has rung for long enough.
func (b *branch) abandon() {
	if b.done {
		return
	}
	b.targets, b.ways = nil, nil
	b.f.best.silent = true
	if b.client != nil {
		b.client.Cancel("")
	}
	b.finishQuietly()
}

// ownReply is an answer of our own in the place of one from below.
func (f *fork) ownReply(err error) reply {
	a := f.own(err)
	return reply{status: a.status, raw: f.s.answerBytes(f.r, a, f.tx.Tag()), own: true}
}
