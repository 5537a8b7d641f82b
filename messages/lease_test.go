package messages

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func drawStamp(t *rapid.T) *Stamp {
	return &Stamp{
		Ms:          int64(rapid.IntRange(1, 3).Draw(t, "ms")),
		Counter:     rapid.Uint32Range(0, 1).Draw(t, "counter"),
		Incarnation: rapid.Uint64Range(1, 2).Draw(t, "incarnation"),
	}
}

// drawRecord draws from so few values that collisions are the rule.
func drawRecord(t *rapid.T) *Record {
	r := new(Record)
	for range rapid.IntRange(0, 4).Draw(t, "leases") {
		r.Merge(&Record{Leases: []*Lease{{
			Key:       []byte(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")),
			Kind:      LeaseKind_LEASE_KIND_BINDING,
			Edge:      rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "edge"),
			Flow:      &FlowID{Incarnation: 1, Counter: rapid.Uint64Range(1, 2).Draw(t, "flow")},
			Stamp:     drawStamp(t),
			Dead:      rapid.Bool().Draw(t, "dead"),
			Vouch:     rapid.Uint64Range(1, 2).Draw(t, "vouch"),
			CallId:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "call"),
			Cseq:      rapid.Uint32Range(1, 2).Draw(t, "cseq"),
			ExpiresMs: int64(rapid.IntRange(1, 2).Draw(t, "expires")),
			Payload:   []byte(rapid.SampledFrom([]string{"", "p"}).Draw(t, "payload")),
		}}})
	}
	if rapid.Bool().Draw(t, "hasFloor") {
		r.Floor = &Floor{Stamp: drawStamp(t), CallId: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "floor")}
	}
	for range rapid.IntRange(0, 2).Draw(t, "ended") {
		r.Merge(&Record{Ended: []*Ended{{
			Edge: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "edge"),
			Flow: &FlowID{Incarnation: 1, Counter: rapid.Uint64Range(1, 2).Draw(t, "flow")},
			Ms:   int64(rapid.IntRange(1, 2).Draw(t, "endedMS")),
		}}})
	}
	return r
}

// canonical puts a record in the one order by which two can be compared.
func canonical(r *Record) *Record {
	r = r.Clone()
	slices.SortFunc(r.Leases, func(a, b *Lease) int { return bytes.Compare(a.Key, b.Key) })
	slices.SortFunc(r.Ended, func(a, b *Ended) int {
		return bytes.Compare(fmt.Appendf(nil, "%s/%d", a.Edge, a.Flow.Counter), fmt.Appendf(nil, "%s/%d", b.Edge, b.Flow.Counter))
	})
	return r
}

func merged(records ...*Record) *Record {
	out := new(Record)
	for _, r := range records {
		out.Merge(r)
	}
	return canonical(out)
}

func TestRule2_MergeIsCommutativeAssociativeIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRecord(t), drawRecord(t), drawRecord(t)
		kept := proto.CloneOf(b)
		if x, y := merged(a, b), merged(b, a); !proto.Equal(x, y) {
			t.Fatalf("not commutative: %v, %v", x, y)
		}
		if x, y := merged(merged(a, b), c), merged(a, merged(b, c)); !proto.Equal(x, y) {
			t.Fatalf("not associative: %v, %v", x, y)
		}
		ab := merged(a, b)
		if ab.Merge(a) || ab.Merge(b) {
			t.Fatalf("not idempotent: %v", ab)
		}
		if !proto.Equal(kept, b) {
			t.Fatalf("merge has changed its source: %v, was %v", b, kept)
		}
	})
}

func TestRule2_MergeOrder(t *testing.T) {
	lease := func(ms int64, dead bool, vouch uint64) *Lease {
		return &Lease{Key: []byte("k"), Stamp: &Stamp{Ms: ms}, Dead: dead, Vouch: vouch}
	}
	// Each wins over all before it.
	ascending := []*Lease{lease(1, false, 1), lease(1, false, 2), lease(1, true, 0), lease(2, false, 0), lease(2, true, 0)}
	for i, loser := range ascending {
		for _, winner := range ascending[i+1:] {
			r := &Record{Leases: []*Lease{loser}}
			if !r.Merge(&Record{Leases: []*Lease{winner}}) || r.Lease([]byte("k")) != winner {
				t.Errorf("%v does not win over %v", winner, loser)
			}
		}
	}
}

func TestRule3_AliveNeedsItsFlowAndRule6_ItsFloor(t *testing.T) {
	l := &Lease{Edge: "n1", Flow: &FlowID{Incarnation: 1, Counter: 1}, Stamp: &Stamp{Ms: 5}, ExpiresMs: 10, Kind: LeaseKind_LEASE_KIND_BINDING}
	for name, tt := range map[string]struct {
		rec  *Record
		now  int64
		want bool
	}{
		"alive":                 {&Record{}, 9, true},
		"expired":               {&Record{}, 10, false},
		"at the floor":          {&Record{Floor: &Floor{Stamp: &Stamp{Ms: 5}}}, 9, false},
		"above the floor":       {&Record{Floor: &Floor{Stamp: &Stamp{Ms: 4, Counter: 9}}}, 9, true},
		"its flow has ended":    {&Record{Ended: []*Ended{{Edge: "n1", Flow: &FlowID{Incarnation: 1, Counter: 1}}}}, 9, false},
		"another flow's":        {&Record{Ended: []*Ended{{Edge: "n1", Flow: &FlowID{Incarnation: 1, Counter: 2}}}}, 9, true},
		"of another edge":       {&Record{Ended: []*Ended{{Edge: "n2", Flow: &FlowID{Incarnation: 1, Counter: 1}}}}, 9, true},
		"of another life of it": {&Record{Ended: []*Ended{{Edge: "n1", Flow: &FlowID{Incarnation: 2, Counter: 1}}}}, 9, true},
	} {
		if got := tt.rec.Alive(l, tt.now); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	publication := &Lease{Kind: LeaseKind_LEASE_KIND_PUBLICATION, Stamp: &Stamp{Ms: 5}, ExpiresMs: 10}
	if !(&Record{Floor: &Floor{Stamp: &Stamp{Ms: 6}}}).Alive(publication, 9) {
		t.Error("a floor of bindings ends a publication")
	}
}
