package actors

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"hereis/messages"
)

// operatorCallID begins the Call-ID of a removal by an operator.
const operatorCallID = "operator-"

// ByOperator tells whether the Call-ID of a tombstone or floor is an operator's. A
// device that writes such a Call-ID fools nobody but those who watch it.
func ByOperator(callID string) bool { return strings.HasPrefix(callID, operatorCallID) }

// remove does what an operator asks for: it ends one binding by a tombstone, or
// all by a floor, in the order of stamps and under the rules that a device's own
// removal obeys (rules 1, 5, 6). Its Call-ID is no device's, so that rule 7
// tells a repeat of the same removal, and nothing else.
func (u *User) remove(q *Question, m *messages.Remove) (*Answer, error) {
	if m.GetStamp() == nil || m.GetCallId() == "" {
		return nil, fmt.Errorf("%w: no stamp or no Call-ID", ErrBadRequest)
	}
	if m.Stamp.Ms > q.NowMS+messages.SkewBoundMS {
		return nil, ErrClockAhead
	}
	t := &update{q: q, cfg: &u.cfg, made: &decision{}, r: &messages.Register{
		Aor: m.Aor, CallId: m.CallId, Cseq: 1, Stamp: m.Stamp,
		Edge: m.Edge, Incarnation: m.Incarnation, AgeMs: m.AgeMs,
	}}
	var err error
	if m.GetBinding() == "" {
		err = t.removeAll()
	} else {
		err = t.removeOne(m.Binding)
	}
	if err != nil {
		return nil, err
	}
	if t.behind {
		return nil, ClockBehindError{StampMS: t.highestMS()}
	}
	return t.removed(), nil
}

// removeAll writes a floor. Who has nothing has nothing to remove, but for
// what a failed member may bring back.
func (t *update) removeAll() error {
	repeat := t.q.Record.GetFloor().GetCallId() == t.r.CallId
	if !repeat && !t.q.FailedMember && len(liveBindings(t.q.Record, t.q.NowMS)) == 0 {
		return ErrNotFound
	}
	return t.star()
}

// removeOne writes a tombstone for each live binding that text names.
func (t *update) removeOne(text string) error {
	found := false
	for _, l := range t.q.Record.GetLeases() {
		switch {
		case !isBinding(l):
		case l.Dead && l.CallId == t.r.CallId:
			// A repeat of this removal.
			t.kept, found = append(t.kept, l), true
		case t.q.Record.Alive(l, t.q.NowMS) && named(l, text):
			found = true
			stamp, ok := t.order(l, t.q.Record.GetFloor())
			if !ok {
				continue
			}
			dead := t.lease(l.Key, stamp, nil)
			dead.Dead = true
			t.writes = append(t.writes, dead)
			t.all = true
			t.tellEdge(l.Edge)
		}
	}
	if !found {
		return ErrNotFound
	}
	return nil
}

// named tells whether an operator's text means a binding: its key, as it is or
// in hexadecimal, or a Contact equal to its own (RFC 3261 19.1.4).
func named(l *messages.Lease, text string) bool {
	if string(l.Key) == text {
		return true
	}
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		key, err := hex.DecodeString(digits)
		return err == nil && bytes.Equal(l.Key, key)
	}
	return sameContact(peek(l.GetPayload(), bindingContact).contact, text)
}

// removed is answer for a removal: what was live and is not any more.
func (t *update) removed() *Answer {
	a := &Answer{All: t.all || t.repeatsRemoval(), Tell: t.tell, Repeat: t.repeats()}
	reply := &messages.Removed{NowMs: t.q.NowMS}
	if len(t.writes) > 0 || t.floor != nil {
		a.Writes = &messages.Record{Aor: t.r.Aor, Leases: t.writes, Floor: t.floor}
		after := t.q.Record.Clone()
		after.Merge(a.Writes)
		for _, l := range liveBindings(t.q.Record, t.q.NowMS) {
			if now := after.Lease(l.Key); now == nil || !after.Alive(now, t.q.NowMS) {
				reply.Removed = append(reply.Removed, l)
			}
		}
	}
	reply.Writes = t.toKeep(a.Writes)
	a.Reply = reply
	return a
}
