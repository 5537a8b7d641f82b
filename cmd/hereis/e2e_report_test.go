package main_test

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// chaosSuite is what the chaos rows share: the binary, and the report that
// they write together. HEREIS_CHAOS_REPORT names a file for it.
type chaosSuite struct {
	bin  string
	mu   sync.Mutex // guards what follows
	rows []*chaosRow
	// stalls are the times at which the machine went on after it had stood still.
	stalls []time.Time
}

// chaosRow is what was seen in one row.
type chaosRow struct {
	suite *chaosSuite
	name  string
	mu    sync.Mutex // guards what follows
	// by "lookups", "REGISTERs" and "calls".
	tried, failed map[string]uint64
	slowest       map[string]time.Duration
	// bindings that were acknowledged, and of these not found afterwards.
	acknowledged, lost uint64
	// envelopes and bytes between nodes, from the first look at the counters to the last.
	messages, bytes float64
	notes           []string
}

// watchMachine notes when this process itself has stood still, which it does
// when the machine does: what took long then says nothing of the nodes.
func (c *chaosSuite) watchMachine(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		const every = 50 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-time.After(every):
			}
			now := time.Now()
			if gap := now.Sub(last) - every; gap > machineStall {
				c.mu.Lock()
				c.stalls = append(c.stalls, now)
				c.mu.Unlock()
			}
			last = now
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// machineStall is how long the machine may stand still before times are not judged.
const machineStall = 700 * time.Millisecond

// stalled tells whether the machine has stood still since.
func (r *chaosRow) stalled(since time.Time) bool {
	r.suite.mu.Lock()
	defer r.suite.mu.Unlock()
	return slices.ContainsFunc(r.suite.stalls, func(at time.Time) bool { return at.After(since) })
}

// late is an error, unless the machine has stood still since.
func (r *chaosRow) late(t *testing.T, since time.Time, format string, args ...any) {
	t.Helper()
	if r.stalled(since) {
		r.note(t, "not judged, as the machine stood still meanwhile: "+format, args...)
		return
	}
	t.Errorf(format, args...)
}

// row begins the line of a test in the report.
func (c *chaosSuite) row(t *testing.T) *chaosRow {
	r := &chaosRow{suite: c, name: path.Base(t.Name()), tried: map[string]uint64{}, failed: map[string]uint64{}, slowest: map[string]time.Duration{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, r)
	return r
}

// count adds requests of a kind.
func (r *chaosRow) count(kind string, tried, failed uint64, slowest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried[kind] += tried
	r.failed[kind] += failed
	r.slowest[kind] = max(r.slowest[kind], slowest)
}

func (r *chaosRow) bindings(acknowledged, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acknowledged += acknowledged
	r.lost += lost
}

func (r *chaosRow) note(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Log(text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, text)
}

// traffic measures what the nodes of a cluster send to each other until stop.
// A node that restarts counts from its restart.
func (r *chaosRow) traffic(nodes []*node) (stop func()) {
	before := map[*node][2]float64{}
	read := func(n *node) [2]float64 {
		return [2]float64{n.metric("hereis_stream_sent_frames_total"), n.metric("hereis_stream_sent_bytes_total")}
	}
	for _, n := range nodes {
		before[n] = read(n)
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, n := range nodes {
			now, then := read(n), before[n]
			if now[0] < then[0] {
				then = [2]float64{}
			}
			r.messages += now[0] - then[0]
			r.bytes += now[1] - then[1]
		}
	}
}

// metric is the sum of a metric over its labels, 0 if the node does not answer.
func (n *node) metric(name string) (sum float64) {
	text, err := getText("http://" + n.admin + "/metrics")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		var v float64
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		if i := strings.LastIndexByte(rest, ' '); i >= 0 {
			if _, err := fmt.Sscan(rest[i:], &v); err == nil {
				sum += v
			}
		}
	}
	return sum
}

// publish prints the report when all rows have run.
func (c *chaosSuite) publish(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortFunc(c.rows, func(a, b *chaosRow) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-18s %28s %28s %22s %16s %22s\n", "row", "lookups failed/tried slowest", "REGISTERs failed/tried slowest", "calls failed/tried", "lost/acknowledged", "between nodes")
	for _, r := range c.rows {
		cell := func(kind string) string {
			if r.tried[kind] == 0 {
				return "-"
			}
			s := fmt.Sprintf("%d/%d", r.failed[kind], r.tried[kind])
			if slowest := r.slowest[kind]; slowest > 0 {
				s += " " + slowest.Round(time.Millisecond).String()
			}
			return s
		}
		moved := "-"
		if r.messages > 0 {
			moved = fmt.Sprintf("%.0f in %.1f MB", r.messages, r.bytes/1e6)
		}
		fmt.Fprintf(&b, "%-18s %28s %28s %22s %16s %22s\n", r.name, cell("lookups"), cell("REGISTERs"), cell("calls"),
			fmt.Sprintf("%d/%d", r.lost, r.acknowledged), moved)
		for _, n := range r.notes {
			fmt.Fprintf(&b, "    %s\n", n)
		}
	}
	t.Log(b.String())
	if file := os.Getenv("HEREIS_CHAOS_REPORT"); file != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}
