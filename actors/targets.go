package actors

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"hereis/messages"
)

// retryFailed is when a user who may be on a failed member is worth another call.
const retryFailed = 30 * time.Second

// locate answers a WHEREIS by the table of rule 15, first match.
func (u *User) locate(q *Question, msg *messages.Locate) *Answer {
	final := q.Settled && !q.StandIn
	targets, live := targetSet(q, u.cfg.maxShown())
	if len(targets) > 0 {
		return &Answer{Reply: &messages.Located{Targets: targets, Final: final}, Incomplete: !final}
	}
	known := u.cfg.Known != nil && u.cfg.Known(AoR(msg.GetAor()))
	var err error
	switch {
	case u.cfg.Known != nil && !known:
		// The credential source is the same at every node: no owner knows more.
		return &Answer{Reply: ToFailure(ErrNotFound), Incomplete: q.StandIn}
	case live > 0:
		err = ErrUnavailable
	case known && q.Settled && !q.FailedMember:
		err = ErrUnavailable
	case q.FailedMember:
		err = RetryAfterError{Err: ErrUnavailable, After: retryFailed}
	case !q.Settled:
		err = RetryAfterError{Err: ErrRetry, After: retryUnsettled}
	default:
		err = ErrNotFound
	}
	return &Answer{Reply: ToFailure(err), Incomplete: !final}
}

// candidate is a reachable binding on its way to a target.
type candidate struct {
	lease   *messages.Lease
	binding *messages.Binding
	live    bool
}

// targetSet is where the user can be called, best q first and then the latest
// refresh first; the flows of one instance stand together, for they are
// alternatives, not further devices (RFC 5626 5.3). live counts the bindings
// that count, reachable or not.
func targetSet(q *Question, limit int) (targets []*messages.Target, live int) {
	var found []candidate
	for _, l := range q.Record.GetLeases() {
		if !isBinding(l) || !q.Record.Alive(l, q.NowMS) {
			continue
		}
		live++
		b := new(messages.Binding)
		if b.Unpack(l.GetPayload()) != nil {
			continue
		}
		if edgeLive := q.LiveEdge(l.Edge); !b.FlowBound || edgeLive && flowServes(q, l) {
			if found == nil {
				found = make([]candidate, 0, len(q.Record.Leases))
			}
			found = append(found, candidate{l, b, edgeLive})
		}
	}
	if len(found) == 0 {
		return nil, live
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(b.binding.Q, a.binding.Q),
			b.lease.Stamp.Compare(a.lease.Stamp),
			bytes.Compare(a.lease.Key, b.lease.Key),
		)
	})
	found = groupInstances(collapse(found))
	found = found[:min(limit, len(found))]
	targets = make([]*messages.Target, len(found))
	for i := range found {
		targets[i] = found[i].target()
	}
	return targets, live
}

// flowServes tells whether the flow of a lease can still be there: its edge's
// present process has vouched for it, and made the flow itself if it is a
// connection (rule 12).
func flowServes(q *Question, l *messages.Lease) bool {
	if q.EdgeIncarnation == nil {
		return true
	}
	now := q.EdgeIncarnation(l.Edge)
	return l.Vouch >= now && (!l.GetFlow().GetStream() || l.Flow.Incarnation >= now)
}

// collapse keeps the first of equal Contacts, which a partition may leave twice
// (rule 2). Two instances, or two flows of one, are never equal.
func collapse(sorted []candidate) []candidate {
	if len(sorted) == 1 {
		return sorted
	}
	kept, uris := sorted[:0], make([]comparedURI, 0, len(sorted))
next:
	for _, c := range sorted {
		u := parseForEqual(c.binding.Contact)
		for i, k := range kept {
			distinct := k.binding.InstanceId != "" && c.binding.InstanceId != "" &&
				(k.binding.InstanceId != c.binding.InstanceId || k.binding.RegId != c.binding.RegId)
			if !distinct && uris[i].equal(&u) {
				continue next
			}
		}
		kept, uris = append(kept, c), append(uris, u)
	}
	return kept
}

// groupInstances moves the flows of one instance next to its best one.
func groupInstances(sorted []candidate) []candidate {
	if len(sorted) < 3 {
		return sorted
	}
	grouped := make([]candidate, 0, len(sorted))
	taken := make([]bool, len(sorted))
	for i, c := range sorted {
		if taken[i] {
			continue
		}
		grouped = append(grouped, c)
		for j := i + 1; j < len(sorted) && c.binding.InstanceId != ""; j++ {
			if !taken[j] && sorted[j].binding.InstanceId == c.binding.InstanceId {
				grouped, taken[j] = append(grouped, sorted[j]), true
			}
		}
	}
	return grouped
}

func (c *candidate) target() *messages.Target {
	return &messages.Target{
		Contact:    c.binding.Contact,
		Q:          c.binding.Q,
		Path:       c.binding.Path,
		FlowBound:  c.binding.FlowBound,
		Edge:       c.lease.Edge,
		EdgeLive:   c.live,
		Flow:       c.lease.Flow,
		Transport:  c.binding.Transport,
		Local:      c.binding.Local,
		Remote:     c.binding.Remote,
		InstanceId: c.binding.InstanceId,
		RegId:      c.binding.RegId,
		CallId:     c.lease.CallId,
	}
}
