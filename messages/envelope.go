package messages

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Wrap puts msg into a new Envelope with its type and bytes; the caller adds
// the rest.
func Wrap(kind EnvelopeKind, msg proto.Message) (*Envelope, error) {
	p := &Parcel{}
	if err := p.wrap(kind, msg); err != nil {
		return nil, err
	}
	return &p.Envelope, nil
}

// Parcel is an Envelope whose memory is used again.
type Parcel struct {
	Envelope
	w writer
}

var parcels = sync.Pool{New: func() any { return &Parcel{} }}

// keepParcel is the largest payload whose memory is kept.
const keepParcel = 64 << 10

// WrapParcel is Wrap in a Parcel, which is to be given back with Free when it has
// been sent.
func WrapParcel(kind EnvelopeKind, msg proto.Message) (*Parcel, error) {
	p := parcels.Get().(*Parcel)
	if err := p.wrap(kind, msg); err != nil {
		p.Free()
		return nil, err
	}
	return p, nil
}

// Free gives the Parcel back: nobody may have it any more.
func (p *Parcel) Free() {
	if cap(p.w.b) > keepParcel {
		return
	}
	p.Envelope.Reset()
	p.w.b, p.w.odd = p.w.b[:0], false
	parcels.Put(p)
}

func (p *Parcel) wrap(kind EnvelopeKind, msg proto.Message) error {
	m, byHand := msg.(plain)
	if byHand {
		m.write(&p.w)
	}
	if !byHand || p.w.odd {
		b, err := proto.MarshalOptions{}.MarshalAppend(p.w.b[:0], msg)
		if err != nil {
			return fmt.Errorf("wrap %s: %w", TypeName(msg), err)
		}
		p.w.b = b
	}
	p.Kind, p.Type, p.Payload = kind, TypeName(msg), p.w.b
	return nil
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
