package actors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"hereis/messages"
)

// Stored messages (RFC 3428) are leases of the node that accepted them: copied
// like any other, told of when the user's devices change, and ended by a
// tombstone once delivered.

// messagePrefix begins the key of each.
const messagePrefix = "msg\x00"

// messageKey orders messages by their stamps.
func messageKey(s *messages.Stamp) []byte {
	key := binary.BigEndian.AppendUint64([]byte(messagePrefix), uint64(s.GetMs()))
	key = binary.BigEndian.AppendUint32(key, s.GetCounter())
	return binary.BigEndian.AppendUint64(key, s.GetIncarnation())
}

// storeMessage keeps a message for a user of ours. A repeat of one that is
// stored, by Call-ID and CSeq, is stored once.
func (u *User) storeMessage(q *Question, m *messages.StoreMessage) (*Answer, error) {
	switch {
	case m.GetStamp() == nil || m.GetCallId() == "" || m.GetEdge() == "" || len(m.GetPayload()) == 0:
		return nil, fmt.Errorf("%w: incomplete message", ErrBadRequest)
	case m.Stamp.Ms > q.NowMS+messages.SkewBoundMS:
		return nil, ErrClockAhead
	case u.cfg.Known != nil && !u.cfg.Known(AoR(m.Aor)):
		return nil, ErrNotFound
	case m.ExpiresMs <= q.NowMS:
		return nil, fmt.Errorf("%w: message has expired", ErrBadRequest)
	}
	key := messageKey(m.Stamp)
	stored := 0
	for _, l := range q.Record.GetLeases() {
		if l.GetKind() != messages.LeaseKind_LEASE_KIND_MESSAGE || !q.Record.Alive(l, q.NowMS) {
			continue
		}
		stored++
		if bytes.Equal(l.Key, key) || l.CallId == m.CallId && l.Cseq == m.Cseq {
			res := &messages.MessageStored{NowMs: q.NowMS, Copied: true}
			if l.Edge == m.Edge {
				res.Writes = &messages.Record{Aor: m.Aor, Leases: []*messages.Lease{l}}
			}
			return &Answer{Reply: res, Repeat: true}, nil
		}
	}
	if stored >= u.cfg.MaxMessages {
		return nil, fmt.Errorf("%w: %d messages stored", ErrUnavailable, stored)
	}
	l := &messages.Lease{
		Key: key, Kind: messages.LeaseKind_LEASE_KIND_MESSAGE, Edge: m.Edge, Stamp: m.Stamp, Vouch: m.Incarnation,
		CallId: m.CallId, Cseq: m.Cseq,
		ExpiresMs: min(m.ExpiresMs, m.Stamp.Ms+u.cfg.MessageTTL.Milliseconds()), LifetimeMs: u.cfg.MessageTTL.Milliseconds(),
		Payload: m.Payload,
	}
	writes := &messages.Record{Aor: m.Aor, Leases: []*messages.Lease{l}}
	return &Answer{Reply: &messages.MessageStored{Writes: writes, NowMs: q.NowMS}, Writes: writes}, nil
}

// dropMessages ends messages that have been delivered. What is not there any
// more is ended already.
func (u *User) dropMessages(q *Question, m *messages.DropMessages) (*Answer, error) {
	if m.GetStamp() == nil || m.GetEdge() == "" {
		return nil, fmt.Errorf("%w: no stamp or no edge", ErrBadRequest)
	}
	res := &messages.MessageStored{NowMs: q.NowMS}
	writes := &messages.Record{Aor: m.Aor}
	for _, key := range m.GetKeys() {
		have := q.Record.Lease(key)
		if have.GetKind() != messages.LeaseKind_LEASE_KIND_MESSAGE || have.Dead {
			continue
		}
		stamp := m.Stamp
		if stamp.Compare(have.Stamp) <= 0 {
			stamp = q.above(have.Stamp)
		}
		writes.Leases = append(writes.Leases, &messages.Lease{
			Key: key, Kind: have.Kind, Edge: have.Edge, Stamp: stamp, Dead: true, Vouch: m.Incarnation,
			CallId: have.CallId, Cseq: have.Cseq, LifetimeMs: have.LifetimeMs,
		})
	}
	a := &Answer{Reply: res}
	if len(writes.Leases) > 0 {
		res.Writes, a.Writes = writes, writes
	}
	return a, nil
}

// Mail are the messages stored for a user that count at nowMS, oldest first.
func Mail(rec *messages.Record, nowMS int64) []*messages.Lease {
	var mail []*messages.Lease
	for _, l := range rec.GetLeases() {
		if l.GetKind() == messages.LeaseKind_LEASE_KIND_MESSAGE && rec.Alive(l, nowMS) {
			mail = append(mail, l)
		}
	}
	slices.SortFunc(mail, func(a, b *messages.Lease) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return mail
}
