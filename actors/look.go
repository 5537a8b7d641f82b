package actors

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"hereis/messages"
)

// Sight is a user as a node sees it: what the owner held at node time MS, and
// the edges within reach of the node, with their incarnations. Record is nil if
// nothing is known.
type Sight struct {
	Record *messages.Record
	MS     int64
	Live   map[string]uint64
}

// EventKind is what an Event says.
type EventKind string

// The kinds of events.
const (
	// WentOnline: the first device of the user is within reach.
	WentOnline EventKind = "online"
	// WentOffline: the last device is not any more.
	WentOffline EventKind = "offline"
	// DevicesChanged: an online user's devices are others, or elsewhere.
	DevicesChanged EventKind = "changed"
	// PresenceChanged: what the user has published of their presence (RFC 3903) is
	// something else, and the devices are as they were.
	PresenceChanged EventKind = "presence"
	// IsState says how a user is, without a claim that this has changed: in a
	// snapshot, and after a gap.
	IsState EventKind = "state"
	// SyncBegins and SyncEnds stand around a complete list of those who are
	// online, each with a state: whoever is not named between them is offline.
	SyncBegins EventKind = "sync-begin"
	SyncEnds   EventKind = "sync-end"
)

// Reason says why a user went online or offline.
type Reason string

// The reasons.
const (
	// Registered: by a REGISTER. EdgeBack: the edge of the device can be reached
	// again, or has restarted with its leases.
	Registered Reason = "registered"
	EdgeBack   Reason = "edge-back"
	// Unregistered: removed by the device or an operator. Expired: by time.
	// FlowLost: the connection has closed. EdgeLost: the edge of the device
	// cannot be reached any more. Forgotten: nobody knows of the device any more.
	Unregistered Reason = "unregistered"
	Expired      Reason = "expired"
	FlowLost     Reason = "flow-lost"
	EdgeLost     Reason = "edge-lost"
	Forgotten    Reason = "forgotten"
)

// Devices are the bindings by which a user can be reached, in the order of
// their keys: those that count, on a flow of a live edge that vouches for it, or
// with a Contact that anybody can call.
func (s Sight) Devices() []*messages.Lease {
	var devices []*messages.Lease
	for _, l := range liveBindings(s.Record, s.MS) {
		if s.reaches(l) {
			devices = append(devices, l)
		}
	}
	return devices
}

// Published is what the user has published of their presence, in the order of
// the publications' keys. It lives as long as it was published for, whatever
// becomes of the devices.
func (s Sight) Published() []*messages.Publication {
	var found []*messages.Publication
	for _, l := range liveShown(s.Record, s.MS) {
		if l.Kind != messages.LeaseKind_LEASE_KIND_PUBLICATION {
			continue
		}
		if pub := publication(l); pub.GetEvent() == "presence" {
			found = append(found, pub)
		}
	}
	return found
}

// reaches tells whether a live binding can be reached, as a call would (flowServes).
func (s Sight) reaches(l *messages.Lease) bool {
	incarnation, live := s.Live[l.Edge]
	if live && l.Vouch >= incarnation && (!l.GetFlow().GetStream() || l.Flow.Incarnation >= incarnation) {
		return true
	}
	return !peek(l.Payload, bindingFlowBound).flowBound
}

// Step is what a watcher is told of the way from one sight of a user to another.
type Step struct {
	// Kind is empty if there is nothing to tell.
	Kind   EventKind
	Reason Reason
	// Device is the first that came, went or changed; as it is, or else was.
	Device *messages.Lease
	// Devices are those within reach at the end, Published what is published then.
	Devices   []*messages.Lease
	Published []*messages.Publication
}

// StepBetween compares two sights of one user.
func StepBetween(before, after Sight) Step {
	was, is := before.Devices(), after.Devices()
	device, came := firstDifference(was, is)
	step := Step{Device: device, Devices: is, Published: after.Published()}
	switch {
	case device == nil && !slices.EqualFunc(before.Published(), step.Published, samePublication):
		step.Kind = PresenceChanged
	case device == nil:
	case len(was) == 0:
		step.Kind, step.Reason = WentOnline, Registered
		if old := before.Record.Lease(device.Key); old != nil && before.Record.Alive(old, before.MS) && old.Stamp.Compare(device.Stamp) == 0 {
			step.Reason = EdgeBack
		}
	case len(is) == 0:
		step.Kind, step.Reason = WentOffline, after.lossOf(device)
	default:
		step.Kind = DevicesChanged
		if !came {
			step.Reason = after.lossOf(device)
		}
	}
	return step
}

// lossOf is why a device that was within reach is not.
func (s Sight) lossOf(device *messages.Lease) Reason {
	now := s.Record.Lease(device.Key)
	switch {
	case now != nil && s.Record.Alive(now, s.MS):
		return EdgeLost
	case now == nil && (s.Record.GetFloor() == nil || device.Stamp.Compare(s.Record.Floor.Stamp) > 0):
		return Forgotten
	case now == nil, now.Dead, s.Record.Floor != nil && now.Stamp.Compare(s.Record.Floor.Stamp) <= 0:
		return Unregistered
	case s.Record.HasEnded(now.Edge, now.Flow):
		return FlowLost
	}
	return Expired
}

// firstDifference walks two lists sorted by key and finds the first device that
// came, went, moved or looks different.
func firstDifference(was, is []*messages.Lease) (device *messages.Lease, came bool) {
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(was) == 0 || len(is) > 0 && bytes.Compare(is[0].Key, was[0].Key) < 0:
			return is[0], true
		case len(is) == 0 || bytes.Compare(was[0].Key, is[0].Key) < 0:
			return was[0], false
		case !sameDevice(was[0], is[0]):
			return is[0], true
		}
		was, is = was[1:], is[1:]
	}
	return nil, false
}

// sameDevice is looksSame for people: an edge that vouches again changes
// nothing, nor does a device that has been away and is where it was.
func sameDevice(a, b *messages.Lease) bool {
	return a == b || a.Edge == b.Edge && a.GetFlow().Same(b.GetFlow()) &&
		bytes.Equal(withoutSince(a.Payload), withoutSince(b.Payload))
}

// withoutSince is a Binding up to its since_ms, which is its last field.
func withoutSince(payload []byte) []byte {
	for at := 0; at < len(payload); {
		num, _, n := protowire.ConsumeField(payload[at:])
		if n < 0 || num == bindingSince {
			return payload[:at]
		}
		at += n
	}
	return payload
}

// touched tells whether a user may be seen otherwise than at node time ms from
// a node to which the edges in reach were within reach.
func (s Sight) touched(ms int64, reach func(edge string, incarnation uint64) bool) bool {
	r := s.Record
	if r == nil {
		return s.MS > ms // that was when it turned out that nobody knows of the user
	}
	return r.GetFloor().GetStamp().GetMs() > ms ||
		slices.ContainsFunc(r.Ended, func(e *messages.Ended) bool { return e.Ms > ms }) ||
		slices.ContainsFunc(r.Leases, func(l *messages.Lease) bool {
			return l.Stamp.GetMs() > ms || l.ExpiresMs > ms && l.ExpiresMs <= s.MS || !reach(l.Edge, s.Live[l.Edge])
		})
}
