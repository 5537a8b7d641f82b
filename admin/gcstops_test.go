package admin

import (
	"math"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestGCStopsAreCounted(t *testing.T) {
	runtime.GC()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(gcStops{})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() == 0 || len(h.GetBucket()) != len(gcStopBounds) {
			t.Errorf("%s: %v", f.GetName(), h)
		}
	}
	if len(families) != len(gcStopMetrics) {
		t.Errorf("got %d metrics, want %d", len(families), len(gcStopMetrics))
	}
}

func TestGCStops_BucketsAreNeverTooGood(t *testing.T) {
	h := &metrics.Float64Histogram{
		Buckets: []float64{math.Inf(-1), 0, 0.004, 0.006, 1, math.Inf(1)},
		Counts:  []uint64{0, 10, 3, 2, 1},
	}
	count, sum, buckets := rebucket(h, []float64{0.005, 0.01, 2})
	if count != 16 || buckets[0.005] != 10 || buckets[0.01] != 13 || buckets[2] != 15 {
		t.Errorf("got %d, %v", count, buckets)
	}
	if want := 10*0.002 + 3*0.005 + 2*0.503 + 1; math.Abs(sum-want) > 1e-9 {
		t.Errorf("got a sum of %v, want %v", sum, want)
	}
}
