package messages

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A record at rest is its protobuf encoding without the AoR: a quarter of the
// memory, and nothing for the garbage collector to look into. Leases, of which
// nearly all consist, are written and read by hand; whatever else there is, or
// a newer node may add, goes by the library. Both know the same bytes.

// Pack appends r without its AoR to b. False: it cannot be encoded, and b is as it was.
func (r *Record) Pack(b []byte) ([]byte, bool) {
	if r.Floor == nil && len(r.Ended) == 0 {
		if out, ok := appendLeases(b, r.Leases); ok && len(r.unknownFields) == 0 {
			return out, true
		}
	}
	rest := &Record{Leases: r.Leases, Floor: r.Floor, Ended: r.Ended}
	rest.ProtoReflect().SetUnknown(r.ProtoReflect().GetUnknown())
	out, err := proto.MarshalOptions{}.MarshalAppend(b, rest)
	if err != nil {
		return b, false
	}
	return out, true
}

// appendLeases writes leases as field 2 of a Record, and tells whether that was all of them.
func appendLeases(b []byte, leases []*Lease) ([]byte, bool) {
	for _, l := range leases {
		if !l.known() {
			return nil, false
		}
		// Nearly all are of 128 bytes at least, whose number is of two.
		b = append(b, 2<<3|2, 0, 0)
		begin := len(b)
		b = l.appendTo(b)
		if size := len(b) - begin; size >= 1<<7 && size < 1<<14 {
			b[begin-2], b[begin-1] = byte(size)|1<<7, byte(size>>7)
		} else {
			var room [binary.MaxVarintLen64]byte
			b = slices.Replace(b, begin-2, begin, protowire.AppendVarint(room[:0], uint64(size))...)
		}
	}
	return b, true
}

func (l *Lease) appendTo(b []byte) []byte {
	b = appendBytes(b, 1, l.Key)
	b = appendNumber(b, 2, uint64(l.Kind))
	b = appendText(b, 3, l.Edge)
	if f := l.Flow; f != nil {
		b = append(b, 4<<3|2, 0)
		begin := len(b)
		b = appendNumber(b, 1, f.Incarnation)
		b = appendNumber(b, 2, f.Counter)
		b = appendFlag(b, 3, f.Stream)
		b[begin-1] = byte(len(b) - begin) // 24 at most
	}
	if s := l.Stamp; s != nil {
		b = append(b, 5<<3|2, 0)
		begin := len(b)
		b = appendNumber(b, 1, uint64(s.Ms))
		b = appendNumber(b, 2, uint64(s.Counter))
		b = appendNumber(b, 3, s.Incarnation)
		b[begin-1] = byte(len(b) - begin) // 28 at most
	}
	b = appendFlag(b, 6, l.Dead)
	b = appendNumber(b, 7, l.Vouch)
	b = appendText(b, 8, l.CallId)
	b = appendNumber(b, 9, uint64(l.Cseq))
	b = appendNumber(b, 10, uint64(l.ExpiresMs))
	b = appendNumber(b, 11, uint64(l.LifetimeMs))
	return appendBytes(b, 12, l.Payload)
}

// Known tells that r has nothing that is not known here, as a newer node may have written.
func (r *Record) Known() bool {
	return len(r.unknownFields) == 0 && !slices.ContainsFunc(r.Leases, func(l *Lease) bool { return !l.known() })
}

func (l *Lease) known() bool {
	return len(l.unknownFields) == 0 &&
		(l.Flow == nil || len(l.Flow.unknownFields) == 0) && (l.Stamp == nil || len(l.Stamp.unknownFields) == 0)
}

func appendNumber(b []byte, field byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, field<<3), v)
}

func appendFlag(b []byte, field byte, v bool) []byte {
	if !v {
		return b
	}
	return append(b, field<<3, 1)
}

func appendText(b []byte, field byte, v string) []byte {
	if v == "" {
		return b
	}
	return append(protowire.AppendVarint(append(b, field<<3|2), uint64(len(v))), v...)
}

func appendBytes(b []byte, field byte, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return append(protowire.AppendVarint(append(b, field<<3|2), uint64(len(v))), v...)
}

// RecordRoom is where Unpack puts what it makes. It must not be copied.
type RecordRoom struct {
	rec   Record
	list  [1]*Lease
	first leaseRoom
	bytes []byte
}

type leaseRoom struct {
	lease Lease
	flow  FlowID
	stamp Stamp
}

// Unpack makes the record of an AoR from what Pack has written. Its strings
// share packed. It stands in room, which may be used again when nothing of the
// record is needed any more; nil makes a new one.
func Unpack(packed, aor string, room *RecordRoom) (*Record, error) {
	if room == nil {
		room = &RecordRoom{}
	}
	r := &room.rec
	r.Reset()
	r.Leases = room.list[:0]
	if cap(room.bytes) < len(packed) {
		room.bytes = make([]byte, 0, len(packed))
	}
	room.bytes = room.bytes[:0]
	if !room.leases(packed) {
		r.Reset()
		if err := proto.Unmarshal([]byte(packed), r); err != nil {
			return nil, err
		}
	}
	r.Aor = aor
	return r, nil
}

// leases reads a record that has nothing but leases with the fields known here.
func (m *RecordRoom) leases(packed string) bool {
	in := reader{text: packed}
	for in.more() {
		if in.field != 2 || in.wire != protowire.BytesType {
			return false
		}
		room := &m.first
		if len(m.rec.Leases) > 0 {
			room = &leaseRoom{}
		}
		room.lease.Reset()
		if !m.lease(room, reader{text: in.value}) {
			return false
		}
		m.rec.Leases = append(m.rec.Leases, &room.lease)
	}
	return !in.bad
}

func (m *RecordRoom) lease(room *leaseRoom, in reader) bool {
	l := &room.lease
	for in.more() {
		switch in.tag() {
		case 1<<3 | 2:
			l.Key = m.keep(in.value)
		case 2 << 3:
			l.Kind = LeaseKind(in.number)
		case 3<<3 | 2:
			l.Edge = in.value
		case 4<<3 | 2:
			again := l.Flow != nil
			room.flow.Reset()
			l.Flow = &room.flow
			if again || !l.Flow.read(reader{text: in.value}) {
				return false
			}
		case 5<<3 | 2:
			again := l.Stamp != nil
			room.stamp.Reset()
			l.Stamp = &room.stamp
			if again || !l.Stamp.read(reader{text: in.value}) {
				return false
			}
		case 6 << 3:
			l.Dead = in.number != 0
		case 7 << 3:
			l.Vouch = in.number
		case 8<<3 | 2:
			l.CallId = in.value
		case 9 << 3:
			l.Cseq = uint32(in.number)
		case 10 << 3:
			l.ExpiresMs = int64(in.number)
		case 11 << 3:
			l.LifetimeMs = int64(in.number)
		case 12<<3 | 2:
			l.Payload = m.keep(in.value)
		default:
			return false
		}
	}
	return !in.bad
}

// keep copies v to the room.
func (m *RecordRoom) keep(v string) []byte {
	begin := len(m.bytes)
	m.bytes = append(m.bytes, v...)
	return m.bytes[begin:len(m.bytes):len(m.bytes)]
}

func (f *FlowID) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1 << 3:
			f.Incarnation = in.number
		case 2 << 3:
			f.Counter = in.number
		case 3 << 3:
			f.Stream = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

func (s *Stamp) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1 << 3:
			s.Ms = int64(in.number)
		case 2 << 3:
			s.Counter = uint32(in.number)
		case 3 << 3:
			s.Incarnation = in.number
		default:
			return false
		}
	}
	return !in.bad
}

// reader goes through the fields of an encoded message: varints and
// length-delimited ones; anything else is bad.
type reader struct {
	text   string
	field  uint64
	wire   protowire.Type
	number uint64
	value  string
	bad    bool
}

func (r *reader) tag() uint64 { return r.field<<3 | uint64(r.wire) }

// more reads the next field; false at the end, or if there is none to be read.
func (r *reader) more() bool {
	if r.bad || r.text == "" {
		return false
	}
	tag := r.varint()
	r.field, r.wire = tag>>3, protowire.Type(tag&7)
	n := r.varint()
	switch {
	case r.bad:
	case r.wire == protowire.VarintType:
		r.number = n
	case r.wire == protowire.BytesType && n <= uint64(len(r.text)):
		r.value, r.text = r.text[:n], r.text[n:]
	default:
		r.bad = true
	}
	return !r.bad
}

func (r *reader) varint() (v uint64) {
	for i := 0; i < len(r.text) && i < 10; i++ {
		c := r.text[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.bad = i == 9 && c > 1 // more than 64 bits
			r.text = r.text[i+1:]
			return v
		}
	}
	r.bad = true
	return 0
}
