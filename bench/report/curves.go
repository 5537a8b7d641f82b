package report

import (
	"maps"
	"slices"
	"time"

	"hereis/bench/load"
	"hereis/bench/metrics"
)

// quantiles are where a percentile curve is drawn; x is 1/(1-q), so that each nine is as wide as the one before.
var quantiles = []struct {
	q    float64
	text string
}{{0, "least"}, {50, "50 %"}, {75, ""}, {90, "90 %"}, {95, ""}, {98, ""}, {99, "99 %"}, {99.5, ""}, {99.8, ""}, {99.9, "99.9 %"}, {99.95, ""}, {99.98, ""}, {99.99, "99.99 %"}}

// Percentiles draws the latencies of phases, in the order of their names.
func Percentiles(title string, names []string, phases map[string]*load.Phase) Chart {
	c := Chart{Title: title, X: "percentile", Y: "ms", LogX: true, LogY: true}
	for _, q := range quantiles {
		if q.text != "" {
			c.Ticks = append(c.Ticks, Tick{100 / (100 - q.q), q.text})
		}
	}
	for _, name := range names {
		p := phases[name]
		if p == nil {
			continue
		}
		for _, what := range slices.Sorted(maps.Keys(p.Latency)) {
			h := p.Latency[what]
			if name != "" && what != MainLatency(p.Scenario) {
				continue
			}
			s := Series{Name: what}
			if name != "" {
				s.Name = name
			}
			for _, q := range quantiles {
				if q.q > 0 && float64(h.TotalCount())*(100-q.q)/100 < 1 {
					break // fewer values than that
				}
				s.X = append(s.X, 100/(100-q.q))
				s.Y = append(s.Y, MS(max(1, h.ValueAtQuantile(q.q))))
			}
			c.Series = append(c.Series, s)
		}
	}
	return c
}

// timeline draws what happened in each interval.
func timeline(p *load.Phase, interval time.Duration) []Chart {
	var ok, failed, p50, p99, worst Series
	ok.Name, failed.Name, p50.Name, p99.Name, worst.Name = "ok", "failed", "p50", "p99", "slowest"
	for i, b := range p.Timeline {
		at := (time.Duration(i) * interval).Seconds()
		ok.X, ok.Y = append(ok.X, at), append(ok.Y, float64(b.OK)/interval.Seconds())
		failed.X, failed.Y = append(failed.X, at), append(failed.Y, float64(b.Failed)/interval.Seconds())
		if b.Latency == nil {
			continue
		}
		l := LatencyOf(b.Latency)
		for _, one := range []struct {
			s *Series
			v int64
		}{{&p50, l.P50}, {&p99, l.P99}, {&worst, l.Max}} {
			one.s.X, one.s.Y = append(one.s.X, at), append(one.s.Y, MS(max(1, one.v)))
		}
	}
	var marks []Tick
	for _, m := range p.Marks {
		marks = append(marks, Tick{m.Began.Seconds(), m.Name})
	}
	return []Chart{
		{Title: "Units by when they were due", X: "seconds", Y: "per second", Series: []Series{ok, failed}, Marks: marks},
		{Title: "Latency by when it was due", X: "seconds", Y: "ms", LogY: true, Series: []Series{p50, p99, worst}, Marks: marks},
	}
}

// samples draws memory and goroutines over time.
func samples(p *load.Phase) []Chart {
	rss, goroutines := Series{Name: "resident"}, Series{Name: "goroutines"}
	for _, s := range p.Samples {
		rss.X, rss.Y = append(rss.X, s.At.Seconds()), append(rss.Y, float64(s.RSS)/1e6)
		if n := s.Counters[metrics.Goroutines]; n > 0 {
			goroutines.X, goroutines.Y = append(goroutines.X, s.At.Seconds()), append(goroutines.Y, n)
		}
	}
	charts := []Chart{{Title: "Resident memory of all servers", X: "seconds", Y: "MB", Series: []Series{rss}}}
	if len(goroutines.X) > 1 {
		charts = append(charts, Chart{Title: "Goroutines of all nodes", X: "seconds", Y: "number", Series: []Series{goroutines}})
	}
	return charts
}
