package hereis

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// latencies are how long things take, for /metrics. Their labels are the few
// values below and "other": what a client sends is no label.
type latencies struct {
	requests, asks       *prometheus.HistogramVec
	byMethod, byQuestion map[string]prometheus.Observer
}

const otherLabel = "other"

// latencyBuckets reach from a REGISTER on an idle host to a call that rings out, in seconds.
func latencyBuckets() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 180}
}

func newLatencies() *latencies {
	l := &latencies{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hereis_sip_request_duration_seconds", Buckets: latencyBuckets(),
			Help: "Time from the arrival of a SIP request to its final answer, by method; of an INVITE with the ringing.",
		}, []string{"method"}),
		asks: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hereis_ask_duration_seconds", Buckets: latencyBuckets(),
			Help: "Time from a question to the cluster to its answer, by type, this node's own answers included.",
		}, []string{"type"}),
		byMethod: make(map[string]prometheus.Observer), byQuestion: make(map[string]prometheus.Observer),
	}
	for _, method := range []string{"REGISTER", "INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "PUBLISH", "BYE", otherLabel} {
		l.byMethod[method] = l.requests.WithLabelValues(method)
	}
	for name, label := range map[string]string{
		"hereis.Register": "register", "hereis.Locate": "locate", "hereis.Where": "where",
		"hereis.Remove": "remove", "hereis.Snapshot": "snapshot", otherLabel: otherLabel,
	} {
		l.byQuestion[name] = l.asks.WithLabelValues(label)
	}
	return l
}

// request and ask are called with every request and question: they allocate nothing.
func (l *latencies) request(method string, took time.Duration) { observe(l.byMethod, method, took) }
func (l *latencies) ask(kind string, took time.Duration)       { observe(l.byQuestion, kind, took) }

func observe(by map[string]prometheus.Observer, name string, took time.Duration) {
	o, ok := by[name]
	if !ok {
		o = by[otherLabel]
	}
	o.Observe(took.Seconds())
}

// Collectors are the histograms of the node, for a registry; Stats has the rest.
func (n *Node) Collectors() []prometheus.Collector {
	return []prometheus.Collector{n.latency.requests, n.latency.asks}
}
