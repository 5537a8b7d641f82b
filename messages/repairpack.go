package messages

import (
	"strings"

	"google.golang.org/protobuf/proto"
)

// What nodes copy to each other, by hand.

func (*Push) typeName() string   { return "hereis.Push" }
func (*Ack) typeName() string    { return "hereis.Ack" }
func (*Pull) typeName() string   { return "hereis.Pull" }
func (*Pulled) typeName() string { return "hereis.Pulled" }

func (m *Push) write(w *writer) {
	if m == nil {
		return
	}
	w.number(1, m.Incarnation)
	w.number(2, m.Round)
	w.fixed(3, m.Digest)
	w.number(4, m.Batch)
	w.flag(5, m.Urgent)
	for _, item := range m.Items {
		at := w.open(6)
		item.write(w)
		w.close(at)
	}
	w.newer(m.unknownFields)
}

func (m *PushItem) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.fixed(2, m.Hash)
	if m.Record != nil {
		at := w.open(3)
		m.Record.write(w)
		w.close(at)
	}
	w.text(4, m.Edge)
	w.newer(m.unknownFields)
}

func (m *Ack) write(w *writer) {
	if m == nil {
		return
	}
	w.number(1, m.Incarnation)
	w.number(2, m.Round)
	w.fixed(3, m.Digest)
	w.number(4, m.Batch)
	for _, item := range m.Items {
		at := w.open(5)
		item.write(w)
		w.close(at)
	}
	w.flag(6, m.Unstored)
	w.newer(m.unknownFields)
}

func (m *AckItem) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.fixed(2, m.Hash)
	w.text(3, m.Edge)
	w.flag(4, m.Holder)
	w.flag(5, m.Want)
	if m.Winner != nil {
		at := w.open(6)
		m.Winner.write(w)
		w.close(at)
	}
	w.newer(m.unknownFields)
}

func (m *Pull) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.number(2, m.Incarnation)
	w.number(3, m.Round)
	w.fixed(4, m.Digest)
	w.newer(m.unknownFields)
}

func (m *Pulled) write(w *writer) {
	if m == nil {
		return
	}
	w.text(1, m.Aor)
	w.number(2, m.Incarnation)
	w.number(3, m.Round)
	w.fixed(4, m.Digest)
	if m.Record != nil {
		at := w.open(5)
		m.Record.write(w)
		w.close(at)
	}
	w.flag(6, m.Complete)
	w.newer(m.unknownFields)
}

type pushRoom struct {
	m     Push
	first pushItemRoom
	list  [1]*PushItem
}

func (room *pushRoom) message() proto.Message { return &room.m }

func (room *pushRoom) read(in reader) bool {
	m, whole := &room.m, len(in.text)
	m.Items = room.list[:0]
	for in.more() {
		switch in.tag() {
		case 1 << 3:
			m.Incarnation = in.number
		case 2 << 3:
			m.Round = in.number
		case 3<<3 | asFixed:
			m.Digest = in.number
		case 4 << 3:
			m.Batch = in.number
		case 5 << 3:
			m.Urgent = in.number != 0
		case 6<<3 | asBytes:
			item, text := &room.first, in.value
			if len(m.Items) > 0 {
				item = &pushItemRoom{}
			}
			if len(text) < whole/2 {
				// Of many records, one that is kept must not keep the others.
				text = strings.Clone(text)
			}
			if !item.read(reader{text: text}) {
				return false
			}
			m.Items = append(m.Items, &item.item)
		default:
			return false
		}
	}
	return !in.bad
}

type pushItemRoom struct {
	item   PushItem
	record RecordRoom
}

func (room *pushItemRoom) read(in reader) bool {
	m := &room.item
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2<<3 | asFixed:
			m.Hash = in.number
		case 3<<3 | asBytes:
			if m.Record != nil || !room.record.read(in.message()) {
				return false
			}
			m.Record = &room.record.rec
		case 4<<3 | asBytes:
			m.Edge = in.string()
		default:
			return false
		}
	}
	return !in.bad
}

type ackRoom struct {
	m     Ack
	first AckItem
	list  [1]*AckItem
}

func (room *ackRoom) message() proto.Message { return &room.m }

func (room *ackRoom) read(in reader) bool {
	m := &room.m
	m.Items = room.list[:0]
	for in.more() {
		switch in.tag() {
		case 1 << 3:
			m.Incarnation = in.number
		case 2 << 3:
			m.Round = in.number
		case 3<<3 | asFixed:
			m.Digest = in.number
		case 4 << 3:
			m.Batch = in.number
		case 5<<3 | asBytes:
			item := &room.first
			if len(m.Items) > 0 {
				item = &AckItem{}
			}
			if !item.read(in.message()) {
				return false
			}
			m.Items = append(m.Items, item)
		case 6 << 3:
			m.Unstored = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}

func (m *AckItem) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2<<3 | asFixed:
			m.Hash = in.number
		case 3<<3 | asBytes:
			m.Edge = in.string()
		case 4 << 3:
			m.Holder = in.number != 0
		case 5 << 3:
			m.Want = in.number != 0
		case 6<<3 | asBytes:
			var winner RecordRoom
			if m.Winner != nil || !winner.read(reader{text: strings.Clone(in.value)}) {
				return false
			}
			m.Winner = &winner.rec
		default:
			return false
		}
	}
	return !in.bad
}

type pullRoom struct{ m Pull }

func (room *pullRoom) message() proto.Message { return &room.m }

func (room *pullRoom) read(in reader) bool {
	m := &room.m
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2 << 3:
			m.Incarnation = in.number
		case 3 << 3:
			m.Round = in.number
		case 4<<3 | asFixed:
			m.Digest = in.number
		default:
			return false
		}
	}
	return !in.bad
}

type pulledRoom struct {
	m      Pulled
	record RecordRoom
}

func (room *pulledRoom) message() proto.Message { return &room.m }

func (room *pulledRoom) read(in reader) bool {
	m := &room.m
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			m.Aor = in.string()
		case 2 << 3:
			m.Incarnation = in.number
		case 3 << 3:
			m.Round = in.number
		case 4<<3 | asFixed:
			m.Digest = in.number
		case 5<<3 | asBytes:
			if m.Record != nil || !room.record.read(in.message()) {
				return false
			}
			m.Record = &room.record.rec
		case 6 << 3:
			m.Complete = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}
