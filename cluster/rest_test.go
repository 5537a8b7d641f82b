package cluster

import (
	"fmt"
	"testing"
	"unsafe"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

func restingRecord(aor string) *messages.Record {
	return &messages.Record{Aor: aor, Leases: []*messages.Lease{{
		Key: []byte(aor + ":5060"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "n1",
		Flow: &messages.FlowID{Incarnation: 7, Counter: 8}, Stamp: &messages.Stamp{Ms: 9}, CallId: "c", Payload: []byte("p"),
	}}}
}

// TestPack_AnEntryAtRestKeepsItsRecord, whichever way it is looked at.
func TestPack_AnEntryAtRestKeepsItsRecord(t *testing.T) {
	s := &shard{entries: make(map[string]*entry)}
	var want []*messages.Record
	for i := range 100 {
		rec := restingRecord(fmt.Sprintf("sip:user%d@example.com", i))
		want = append(want, proto.CloneOf(rec))
		s.add(rec.Aor, rec)
	}
	s.pack()
	for round := range 2 {
		for _, w := range want {
			e := s.entries[w.Aor]
			if e.rec != nil || len(s.unpacked) > 0 {
				t.Fatal("not at rest")
			}
			if got := e.read(nil); !proto.Equal(got, w) || e.rec != nil {
				t.Fatalf("round %d: read %v, want %v", round, got, w)
			}
		}
		for _, w := range want {
			if e := s.entry(w.Aor); !proto.Equal(e.rec, w) {
				t.Fatalf("got %v, want %v", e.rec, w)
			}
		}
		s.pack()
	}
}

// TestPack_WhatCannotBePackedStays: text that is no UTF-8, beside a floor.
func TestPack_WhatCannotBePackedStays(t *testing.T) {
	s := &shard{entries: make(map[string]*entry)}
	rec := restingRecord("sip:a@b")
	rec.Floor = &messages.Floor{CallId: "\xff"}
	s.add(rec.Aor, rec)
	s.add("sip:gone@b", restingRecord("sip:gone@b")).gone = true
	s.pack()
	if e := s.entry(rec.Aor); e.rec != rec || len(s.unpacked) != 1 {
		t.Errorf("got %v, %d unpacked", e.rec, len(s.unpacked))
	}
}

// TestEntrySize: a million users are a million entries.
func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n > 64 {
		t.Errorf("an entry has %d bytes, which take a block of more than 64", n)
	}
}
