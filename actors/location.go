package actors

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Question is what a user is asked: a message, the merged state of the user,
// and what the node knows about the members. It is, field by field, the
// question of the cluster's grains.
type Question struct {
	Message proto.Message
	// Record is the merged state; never nil, never to be changed.
	Record *messages.Record
	// NowMS is the node time.
	NowMS int64
	// StandIn: this node is the second holder and answers in the owner's place.
	StandIn bool
	// Settled: the answering node knows all there is to know of this key (rule 14).
	Settled bool
	// FailedMember: a member is remembered as failed and has not come back (rule 15).
	FailedMember bool
	// LiveEdge tells whether a node is in the view.
	LiveEdge func(node string) bool
	// EdgeIncarnation is the incarnation of a node in the view, 0 if it is
	// not there: an older vouch does not count (rule 12). Nil: nobody knows.
	EdgeIncarnation func(node string) uint64
	// AcceptedMS is the holder's node time at which it accepted the present
	// lease of a key or (nil) the floor; 0 if it came as a copy (rule 1).
	AcceptedMS func(key []byte) int64
	// NewStamp makes a stamp of this node's own, above every one that it knows (rule 2).
	NewStamp func() *messages.Stamp
}

// future tells whether a stamp is further ahead of this holder's time than clocks
// may lie apart: it was made by a clock that was wrong then, and says nothing of
// when. Whatever comes after it is written just above it (rule 9).
func (q *Question) future(s *messages.Stamp) bool { return s.GetMs() > q.NowMS+messages.SkewBoundMS }

// above makes a stamp of this node's own that is above another.
func (q *Question) above(than *messages.Stamp) *messages.Stamp {
	s := q.NewStamp()
	if s.Compare(than) <= 0 {
		s = &messages.Stamp{Ms: than.GetMs(), Counter: than.GetCounter() + 1, Incarnation: s.GetIncarnation()}
	}
	return s
}

// Answer is what a user says to a Question; it is, field by field, the answer
// of the cluster's grains.
type Answer struct {
	// Reply goes back to the asker; an error is a messages.Failure.
	Reply proto.Message
	// Writes are merged into the user's record and copied; nil for none.
	Writes *messages.Record
	// All: the reply waits for the other holder and for Tell too (rule 5).
	All bool
	// Tell names former edges that must drop what they hold.
	Tell []string
	// Repeat: the reply is that of an earlier delivery, whose copies may still be
	// on their way; it waits for them as the first one does (rule 5).
	Repeat bool
	// Incomplete: a positive answer may grow, a negative one is not to be believed (rule 13).
	Incomplete bool
}

// User is the logic of the user grain: the registrar and location service of
// every user, without any user's state. It is safe for concurrent use.
type User struct{ cfg Limits }

// New makes the logic for limits that Validate accepts.
func New(cfg Limits) *User { return &User{cfg: cfg} }

// Answer decides what becomes of a message to a user.
func (u *User) Answer(q *Question) *Answer {
	switch msg := q.Message.(type) {
	case *messages.Register:
		a, err := u.register(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.Remove:
		a, err := u.remove(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.Publish:
		a, err := u.publish(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.Subscribe:
		a, err := u.subscribe(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.StoreMessage:
		a, err := u.storeMessage(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.DropMessages:
		a, err := u.dropMessages(q, msg)
		if err != nil {
			return &Answer{Reply: ToFailure(err)}
		}
		return a
	case *messages.Locate:
		return u.locate(q, msg)
	case *messages.Where:
		return &Answer{Reply: &messages.Whereabouts{Record: q.Record, NowMs: q.NowMS, Settled: q.Settled}}
	}
	return &Answer{Reply: ToFailure(fmt.Errorf("%w: %T", ErrUnknownType, q.Message))}
}

// register processes one REGISTER (RFC 3261 10.3 steps 6 to 8). Nothing is
// changed here: what it writes is in the Answer, all of it or none.
func (u *User) register(q *Question, r *messages.Register) (*Answer, error) {
	if err := u.check(q.NowMS, r); err != nil {
		return nil, err
	}
	t := &update{q: q, r: r, cfg: &u.cfg, made: &decision{}}
	t.writes = t.made.list[:0]
	var err error
	if r.GetStar() {
		err = t.star()
	} else {
		err = t.contacts()
	}
	if err != nil {
		return nil, err
	}
	if t.behind {
		return nil, ClockBehindError{StampMS: t.highestMS()}
	}
	if err := t.limit(); err != nil {
		return nil, err
	}
	return t.answer(), nil
}

// check refuses what is wrong whatever the user's state is.
func (u *User) check(nowMS int64, r *messages.Register) error {
	if r.GetStar() && (len(r.GetContacts()) > 0 || !r.GetHasExpires() || r.GetExpiresS() != 0) {
		return fmt.Errorf("%w: Contact * with other Contacts or without Expires 0", ErrBadRequest)
	}
	if !r.GetStar() && len(r.GetContacts()) == 0 {
		return nil
	}
	if r.GetStamp() == nil || r.GetCallId() == "" {
		return fmt.Errorf("%w: no stamp or no Call-ID", ErrBadRequest)
	}
	if r.Stamp.Ms > nowMS+messages.SkewBoundMS {
		return ErrClockAhead
	}
	for _, c := range r.GetContacts() {
		if c.GetUri() == "" {
			return fmt.Errorf("%w: empty Contact", ErrBadRequest)
		}
		if u.cfg.tooBrief(u.cfg.requested(r, c)) {
			return IntervalTooBriefError{Min: u.cfg.MinExpires}
		}
	}
	return nil
}

// update is one REGISTER in progress.
type update struct {
	q   *Question
	r   *messages.Register
	cfg *Limits

	// writes are the new leases, one per key; floor is the new floor.
	writes []*messages.Lease
	floor  *messages.Floor
	// kept and keptFloor are what an earlier delivery of this request wrote.
	kept      []*messages.Lease
	keptFloor *messages.Floor
	// added counts writes that make one more binding live.
	added int
	// behind: the edge's clock is behind; nothing may be written.
	behind bool
	all    bool
	tell   []string
	made   *decision
}

// decision is what a REGISTER with one Contact comes to, in one piece of memory.
// It must not be copied.
type decision struct {
	answer   Answer
	lease    messages.Lease
	leased   bool // lease is taken
	list     [1]*messages.Lease
	writes   messages.Record
	after    messages.Record
	leases   [2]*messages.Lease
	reply    messages.Registered
	bindings [2]*messages.Lease
}

// contacts finds each Contact's key and decides on all of them in turn.
func (t *update) contacts() error {
	var room [2]entry
	entries := room[:0]
	for _, c := range t.r.GetContacts() {
		e := resolve(t.q.Record, c, t.q.NowMS)
		e.removal = t.cfg.requested(t.r, c) == 0
		if i := slices.IndexFunc(entries, func(o entry) bool { return e.replaces(&o) }); i >= 0 {
			e.key = entries[i].key
			entries[i] = e
			continue
		}
		entries = append(entries, e)
	}
	for i := range entries {
		if err := t.decide(&entries[i]); err != nil {
			return err
		}
	}
	for i := range entries {
		t.joinTwins(&entries[i])
	}
	return nil
}

// decide applies rule 7 (Call-ID and CSeq) and then rule 1 (stamps) to one key.
func (t *update) decide(e *entry) error {
	have, floor := e.have, t.q.Record.GetFloor()
	if have != nil && t.r.Stamp.Compare(have.Stamp) == 0 {
		t.kept = append(t.kept, have)
		return nil
	}
	if floor != nil && floor.CallId == t.r.CallId && t.r.Cseq <= floor.Cseq {
		return ErrStaleCSeq
	}
	if have != nil && have.CallId == t.r.CallId && t.r.Cseq <= have.Cseq {
		// RFC 3261 10.3 step 7 would fail a retransmission too; a client that
		// missed our 200 must not be told 500 (rule 7).
		if t.r.Cseq < have.Cseq || have.Dead != e.removal {
			return ErrStaleCSeq
		}
		moved := !have.Dead && (have.Edge != t.r.Edge || !have.Flow.Same(t.r.Flow))
		if !moved || t.r.Stamp.Compare(have.Stamp) < 0 {
			t.kept = append(t.kept, have)
			return nil
		}
	}
	stamp, ok := t.order(have, floor)
	if !ok {
		return nil
	}
	return t.write(e, stamp)
}

// order finds the stamp for a write over a lease and a floor, either of which
// may be nil. Normally it is the request's. A lower one than theirs either
// came later by a clock that is behind (t.behind), or is later by the word of
// its own UA and gets a stamp of ours (rule 2), or took effect before them:
// then there is nothing to write (rule 1).
func (t *update) order(have *messages.Lease, floor *messages.Floor) (*messages.Stamp, bool) {
	byLease := have != nil && t.r.Stamp.Compare(have.Stamp) <= 0
	byFloor := floor != nil && t.r.Stamp.Compare(floor.Stamp) <= 0
	if !byLease && !byFloor {
		return t.r.Stamp, true
	}
	if stamp, ok, is := t.overFuture(have, floor); is {
		return stamp, ok
	}
	if byLease && t.arrivedAfter(have.Key, have.Stamp) || byFloor && t.arrivedAfter(nil, floor.Stamp) {
		t.behind = true
		return nil, false
	}
	if byLease && have.CallId != t.r.CallId || byFloor && floor.CallId != t.r.CallId {
		return nil, false
	}
	return t.q.NewStamp(), true
}

// overFuture is order where the lease or the floor has a stamp of the future; false
// if neither has. Only what this holder has accepted itself can be known to be later
// than the request.
func (t *update) overFuture(have *messages.Lease, floor *messages.Floor) (stamp *messages.Stamp, ok, is bool) {
	top, key, callID := have.GetStamp(), have.GetKey(), have.GetCallId()
	if floor.GetStamp().Compare(top) > 0 {
		top, key, callID = floor.GetStamp(), nil, floor.GetCallId()
	}
	if !t.q.future(top) {
		return nil, false, false
	}
	if accepted := t.acceptedMS(key); callID != t.r.CallId && accepted >= t.q.NowMS-t.r.GetAgeMs() {
		return nil, false, true
	}
	return t.q.above(top), true, true
}

// acceptedMS is when this holder accepted the lease of a key (nil: the floor), 0 if it did not.
func (t *update) acceptedMS(key []byte) int64 {
	if t.q.AcceptedMS == nil {
		return 0
	}
	return t.q.AcceptedMS(key)
}

// arrivedAfter tells whether the request reached its edge after this holder
// accepted the lease of a key (nil: the floor), by the holder's own clock.
// What came as a copy was accepted elsewhere: its stamp tells when, as well as
// clocks agree.
func (t *update) arrivedAfter(key []byte, winner *messages.Stamp) bool {
	accepted := t.acceptedMS(key)
	if accepted == 0 {
		accepted = winner.GetMs()
	}
	return t.q.NowMS-t.r.GetAgeMs() > accepted
}

// highestMS is what the edge must raise its clock above (rule 1); no clock follows
// a stamp of the future.
func (t *update) highestMS() int64 {
	ms := t.q.NowMS
	raise := func(s *messages.Stamp) {
		if !t.q.future(s) {
			ms = max(ms, s.GetMs())
		}
	}
	raise(t.q.Record.GetFloor().GetStamp())
	for _, l := range t.q.Record.GetLeases() {
		raise(l.GetStamp())
	}
	return ms
}

// write puts a new lease or tombstone on a key.
func (t *update) write(e *entry, stamp *messages.Stamp) error {
	l := t.lease(e.key, stamp, boundFlow(t.r, e.contact))
	wasAlive := e.have != nil && t.q.Record.Alive(e.have, t.q.NowMS)
	if e.removal {
		l.Dead = true
		t.all = true
	} else {
		// Both from the request's stamp: a stamp of ours only breaks a tie.
		granted := t.cfg.granted(t.cfg.requested(t.r, e.contact), t.r.Stamp)
		l.ExpiresMs = t.r.Stamp.Ms + granted.Milliseconds()
		since := t.r.Stamp.Ms
		if wasAlive {
			since = peek(e.have.Payload, bindingSince).sinceMS
		}
		var err error
		if l.Payload, err = bind(t.r, e.contact, since, e.have.GetPayload()); err != nil {
			return fmt.Errorf("%w: %v", ErrBadRequest, err)
		}
		if !wasAlive {
			t.added++
		}
	}
	// A Contact that is called directly is the same by whatever flow it came.
	if wasAlive && (e.have.Edge != t.r.Edge || e.contact.FlowBound && !e.have.Flow.Same(t.r.Flow)) {
		t.all = true
		t.tellEdge(e.have.Edge)
	}
	t.writes = append(t.writes, l)
	return nil
}

// lease is a lease of this request's edge without payload.
func (t *update) lease(key []byte, stamp *messages.Stamp, flow *messages.FlowID) *messages.Lease {
	l := &t.made.lease
	if t.made.leased {
		l = &messages.Lease{}
	}
	t.made.leased = true
	l.Key, l.Kind = key, messages.LeaseKind_LEASE_KIND_BINDING
	l.Edge, l.Flow, l.Stamp, l.Vouch = t.r.Edge, flow, stamp, t.r.Incarnation
	l.CallId, l.Cseq, l.LifetimeMs = t.r.CallId, t.r.Cseq, t.cfg.lifetimeMS()
	return l
}

// boundFlow is the flow that a lease lives and dies with. A Contact that can be
// called without its connection does not care when that closes.
func boundFlow(r *messages.Register, c *messages.RegisterContact) *messages.FlowID {
	if r.GetFlow().GetStream() && !c.GetFlowBound() {
		return nil
	}
	return r.GetFlow()
}

// tellEdge notes a former edge; the one that asked learns from the answer.
func (t *update) tellEdge(edge string) {
	if edge != t.r.Edge && edge != "" && !slices.Contains(t.tell, edge) {
		t.tell = append(t.tell, edge)
	}
}

// joinTwins ends other live leases of an equal Contact, which two sides of a
// partition made: all of them on a removal, on a refresh those of the same UA.
func (t *update) joinTwins(e *entry) {
	written := func(key []byte) bool {
		return slices.ContainsFunc(t.writes, func(l *messages.Lease) bool { return bytes.Equal(l.Key, key) })
	}
	if !written(e.key) {
		return
	}
	for _, twin := range e.twins {
		sameUA := twin.CallId == t.r.CallId
		if written(twin.Key) || twin.Stamp.Compare(t.r.Stamp) >= 0 ||
			sameUA && twin.Cseq >= t.r.Cseq || !sameUA && !e.removal {
			continue
		}
		l := t.lease(twin.Key, t.r.Stamp, boundFlow(t.r, e.contact))
		l.Dead = true
		t.writes = append(t.writes, l)
		t.all = true
		t.tellEdge(twin.Edge)
	}
}

func isBinding(l *messages.Lease) bool {
	return l.GetKind() == messages.LeaseKind_LEASE_KIND_BINDING
}

// answer makes the 200: every live binding after the writes, with the edge's
// part of them.
func (t *update) answer() *Answer {
	after, a := t.q.Record, &t.made.answer
	a.All, a.Tell, a.Repeat = t.all || t.repeatsRemoval(), t.tell, t.repeats()
	if len(t.writes) > 0 || t.floor != nil {
		a.Writes = &t.made.writes
		a.Writes.Aor, a.Writes.Leases, a.Writes.Floor = t.r.Aor, t.writes, t.floor
		next := &t.made.after
		next.Leases = append(t.made.leases[:0], after.GetLeases()...)
		next.Floor, next.Ended = after.GetFloor(), after.GetEnded()
		next.Merge(a.Writes) // which have nothing of Ended
		after = next
	}
	res := &t.made.reply
	res.Bindings = appendLive(t.made.bindings[:0], after, t.q.NowMS)
	res.Writes, res.NowMs = t.toKeep(a.Writes), t.q.NowMS
	a.Reply = res
	return a
}

// repeats tells whether something of the request was written by an earlier delivery of it.
func (t *update) repeats() bool { return len(t.kept) > 0 || t.keptFloor != nil }

// repeatsRemoval tells whether that ended a binding.
func (t *update) repeatsRemoval() bool {
	return t.keptFloor != nil || slices.ContainsFunc(t.kept, func(l *messages.Lease) bool { return l.Dead })
}

// toKeep adds to the writes what an earlier delivery of this request wrote for
// this edge: its answer may have been lost before the edge stored it.
func (t *update) toKeep(writes *messages.Record) *messages.Record {
	own := slices.DeleteFunc(t.kept, func(l *messages.Lease) bool { return l.Edge != t.r.Edge })
	if len(own) == 0 && t.keptFloor.GetEdge() != t.r.Edge {
		return writes
	}
	keep := &messages.Record{Aor: t.r.Aor, Leases: append(own, writes.GetLeases()...), Floor: writes.GetFloor()}
	if keep.Floor == nil && t.keptFloor.GetEdge() == t.r.Edge {
		keep.Floor = t.keptFloor
	}
	return keep
}

// liveBindings lists the bindings that count at nowMS, in the order of their
// keys: the same at every holder.
func liveBindings(rec *messages.Record, nowMS int64) []*messages.Lease {
	return appendLive(nil, rec, nowMS)
}

func appendLive(live []*messages.Lease, rec *messages.Record, nowMS int64) []*messages.Lease {
	for _, l := range rec.GetLeases() {
		if isBinding(l) && rec.Alive(l, nowMS) {
			live = append(live, l)
		}
	}
	if len(live) > 1 {
		slices.SortFunc(live, func(a, b *messages.Lease) int { return bytes.Compare(a.Key, b.Key) })
	}
	return live
}

// retryUnsettled is when a question that found no settled owner is worth
// repeating: views settle within a second or two.
const retryUnsettled = 2 * time.Second
