package admin

import (
	"math"
	"runtime/metrics"

	"github.com/prometheus/client_golang/prometheus"
)

// gcStops has how long the garbage collector has stopped everything, of all
// time, where Go's own metric has the last 256 times. A stop has two parts: until
// all have stopped, and what is done then. On a machine with more to do than
// cores, the first is the time until a thread that the system has put aside has
// the core again that it needs to see that it is to stop.
type gcStops struct{}

// gcStopBounds are the bounds of the buckets, in seconds.
var gcStopBounds = []float64{0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2}

var gcStopMetrics = []struct{ source, name, help string }{
	{"/sched/pauses/total/gc:seconds", "hereis_gc_stop_seconds", "How long everything stood still for the garbage collector, each time."},
	{"/sched/pauses/stopping/gc:seconds", "hereis_gc_stopping_seconds", "How much of it passed until everything had stopped, waits for a core included."},
}

// Describe implements prometheus.Collector.
func (gcStops) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range gcStopMetrics {
		ch <- prometheus.NewDesc(m.name, m.help, nil, nil)
	}
}

// Collect implements prometheus.Collector.
func (gcStops) Collect(ch chan<- prometheus.Metric) {
	samples := make([]metrics.Sample, len(gcStopMetrics))
	for i, m := range gcStopMetrics {
		samples[i].Name = m.source
	}
	metrics.Read(samples)
	for i, m := range gcStopMetrics {
		if samples[i].Value.Kind() != metrics.KindFloat64Histogram {
			continue // a later Go may have none
		}
		count, sum, buckets := rebucket(samples[i].Value.Float64Histogram(), gcStopBounds)
		ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(m.name, m.help, nil, nil), count, sum, buckets)
	}
}

// rebucket makes cumulative buckets with the given bounds of finer ones. What is
// in one that crosses a bound counts as above it; the sum takes each at the
// middle of its bucket.
func rebucket(h *metrics.Float64Histogram, bounds []float64) (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bounds))
	for i, n := range h.Counts {
		low, high := h.Buckets[i], h.Buckets[i+1]
		count += n
		for _, bound := range bounds {
			if high <= bound {
				buckets[bound] += n
			} else {
				buckets[bound] += 0
			}
		}
		switch {
		case math.IsInf(low, -1):
			low = high
		case math.IsInf(high, 1):
			high = low
		}
		if n > 0 {
			sum += float64(n) * (low + high) / 2
		}
	}
	return count, sum, buckets
}
