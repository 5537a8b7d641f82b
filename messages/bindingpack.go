package messages

import "google.golang.org/protobuf/proto"

// A Binding is written and read once for each REGISTER.

// Pack appends the protobuf encoding of b to out.
func (b *Binding) Pack(out []byte) ([]byte, error) {
	w := writer{b: out}
	b.write(&w)
	if !w.odd {
		return w.b, nil
	}
	// A copy: what the library is given does not stay on the stack.
	again := &Binding{unknownFields: b.unknownFields}
	again.set(b)
	packed, err := proto.MarshalOptions{Deterministic: true}.Marshal(again)
	return append(out, packed...), err
}

func (b *Binding) write(w *writer) {
	w.text(1, b.Contact)
	w.texts(2, b.Params)
	w.number(3, uint64(b.Q))
	w.text(4, b.InstanceId)
	w.number(5, uint64(b.RegId))
	w.texts(6, b.Path)
	w.flag(7, b.FlowBound)
	w.text(8, b.Transport)
	w.text(9, b.Local)
	w.text(10, b.Remote)
	w.text(11, b.UserAgent)
	w.number(12, uint64(b.SinceMs))
	w.newer(b.unknownFields)
}

// Is tells whether packed is what Pack makes of b, as far as that is so without the library.
func (b *Binding) Is(packed []byte) bool {
	m := matcher{text: textOf(packed)}
	m.one(1, b.Contact)
	m.texts(2, b.Params)
	m.number(3, uint64(b.Q))
	m.one(4, b.InstanceId)
	m.number(5, uint64(b.RegId))
	m.texts(6, b.Path)
	m.flag(7, b.FlowBound)
	m.one(8, b.Transport)
	m.one(9, b.Local)
	m.one(10, b.Remote)
	m.one(11, b.UserAgent)
	m.number(12, uint64(b.SinceMs))
	return m.ends() && len(b.unknownFields) == 0
}

// Unpack makes b what packed encodes; its strings share memory with each other.
// The error is the library's.
func (b *Binding) Unpack(packed []byte) error {
	b.set(&Binding{})
	b.unknownFields = nil
	if b.read(reader{text: string(packed)}) {
		return nil
	}
	again := &Binding{}
	err := proto.Unmarshal(packed, again)
	b.set(again)
	b.unknownFields = again.unknownFields
	return err
}

// set gives b the fields of o that are known here.
func (b *Binding) set(o *Binding) {
	b.Contact, b.Params, b.Q, b.InstanceId, b.RegId, b.Path = o.Contact, o.Params, o.Q, o.InstanceId, o.RegId, o.Path
	b.FlowBound, b.Transport, b.Local, b.Remote, b.UserAgent, b.SinceMs = o.FlowBound, o.Transport, o.Local, o.Remote, o.UserAgent, o.SinceMs
}

// read takes the fields known here; false: there are others, or what is no text.
func (b *Binding) read(in reader) bool {
	for in.more() {
		switch in.tag() {
		case 1<<3 | asBytes:
			b.Contact = in.string()
		case 2<<3 | asBytes:
			b.Params = append(b.Params, in.string())
		case 3 << 3:
			b.Q = uint32(in.number)
		case 4<<3 | asBytes:
			b.InstanceId = in.string()
		case 5 << 3:
			b.RegId = uint32(in.number)
		case 6<<3 | asBytes:
			b.Path = append(b.Path, in.string())
		case 7 << 3:
			b.FlowBound = in.number != 0
		case 8<<3 | asBytes:
			b.Transport = in.string()
		case 9<<3 | asBytes:
			b.Local = in.string()
		case 10<<3 | asBytes:
			b.Remote = in.string()
		case 11<<3 | asBytes:
			b.UserAgent = in.string()
		case 12 << 3:
			b.SinceMs = int64(in.number)
		default:
			return false
		}
	}
	return !in.bad
}
