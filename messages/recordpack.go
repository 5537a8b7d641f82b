package messages

import (
	"slices"

	"google.golang.org/protobuf/proto"
)

// A record at rest is its protobuf encoding without the AoR: a quarter of the
// memory, and nothing for the garbage collector to look into.

// Pack appends r without its AoR to b. False: it cannot be encoded, and b is as it was.
func (r *Record) Pack(b []byte) ([]byte, bool) {
	w := writer{b: b}
	r.writeRest(&w)
	if w.odd {
		return b, false
	}
	return w.b, true
}

// AppendTo appends the protobuf encoding of r to b. On an error b is as it was.
func (r *Record) AppendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	r.write(&w)
	if !w.odd {
		return w.b, nil
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(b, r)
	if err != nil {
		return b, err
	}
	return out, nil
}

// ReadRecord reads what AppendTo has written. b is the record's from now on.
func ReadRecord(b []byte) (*Record, error) {
	m := &RecordRoom{}
	if m.read(reader{text: textOf(b)}) {
		return &m.rec, nil
	}
	m.rec.Reset()
	return &m.rec, proto.Unmarshal(b, &m.rec)
}

func (r *Record) write(w *writer) {
	if r == nil {
		return
	}
	w.text(1, r.Aor)
	r.writeRest(w)
}

func (r *Record) writeRest(w *writer) {
	for _, l := range r.Leases {
		at := w.open(2)
		l.write(w)
		w.close(at)
	}
	if r.Floor != nil {
		at := w.open(3)
		r.Floor.write(w)
		w.close(at)
	}
	for _, e := range r.Ended {
		at := w.open(4)
		e.write(w)
		w.close(at)
	}
	w.newer(r.unknownFields)
}

func (l *Lease) write(w *writer) {
	if l == nil {
		return
	}
	w.bytes(1, l.Key)
	w.number(2, uint64(l.Kind))
	w.text(3, l.Edge)
	l.Flow.writeAs(w, 4)
	l.Stamp.writeAs(w, 5)
	w.flag(6, l.Dead)
	w.number(7, l.Vouch)
	w.text(8, l.CallId)
	w.number(9, uint64(l.Cseq))
	w.number(10, uint64(l.ExpiresMs))
	w.number(11, uint64(l.LifetimeMs))
	w.bytes(12, l.Payload)
	w.newer(l.unknownFields)
}

func (f *Floor) write(w *writer) {
	if f == nil {
		return
	}
	f.Stamp.writeAs(w, 1)
	w.text(2, f.CallId)
	w.number(3, uint64(f.Cseq))
	w.text(4, f.Edge)
	w.number(5, uint64(f.LifetimeMs))
	w.newer(f.unknownFields)
}

func (e *Ended) write(w *writer) {
	if e == nil {
		return
	}
	w.text(1, e.Edge)
	e.Flow.writeAs(w, 2)
	w.number(3, uint64(e.Ms))
	w.number(4, uint64(e.LifetimeMs))
	w.newer(e.unknownFields)
}

func (f *FlowID) writeAs(w *writer, field uint64) {
	if f == nil {
		return
	}
	at := w.open(field)
	w.number(1, f.Incarnation)
	w.number(2, f.Counter)
	w.flag(3, f.Stream)
	w.newer(f.unknownFields)
	w.close(at)
}

func (s *Stamp) writeAs(w *writer, field uint64) {
	if s == nil {
		return
	}
	at := w.open(field)
	w.number(1, uint64(s.Ms))
	w.number(2, uint64(s.Counter))
	w.number(3, s.Incarnation)
	w.newer(s.unknownFields)
	w.close(at)
}

// Known tells that r has nothing that is not known here, as a newer node may have written.
func (r *Record) Known() bool {
	return len(r.unknownFields) == 0 && !slices.ContainsFunc(r.Leases, func(l *Lease) bool { return !l.known() })
}

func (l *Lease) known() bool {
	return len(l.unknownFields) == 0 &&
		(l.Flow == nil || len(l.Flow.unknownFields) == 0) && (l.Stamp == nil || len(l.Stamp.unknownFields) == 0)
}

// RecordRoom is where Unpack puts what it makes. It must not be copied.
type RecordRoom struct {
	rec   Record
	list  [1]*Lease
	first leaseRoom
}

type leaseRoom struct {
	lease Lease
	flow  FlowID
	stamp Stamp
}

// Unpack makes the record of an AoR from what Pack has written, and shares
// packed. It stands in room, which may be used again when nothing of the record
// is needed any more; nil makes a new one.
func Unpack(packed, aor string, room *RecordRoom) (*Record, error) {
	if room == nil {
		room = &RecordRoom{}
	}
	r := &room.rec
	if !room.read(reader{text: packed}) {
		r.Reset()
		if err := proto.Unmarshal([]byte(packed), r); err != nil {
			return nil, err
		}
	}
	r.Aor = aor
	return r, nil
}

// read reads a record that has nothing but leases with the fields known here.
func (m *RecordRoom) read(in reader) bool {
	r := &m.rec
	r.Reset()
	r.Leases = m.list[:0]
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			r.Aor = in.string()
		case 2<<3 | asBytes:
			room := &m.first
			if len(r.Leases) > 0 {
				room = &leaseRoom{}
			}
			if !room.read(in.message()) {
				return false
			}
			r.Leases = append(r.Leases, &room.lease)
		default:
			return false
		}
	}
	return !in.bad
}

func (m *leaseRoom) read(in reader) bool {
	l := &m.lease
	l.Reset()
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			l.Key = in.bytes()
		case 2 << 3:
			l.Kind = LeaseKind(in.number)
		case 3<<3 | asBytes:
			l.Edge = in.string()
		case 4<<3 | asBytes:
			if l.Flow != nil || !m.flow.read(in.message()) {
				return false
			}
			l.Flow = &m.flow
		case 5<<3 | asBytes:
			if l.Stamp != nil || !m.stamp.read(in.message()) {
				return false
			}
			l.Stamp = &m.stamp
		case 6 << 3:
			l.Dead = in.number != 0
		case 7 << 3:
			l.Vouch = in.number
		case 8<<3 | asBytes:
			l.CallId = in.string()
		case 9 << 3:
			l.Cseq = uint32(in.number)
		case 10 << 3:
			l.ExpiresMs = int64(in.number)
		case 11 << 3:
			l.LifetimeMs = int64(in.number)
		case 12<<3 | asBytes:
			l.Payload = in.bytes()
		default:
			return false
		}
	}
	return !in.bad
}

func (f *FlowID) read(in reader) bool {
	f.Reset()
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
	s.Reset()
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
