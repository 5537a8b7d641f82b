package actors

import (
	"bytes"

	"hereis/messages"
)

// Changed compares a user's record before and after a change, both at node
// time nowMS, and tells watchers what they can see of it: nil if that is
// nothing, as for a refresh. An expiry is seen with an after that lacks the
// expired lease and a nowMS below its expiry. The caller adds the node's name.
func (u *User) Changed(before, after *messages.Record, nowMS int64) *messages.UserEvent {
	was, is := liveBindings(before, nowMS), liveBindings(after, nowMS)
	edge, changed := firstChange(was, is)
	if !changed {
		return nil
	}
	aor := after.GetAor()
	if aor == "" {
		aor = before.GetAor()
	}
	return &messages.UserEvent{
		Aor:      aor,
		Online:   len(is) > 0,
		Changed:  (len(was) > 0) != (len(is) > 0),
		Bindings: is,
		Ms:       nowMS,
		Edge:     edge,
	}
}

// firstChange walks two lists sorted by key and finds the edge of the first
// binding that came, went, moved or looks different.
func firstChange(was, is []*messages.Lease) (edge string, changed bool) {
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(was) == 0 || len(is) > 0 && bytes.Compare(is[0].Key, was[0].Key) < 0:
			return is[0].Edge, true
		case len(is) == 0 || bytes.Compare(was[0].Key, is[0].Key) < 0:
			return was[0].Edge, true
		case !looksSame(was[0], is[0]):
			return is[0].Edge, true
		}
		was, is = was[1:], is[1:]
	}
	return "", false
}

func looksSame(a, b *messages.Lease) bool {
	return a == b || a.Edge == b.Edge && a.GetFlow().Same(b.GetFlow()) && bytes.Equal(a.Payload, b.Payload)
}
