package sipfront

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// subscribing is a SUBSCRIBE as this node reads it (RFC 6665 4.2.1).
type subscribing struct {
	pkg      event.Package
	p        *messages.Subscription
	expiresS uint32
	verdict  event.Verdict
}

// subscribe answers a SUBSCRIBE for a user of ours in a package that is served
// here, or within a subscription of this node.
func (s *Server) subscribe(tx serverTx, r *request, p *plan) {
	s.count.subscribes.Add(1)
	var err error
	if r.toTag != "" {
		err = s.resubscribe(tx, r, p)
	} else {
		err = s.newSubscription(tx, r, p)
	}
	if err != nil {
		s.refuse(tx, r, err)
	}
}

// newSubscription is a SUBSCRIBE outside of a dialog.
func (s *Server) newSubscription(tx serverTx, r *request, p *plan) error {
	if err := s.checkRequire(r); err != nil {
		return err
	}
	if p.way != wayUser {
		return eventError{s.watch.names} // of this node itself there is nothing to be told
	}
	q, err := s.readSubscribe(r, p)
	if err != nil {
		return err
	}
	if !s.ask(tx.Context(), func(ctx context.Context) {
		if err := s.accept(ctx, tx, r, q); err != nil {
			s.refuse(tx, r, err)
		}
	}) {
		return actors.ErrOverloaded
	}
	return nil
}

// readSubscribe checks what can be checked without the user's state.
func (s *Server) readSubscribe(r *request, p *plan) (*subscribing, error) {
	pkg, params, err := s.watch.packageOf(r)
	if err != nil {
		return nil, err
	}
	q := &subscribing{pkg: pkg, p: &messages.Subscription{
		Id: s.rand(), Aor: string(p.aor), Event: pkg.Name(), CallId: strings.Clone(r.callID),
		LocalTag: "h" + strconv.FormatUint(s.rand(), 36), RemoteTag: strings.Clone(r.fromTag),
		Local: strings.Clone(r.to), Remote: strings.Clone(r.from), RemoteCseq: r.cseq,
	}}
	if q.p.RemoteTag == "" {
		return nil, fmt.Errorf("%w: no From tag", errMessage)
	}
	if q.p.Watcher, q.p.Authenticated, err = s.admitWatcher(r); err != nil {
		return nil, err
	}
	if err := s.readList(r, q.p); err != nil {
		return nil, err
	}
	if q.verdict = s.watch.verdictOf(q.p); q.verdict == event.Block {
		return nil, errWatcher
	}
	id, _ := param(params, "id")
	q.p.EventId = strings.Clone(id)
	if err := q.minInterval(params); err != nil {
		return nil, err
	}
	if q.expiresS, err = s.subscribeInterval(r); err != nil {
		return nil, err
	}
	return q, s.readWay(r, q.pkg, q.p)
}

// minInterval reads the shortest time between NOTIFYs that the watcher asks for (RFC 6446 5.2).
func (q *subscribing) minInterval(params string) error {
	v, ok := param(params, "min-interval")
	if !ok {
		return nil
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f < 0 || f > math.MaxInt32 || strings.Trim(v, "0123456789.") != "" {
		return fmt.Errorf("%w: min-interval", errMessage)
	}
	q.p.MinIntervalMs = int64(f * 1000)
	return nil
}

// subscribeInterval is what is granted of the interval that a SUBSCRIBE asks
// for, in seconds; 0 ends a subscription, or only fetches (RFC 6665 4.2.1.1).
func (s *Server) subscribeInterval(r *request) (uint32, error) {
	asked := s.cfg.SubscribeDefault
	if v, ok := r.value("Expires"); ok {
		asked = time.Duration(parseExpires(v)) * time.Second
	}
	if asked > 0 && asked < time.Hour && asked < s.cfg.SubscribeMin {
		return 0, actors.IntervalTooBriefError{Min: s.cfg.SubscribeMin}
	}
	return uint32(min(asked, s.cfg.SubscribeMax) / time.Second), nil
}

// readWay reads how the watcher is reached and what it understands: Contact,
// Record-Route, the flow, and Accept.
func (s *Server) readWay(r *request, pkg event.Package, p *messages.Subscription) error {
	contacts := r.values("Contact")
	if len(contacts) != 1 {
		return fmt.Errorf("%w: one is needed", errContact)
	}
	target, _, ok := splitAddr(contacts[0])
	if !ok {
		return errContact
	}
	if u, err := parseURI(target); err != nil || u.opaque != "" {
		return errContact
	}
	p.Target = strings.Clone(target)
	p.MediaType = pkg.NotifyTypes()[0]
	if accept := r.values("Accept"); len(accept) > 0 {
		var ok bool
		if p.MediaType, ok = acceptable(pkg.NotifyTypes(), accept); !ok {
			return errAccept
		}
	}
	if r.toTag == "" {
		for _, v := range r.values("Record-Route") {
			p.Routes = append(p.Routes, strings.Clone(v))
		}
	}
	f := r.msg.Flow
	if f == nil || len(p.Routes) > 0 {
		return sendable(p)
	}
	p.Transport, p.FlowLocal, p.FlowRemote = f.Transport(), f.Local().String(), f.Remote().String()
	p.FlowBound = flowBound(r, &messages.RegisterContact{Uri: p.Target}, f)
	p.Flow = nil
	if p.FlowBound || f.Reliable() {
		p.Flow = s.parts.Transport.Pin(f)
	}
	return sendable(p)
}

// acceptable is the first of our media types that Accept has.
func acceptable(types, accept []string) (string, bool) {
	for _, t := range types {
		major, _, _ := strings.Cut(t, "/")
		for _, a := range accept {
			if q, ok := param(strings.TrimPrefix(a, mediaHead(a)), "q"); ok && strings.Trim(q, "0.") == "" {
				continue
			}
			if m := mediaTypeOf(a); m == t || m == "*/*" || m == major+"/*" {
				return t, true
			}
		}
	}
	return "", false
}

func mediaHead(a string) string {
	head, _, _ := strings.Cut(a, ";")
	return head
}

// admitWatcher says who watches, and whether that is sure. Who says nothing of
// themselves may be let in all the same: that is for the Authorizer to say.
func (s *Server) admitWatcher(r *request) (watcher string, sure bool, err error) {
	text, _, ok := splitAddr(r.from)
	if !ok {
		return "", false, errMessage
	}
	aor, err := actors.ParseAoR(text, s.cfg.Domains)
	local := err == nil
	if !local {
		u, err := parseURI(text)
		switch {
		case err != nil:
			return "", false, errMessage
		case u.host != "anonymous.invalid" && u.user != "" && u.opaque == "":
			aor = actors.AoR("sip:" + u.user + "@" + u.host)
		}
	}
	switch {
	case s.digest == nil:
		return string(aor), false, nil
	case s.fromTrunk(r):
		s.count.trunkRequests.Add(1)
		return string(aor), true, nil
	case local:
		return string(aor), true, s.authenticate(r, aor.Domain(), aor, false)
	}
	s.count.callersRefused.Add(1)
	return "", false, nil
}

// accept asks the user's owner, keeps the subscription and answers; the first
// NOTIFY follows at once (RFC 6665 4.2.1.3).
func (s *Server) accept(ctx context.Context, tx serverTx, r *request, q *subscribing) error {
	n, now := s.watch, s.parts.Cluster.NowMS()
	q.p.SinceMs, q.p.ExpiresMs = now, now+int64(q.expiresS)*1000
	q.p.Reserved = cseqBlock
	q.p.Contact = s.dialogContact(r)
	sub := &subscription{p: q.p, pkg: q.pkg, verdict: q.verdict, force: true}
	fetch := q.expiresS == 0
	if err := n.begin(sub, fetch); err != nil {
		s.count.subscriptionsRefused.Add(1)
		return err
	}
	err := n.askOwner(ctx, sub.user)
	if err == nil {
		n.askMembers(ctx, sub)
	}
	if err == nil && !fetch {
		done := make(chan error, 1)
		n.mu.Lock()
		n.store(sub, func(err error) { done <- err })
		n.mu.Unlock()
		select {
		case err = <-done:
			if err != nil {
				err = fmt.Errorf("%w: %v", actors.ErrDisk, err)
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		n.giveUp(sub)
		return err
	}
	s.accepted(tx, r, sub, q.expiresS)
	n.established(sub, fetch)
	return nil
}

// accepted sends the 200 to a SUBSCRIBE.
func (s *Server) accepted(tx serverTx, r *request, sub *subscription, expiresS uint32) {
	hs := []header{
		{"Expires", strconv.FormatUint(uint64(expiresS), 10)},
		{"Contact", sub.p.Contact},
	}
	if sub.p.List {
		hs = append(hs, header{"Require", tagEventlist})
	}
	for _, v := range r.values("Record-Route") {
		hs = append(hs, header{"Record-Route", v})
	}
	s.send(tx, r, 200, s.answerBytes(r, answer{200, "OK", hs}, sub.p.LocalTag))
}

// dialogContact is our Contact in the dialog of a SUBSCRIBE: any node that is
// asked for it knows which one serves the subscription.
func (s *Server) dialogContact(r *request) string {
	t := token{kind: tokenSubscription, edge: s.parts.Cluster.Self()}
	user := string(t.seal(s.flowKey, r.callID))
	scheme, f := "sip:", r.msg.Flow
	if r.target.scheme == "sips" {
		scheme = "sips:"
	}
	text := "<" + scheme + user + "@" + s.advertised(f).String()
	if f.Transport() != "udp" && scheme == "sip:" {
		text += ";transport=" + f.Transport()
	}
	return text + ">"
}

// resubscribe is a SUBSCRIBE within a dialog: a refresh, or the end.
func (s *Server) resubscribe(tx serverTx, r *request, _ *plan) error {
	pkg, params, err := s.watch.packageOf(r)
	if err != nil {
		return err
	}
	id, _ := param(params, "id")
	key := usage{callID: r.callID, localTag: r.toTag, remoteTag: r.fromTag, event: pkg.Name(), id: id}
	sub, known := s.watch.find(key)
	if sub == nil {
		return errNoDialog
	}
	if s.digest != nil && known.Authenticated && !s.fromTrunk(r) {
		aor := actors.AoR(known.Watcher)
		if err := s.authenticate(r, aor.Domain(), aor, false); err != nil {
			return err
		}
	}
	expiresS, err := s.subscribeInterval(r)
	if err != nil {
		return err
	}
	p := proto.CloneOf(known)
	if err := s.readWay(r, pkg, p); err != nil {
		return err
	}
	if err := s.readList(r, p); err != nil {
		return err
	}
	p.RemoteCseq = r.cseq
	now := s.parts.Cluster.NowMS()
	p.ExpiresMs = now + int64(expiresS)*1000
	if !s.ask(tx.Context(), func(context.Context) {
		defer s.watch.replied(sub)
		if err := s.watch.refresh(sub, p, expiresS, now); err != nil {
			s.refuse(tx, r, err)
			return
		}
		s.accepted(tx, r, sub, expiresS)
	}) {
		return actors.ErrOverloaded
	}
	return nil
}
