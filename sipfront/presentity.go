package sipfront

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// expiryGraceMS is how long after its expiry a lease still counts for watchers:
// the word that it has been renewed may be under way between nodes.
const expiryGraceMS = 1000

// stateOf is a user as an event package sees them: the leases of the record
// that count at nowMS, in an order that is the same at every node.
func stateOf(pkg string, rec *messages.Record, nowMS int64) *event.State {
	st := &event.State{AoR: rec.GetAor(), NowMS: nowMS}
	of, winfo := strings.CutSuffix(pkg, ".winfo")
	leases := slices.Clone(rec.GetLeases())
	slices.SortFunc(leases, func(a, b *messages.Lease) int { return bytes.Compare(a.Key, b.Key) })
	for _, l := range leases {
		if !rec.Alive(l, nowMS-expiryGraceMS) {
			if pkg == "reg" && deactivated(rec, l) {
				if st.Removed == nil {
					st.Removed = map[string]bool{}
				}
				st.Removed[leaseID(l)] = true
			}
			continue
		}
		switch l.Kind {
		case messages.LeaseKind_LEASE_KIND_BINDING:
			if d, ok := deviceOf(l); ok {
				st.Devices = append(st.Devices, d)
			}
		case messages.LeaseKind_LEASE_KIND_PUBLICATION:
			if p, ok := publicationOf(l, pkg); ok {
				st.Publications = append(st.Publications, p)
			}
		case messages.LeaseKind_LEASE_KIND_SUBSCRIPTION:
			if winfo {
				st.Watchers = append(st.Watchers, watchersOf(l, of)...)
			}
		}
	}
	slices.SortStableFunc(st.Publications, func(a, b event.Publication) int { return cmp.Compare(a.StampMS, b.StampMS) })
	return st
}

// deactivated tells whether a binding that counts no more was ended by an
// operator, or by the end of its flow.
func deactivated(rec *messages.Record, l *messages.Lease) bool {
	if l.GetKind() > messages.LeaseKind_LEASE_KIND_BINDING {
		return false
	}
	if l.Dead {
		return actors.ByOperator(l.CallId)
	}
	f := rec.GetFloor()
	return f != nil && l.GetStamp().Compare(f.Stamp) <= 0 && actors.ByOperator(f.CallId) || rec.HasEnded(l.Edge, l.Flow)
}

func deviceOf(l *messages.Lease) (event.Device, bool) {
	var b messages.Binding
	if proto.Unmarshal(l.Payload, &b) != nil {
		return event.Device{}, false
	}
	return event.Device{
		ID: leaseID(l), Contact: b.Contact, Params: b.Params, Q: b.Q, CallID: l.CallId, CSeq: l.Cseq,
		InstanceID: b.InstanceId, RegID: b.RegId, UserAgent: b.UserAgent, From: b.Transport + " " + b.Remote,
		SinceMS: b.SinceMs, ExpiresMS: l.ExpiresMs,
	}, true
}

func publicationOf(l *messages.Lease, pkg string) (event.Publication, bool) {
	var p messages.Publication
	if proto.Unmarshal(l.Payload, &p) != nil || p.Event != pkg {
		return event.Publication{}, false
	}
	return event.Publication{
		ID: leaseID(l), MediaType: p.ContentType, Body: p.Body, From: p.From,
		StampMS: p.ChangedMs, ExpiresMS: l.ExpiresMs,
	}, true
}

// watchersOf are the watchers in a package at the node whose interest a lease is.
func watchersOf(l *messages.Lease, pkg string) (list []event.Watcher) {
	var i messages.Interest
	if proto.Unmarshal(l.Payload, &i) != nil {
		return nil
	}
	for _, e := range i.Events {
		if e.Event != pkg {
			continue
		}
		for _, w := range e.Watchers {
			list = append(list, event.Watcher{
				ID: w.Id, AoR: w.Aor, Status: w.Status, Event: w.Event, SinceMS: w.SinceMs, ExpiresMS: w.ExpiresMs,
			})
		}
	}
	return list
}

// leaseID is a name for a lease that lives as long as its key and is fit for
// an XML attribute.
func leaseID(l *messages.Lease) string {
	sum := xxh3.Hash128(l.Key).Bytes()
	return "i" + hex.EncodeToString(sum[:9])
}

// nothingOf is what a watcher is shown who is blocked politely (RFC 5025 3.2.1).
func nothingOf(st *event.State) *event.State { return &event.State{AoR: st.AoR, NowMS: st.NowMS} }

// wantsWatchers tells whether somebody watches who watches the user in a package.
func wantsWatchers(rec *messages.Record, pkg string, nowMS int64) bool {
	for _, l := range rec.GetLeases() {
		if l.Kind != messages.LeaseKind_LEASE_KIND_SUBSCRIPTION || !rec.Alive(l, nowMS) {
			continue
		}
		var i messages.Interest
		if proto.Unmarshal(l.Payload, &i) == nil &&
			slices.ContainsFunc(i.Events, func(e *messages.EventInterest) bool { return e.Event == pkg+".winfo" }) {
			return true
		}
	}
	return false
}

// nextExpiry is when, after nowMS, the first lease stops to count; 0: never.
func nextExpiry(rec *messages.Record, nowMS int64) (next int64) {
	for _, l := range rec.GetLeases() {
		at := l.ExpiresMs + expiryGraceMS
		if at > nowMS && rec.Alive(l, nowMS-expiryGraceMS) && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}

// prune drops from rec, which is nobody else's, what is dead for so long that
// nothing can bring it back (CONSISTENCY rule 4).
func prune(rec *messages.Record, nowMS int64) {
	rec.Leases = slices.DeleteFunc(rec.Leases, func(l *messages.Lease) bool {
		return !rec.Alive(l, nowMS) && max(l.Stamp.GetMs()+l.LifetimeMs, l.ExpiresMs)+2*messages.SkewBoundMS < nowMS
	})
	rec.Ended = slices.DeleteFunc(rec.Ended, func(e *messages.Ended) bool {
		return e.Ms+e.LifetimeMs+2*messages.SkewBoundMS < nowMS
	})
}
