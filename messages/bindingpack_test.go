package messages

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// TestBindingPack_AgreesWithTheLibrary: the bytes are those of the library, and
// so are the errors; both read them.
func TestBindingPack_AgreesWithTheLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name string) string {
			if rapid.IntRange(0, 40).Draw(rt, "bad") == 0 {
				return "\xff"
			}
			return rapid.StringMatching(`[a-z0-9.@:;é]{0,200}`).Draw(rt, name)
		}
		texts := func(name string) (list []string) {
			for range rapid.IntRange(0, 3).Draw(rt, name) {
				list = append(list, text(name))
			}
			return list
		}
		number := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64())
		b := &Binding{
			Contact: text("contact"), Params: texts("params"), Q: uint32(number.Draw(rt, "q")), InstanceId: text("instance"),
			RegId: uint32(number.Draw(rt, "reg-id")), Path: texts("path"), FlowBound: rapid.Bool().Draw(rt, "bound"),
			Transport: text("transport"), Local: text("local"), Remote: text("remote"), UserAgent: text("agent"),
			SinceMs: int64(number.Draw(rt, "since")),
		}
		if rapid.IntRange(0, 9).Draw(rt, "newer") == 0 {
			b.ProtoReflect().SetUnknown([]byte{15 << 3, 1})
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
		got, err2 := b.Pack(nil)
		if (err == nil) != (err2 == nil) || !bytes.Equal(got, want) {
			rt.Fatalf("got %x, %v\nwant %x, %v\nof %v", got, err2, want, err, b)
		}
		checkUnpack(rt, got)
		if err != nil {
			return
		}
		if is := b.Is(want); is != (len(b.ProtoReflect().GetUnknown()) == 0) {
			rt.Fatalf("told %t that %x is %v", is, want, b)
		}
		other := bytes.Clone(want)
		switch at := rapid.IntRange(0, len(want)).Draw(rt, "at"); {
		case at == len(want):
			other = append(other, rapid.Byte().Draw(rt, "byte"))
		case rapid.Bool().Draw(rt, "shorter"):
			other = other[:at]
		default:
			other[at] ^= rapid.ByteRange(1, 255).Draw(rt, "change")
		}
		if b.Is(other) {
			rt.Fatalf("told that %x is %v, which is %x", other, b, want)
		}
	})
}

type fataler interface{ Fatalf(string, ...any) }

// checkUnpack reads packed in both ways.
func checkUnpack(t fataler, packed []byte) {
	var want Binding
	got := Binding{Contact: "before", Params: []string{"before"}}
	err, err2 := proto.Unmarshal(packed, &want), got.Unpack(packed)
	if (err == nil) != (err2 == nil) || err == nil && !proto.Equal(&got, &want) {
		t.Fatalf("got\n%v, %v\nthe library\n%v, %v\nof %x", &got, err2, &want, err, packed)
	}
}

func FuzzBindingUnpack(f *testing.F) {
	full, err := (&Binding{
		Contact: "sip:a@192.0.2.1", Params: []string{"x", ""}, Q: 1000, InstanceId: "urn:x", RegId: 1, Path: []string{"<sip:p;lr>"},
		FlowBound: true, Transport: "udp", Local: "l", Remote: "r", UserAgent: "é", SinceMs: 1 << 41,
	}).Pack(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte{10, 2, 0xff, 0xfe})
	f.Fuzz(func(t *testing.T, packed []byte) { checkUnpack(t, packed) })
}
