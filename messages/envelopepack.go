package messages

import "google.golang.org/protobuf/proto"

// plain are the messages that are written by hand.
type plain interface {
	proto.Message
	typeName() string
	write(w *writer)
}

// room is a message that is read by hand, with what it is made of beside it.
type room interface {
	// read makes the message; false: it is left to the library.
	read(in reader) bool
	message() proto.Message
}

// roomOf is for a message of a type by its full name; nil if it is read by the library.
func roomOf(typeName string) room {
	switch typeName {
	case "hereis.Register":
		return &registerRoom{}
	case "hereis.Registered":
		return &registeredRoom{}
	case "hereis.Locate":
		return &locateRoom{}
	case "hereis.Located":
		return &locatedRoom{}
	case "hereis.Push":
		return &pushRoom{}
	case "hereis.Ack":
		return &ackRoom{}
	case "hereis.Pull":
		return &pullRoom{}
	case "hereis.Pulled":
		return &pulledRoom{}
	}
	return nil
}

// AppendTo writes e, as a frame between nodes has it, to the end of b. On an error
// b is as it was.
func (e *Envelope) AppendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	e.write(&w)
	if !w.odd {
		return w.b, nil
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(b, e)
	if err != nil {
		return b, err
	}
	return out, nil
}

// ReadEnvelope reads what AppendTo has written. It keeps nothing of b.
func ReadEnvelope(b []byte) (*Envelope, error) {
	e := &Envelope{}
	if e.read(reader{text: string(b)}) {
		return e, nil
	}
	e.Reset()
	return e, proto.Unmarshal(b, e)
}

func (e *Envelope) write(w *writer) {
	if e == nil {
		return
	}
	w.number(1, uint64(e.Kind))
	w.text(2, e.Type)
	w.bytes(3, e.Payload)
	w.number(4, uint64(e.DeadlineMs))
	w.number(5, e.Incarnation)
	w.number(6, e.Id)
	w.text(7, e.Aor)
	w.text(8, e.Grain)
	w.text(9, e.ForwardedFor)
	w.text(10, e.From)
	for _, rider := range e.Riders {
		w.piece(11, rider)
	}
	w.flag(12, e.StandIn)
	w.newer(e.unknownFields)
}

func (e *Envelope) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1 << 3:
			e.Kind = EnvelopeKind(in.number)
		case 2<<3 | asBytes:
			e.Type = in.string()
		case 3<<3 | asBytes:
			e.Payload = in.bytes()
		case 4 << 3:
			e.DeadlineMs = int64(in.number)
		case 5 << 3:
			e.Incarnation = in.number
		case 6 << 3:
			e.Id = in.number
		case 7<<3 | asBytes:
			e.Aor = in.string()
		case 8<<3 | asBytes:
			e.Grain = in.string()
		case 9<<3 | asBytes:
			e.ForwardedFor = in.string()
		case 10<<3 | asBytes:
			e.From = in.string()
		case 12 << 3:
			e.StandIn = in.number != 0
		default:
			return false
		}
	}
	return !in.bad
}
