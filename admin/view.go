package admin

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Where is the answer of /v1/where: all that is known of one user.
type Where struct {
	AoR string `json:"aor"`
	// Owner and Backup hold the user's state; Node is the one that answered.
	Owner  string `json:"owner"`
	Backup string `json:"backup,omitempty"`
	Node   string `json:"node"`
	// Settled: nothing can be missing. Otherwise the members have just changed.
	Settled bool `json:"settled"`
	// Now is the node time of the answer, to which ages and expiries compare.
	Now    time.Time `json:"now"`
	Leases []Lease   `json:"leases"`
	// RemovedBelow is the stamp of the last "Contact: *": bindings at or below it are gone.
	RemovedBelow string `json:"removed_below,omitempty"`
}

// LeaseState says whether a lease counts, and if not why.
type LeaseState string

// The states of a lease; of those that apply, the first in this order.
const (
	// LeaseRemoved by the device, or below a "Contact: *".
	LeaseRemoved LeaseState = "removed"
	// LeaseExpired by time.
	LeaseExpired LeaseState = "expired"
	// LeaseFlowLost: the connection or NAT binding is over.
	LeaseFlowLost LeaseState = "flow-lost"
	// LeaseEdgeAway: the edge is not in the view; offered again when it is back.
	LeaseEdgeAway LeaseState = "edge-away"
	// LeaseSuspended: the edge restarted and has not vouched for it yet.
	LeaseSuspended LeaseState = "suspended"
	// LeaseLive counts.
	LeaseLive LeaseState = "live"
)

// Lease is one lease of a user.
type Lease struct {
	Kind  string     `json:"kind"`
	State LeaseState `json:"state"`
	Key   string     `json:"key"`
	Edge  string     `json:"edge"`
	// Flow is incarnation.counter at the edge.
	Flow      string `json:"flow,omitempty"`
	Transport string `json:"transport,omitempty"`
	Local     string `json:"local,omitempty"`
	Remote    string `json:"remote,omitempty"`
	// AgeSeconds is the time since its last write.
	AgeSeconds float64 `json:"age_seconds"`
	// ExpiresSeconds is what remains; negative when it is over.
	ExpiresSeconds float64   `json:"expires_seconds"`
	Expires        time.Time `json:"expires"`
	// Stamp is ms.counter.incarnation, the last in hexadecimal.
	Stamp  string `json:"stamp"`
	Vouch  string `json:"vouch,omitempty"`
	CallID string `json:"call_id,omitempty"`
	CSeq   uint32 `json:"cseq,omitempty"`
	// What a binding has besides.
	Contact    string   `json:"contact,omitempty"`
	Q          float64  `json:"q,omitempty"`
	InstanceID string   `json:"instance_id,omitempty"`
	RegID      uint32   `json:"reg_id,omitempty"`
	Path       []string `json:"path,omitempty"`
	FlowBound  bool     `json:"flow_bound,omitempty"`
	UserAgent  string   `json:"user_agent,omitempty"`
	// Events are the event packages of a publication, or those that the edge has
	// watchers for.
	Events []string `json:"events,omitempty"`
	// ContentType is of a publication, Sender of a stored message.
	ContentType string `json:"content_type,omitempty"`
	Sender      string `json:"sender,omitempty"`
}

// Event is a line of /v1/watch.
type Event struct {
	At  time.Time `json:"at"`
	AoR string    `json:"aor,omitempty"`
	// Event is "online" or "offline" if the user went from one to the other,
	// "changed" if the devices of an online user did, "presence" if what the user
	// has published did, "state" if it says how a
	// user is and not what has changed; "sync-begin" and "sync-end" stand around
	// the states of all who are online.
	Event  string `json:"event"`
	Online bool   `json:"online"`
	// Complete, of a sync-end: whoever was not named is offline.
	Complete bool   `json:"complete,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Edge is where the device is or was that caused it.
	Edge     string  `json:"edge,omitempty"`
	Bindings []Lease `json:"bindings,omitempty"`
	// Presence is what the user has published, if anything.
	Presence *Presence `json:"presence,omitempty"`
	// ID is where to go on after this event (?from= or Last-Event-ID), at any node.
	ID string `json:"id,omitempty"`
}

// Presence is what a user has published.
type Presence struct {
	// Basic is "open", "closed", or empty if no document says.
	Basic string   `json:"basic,omitempty"`
	Notes []string `json:"notes,omitempty"`
	// Documents are those that were published, if they were asked for (?documents=1).
	Documents []PresenceDocument `json:"documents,omitempty"`
}

// PresenceDocument is one of them.
type PresenceDocument struct {
	Type string `json:"type"`
	Body string `json:"body"`
}

// NewWhere makes the answer out of what the node says. members tell which
// edges are live and in which incarnation.
func NewWhere(w *messages.Whereabouts, members []Member) *Where {
	rec := w.GetRecord()
	v := &Where{
		AoR: rec.GetAor(), Owner: w.GetOwner(), Backup: w.GetBackup(), Node: w.GetNode(),
		Settled: w.GetSettled(), Now: nodeTime(w.GetNowMs()), Leases: []Lease{},
	}
	if f := rec.GetFloor(); f != nil {
		v.RemovedBelow = stampText(f.GetStamp())
	}
	for _, l := range rec.GetLeases() {
		view := newLease(l, w.GetNowMs())
		view.State = leaseState(l, w, members)
		v.Leases = append(v.Leases, view)
	}
	slices.SortStableFunc(v.Leases, func(a, b Lease) int {
		if live := boolInt(b.State == LeaseLive) - boolInt(a.State == LeaseLive); live != 0 {
			return live
		}
		return strings.Compare(b.Stamp, a.Stamp)
	})
	return v
}

// Nothing tells whether nothing at all is known of the user.
func (w *Where) Nothing() bool { return len(w.Leases) == 0 && w.RemovedBelow == "" }

// NewEvent makes a line of /v1/watch, with the documents published or without.
func NewEvent(e *UserEvent, documents bool) *Event {
	v := &Event{
		At: nodeTime(e.MS), AoR: e.AoR, Event: e.Kind, Online: e.Online, Complete: e.Complete,
		Reason: e.Reason, Edge: e.Device.GetEdge(), ID: e.ID,
	}
	for _, l := range e.Devices {
		view := newLease(l, e.MS)
		view.State = LeaseLive
		v.Bindings = append(v.Bindings, view)
	}
	if len(e.Published) > 0 {
		v.Presence = &Presence{Basic: e.Basic, Notes: e.Notes}
	}
	for _, p := range e.Published {
		if documents {
			v.Presence.Documents = append(v.Presence.Documents, PresenceDocument{p.GetContentType(), string(p.GetBody())})
		}
	}
	return v
}

func leaseState(l *messages.Lease, w *messages.Whereabouts, members []Member) LeaseState {
	rec := w.GetRecord()
	// A "Contact: *" is of bindings alone.
	belowFloor := rec.GetFloor() != nil && l.GetKind() <= messages.LeaseKind_LEASE_KIND_BINDING && l.GetStamp().Compare(rec.GetFloor().GetStamp()) <= 0
	switch {
	case l.GetDead() || belowFloor:
		return LeaseRemoved
	case l.GetExpiresMs() <= w.GetNowMs():
		return LeaseExpired
	case rec.HasEnded(l.GetEdge(), l.GetFlow()):
		return LeaseFlowLost
	case len(w.GetView()) > 0 && !slices.Contains(w.GetView(), l.GetEdge()):
		return LeaseEdgeAway
	}
	for _, m := range members {
		// CONSISTENCY rule 12: a lease waits for the word of its edge's new incarnation.
		if m.Name == l.GetEdge() && l.GetVouch() != 0 && l.GetVouch() < m.Incarnation {
			return LeaseSuspended
		}
	}
	return LeaseLive
}

func newLease(l *messages.Lease, nowMS int64) Lease {
	v := Lease{
		Kind:           strings.ToLower(strings.TrimPrefix(l.GetKind().String(), "LEASE_KIND_")),
		Key:            keyText(l.GetKey()),
		Edge:           l.GetEdge(),
		AgeSeconds:     seconds(nowMS - l.GetStamp().GetMs()),
		ExpiresSeconds: seconds(l.GetExpiresMs() - nowMS),
		Expires:        nodeTime(l.GetExpiresMs()),
		Stamp:          stampText(l.GetStamp()),
		CallID:         l.GetCallId(),
		CSeq:           l.GetCseq(),
	}
	if l.GetVouch() != 0 {
		v.Vouch = fmt.Sprintf("%x", l.GetVouch())
	}
	if f := l.GetFlow(); f != nil {
		v.Flow = fmt.Sprintf("%x.%d", f.GetIncarnation(), f.GetCounter())
	}
	if len(l.GetPayload()) > 0 {
		v.read(l.GetKind(), l.GetPayload())
	}
	return v
}

// read adds what the payload says that a person may want to know.
func (v *Lease) read(kind messages.LeaseKind, payload []byte) {
	switch kind {
	case messages.LeaseKind_LEASE_KIND_BINDING:
		var b messages.Binding
		if proto.Unmarshal(payload, &b) != nil {
			return
		}
		v.Transport, v.Local, v.Remote = b.GetTransport(), b.GetLocal(), b.GetRemote()
		v.Contact, v.Q, v.InstanceID, v.RegID = b.GetContact(), float64(b.GetQ())/1000, b.GetInstanceId(), b.GetRegId()
		v.Path, v.FlowBound, v.UserAgent = b.GetPath(), b.GetFlowBound(), b.GetUserAgent()
	case messages.LeaseKind_LEASE_KIND_PUBLICATION:
		var p messages.Publication
		if proto.Unmarshal(payload, &p) == nil {
			v.Events, v.ContentType = []string{p.GetEvent()}, p.GetContentType()
			v.Transport, v.Remote, _ = strings.Cut(p.GetFrom(), " ")
		}
	case messages.LeaseKind_LEASE_KIND_SUBSCRIPTION:
		var i messages.Interest
		if proto.Unmarshal(payload, &i) == nil {
			for _, e := range i.GetEvents() {
				v.Events = append(v.Events, e.GetEvent())
			}
		}
	case messages.LeaseKind_LEASE_KIND_MESSAGE:
		var m messages.StoredMessage
		if proto.Unmarshal(payload, &m) == nil {
			v.Sender = m.GetSender()
		}
	}
}

// keyText shows a key as it is, if it can be read, else in hexadecimal.
func keyText(key []byte) string {
	if utf8.Valid(key) && !strings.ContainsFunc(string(key), func(r rune) bool { return !unicode.IsPrint(r) }) {
		return string(key)
	}
	return "0x" + hex.EncodeToString(key)
}

func stampText(s *messages.Stamp) string {
	return fmt.Sprintf("%d.%d.%x", s.GetMs(), s.GetCounter(), s.GetIncarnation())
}

func nodeTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func seconds(ms int64) float64 { return float64(ms) / 1000 }

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
