package messages

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"pgregory.net/rapid"
)

// byHand are the types that are written and read by hand, the Envelope apart.
var byHand = []plain{
	&Register{}, &Registered{}, &Locate{}, &Located{}, &Push{}, &Ack{}, &Pull{}, &Pulled{},
}

func TestByHand_NamesAreThose(t *testing.T) {
	for _, m := range byHand {
		name := string(m.ProtoReflect().Descriptor().FullName())
		if m.typeName() != name {
			t.Errorf("%s calls itself %s", name, m.typeName())
		}
		if room := roomOf(name); room == nil || TypeName(room.message()) != name {
			t.Errorf("no room for a %s, or another's", name)
		}
	}
}

// fill gives m fields of all kinds, by its descriptor.
func fill(rt *rapid.T, m protoreflect.Message, depth int) {
	if rapid.IntRange(0, 30).Draw(rt, "newer") == 0 {
		m.SetUnknown([]byte{0xc0, 0x3e, 5}) // field 1000
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if rapid.IntRange(0, 3).Draw(rt, "absent") == 0 {
			continue
		}
		switch {
		case f.IsList():
			list := m.Mutable(f).List()
			for range rapid.SampledFrom([]int{0, 1, 1, 2, 3}).Draw(rt, "elements") {
				if f.Message() != nil {
					fill(rt, list.AppendMutable().Message(), depth+1)
				} else {
					list.Append(drawScalar(rt, f, depth))
				}
			}
		case f.Message() != nil:
			fill(rt, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, drawScalar(rt, f, depth))
		}
	}
}

func drawScalar(rt *rapid.T, f protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	number := rapid.OneOf(rapid.Just(uint64(0)), rapid.Just(uint64(1)), rapid.Uint64())
	text := func() string {
		if rapid.IntRange(0, 60).Draw(rt, "no text") == 0 {
			return "a\xff"
		}
		s := rapid.StringMatching(`[a-z0-9.@:;é]{0,20}`).Draw(rt, "text")
		if depth > 3 {
			return s
		}
		return strings.Repeat(s, rapid.SampledFrom([]int{1, 1, 1, 10, 1000}).Draw(rt, "times"))
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(rt, "bool"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(-2, 9).Draw(rt, "enum")))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(number.Draw(rt, "int64")))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number.Draw(rt, "uint32")))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(number.Draw(rt, "uint64"))
	}
	rt.Fatalf("a field of kind %v is not written by hand", f.Kind())
	panic("not reached")
}

// TestByHand_AgreesWithTheLibrary: the same bytes, the same messages, the same
// refusals, both ways.
func TestByHand_AgreesWithTheLibrary(t *testing.T) {
	deterministic := proto.MarshalOptions{Deterministic: true}
	rapid.Check(t, func(rt *rapid.T) {
		m := rapid.SampledFrom(byHand).Draw(rt, "type").ProtoReflect().New().Interface()
		fill(rt, m.ProtoReflect(), 0)
		want, err := deterministic.Marshal(m)
		env, err2 := Wrap(EnvelopeKind_ENVELOPE_KIND_EVENT, m)
		if (err == nil) != (err2 == nil) {
			rt.Fatalf("the library says %v, by hand %v, of %v", err, err2, m)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(env.Payload, want) {
			rt.Fatalf("by hand\n%x\nthe library\n%x\nof %v", env.Payload, want, m)
		}
		got, err := env.Open()
		if err != nil || !proto.Equal(got, m) {
			rt.Fatalf("read\n%v, %v\nof\n%v", got, err, m)
		}
	})
}

func TestByHand_EnvelopeAgreesWithTheLibrary(t *testing.T) {
	deterministic := proto.MarshalOptions{Deterministic: true}
	rapid.Check(t, func(rt *rapid.T) {
		e := &Envelope{}
		fill(rt, e.ProtoReflect(), 0)
		before := []byte("before")
		want, err := deterministic.MarshalAppend(bytes.Clone(before), e)
		got, err2 := e.AppendTo(bytes.Clone(before))
		switch {
		case (err == nil) != (err2 == nil):
			rt.Fatalf("the library says %v, by hand %v, of %v", err, err2, e)
		case err != nil && !bytes.Equal(got, before):
			rt.Fatalf("after %v there is %q", err2, got)
		case err == nil && !bytes.Equal(got, want):
			rt.Fatalf("by hand\n%x\nthe library\n%x\nof %v", got, want, e)
		case err != nil:
			return
		}
		frame := got[len(before):]
		read, err := ReadEnvelope(frame)
		clear(got) // the frame is used again
		if err != nil || !proto.Equal(read, e) {
			rt.Fatalf("read\n%v, %v\nof\n%v", read, err, e)
		}
	})
}

// TestByHand_NilIsEmpty as for the library, also where it stands in a list.
func TestByHand_NilIsEmpty(t *testing.T) {
	for _, m := range []proto.Message{
		(*Register)(nil), (*Registered)(nil), (*Locate)(nil), (*Located)(nil), (*Push)(nil), (*Ack)(nil), (*Pull)(nil), (*Pulled)(nil),
		&Register{Contacts: []*RegisterContact{nil}}, &Located{Targets: []*Target{nil}}, &Ack{Items: []*AckItem{nil}},
		&Push{Items: []*PushItem{nil}}, &Registered{Bindings: []*Lease{nil}, Writes: &Record{Leases: []*Lease{nil}, Ended: []*Ended{nil}}},
	} {
		want, _ := proto.Marshal(m)
		if env, err := Wrap(EnvelopeKind_ENVELOPE_KIND_EVENT, m); err != nil || !bytes.Equal(env.Payload, want) {
			t.Errorf("%T: got %v, %v, want %x", m, env, err, want)
		}
	}
}

// FuzzByHand reads anything as a message of any of the types, by hand and by the library.
func FuzzByHand(f *testing.F) {
	lease := &Lease{Key: []byte("k"), Edge: "n1", Flow: &FlowID{Counter: 1}, Stamp: &Stamp{Ms: 2}, CallId: "c", Payload: []byte("p")}
	record := &Record{Aor: "sip:a@b", Leases: []*Lease{lease}}
	for _, m := range []proto.Message{
		&Register{Aor: "sip:a@b", CallId: "c", Cseq: 1, Contacts: []*RegisterContact{{Uri: "sip:c", Params: []string{"x"}}}, Stamp: lease.Stamp, Flow: lease.Flow, Path: []string{"p"}},
		&Registered{Bindings: []*Lease{lease, lease}, Writes: record, NowMs: 5, Copied: true},
		&Locate{Aor: "sip:a@b", Full: true},
		&Located{Targets: []*Target{{Contact: "sip:c", Flow: lease.Flow, Path: []string{""}}}, Final: true},
		&Push{Incarnation: 1, Digest: 2, Urgent: true, Items: []*PushItem{{Aor: "sip:a@b", Hash: 3, Record: record}, {Edge: "n"}}},
		&Ack{Incarnation: 1, Digest: 2, Items: []*AckItem{{Aor: "sip:a@b", Hash: 3, Winner: record}, {Want: true}}},
		&Pull{Aor: "sip:a@b", Digest: 4},
		&Pulled{Aor: "sip:a@b", Record: &Record{Floor: &Floor{Stamp: lease.Stamp}, Ended: []*Ended{{Edge: "n"}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for i, p := range byHand {
			if p.typeName() == TypeName(m) {
				f.Add(byte(i), b)
				f.Add(byte(i), append(b, b...))
			}
		}
		env, err := proto.Marshal(&Envelope{Kind: 1, Type: TypeName(m), Payload: b, Aor: "sip:a@b", Id: 7, StandIn: true, Riders: [][]byte{b}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(len(byHand)), env)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		var want, got proto.Message
		var err error
		if i := int(which) % (len(byHand) + 1); i == len(byHand) {
			want = &Envelope{}
			got, err = ReadEnvelope(b)
		} else {
			name := protoreflect.FullName(byHand[i].typeName())
			mt, _ := protoregistry.GlobalTypes.FindMessageByName(name)
			want = mt.New().Interface()
			got, err = (&Envelope{Type: string(name), Payload: b}).Open()
		}
		wantErr := proto.Unmarshal(b, want)
		if (err == nil) != (wantErr == nil) || err == nil && !proto.Equal(got, want) {
			t.Fatalf("got\n%v, %v\nthe library\n%v, %v\nof %x", got, err, want, wantErr, b)
		}
	})
}
