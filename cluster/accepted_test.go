package cluster

import (
	"testing"

	"hereis/messages"
)

// TestRule1_AcceptedIsRememberedForAcceptedMS, of each key and the floor the
// last one, and only as long as it is the present one.
func TestRule1_AcceptedIsRememberedForAcceptedMS(t *testing.T) {
	var a accepted
	rec := restingRecord("sip:a@b")
	rec.Floor = &messages.Floor{Stamp: &messages.Stamp{Ms: 5}}
	key, e := rec.Leases[0].Key, &entry{aor: rec.Aor, rec: rec}
	const at = int64(1_000_000)
	if got := a.at(e, key); got != 0 {
		t.Errorf("got %d of nothing", got)
	}
	a.note(at, rec)
	for _, ms := range []int64{1, acceptedMS / 2, acceptedMS} {
		a.expire(at + ms)
		if a.at(e, key) != at || a.at(e, nil) != at {
			t.Errorf("after %d ms: got %d and %d", ms, a.at(e, key), a.at(e, nil))
		}
	}
	if got := a.at(&entry{aor: "sip:other@b", rec: rec}, key); got != 0 {
		t.Errorf("got %d for another AoR", got)
	}
	rec.Leases[0].Stamp = &messages.Stamp{Ms: 10}
	if got := a.at(e, key); got != 0 {
		t.Errorf("got %d for a stamp that came as a copy", got)
	}
	a.note(at+10, rec)
	if got := a.at(e, key); got != at+10 {
		t.Errorf("got %d for the second", got)
	}
	for ms := at; ms < at+4*acceptedMS; ms += acceptedMS / 4 {
		a.expire(ms)
	}
	if a.new != nil || a.old != nil {
		t.Error("not forgotten")
	}
}
