package messages

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

func drawPacked(rt *rapid.T) *Record {
	text := rapid.StringMatching(`[a-z0-9.@:;é]{0,20}`)
	number := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64())
	flow := func() *FlowID {
		if rapid.Bool().Draw(rt, "no flow") {
			return nil
		}
		return &FlowID{Incarnation: number.Draw(rt, "inc"), Counter: number.Draw(rt, "counter"), Stream: rapid.Bool().Draw(rt, "stream")}
	}
	stamp := func() *Stamp {
		if rapid.Bool().Draw(rt, "no stamp") {
			return nil
		}
		return &Stamp{Ms: int64(number.Draw(rt, "ms")), Counter: uint32(number.Draw(rt, "n")), Incarnation: number.Draw(rt, "inc")}
	}
	r := &Record{Aor: "sip:alice@example.com"}
	for range rapid.IntRange(0, 3).Draw(rt, "leases") {
		r.Leases = append(r.Leases, &Lease{
			Key: []byte(text.Draw(rt, "key")), Kind: LeaseKind(rapid.IntRange(-1, 9).Draw(rt, "kind")), Edge: text.Draw(rt, "edge"),
			Flow: flow(), Stamp: stamp(), Dead: rapid.Bool().Draw(rt, "dead"), Vouch: number.Draw(rt, "vouch"),
			CallId: text.Draw(rt, "call-id"), Cseq: uint32(number.Draw(rt, "cseq")), ExpiresMs: int64(number.Draw(rt, "expires")),
			LifetimeMs: int64(number.Draw(rt, "lifetime")), Payload: []byte(strings.Repeat(text.Draw(rt, "payload"), rapid.SampledFrom([]int{1, 1, 8, 2000}).Draw(rt, "times"))),
		})
	}
	if rapid.IntRange(0, 3).Draw(rt, "floor") == 0 {
		r.Floor = &Floor{Stamp: stamp(), CallId: text.Draw(rt, "floor's"), Edge: "n1"}
	}
	if rapid.IntRange(0, 3).Draw(rt, "ended") == 0 {
		r.Ended = []*Ended{{Edge: "n2", Flow: flow(), Ms: 7}}
	}
	return r
}

// TestPack_AgreesWithTheLibrary: the bytes are those of the library, and both
// read them; a room that has been used before makes no difference.
func TestPack_AgreesWithTheLibrary(t *testing.T) {
	var used RecordRoom
	rapid.Check(t, func(rt *rapid.T) {
		r := drawPacked(rt)
		packed, ok := r.Pack(nil)
		if !ok {
			rt.Fatal("not packed")
		}
		byLibrary := &Record{}
		if err := proto.Unmarshal(packed, byLibrary); err != nil {
			rt.Fatal(err)
		}
		byLibrary.Aor = r.Aor
		if !proto.Equal(byLibrary, r) {
			rt.Fatalf("the library reads\n%v\nof\n%v", byLibrary, r)
		}
		for _, room := range []*RecordRoom{nil, &used} {
			got, err := Unpack(string(packed), r.Aor, room)
			if err != nil || !proto.Equal(got, r) {
				rt.Fatalf("got\n%v, %v\nwant\n%v", got, err, r)
			}
		}
	})
}

// TestRecord_IsWrittenAsByTheLibrary, and read, with its AoR, behind what is there.
func TestRecord_IsWrittenAsByTheLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := drawPacked(rt)
		if rapid.IntRange(0, 9).Draw(rt, "newer") == 0 {
			r.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 5}) // field 1000
		}
		got, err := r.AppendTo([]byte("before"))
		want, wantErr := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte("before"), r)
		if err != nil || wantErr != nil || string(got) != string(want) {
			rt.Fatalf("got %x, %v\nwant %x, %v", got, err, want, wantErr)
		}
		if again, err := ReadRecord(got[len("before"):]); err != nil || !proto.Equal(again, r) {
			rt.Fatalf("read %v, %v\nof %v", again, err, r)
		}
	})
	bad := &Record{Aor: "sip:\xff@b"}
	if got, err := bad.AppendTo([]byte("before")); err == nil || string(got) != "before" {
		t.Errorf("what is no text: %q, %v", got, err)
	}
	if _, err := ReadRecord([]byte{0x0a, 5}); err == nil {
		t.Error("half a record is read")
	}
}

// TestPack_KeepsWhatANewerNodeHasAdded, at every place where it may stand.
func TestPack_KeepsWhatANewerNodeHasAdded(t *testing.T) {
	for _, place := range []func(*Record) protoreflect.Message{
		func(r *Record) protoreflect.Message { return r.ProtoReflect() },
		func(r *Record) protoreflect.Message { return r.Leases[0].ProtoReflect() },
		func(r *Record) protoreflect.Message { return r.Leases[0].Flow.ProtoReflect() },
		func(r *Record) protoreflect.Message { return r.Leases[0].Stamp.ProtoReflect() },
	} {
		r := &Record{Aor: "sip:a@b", Leases: []*Lease{{Key: []byte("k"), Flow: &FlowID{Counter: 1}, Stamp: &Stamp{Ms: 2}}}}
		place(r).SetUnknown([]byte{0xc0, 0x3e, 5}) // field 1000
		packed, ok := r.Pack(nil)
		if !ok {
			t.Fatal("not packed")
		}
		if got, err := Unpack(string(packed), r.Aor, nil); err != nil || !proto.Equal(got, r) {
			t.Errorf("got %v, %v, want %v", got, err, r)
		}
	}
}

// TestPack_TextThatIsNoUTF8: it stays what it is, or the record is not packed.
func TestPack_TextThatIsNoUTF8(t *testing.T) {
	r := &Record{Aor: "sip:a@b", Leases: []*Lease{{CallId: "\xff"}}}
	if packed, ok := r.Pack(nil); ok {
		if got, err := Unpack(string(packed), r.Aor, nil); err != nil || got.Leases[0].CallId != "\xff" {
			t.Errorf("got %v, %v", got, err)
		}
	}
	r.Floor = &Floor{CallId: "\xff"}
	if _, ok := r.Pack(nil); ok {
		t.Error("packed what cannot be unpacked")
	}
}

func FuzzUnpack(f *testing.F) {
	r := &Record{Leases: []*Lease{{Key: []byte("k"), Edge: "n1", Flow: &FlowID{Counter: 1}, Stamp: &Stamp{Ms: 2}, CallId: "c", Payload: []byte("p")}}}
	packed, _ := r.Pack(nil)
	f.Add(string(packed))
	f.Add(strings.Repeat(string(packed), 2))
	f.Fuzz(func(t *testing.T, packed string) {
		got, err := Unpack(packed, "sip:a@b", nil)
		want := &Record{}
		wantErr := proto.Unmarshal([]byte(packed), want)
		if wantErr != nil {
			return // no record of ours
		}
		want.Aor = "sip:a@b"
		if err != nil || !proto.Equal(got, want) {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	r := &Record{Aor: "sip:alice@example.com", Leases: []*Lease{{
		Key: []byte("sip:alice@192.0.2.10:5060;transport=udp"), Kind: 1, Edge: "n1", Flow: &FlowID{Incarnation: 1 << 60, Counter: 70000},
		Stamp: &Stamp{Ms: 1 << 41, Counter: 3, Incarnation: 1 << 60}, Vouch: 1 << 60, CallId: "f81d4fae7dec11d0a76500a0c91e6bf6@192.0.2.10",
		Cseq: 77, ExpiresMs: 1 << 41, LifetimeMs: 7200000, Payload: make([]byte, 120),
	}}}
	packed, _ := r.Pack(nil)
	text := string(packed)
	b.Run("pack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Pack(nil)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Unpack(text, r.Aor, nil)
		}
	})
	b.Run("skim", func(b *testing.B) {
		b.ReportAllocs()
		var room RecordRoom
		for b.Loop() {
			_, _ = Unpack(text, r.Aor, &room)
		}
	})
}
