package actors

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Changed tells whether a watcher can see the difference between a user's
// record before and after a change, both at node time nowMS: not of a refresh.
// An expiry is seen with an after that lacks the expired lease, or a before in
// which it has not expired.
func (u *User) Changed(before, after *messages.Record, nowMS int64) bool {
	// Each refresh comes by here: the few leases of nearly all users need no memory.
	var was, is [4]*messages.Lease
	return !slices.EqualFunc(appendShown(was[:0], before, nowMS), appendShown(is[:0], after, nowMS), looksSame)
}

// Shown is what watchers are given of a record.
func (u *User) Shown(rec *messages.Record) *messages.Record {
	if !slices.ContainsFunc(rec.GetLeases(), func(l *messages.Lease) bool { return !isShown(l) }) {
		return rec
	}
	out := &messages.Record{Aor: rec.Aor, Floor: rec.Floor, Ended: rec.Ended}
	for _, l := range rec.Leases {
		if isShown(l) {
			out.Leases = append(out.Leases, l)
		}
	}
	return out
}

// isShown tells whether watchers see leases of this kind.
func isShown(l *messages.Lease) bool {
	return isBinding(l) || l.GetKind() == messages.LeaseKind_LEASE_KIND_PUBLICATION
}

// liveShown lists what counts at nowMS of what is shown, in the order of the keys.
func liveShown(rec *messages.Record, nowMS int64) []*messages.Lease {
	return appendShown(make([]*messages.Lease, 0, len(rec.GetLeases())), rec, nowMS)
}

// appendShown is liveShown in the room of live, which is empty.
func appendShown(live []*messages.Lease, rec *messages.Record, nowMS int64) []*messages.Lease {
	for _, l := range rec.GetLeases() {
		if isShown(l) && rec.Alive(l, nowMS) {
			live = append(live, l)
		}
	}
	slices.SortFunc(live, func(a, b *messages.Lease) int { return bytes.Compare(a.Key, b.Key) })
	return live
}

// looksSame leaves out what a refresh changes. The word of an edge that has
// restarted is to be seen: until then its devices are not within reach (rule 12).
func looksSame(a, b *messages.Lease) bool {
	if a.GetKind() == messages.LeaseKind_LEASE_KIND_PUBLICATION && b.GetKind() == a.GetKind() {
		return a == b || bytes.Equal(a.Key, b.Key) && samePublication(publication(a), publication(b))
	}
	return a == b || bytes.Equal(a.Key, b.Key) && a.Edge == b.Edge && a.Vouch == b.Vouch &&
		a.GetFlow().Same(b.GetFlow()) && bytes.Equal(a.Payload, b.Payload)
}

// publication is the payload of a publication, nil if it cannot be read.
func publication(l *messages.Lease) *messages.Publication {
	pub := new(messages.Publication)
	if proto.Unmarshal(l.GetPayload(), pub) != nil {
		return nil
	}
	return pub
}

// samePublication leaves out what a refresh changes: the entity-tag.
func samePublication(a, b *messages.Publication) bool {
	return a.GetEvent() == b.GetEvent() && a.GetContentType() == b.GetContentType() && bytes.Equal(a.GetBody(), b.GetBody())
}
