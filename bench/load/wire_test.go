package load

import (
	"encoding/json"
	"testing"
	"time"
)

// Percentiles of merged histograms are those of all values, which no average of percentiles is.
func TestPhasesSurviveTheWireAndMerge(t *testing.T) {
	slow, fast := newPhase(Register), newPhase(Register)
	for range 90 {
		fast.record("register", time.Millisecond)
	}
	for range 10 {
		slow.record("register", 100*time.Millisecond)
	}
	slow.OK, slow.Codes["200"], slow.Took = 10, 10, 2*time.Second
	fast.OK, fast.Codes["200"], fast.Took = 90, 90, time.Second
	slow.Timeline = []Bucket{{}, {OK: 10, Latency: slow.Latency["register"]}}
	fast.Timeline = []Bucket{{OK: 90, Latency: fast.Latency["register"]}}
	slow.Beside, fast.Beside = newPhase("beside"), newPhase("beside")
	slow.Beside.OK, fast.Beside.OK = 1, 2
	var got [2]Phase
	for i, p := range []*Phase{fast, slow} {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	sum := &got[0]
	sum.Merge(&got[1])
	h := sum.Latency["register"]
	if h.TotalCount() != 100 || h.ValueAtQuantile(90) > 1010 || h.ValueAtQuantile(91) < 99_000 {
		t.Errorf("%d values, p90 %d, p91 %d", h.TotalCount(), h.ValueAtQuantile(90), h.ValueAtQuantile(91))
	}
	if sum.OK != 100 || sum.Codes["200"] != 100 || sum.Took != 2*time.Second || sum.Beside.OK != 3 {
		t.Errorf("got %+v", sum)
	}
	if len(sum.Timeline) != 2 || sum.Timeline[0].OK != 90 || sum.Timeline[1].Latency.TotalCount() != 10 {
		t.Errorf("timeline %+v", sum.Timeline)
	}
	if latency, failed := sum.Between(0, time.Second, time.Second); failed != 0 || latency.TotalCount() != 90 {
		t.Errorf("in the first second: %d, %d failed", latency.TotalCount(), failed)
	}
	if err := new(Phase).UnmarshalJSON([]byte(`{"Encoded":{"x":"AAAA"}}`)); err == nil {
		t.Error("a broken histogram was read")
	}
}
