package messages

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Wrap puts msg into a new Envelope with its type and bytes; the caller adds
// the rest.
func Wrap(kind EnvelopeKind, msg proto.Message) (*Envelope, error) {
	b, err := marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("wrap %s: %w", TypeName(msg), err)
	}
	return &Envelope{Kind: kind, Type: TypeName(msg), Payload: b}, nil
}

func marshal(msg proto.Message) ([]byte, error) {
	if m, ok := msg.(plain); ok {
		w := writer{b: make([]byte, 0, 512)}
		m.write(&w)
		if !w.odd {
			return w.b, nil
		}
	}
	return proto.Marshal(msg)
}

// Open decodes the message in the envelope, which shares the payload: that is not
// to be changed any more. A type that this process does not know is
// ErrUnknownType, never a panic (CONSISTENCY rule 20).
func (e *Envelope) Open() (proto.Message, error) {
	if room := roomOf(e.GetType()); room != nil && room.read(reader{text: textOf(e.Payload)}) {
		return room.message(), nil
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(e.GetType()))
	if err != nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownType, e.GetType())
	}
	msg := mt.New().Interface()
	if err := proto.Unmarshal(e.GetPayload(), msg); err != nil {
		return nil, fmt.Errorf("open %s: %w", e.GetType(), err)
	}
	return msg, nil
}

// TypeName is the full protobuf name of msg, as it stands in an Envelope.
func TypeName(msg proto.Message) string {
	if m, ok := msg.(plain); ok {
		return m.typeName()
	}
	return string(msg.ProtoReflect().Descriptor().FullName())
}
