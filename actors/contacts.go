package actors

import (
	"bytes"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"hereis/messages"
)

// entry is one Contact of a REGISTER with the key that it belongs to.
type entry struct {
	contact *messages.RegisterContact
	key     []byte
	// have is what the record has under key: live, dead or nil.
	have *messages.Lease
	// twins are other live leases for an equal Contact, as a partition may leave them.
	twins []*messages.Lease
	// removal: the requested interval is zero.
	removal bool
}

// outbound tells whether a Contact is a registration of RFC 5626 6: it needs
// both parameters, a reg-id alone is ignored.
func outbound(c *messages.RegisterContact) bool {
	return c.GetInstanceId() != "" && c.GetRegId() != 0
}

// outboundKey names a flow of an instance. No URI begins with '+', so it is
// never a Contact's key.
func outboundKey(instanceID string, regID uint32) []byte {
	key := make([]byte, 0, len(instanceID)+32)
	key = append(key, `+sip.instance="<`...)
	key = append(key, instanceID...)
	key = append(key, `>";reg-id=`...)
	return strconv.AppendUint(key, uint64(regID), 10)
}

// resolve finds the key of a Contact (rule 2). With instance and reg-id it is
// these two (RFC 5626 6: such a binding is replaced whatever its URI). Otherwise
// the Contact is compared with the live bindings by RFC 3261 19.1.4, then with
// the keys of dead ones, so that an old request still meets the CSeq that it
// has lost to; a Contact that matches none is a key of its own.
func resolve(rec *messages.Record, c *messages.RegisterContact, nowMS int64) entry {
	e := entry{contact: c}
	if outbound(c) {
		e.key = outboundKey(c.InstanceId, c.RegId)
		e.have = rec.Lease(e.key)
		return e
	}
	var exact, live, dead *messages.Lease
	for _, l := range rec.GetLeases() {
		if l.GetKind() != messages.LeaseKind_LEASE_KIND_BINDING {
			continue
		}
		isExact := string(l.Key) == c.Uri
		if isExact {
			exact = l
		}
		if !rec.Alive(l, nowMS) {
			if (isExact || !isOutboundKey(l.Key) && sameContact(l.Key, c.Uri)) && newer(l, dead) {
				dead = l
			}
			continue
		}
		if !matches(l, c) {
			continue
		}
		if live != nil {
			e.twins = append(e.twins, live)
		}
		if newer(l, live) {
			live = l
		} else {
			e.twins[len(e.twins)-1] = l
		}
	}
	switch {
	case live != nil:
		e.have = live
	case exact != nil:
		e.have = exact
	default:
		e.have = dead
	}
	if e.have != nil {
		e.key = e.have.Key
	} else {
		e.key = []byte(c.Uri)
	}
	return e
}

func newer(l, than *messages.Lease) bool {
	return than == nil || l.GetStamp().Compare(than.GetStamp()) > 0
}

// matches compares a Contact without reg-id with a live binding. One that was
// made with a reg-id is the same only for the same instance: behind NATs, two
// devices of a user may have equal private addresses.
func matches(l *messages.Lease, c *messages.RegisterContact) bool {
	p := peek(l.GetPayload(), bindingInstance)
	if isOutboundKey(l.Key) && string(p.instance) != c.InstanceId {
		return false
	}
	return sameContact(p.contact, c.Uri)
}

func sameContact(stored []byte, uri string) bool {
	return string(stored) == uri || !hostDiffers(stored, uri) && EqualURI(string(stored), uri)
}

func isOutboundKey(key []byte) bool { return len(key) > 0 && key[0] == '+' }

// replaces tells whether a later Contact of the same request is the same
// binding as e: the later one wins, as if they came one after the other.
func (e *entry) replaces(o *entry) bool {
	if bytes.Equal(e.key, o.key) {
		return true
	}
	return !outbound(e.contact) && !outbound(o.contact) && e.have == nil && o.have == nil &&
		EqualURI(e.contact.Uri, o.contact.Uri)
}

// peeked is what matching needs of a Binding, sharing the payload's memory.
type peeked struct {
	contact, instance []byte
	flowBound         bool
	sinceMS           int64
}

// peek reads a few fields of a marshalled Binding without decoding the rest: a
// REGISTER looks at every binding of the user. Fields are in the order of their
// numbers; those beyond last are not looked at. A malformed payload, which only
// a foreign node could send, gives what was read so far.
func peek(payload []byte, last protowire.Number) (p peeked) {
	for len(payload) > 0 {
		num, typ, n := protowire.ConsumeTag(payload)
		if n < 0 || num > last {
			return p
		}
		payload = payload[n:]
		switch {
		case (num == bindingContact || num == bindingInstance) && typ == protowire.BytesType:
			v, n := protowire.ConsumeBytes(payload)
			if n < 0 {
				return p
			}
			if num == bindingContact {
				p.contact = v
			} else {
				p.instance = v
			}
			payload = payload[n:]
		case (num == bindingFlowBound || num == bindingSince) && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(payload)
			if n < 0 {
				return p
			}
			if num == bindingFlowBound {
				p.flowBound = v != 0
			} else {
				p.sinceMS = int64(v)
			}
			payload = payload[n:]
		default:
			n := protowire.ConsumeFieldValue(num, typ, payload)
			if n < 0 {
				return p
			}
			payload = payload[n:]
		}
	}
	return p
}

// Field numbers of messages.Binding.
const (
	bindingContact   protowire.Number = 1
	bindingInstance  protowire.Number = 4
	bindingFlowBound protowire.Number = 7
	bindingSince     protowire.Number = 12
)

// bind makes the payload of a binding. sinceMS is when the binding was first made.
// A refresh mostly says what have says, nil for nothing, which is then taken.
func bind(r *messages.Register, c *messages.RegisterContact, sinceMS int64, have []byte) ([]byte, error) {
	var room [512]byte
	packed, err := packBinding(room[:0], r, c, sinceMS)
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(packed, have):
		return have, nil
	}
	return bytes.Clone(packed), nil
}

// packBinding appends the payload of a binding to room.
func packBinding(room []byte, r *messages.Register, c *messages.RegisterContact, sinceMS int64) ([]byte, error) {
	var b messages.Binding
	setBinding(&b, r, c, sinceMS)
	return b.Pack(room)
}

// isBound tells whether packBinding makes payload of a Contact, without doing so.
func isBound(payload []byte, r *messages.Register, c *messages.RegisterContact, sinceMS int64) bool {
	var b messages.Binding
	setBinding(&b, r, c, sinceMS)
	return b.Is(payload)
}

// setBinding makes an empty b what a Contact says.
func setBinding(b *messages.Binding, r *messages.Register, c *messages.RegisterContact, sinceMS int64) {
	b.Contact, b.Params, b.Q, b.InstanceId, b.RegId = c.Uri, c.Params, c.Q, c.InstanceId, c.RegId
	b.Path, b.FlowBound, b.Transport, b.Local, b.Remote = r.Path, c.FlowBound, r.Transport, r.Local, r.Remote
	b.UserAgent, b.SinceMs = r.UserAgent, sinceMS
}
