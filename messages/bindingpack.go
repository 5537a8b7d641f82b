package messages

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A Binding is written and read once for each REGISTER: by hand, to the bytes of
// the library, which has whatever is unusual.

// Pack appends the protobuf encoding of b, with its fields in the order of their
// numbers, to out.
func (b *Binding) Pack(out []byte) ([]byte, error) {
	if len(b.unknownFields) > 0 || !b.isText() {
		// Copies: what the library is given does not stay on the stack.
		again := &Binding{unknownFields: b.unknownFields}
		again.set(b)
		packed, err := proto.MarshalOptions{Deterministic: true}.Marshal(again)
		return append(out, packed...), err
	}
	out = appendText(out, 1, b.Contact)
	out = appendTexts(out, 2, b.Params)
	out = appendNumber(out, 3, uint64(b.Q))
	out = appendText(out, 4, b.InstanceId)
	out = appendNumber(out, 5, uint64(b.RegId))
	out = appendTexts(out, 6, b.Path)
	out = appendFlag(out, 7, b.FlowBound)
	out = appendText(out, 8, b.Transport)
	out = appendText(out, 9, b.Local)
	out = appendText(out, 10, b.Remote)
	out = appendText(out, 11, b.UserAgent)
	return appendNumber(out, 12, uint64(b.SinceMs)), nil
}

// isText tells whether all texts are UTF-8, without which there is no encoding.
func (b *Binding) isText() bool {
	for _, list := range [...][]string{b.Params, b.Path} {
		for _, v := range list {
			if !utf8.ValidString(v) {
				return false
			}
		}
	}
	return utf8.ValidString(b.Contact) && utf8.ValidString(b.InstanceId) && utf8.ValidString(b.Transport) &&
		utf8.ValidString(b.Local) && utf8.ValidString(b.Remote) && utf8.ValidString(b.UserAgent)
}

// appendTexts writes a repeated field, whose empty values count.
func appendTexts(b []byte, field byte, list []string) []byte {
	for _, v := range list {
		b = append(protowire.AppendVarint(append(b, field<<3|2), uint64(len(v))), v...)
	}
	return b
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

// read takes the fields known here; false: there are others, or what is no text,
// even where a later field of the same number takes its place.
func (b *Binding) read(in reader) bool {
	for in.more() {
		tag := in.tag()
		if tag&7 == 2 && !utf8.ValidString(in.value) {
			return false
		}
		switch tag {
		case 1<<3 | 2:
			b.Contact = in.value
		case 2<<3 | 2:
			b.Params = append(b.Params, in.value)
		case 3 << 3:
			b.Q = uint32(in.number)
		case 4<<3 | 2:
			b.InstanceId = in.value
		case 5 << 3:
			b.RegId = uint32(in.number)
		case 6<<3 | 2:
			b.Path = append(b.Path, in.value)
		case 7 << 3:
			b.FlowBound = in.number != 0
		case 8<<3 | 2:
			b.Transport = in.value
		case 9<<3 | 2:
			b.Local = in.value
		case 10<<3 | 2:
			b.Remote = in.value
		case 11<<3 | 2:
			b.UserAgent = in.value
		case 12 << 3:
			b.SinceMs = int64(in.number)
		default:
			return false
		}
	}
	return !in.bad
}
