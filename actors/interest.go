package actors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// subscribe tells a node the state of a user, and notes what it wants to be told
// from now on: one lease for each node, whatever the number of its watchers, so
// that a user with ten thousand of them has a record of the usual size.
func (u *User) subscribe(q *Question, m *messages.Subscribe) (*Answer, error) {
	if u.cfg.Known != nil && !u.cfg.Known(AoR(m.Aor)) && len(m.GetInterest().GetEvents()) > 0 {
		return nil, ErrNotFound
	}
	res := &messages.Subscribed{State: withoutMessages(q.Record), NowMs: q.NowMS, Settled: q.Settled && !q.StandIn}
	a := &Answer{Reply: res}
	if m.GetInterest() == nil {
		return a, nil
	}
	l, err := u.interest(q, m)
	if l == nil || err != nil {
		return a, err
	}
	a.Writes = &messages.Record{Aor: m.Aor, Leases: []*messages.Lease{l}}
	res.Writes = a.Writes
	res.State = res.State.Clone()
	res.State.Merge(a.Writes)
	return a, nil
}

// withoutMessages is a record without the messages that are kept for its user.
func withoutMessages(rec *messages.Record) *messages.Record {
	stored := func(l *messages.Lease) bool { return l.GetKind() == messages.LeaseKind_LEASE_KIND_MESSAGE }
	if !slices.ContainsFunc(rec.GetLeases(), stored) {
		return rec
	}
	out := rec.Clone()
	out.Leases = slices.DeleteFunc(out.Leases, stored)
	return out
}

// interestSlack is how much longer than its subscriptions a node's interest may
// live, so that it need not be renewed with each of them.
const interestSlack = 10 * time.Minute

// interestKey is the key of a node's interest in a user.
func interestKey(edge string) []byte { return []byte("watch\x00" + edge) }

// interest is the lease to be written, nil if there is none.
func (u *User) interest(q *Question, m *messages.Subscribe) (*messages.Lease, error) {
	if m.GetStamp() == nil || m.GetEdge() == "" {
		return nil, fmt.Errorf("%w: interest without stamp or node", ErrBadRequest)
	}
	if m.Stamp.Ms > q.NowMS+messages.SkewBoundMS {
		return nil, ErrClockAhead
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interest)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBadRequest, err)
	}
	l := &messages.Lease{
		Key:        interestKey(m.Edge),
		Kind:       messages.LeaseKind_LEASE_KIND_SUBSCRIPTION,
		Edge:       m.Edge,
		Stamp:      m.Stamp,
		Dead:       len(m.Interest.Events) == 0,
		Vouch:      m.Incarnation,
		LifetimeMs: (u.cfg.MaxSubscribe + interestSlack).Milliseconds(),
		Payload:    payload,
	}
	have := q.Record.Lease(l.Key)
	if have == nil && l.Dead {
		return nil, nil
	}
	if !l.Dead {
		l.ExpiresMs = min(m.UntilMs, m.Stamp.Ms+l.LifetimeMs)
	}
	if have == nil {
		return l, nil
	}
	switch c := m.Stamp.Compare(have.Stamp); {
	case c == 0:
		return nil, nil
	case c < 0 && q.future(have.Stamp):
		if q.AcceptedMS != nil && q.AcceptedMS(l.Key) >= q.NowMS-m.AgeMs {
			return nil, nil
		}
		l.Stamp = q.above(have.Stamp)
	case c < 0 && q.NowMS-m.AgeMs > have.Stamp.Ms:
		// Only that node writes this key, so its clock has gone back.
		return nil, ClockBehindError{StampMS: max(q.NowMS, have.Stamp.Ms)}
	case c < 0:
		return nil, nil
	}
	same := have.Dead == l.Dead && have.Vouch == l.Vouch && bytes.Equal(have.Payload, l.Payload)
	if same && (l.Dead || q.Record.Alive(have, q.NowMS) && have.ExpiresMs >= l.ExpiresMs) {
		return nil, nil
	}
	return l, nil
}

// Tell says what the nodes with an interest in a user must be told of a change
// of the user's record, and which nodes these are; nil if nobody or nothing.
// Expiries are not told: the nodes know them.
func (u *User) Tell(before, after *messages.Record, nowMS int64) (*messages.StateChanged, []string) {
	to, watching := interested(nil, after, nowMS)
	if len(to) == 0 {
		return nil, nil
	}
	delta := difference(before, after, nowMS)
	if delta.Empty() {
		return nil, nil
	}
	return &messages.StateChanged{Aor: after.GetAor(), Delta: delta, Sum: Sum(after, nowMS), NowMs: nowMS, Watching: watching}, to
}

// Remind says what the nodes must be told whose interest in a user is in after
// and was not in before, though none of them has asked here: the sum, by which
// each finds whether it has missed anything; nil if there is no such node.
func (u *User) Remind(before, after *messages.Record, nowMS int64) (*messages.StateChanged, []string) {
	to, watching := interested(before, after, nowMS)
	if len(to) == 0 {
		return nil, nil
	}
	return &messages.StateChanged{Aor: after.GetAor(), Sum: Sum(after, nowMS), NowMs: nowMS, Watching: watching}, to
}

// interested lists the nodes with a live interest in after that is not in before,
// and which of them have watchers.
func interested(before, after *messages.Record, nowMS int64) (nodes, watching []string) {
	for _, l := range after.GetLeases() {
		if !l.GetKind().Interested() || !after.Alive(l, nowMS) || slices.Contains(before.GetLeases(), l) {
			continue
		}
		if !slices.Contains(nodes, l.Edge) {
			nodes = append(nodes, l.Edge)
		}
		if l.GetKind() == messages.LeaseKind_LEASE_KIND_SUBSCRIPTION {
			watching = append(watching, l.Edge)
		}
	}
	return nodes, watching
}

// difference is what after has and before had not. What nodes are interested in
// is left out unless somebody watches that: a winfo package.
func difference(before, after *messages.Record, nowMS int64) *messages.Record {
	d := &messages.Record{Aor: after.GetAor()}
	var watched, known bool
	for _, l := range after.GetLeases() {
		if slices.Contains(before.GetLeases(), l) {
			continue
		}
		if l.GetKind() == messages.LeaseKind_LEASE_KIND_MESSAGE {
			continue // its edge has it, and to others it is none of their business
		}
		if l.GetKind() == messages.LeaseKind_LEASE_KIND_SUBSCRIPTION {
			if !known {
				watched, known = watchersWatched(before, nowMS) || watchersWatched(after, nowMS), true
			}
			have := before.Lease(l.Key)
			renewal := have != nil && have.Dead == l.Dead && before.Alive(have, nowMS) && bytes.Equal(have.Payload, l.Payload)
			if !watched || renewal {
				continue
			}
		}
		d.Leases = append(d.Leases, l)
	}
	if f := after.GetFloor(); f != nil && f != before.GetFloor() {
		d.Floor = f
	}
	for _, e := range after.GetEnded() {
		if !slices.Contains(before.GetEnded(), e) {
			d.Ended = append(d.Ended, e)
		}
	}
	return d
}

// watchersWatched tells whether any node has an interest in a winfo package.
func watchersWatched(rec *messages.Record, nowMS int64) bool {
	for _, l := range rec.GetLeases() {
		if l.GetKind() != messages.LeaseKind_LEASE_KIND_SUBSCRIPTION || !rec.Alive(l, nowMS) {
			continue
		}
		var i messages.Interest
		if proto.Unmarshal(l.GetPayload(), &i) != nil {
			continue
		}
		for _, e := range i.Events {
			if strings.HasSuffix(e.Event, ".winfo") {
				return true
			}
		}
	}
	return false
}

// Sum is over all that counts in a record at nowMS, interests and stored
// messages apart: two nodes that know the same of a user have the same sum.
func Sum(rec *messages.Record, nowMS int64) (sum uint64) {
	for _, l := range rec.GetLeases() {
		if l.GetKind().Interested() || !rec.Alive(l, nowMS) {
			continue
		}
		h := xxh3.New()
		h.Write(l.GetKey())
		fmt.Fprintf(h, "\x00%d.%d.%x/%x/%d", l.Stamp.GetMs(), l.Stamp.GetCounter(), l.Stamp.GetIncarnation(), l.Vouch, l.ExpiresMs)
		sum += h.Sum64()
	}
	return sum
}
