package messages

import "google.golang.org/protobuf/proto"

// REGISTER and WHEREIS by hand, and their answers.

func (*Register) typeName() string   { return "hereis.Register" }
func (*Registered) typeName() string { return "hereis.Registered" }
func (*Locate) typeName() string     { return "hereis.Locate" }
func (*Located) typeName() string    { return "hereis.Located" }

func (m *Register) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.text(2, m.CallId)
	w.number(3, uint64(m.Cseq))
	for _, c := range m.Contacts {
		at := w.open(4)
		c.write(w)
		w.close(at)
	}
	w.flag(5, m.Star)
	w.number(6, uint64(m.ExpiresS))
	w.flag(7, m.HasExpires)
	m.Stamp.writeAs(w, 8)
	w.text(9, m.Edge)
	m.Flow.writeAs(w, 10)
	w.number(11, m.Incarnation)
	w.number(12, uint64(m.AgeMs))
	w.texts(13, m.Path)
	w.text(15, m.Transport)
	w.text(16, m.Local)
	w.text(17, m.Remote)
	w.text(18, m.UserAgent)
	w.newer(m.unknownFields)
}

func (c *RegisterContact) write(w *writer) {
	if c == nil {
		return
	}
	w.text(1, c.Uri)
	w.texts(2, c.Params)
	w.number(3, uint64(c.ExpiresS))
	w.flag(4, c.HasExpires)
	w.number(5, uint64(c.Q))
	w.text(6, c.InstanceId)
	w.number(7, uint64(c.RegId))
	w.flag(8, c.FlowBound)
	w.newer(c.unknownFields)
}

func (m *Registered) write(w *writer) {
	if m == nil {
		return
	}
	for _, l := range m.Bindings {
		at := w.open(1)
		l.write(w)
		w.close(at)
	}
	if m.Writes != nil {
		at := w.open(2)
		m.Writes.write(w)
		w.close(at)
	}
	w.number(3, uint64(m.NowMs))
	w.flag(4, m.Copied)
	w.newer(m.unknownFields)
}

func (m *Locate) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.text(2, m.CallId)
	w.flag(3, m.Full)
	w.newer(m.unknownFields)
}

func (m *Located) write(w *writer) {
	if m == nil {
		return
	}
	for _, t := range m.Targets {
		at := w.open(1)
		t.write(w)
		w.close(at)
	}
	w.flag(2, m.Final)
	w.newer(m.unknownFields)
}

func (t *Target) write(w *writer) {
	if t == nil {
		return
	}
	w.text(1, t.Contact)
	w.number(2, uint64(t.Q))
	w.texts(3, t.Path)
	w.flag(4, t.FlowBound)
	w.text(5, t.Edge)
	w.flag(6, t.EdgeLive)
	t.Flow.writeAs(w, 7)
	w.text(8, t.Transport)
	w.text(9, t.Local)
	w.text(10, t.Remote)
	w.text(11, t.InstanceId)
	w.number(12, uint64(t.RegId))
	w.text(13, t.CallId)
	w.newer(t.unknownFields)
}

type registerRoom struct {
	m       Register
	stamp   Stamp
	flow    FlowID
	contact RegisterContact
	list    [1]*RegisterContact
}

func (room *registerRoom) message() proto.Message { return &room.m }

func (room *registerRoom) read(in reader) bool {
	m := &room.m
	m.Contacts = room.list[:0]
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2<<3 | asBytes:
			m.CallId = in.string()
		case 3 << 3:
			m.Cseq = uint32(in.number)
		case 4<<3 | asBytes:
			c := &room.contact
			if len(m.Contacts) > 0 {
				c = &RegisterContact{}
			}
			if !c.read(in.message()) {
				return false
			}
			m.Contacts = append(m.Contacts, c)
		case 5 << 3:
			m.Star = in.number != 0
		case 6 << 3:
			m.ExpiresS = uint32(in.number)
		case 7 << 3:
			m.HasExpires = in.number != 0
		case 8<<3 | asBytes:
			if m.Stamp != nil || !room.stamp.read(in.message()) {
				return false
			}
			m.Stamp = &room.stamp
		case 9<<3 | asBytes:
			m.Edge = in.string()
		case 10<<3 | asBytes:
			if m.Flow != nil || !room.flow.read(in.message()) {
				return false
			}
			m.Flow = &room.flow
		case 11 << 3:
			m.Incarnation = in.number
		case 12 << 3:
			m.AgeMs = int64(in.number)
		case 13<<3 | asBytes:
			m.Path = append(m.Path, in.string())
		case 15<<3 | asBytes:
			m.Transport = in.string()
		case 16<<3 | asBytes:
			m.Local = in.string()
		case 17<<3 | asBytes:
			m.Remote = in.string()
		case 18<<3 | asBytes:
			m.UserAgent = in.string()
		default:
			return false
		}
	}
	return !in.bad
}

func (c *RegisterContact) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			c.Uri = in.string()
		case 2<<3 | asBytes:
			c.Params = append(c.Params, in.string())
		case 3 << 3:
			c.ExpiresS = uint32(in.number)
		case 4 << 3:
			c.HasExpires = in.number != 0
		case 5 << 3:
			c.Q = uint32(in.number)
		case 6<<3 | asBytes:
			c.InstanceId = in.string()
		case 7 << 3:
			c.RegId = uint32(in.number)
		case 8 << 3:
			c.FlowBound = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

type registeredRoom struct {
	m      Registered
	first  leaseRoom
	list   [1]*Lease
	writes RecordRoom
}

func (room *registeredRoom) message() proto.Message { return &room.m }

func (room *registeredRoom) read(in reader) bool {
	m := &room.m
	m.Bindings = room.list[:0]
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			lease := &room.first
			if len(m.Bindings) > 0 {
				lease = &leaseRoom{}
			}
			if !lease.read(in.message()) {
				return false
			}
			m.Bindings = append(m.Bindings, &lease.lease)
		case 2<<3 | asBytes:
			if m.Writes != nil || !room.writes.read(in.message()) {
				return false
			}
			m.Writes = &room.writes.rec
		case 3 << 3:
			m.NowMs = int64(in.number)
		case 4 << 3:
			m.Copied = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

type locateRoom struct{ m Locate }

func (room *locateRoom) message() proto.Message { return &room.m }

func (room *locateRoom) read(in reader) bool {
	m := &room.m
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2<<3 | asBytes:
			m.CallId = in.string()
		case 3 << 3:
			m.Full = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

type locatedRoom struct {
	m     Located
	first targetRoom
	list  [1]*Target
}

func (room *locatedRoom) message() proto.Message { return &room.m }

func (room *locatedRoom) read(in reader) bool {
	m := &room.m
	m.Targets = room.list[:0]
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			t := &room.first
			if len(m.Targets) > 0 {
				t = &targetRoom{}
			}
			if !t.read(in.message()) {
				return false
			}
			m.Targets = append(m.Targets, &t.target)
		case 2 << 3:
			m.Final = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

type targetRoom struct {
	target Target
	flow   FlowID
}

func (room *targetRoom) read(in reader) bool {
	t := &room.target
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			t.Contact = in.string()
		case 2 << 3:
			t.Q = uint32(in.number)
		case 3<<3 | asBytes:
			t.Path = append(t.Path, in.string())
		case 4 << 3:
			t.FlowBound = in.number != 0
		case 5<<3 | asBytes:
			t.Edge = in.string()
		case 6 << 3:
			t.EdgeLive = in.number != 0
		case 7<<3 | asBytes:
			if t.Flow != nil || !room.flow.read(in.message()) {
				return false
			}
			t.Flow = &room.flow
		case 8<<3 | asBytes:
			t.Transport = in.string()
		case 9<<3 | asBytes:
			t.Local = in.string()
		case 10<<3 | asBytes:
			t.Remote = in.string()
		case 11<<3 | asBytes:
			t.InstanceId = in.string()
		case 12 << 3:
			t.RegId = uint32(in.number)
		case 13<<3 | asBytes:
			t.CallId = in.string()
		default:
			return false
		}
	}
	return !in.bad
}
