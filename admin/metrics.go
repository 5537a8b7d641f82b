package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsHandler serves the node's Stats, with the prefix hereis_, and those of
// the process and of Go. The registry is its own: none is global.
func metricsHandler(node Node, more []prometheus.Collector, log *slog.Logger) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gcStops{},
		statsCollector{node: node},
	)
	reg.MustRegister(more...)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		// One bad number must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             writeTimeout,
	})
}

type statsCollector struct{ node Node }

// Describe sends nothing: what a node counts depends on what it does.
func (statsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect asks the node for its numbers.
func (c statsCollector) Collect(ch chan<- prometheus.Metric) {
	ready := 0.0
	if c.node.Ready() == nil {
		ready = 1
	}
	ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("hereis_ready", "1 when the node serves.", nil, nil), prometheus.GaugeValue, ready)
	for series, value := range c.node.Stats() {
		name, labels, values, err := parseSeries(series)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
			continue
		}
		kind := prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		desc := prometheus.NewDesc("hereis_"+strings.TrimPrefix(name, "hereis_"), strings.ReplaceAll(name, "_", " ")+" of the node.", labels, nil)
		m, err := prometheus.NewConstMetric(desc, kind, value, values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- m
	}
}

var (
	seriesForm = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})?$`)
	labelForm  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)=("(?:[^"\\]|\\.)*"),?`)
)

// parseSeries reads name or name{label="value",…}.
func parseSeries(s string) (name string, labels, values []string, err error) {
	m := seriesForm.FindStringSubmatch(s)
	if m == nil {
		return "", nil, nil, fmt.Errorf("%q is no series", s)
	}
	for rest := m[2]; rest != ""; {
		l := labelForm.FindStringSubmatch(rest)
		if l == nil {
			return "", nil, nil, fmt.Errorf("%q: labels", s)
		}
		value, err := strconv.Unquote(l[2])
		if err != nil {
			return "", nil, nil, fmt.Errorf("%q: label %s: %w", s, l[1], err)
		}
		labels, values = append(labels, l[1]), append(values, value)
		rest = rest[len(l[0]):]
	}
	return m[1], labels, values, nil
}
