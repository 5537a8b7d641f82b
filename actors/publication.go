package actors

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// publishing is one PUBLISH in progress (RFC 3903 6).
type publishing struct {
	q   *Question
	p   *messages.Publish
	cfg *Limits
	// have is the lease of the entity-tag, old its payload; nil for an initial one.
	have *messages.Lease
	old  *messages.Publication
}

// publish processes one PUBLISH. A publication is found by its entity-tag, which
// each success replaces; what lives on is the lease's key. So a request that
// was overtaken finds nothing (412), and its own repeat is known by the
// entity-tag before, the Call-ID and the CSeq (rule 23).
func (u *User) publish(q *Question, p *messages.Publish) (*Answer, error) {
	if p.GetStamp() == nil || p.GetCallId() == "" || p.GetEvent() == "" || p.GetEntityTag() == "" ||
		p.GetIfMatch() == "" && p.GetId() == "" {
		return nil, fmt.Errorf("%w: incomplete PUBLISH", ErrBadRequest)
	}
	if p.Stamp.Ms > q.NowMS+messages.SkewBoundMS {
		return nil, ErrClockAhead
	}
	if u.cfg.Known != nil && !u.cfg.Known(AoR(p.Aor)) {
		return nil, ErrNotFound
	}
	asked := u.cfg.publishInterval(p)
	if asked > 0 && asked < u.cfg.MinPublish {
		return nil, IntervalTooBriefError{Min: u.cfg.MinPublish}
	}
	t := &publishing{q: q, p: p, cfg: &u.cfg}
	if again := t.find(); again != nil {
		return again, nil
	}
	switch {
	case p.IfMatch != "" && t.have == nil && q.StandIn:
		// The owner may have what has not been copied here yet.
		return nil, RetryAfterError{Err: ErrRetry, After: retryUnsettled}
	case p.IfMatch != "" && t.have == nil:
		return nil, ErrConditionFailed
	case p.IfMatch == "" && (len(p.Body) == 0 || asked == 0):
		// RFC 3903 4.1: an initial publication has a body, and a life.
		return nil, fmt.Errorf("%w: initial publication without body or life", ErrBadRequest)
	}
	if t.have == nil && t.live() >= u.cfg.MaxPublications {
		return nil, ErrTooManyPublications
	}
	return t.write(asked)
}

// PublicationID names the publication that an initial PUBLISH begins. A repeat
// of the request has the same, by whatever node it comes in: where two nodes have
// taken it for the first, as on two sides of a cut, they made one publication.
func PublicationID(callID string, cseq uint32) string {
	h := xxh3.New()
	fmt.Fprintf(h, "%s\x00%d", callID, cseq)
	sum := h.Sum128().Bytes()
	return hex.EncodeToString(sum[:])
}

// publishInterval is what a PUBLISH asks for, the default if it does not say.
func (l *Limits) publishInterval(p *messages.Publish) time.Duration {
	if p.GetHasExpires() {
		return time.Duration(p.GetExpiresS()) * time.Second
	}
	return l.DefaultPublish
}

// find looks for the publication that the request means; if the request is a
// repeat of what has been done already, it returns the answer to it.
func (t *publishing) find() *Answer {
	for _, l := range t.q.Record.GetLeases() {
		if l.GetKind() != messages.LeaseKind_LEASE_KIND_PUBLICATION {
			continue
		}
		var pub messages.Publication
		if proto.Unmarshal(l.GetPayload(), &pub) != nil || pub.Event != t.p.Event {
			continue
		}
		repeat := l.CallId == t.p.CallId && l.Cseq == t.p.Cseq && pub.PreviousTag == t.p.IfMatch
		alive := t.q.Record.Alive(l, t.q.NowMS)
		switch {
		case repeat && (alive || l.Dead):
			return t.repeated(l, &pub)
		case alive && t.p.IfMatch != "" && pub.EntityTag == t.p.IfMatch:
			t.have, t.old = l, &pub
		}
	}
	return nil
}

// repeated is the answer to a request that has been carried out. Its first
// answer may have been lost before the edge stored the lease; so the edge of the
// repeat, which is to keep it now, takes it over if that is another one (rule 5).
func (t *publishing) repeated(l *messages.Lease, pub *messages.Publication) *Answer {
	res := &messages.Published{EntityTag: pub.EntityTag, NowMs: t.q.NowMS}
	if !l.Dead {
		res.ExpiresS = seconds(time.Duration(l.ExpiresMs-t.q.NowMS) * time.Millisecond)
	}
	if l.Edge == t.p.Edge {
		res.Writes = &messages.Record{Aor: t.p.Aor, Leases: []*messages.Lease{l}}
		return &Answer{Reply: res, All: l.Dead, Repeat: true}
	}
	moved := proto.CloneOf(l)
	moved.Edge, moved.Vouch, moved.Stamp = t.p.Edge, t.p.Incarnation, t.p.Stamp
	if moved.Stamp.Compare(l.Stamp) <= 0 {
		moved.Stamp = t.q.above(l.Stamp)
	}
	res.Writes = &messages.Record{Aor: t.p.Aor, Leases: []*messages.Lease{moved}}
	return &Answer{Reply: res, Writes: res.Writes, All: true, Tell: []string{l.Edge}}
}

// key is that of an initial publication.
func (t *publishing) key() []byte { return []byte("pub\x00" + t.p.Event + "\x00" + t.p.Id) }

// live counts the user's publications, but for the one whose place this would take.
func (t *publishing) live() (n int) {
	for _, l := range t.q.Record.GetLeases() {
		if l.GetKind() == messages.LeaseKind_LEASE_KIND_PUBLICATION && t.q.Record.Alive(l, t.q.NowMS) && !bytes.Equal(l.GetKey(), t.key()) {
			n++
		}
	}
	return n
}

// write makes the new lease: RFC 3903 6, steps 4 to 6.
func (t *publishing) write(asked time.Duration) (*Answer, error) {
	granted := min(asked, t.cfg.MaxPublish)
	l := &messages.Lease{
		Key:        t.key(),
		Kind:       messages.LeaseKind_LEASE_KIND_PUBLICATION,
		Edge:       t.p.Edge,
		Stamp:      t.p.Stamp,
		Dead:       asked == 0,
		Vouch:      t.p.Incarnation,
		CallId:     t.p.CallId,
		Cseq:       t.p.Cseq,
		LifetimeMs: t.cfg.MaxPublish.Milliseconds(),
	}
	if !l.Dead {
		l.ExpiresMs = t.p.Stamp.Ms + granted.Milliseconds()
	}
	pub := &messages.Publication{
		Event: t.p.Event, EntityTag: t.p.EntityTag, PreviousTag: t.p.IfMatch,
		ContentType: t.p.ContentType, Body: t.p.Body, ChangedMs: t.p.Stamp.Ms, From: t.p.From,
	}
	a := &Answer{All: l.Dead}
	if t.have != nil {
		l.Key = t.have.Key
		if l.Stamp.Compare(t.have.Stamp) <= 0 {
			// It names the state that it replaces: it is later, whatever the
			// clock of its edge says.
			l.Stamp = t.q.above(t.have.Stamp)
		}
		if len(t.p.Body) == 0 {
			pub.ContentType, pub.Body, pub.ChangedMs = t.old.ContentType, t.old.Body, t.old.ChangedMs
		}
		if t.have.Edge != t.p.Edge {
			a.All, a.Tell = true, []string{t.have.Edge}
		}
	}
	if l.Dead {
		pub.ContentType, pub.Body = "", nil
	}
	var err error
	if l.Payload, err = (proto.MarshalOptions{Deterministic: true}).Marshal(pub); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBadRequest, err)
	}
	res := &messages.Published{EntityTag: pub.EntityTag, NowMs: t.q.NowMS}
	if !l.Dead {
		res.ExpiresS = seconds(granted)
	}
	a.Writes = &messages.Record{Aor: t.p.Aor, Leases: []*messages.Lease{l}}
	res.Writes = a.Writes
	a.Reply = res
	return a, nil
}
