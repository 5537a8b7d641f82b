package sipfront

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"hereis/messages"
	"hereis/sipfront/event"
	"hereis/sipfront/transport"
)

// turnSize is how many NOTIFYs of one user go out before the next user's: ten
// thousand watchers of one delay nobody else's.
const turnSize = 32

// notification is one NOTIFY on its way.
type notification struct {
	sub *subscription
	// p is the subscription as it was when the NOTIFY was made.
	p     *messages.Subscription
	cseq  uint32
	state string
	doc   event.Document
	// last: it ends the subscription.
	last bool
}

// send sends what is due, within the bound on NOTIFYs without an answer.
func (n *notifier) send() {
	for {
		n.mu.Lock()
		turn := n.turn()
		n.mu.Unlock()
		if turn == nil {
			return
		}
		for _, o := range turn {
			n.dispatch(o)
		}
	}
}

// turn takes some of what is due: that of the user who has waited longest. It
// is nil if there is nothing, or no room.
func (n *notifier) turn() []*notification {
	u := n.first()
	if u == nil {
		return nil
	}
	room := min(n.s.cfg.MaxNotifies-n.inflight, n.share()-u.inflight)
	now := n.nowMS()
	turn := make([]*notification, 0, min(turnSize, len(u.waiting)))
	for len(u.waiting) > 0 && len(turn) < min(turnSize, room) {
		sub := u.waiting[0]
		u.waiting[0] = nil
		u.waiting = u.waiting[1:]
		sub.waiting = false
		if o := n.make(sub, now); o != nil {
			sub.busy = true
			n.inflight++
			u.inflight++
			turn = append(turn, o)
		}
	}
	if u.inReady = len(u.waiting) > 0; u.inReady {
		n.ready = append(n.ready, u)
	} else {
		u.waiting = nil
		n.tidy(u)
	}
	return turn
}

// first takes the user whose turn it is; nil: there is none, or no room. One whose
// watchers are silent waits for them, out of the way of others.
func (n *notifier) first() *watched {
	for len(n.ready) > 0 && n.inflight < n.s.cfg.MaxNotifies {
		u := n.ready[0]
		n.ready[0] = nil
		n.ready = n.ready[1:]
		if u.inflight < n.share() {
			return u
		}
		u.inReady = false // finish brings it back
	}
	return nil
}

// share is how many NOTIFYs of one user may be without an answer: ten thousand
// watchers who have all gone would take the places of everybody for minutes.
func (n *notifier) share() int { return max(n.s.cfg.MaxNotifies/4, min(n.s.cfg.MaxNotifies, turnSize)) }

// make is the next NOTIFY of a subscription, nil if there is nothing to tell now.
func (n *notifier) make(sub *subscription, now int64) *notification {
	if sub.silent || sub.answering || sub.of.state == nil && sub.reason == "" {
		return nil
	}
	pending := sub.verdict == event.Confirm
	if sub.reason == "" && !sub.force && !sub.retry && (pending || sub.told != nil && !n.anyNews(sub)) {
		return nil
	}
	if sub.cseq >= sub.p.Reserved && !sub.gone {
		n.reserve(sub) // and comes again
		return nil
	}
	if sub.p.Reserved-sub.cseq < cseqBlock/4 {
		n.reserve(sub)
	}
	sub.cseq++
	o := &notification{sub: sub, p: sub.p, cseq: sub.cseq, state: n.substate(sub, now), last: sub.reason != ""}
	if !pending && sub.of.state != nil && (sub.reason == "" || sub.reason == "timeout") {
		o.doc = n.compose(sub)
	}
	sub.force, sub.retry = false, false
	sub.nextMS = now + max(n.s.cfg.NotifyInterval.Milliseconds(), sub.p.MinIntervalMs)
	return o
}

// anyNews tells whether a watcher who was told something is to be told again.
func (n *notifier) anyNews(sub *subscription) bool {
	if sub.p.List {
		return n.listNews(sub)
	}
	return sub.pkg.Changed(sub.told, n.shown(sub))
}

// shown is the state that a subscription's watcher is shown.
func (n *notifier) shown(sub *subscription) *event.State {
	if sub.verdict != event.Allow {
		return nothingOf(sub.of.state)
	}
	return sub.of.state
}

// compose makes a subscription's document; one that is the same for all
// watchers is made once.
func (n *notifier) compose(sub *subscription) event.Document {
	if sub.p.List {
		return n.composeList(sub)
	}
	shared := false
	if _, uniform := sub.pkg.(event.Uniform); uniform && sub.verdict == event.Allow {
		shared = true
		if doc, ok := sub.of.documents[sub.p.MediaType]; ok {
			sub.told = sub.of.state
			return doc
		}
	}
	st := n.shown(sub)
	doc, err := sub.pkg.Compose(&event.Composition{
		State: st, Told: sub.told, Version: sub.version, MediaType: sub.p.MediaType, Watcher: sub.p.Watcher,
	})
	if err != nil {
		n.s.count.composeErrors.Add(1)
		n.s.log.Warn("no document", "aor", sub.p.Aor, "kind", sub.p.Event, "err", err)
		return event.Document{}
	}
	sub.told = st
	sub.version++
	if shared {
		if sub.of.documents == nil {
			sub.of.documents = map[string]event.Document{}
		}
		sub.of.documents[sub.p.MediaType] = doc
	}
	return doc
}

// substate is the value of Subscription-State (RFC 6665 4.1.3).
func (n *notifier) substate(sub *subscription, now int64) string {
	if sub.reason != "" {
		return "terminated;reason=" + sub.reason
	}
	state := "active"
	if sub.verdict == event.Confirm {
		state = "pending"
	}
	return state + ";expires=" + strconv.FormatInt(max((sub.p.ExpiresMs-now+999)/1000, 0), 10)
}

// dispatch finds the way to a watcher and sends. Where a name must be resolved
// it goes on when that is done.
func (n *notifier) dispatch(o *notification) {
	t, err := o.target()
	if err != nil {
		n.failed(o, err)
		return
	}
	ways, err := n.s.ways(t)
	if !errors.Is(err, errResolve) {
		n.sendBy(o, t, ways, err)
		return
	}
	if !n.s.ask(context.Background(), func(ctx context.Context) {
		ways, err := n.s.resolve(ctx, t.next(), len(o.doc.Body) > maxDatagram-600)
		n.sendBy(o, t, ways, err)
	}) {
		n.finish(o, 503, 1)
	}
}

// target is where a NOTIFY goes: the watcher's Contact by the route set, or by
// the flow that it subscribed over.
func (o *notification) target() (*target, error) {
	u, err := parseURI(o.p.Target)
	if err != nil {
		return nil, err
	}
	t := &target{uri: u, routes: o.p.Routes, via: viaURI}
	if len(o.p.Routes) > 0 || !o.p.FlowBound && (o.p.Transport == "udp" || o.p.Transport == "") {
		return t, nil
	}
	t.via = viaSide
	t.side = side{flow: o.p.Flow, transport: o.p.Transport, bound: o.p.FlowBound}
	if t.side.local, err = netip.ParseAddrPort(o.p.FlowLocal); err != nil {
		return nil, err
	}
	t.side.remote, err = netip.ParseAddrPort(o.p.FlowRemote)
	return t, err
}

// sendBy sends by the first way; the next one has its turn when that fails at
// once or in silence (RFC 3263 4.3).
func (n *notifier) sendBy(o *notification, t *target, ways []wayOut, err error) {
	for len(ways) > 0 {
		w := ways[0]
		ways = ways[1:]
		d := o.draft(n.s, t, w)
		if stream, ok := n.s.byStream(w, d.size()); ok {
			w = stream
			d = o.draft(n.s, t, w)
		}
		n.s.count.notifies.Add(1)
		rest := ways
		if _, err = n.s.layer.RequestRaw(d.outgoing(), w.flow, func(msg *transport.Message, err error) {
			switch {
			case err != nil && len(rest) > 0:
				n.sendBy(o, t, rest, err)
			case err != nil:
				n.failed(o, err)
			case msg.Head().Status >= 200:
				n.finish(o, msg.Head().Status, retryAfter(msg))
			}
		}); err == nil {
			return
		}
	}
	n.failed(o, err)
}

// draft is the NOTIFY as it leaves by one way.
func (o *notification) draft(s *Server, t *target, w wayOut) draft {
	p := o.p
	ev := p.Event
	if p.EventId != "" {
		ev += ";id=" + p.EventId
	}
	d := draft{method: "NOTIFY", target: t.uri, routes: slices.Clone(t.routes), body: string(o.doc.Body)}
	d.setVia(w.flow, s.advertised(w.flow), strconv.AppendUint([]byte(magic+"n"), s.rand(), 36))
	d.headers = []header{
		{"Max-Forwards", strconv.Itoa(s.cfg.MaxForwards)},
		{"From", p.Local + ";tag=" + p.LocalTag},
		{"To", p.Remote},
		{"Call-ID", p.CallId},
		{"CSeq", strconv.FormatUint(uint64(o.cseq), 10) + " NOTIFY"},
		{"Contact", p.Contact},
		{"Event", ev},
		{"Subscription-State", o.state},
	}
	if p.List {
		d.headers = append(d.headers, header{"Require", tagEventlist})
	}
	if len(o.doc.Body) > 0 {
		d.headers = append(d.headers, header{"Content-Type", o.doc.MediaType})
	}
	s.route(&d)
	return d
}

// retryAfter is the Retry-After of a refusal in seconds, 0 if there is none.
func retryAfter(msg *transport.Message) int64 {
	if msg.Head().Status < 300 {
		return 0
	}
	_, res := msg.Model()
	h := res.GetHeader("Retry-After")
	if h == nil {
		return 0
	}
	v, _, _ := strings.Cut(h.Value(), ";")
	v, _, _ = strings.Cut(v, "(")
	s, err := strconv.ParseInt(strings.TrimSpace(v), 10, 32)
	if err != nil {
		return 0
	}
	return max(s, 0)
}

// endsUsage tells whether an answer to a NOTIFY says that there is no such
// subscription at the other end, or never will be (RFC 6665 4.2.2, RFC 5057 5.1).
func endsUsage(status int) bool {
	switch status {
	case 404, 405, 408, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 502, 604:
		return true
	}
	return false
}

// maxNotifyFails is how many failures of a kind that may pass a subscription survives.
const maxNotifyFails = 5

// room says that a NOTIFY of a user has its answer.
func (n *notifier) room(u *watched) {
	u.inflight--
	if len(u.waiting) > 0 && !u.inReady {
		u.inReady = true
		n.ready = append(n.ready, u)
	}
}

// failed says that a NOTIFY has no answer: nobody is there (RFC 6665 4.2.2).
func (n *notifier) failed(o *notification, err error) {
	n.s.log.Debug("NOTIFY not answered", "call_id", o.p.CallId, "aor", o.p.Aor, "err", err)
	n.finish(o, 408, 0)
}

// finish takes in what became of a NOTIFY. afterS is its Retry-After.
func (n *notifier) finish(o *notification, status int, afterS int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.poke()
	sub, now := o.sub, n.nowMS()
	n.inflight--
	n.room(sub.user)
	n.fetched(sub)
	sub.busy = false
	if status < 300 {
		sub.fails = 0
	} else {
		n.s.count.notifiesFailed.Add(1)
	}
	switch {
	case o.last:
		return
	case status >= 300 && (endsUsage(status) || sub.fails >= maxNotifyFails):
		n.drop(sub)
		return
	case status >= 300:
		sub.fails++
		sub.told, sub.retry, sub.again = nil, true, true
		sub.nextMS = now + max(afterS*1000, int64(1000)<<sub.fails)
	}
	if sub.again || sub.reason != "" {
		sub.again = false
		n.due(sub, now)
	}
}
