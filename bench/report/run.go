package report

import (
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hereis/bench/load"
	"hereis/bench/metrics"
)

// Latency is the percentiles of one histogram, in microseconds.
type Latency struct {
	Mean float64 `json:"mean_us"`
	P50  int64   `json:"p50_us"`
	P90  int64   `json:"p90_us"`
	P99  int64   `json:"p99_us"`
	P999 int64   `json:"p999_us"`
	Max  int64   `json:"max_us"`
}

// LatencyOf summarises a histogram; nil is nothing answered.
func LatencyOf(h *hdrhistogram.Histogram) Latency {
	if h == nil || h.TotalCount() == 0 {
		return Latency{}
	}
	return Latency{h.Mean(), h.ValueAtQuantile(50), h.ValueAtQuantile(90), h.ValueAtQuantile(99), h.ValueAtQuantile(99.9), h.Max()}
}

// MS is microseconds as milliseconds.
func MS(us int64) float64 { return float64(us) / 1000 }

// Facts say where and of what a report is.
func Facts(command string, now time.Time) []Fact {
	return []Fact{
		{"Command", command},
		{"Commit", commit()},
		{"Machine", machine()},
		{"Date", now.UTC().Format("2006-01-02 15:04 MST")},
	}
}

// commit is what the working tree has checked out.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := ""
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib uint64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(", %.0f GiB", float64(kib)/(1<<20))
		}
	}
	kernel := ""
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%d x %s%s%s, %s", runtime.NumCPU(), model, memory, kernel, runtime.Version())
}

// Process is what one target process used.
type Process struct {
	Name      string  `json:"name"`
	PID       int     `json:"pid"`
	CPUus     float64 `json:"cpu_us_per_unit"`
	CPU       float64 `json:"cpu_s"`
	RSSBefore uint64  `json:"rss_before_bytes"`
	RSS       uint64  `json:"rss_bytes"`
	Gone      bool    `json:"gone,omitempty"`
}

// Run is one load, for programs.
type Run struct {
	Scenario        string             `json:"scenario"`
	Loop            string             `json:"loop"`
	Transport       string             `json:"transport"`
	Users           uint64             `json:"users"`
	Sockets         int                `json:"sockets"`
	Workers         int                `json:"workers"`
	Window          int                `json:"window,omitempty"`
	Rate            float64            `json:"rate,omitempty"`
	Targets         []string           `json:"targets"`
	Took            float64            `json:"took_s"`
	PerSecond       float64            `json:"units_per_s"`
	OK              uint64             `json:"ok"`
	Failed          uint64             `json:"failed"`
	Codes           map[string]uint64  `json:"codes"`
	Retransmissions uint64             `json:"retransmissions"`
	Stray           uint64             `json:"stray"`
	Late            uint64             `json:"late_starts"`
	Challenges      uint64             `json:"challenges"`
	Paced           uint64             `json:"paced_503"`
	Notified        uint64             `json:"notifies"`
	Answered        uint64             `json:"answered"`
	ACKs            uint64             `json:"acks"`
	BYEs            uint64             `json:"byes"`
	NoACK           uint64             `json:"unacknowledged"`
	Missing         *uint64            `json:"missing,omitempty"`
	Latency         map[string]Latency `json:"latency"`
	Processes       []Process          `json:"processes,omitempty"`
	// Frames, Bytes and Writes between nodes per unit.
	Frames float64     `json:"frames_per_unit,omitempty"`
	Bytes  float64     `json:"bytes_per_unit,omitempty"`
	Marks  []load.Mark `json:"events,omitempty"`
}

// RunOf takes what programs may want from a result.
func RunOf(r *load.Result) Run {
	p, c := r.Measured, &r.Config
	units := float64(max(p.Units(), 1))
	out := Run{
		Scenario: p.Scenario, Loop: "closed", Transport: c.Transport, Users: c.Users, Sockets: c.Sockets, Workers: c.Workers, Rate: c.Rate,
		Took: p.Took.Seconds(), PerSecond: p.Rate(), OK: p.OK, Failed: p.Failed, Codes: p.Codes,
		Retransmissions: p.Retransmissions, Stray: p.Stray, Late: p.Late, Challenges: p.Challenges, Paced: p.Paced, Notified: p.Notified,
		Answered: p.Answered, ACKs: p.ACKs, BYEs: p.BYEs, NoACK: p.NoACK, Latency: map[string]Latency{},
		Frames: p.Counters[metrics.Frames] / units, Bytes: p.Counters[metrics.Bytes] / units, Marks: p.Marks,
	}
	if c.Rate > 0 {
		out.Loop = "open"
	} else {
		out.Window = c.Window
	}
	if r.Checked != nil {
		out.Missing = &r.Checked.Failed
	}
	for _, t := range c.Targets {
		out.Targets = append(out.Targets, t.String())
	}
	for what, h := range p.Latency {
		out.Latency[what] = LatencyOf(h)
	}
	for _, u := range p.Processes {
		out.Processes = append(out.Processes, Process{u.Name, u.PID, float64(u.CPU.Microseconds()) / units, u.CPU.Seconds(), u.RSSBefore, u.RSS, u.Gone})
	}
	return out
}

// OfRun is the report of one load.
func OfRun(r *load.Result, facts []Fact) *Document {
	run, p, c := RunOf(r), r.Measured, &r.Config
	d := &Document{
		Title: fmt.Sprintf("%s: %d users at %d node(s), %s", p.Scenario, c.Users, len(c.Targets), Pace(c)),
		Facts: facts, Data: run, Bench: []Bench{benchOf(r, &run)},
	}
	d.Tables = append(d.Tables, run.outcome(r), run.latencies(), run.codes())
	if len(run.Processes) > 0 {
		d.Tables = append(d.Tables, run.processes(c))
	}
	if len(p.Marks) > 0 {
		d.Tables = append(d.Tables, marksTable(r))
	}
	d.Charts = append(d.Charts, Percentiles("Latency by percentile", []string{""}, map[string]*load.Phase{"": p}))
	if len(p.Timeline) > 1 {
		d.Charts = append(d.Charts, timeline(p, c.Interval)...)
	}
	if len(p.Samples) > 1 {
		d.Charts = append(d.Charts, samples(p)...)
	}
	return d
}

// Pace is how a load keeps its pace, in words.
func Pace(c *load.Config) string {
	where := c.Transport
	if c.Password != "" {
		where += " with digest"
	}
	switch {
	case c.Rate > 0:
		return fmt.Sprintf("open loop at %g/s over %s", c.Rate, where)
	case c.Scenario == load.Storm:
		return "all at once over " + where
	}
	return fmt.Sprintf("closed loop of %d x %d over %s", c.Workers*c.Sockets, c.Window, where)
}

func (r *Run) outcome(result *load.Result) Table {
	t := Table{Columns: []string{"units", "seconds", "per second", "ok", "failed", "retransmitted", "stray", "late"}}
	t.Add(r.OK+r.Failed, r.Took, r.PerSecond, r.OK, r.Failed, r.Retransmissions, r.Stray, r.Late)
	var notes []string
	if r.Answered > 0 {
		notes = append(notes, fmt.Sprintf("answering side: %d answered, %d acknowledged, %d ended, %d never acknowledged", r.Answered, r.ACKs, r.BYEs, r.NoACK))
	}
	if r.Paced > 0 {
		notes = append(notes, fmt.Sprintf("%d times told to come later (503 with Retry-After), and done so", r.Paced))
	}
	if r.Challenges > 0 {
		notes = append(notes, fmt.Sprintf("%d challenges answered", r.Challenges))
	}
	if r.Notified > 0 {
		notes = append(notes, fmt.Sprintf("%d NOTIFYs", r.Notified))
	}
	if r.Missing != nil {
		notes = append(notes, fmt.Sprintf("afterwards each node was asked for each user: %d of %d missing", *r.Missing, result.Checked.Units()))
	}
	if b := result.Measured.Beside; b != nil {
		notes = append(notes, fmt.Sprintf("asked for them while they registered: %d, %v", b.Units(), b.Codes))
	}
	t.Note = strings.Join(notes, "; ")
	return t
}

func (r *Run) latencies() Table {
	t := Table{Title: "Latency, ms", Columns: []string{"", "mean", "p50", "p90", "p99", "p99.9", "max"}}
	for _, what := range slices.Sorted(maps.Keys(r.Latency)) {
		l := r.Latency[what]
		t.Add(what, l.Mean/1000, MS(l.P50), MS(l.P90), MS(l.P99), MS(l.P999), MS(l.Max))
	}
	if r.Loop == "open" {
		t.Note = "Counted from when each unit was due, so that a server that stalls cannot hide it (coordinated omission)."
	}
	return t
}

func (r *Run) codes() Table {
	t := Table{Title: "Answers", Columns: []string{"code", "number"}}
	for _, code := range slices.Sorted(maps.Keys(r.Codes)) {
		t.Add(code, r.Codes[code])
	}
	return t
}

func (r *Run) processes(c *load.Config) Table {
	t := Table{Title: "Servers", Columns: []string{"process", "CPU us per unit", "CPU s", "resident MB", "grown MB", "B per user"}}
	var sum Process
	for _, p := range r.Processes {
		name := fmt.Sprintf("%s (%d)", p.Name, p.PID)
		if p.Gone {
			name += ", ended"
		}
		grown := float64(p.RSS) - float64(p.RSSBefore)
		t.Add(name, p.CPUus, p.CPU, float64(p.RSS)/1e6, grown/1e6, grown/float64(c.Users))
		sum.CPUus, sum.CPU, sum.RSS, sum.RSSBefore = sum.CPUus+p.CPUus, sum.CPU+p.CPU, sum.RSS+p.RSS, sum.RSSBefore+p.RSSBefore
	}
	grown := float64(sum.RSS) - float64(sum.RSSBefore)
	t.Add("all", sum.CPUus, sum.CPU, float64(sum.RSS)/1e6, grown/1e6, grown/float64(c.Users))
	if r.Frames > 0 {
		t.Note = fmt.Sprintf("Between nodes: %s messages and %s bytes per unit. Idle CPU is not subtracted.", Number(r.Frames), Number(r.Bytes))
	}
	return t
}

func marksTable(r *load.Result) Table {
	p := r.Measured
	t := Table{Title: "Events", Columns: []string{"", "at s", "took s", "p99 before ms", "p99 from it on ms", "max from it on ms", "failed from it on"}}
	for i, m := range p.Marks {
		until := time.Duration(math.MaxInt64)
		if i+1 < len(p.Marks) {
			until = p.Marks[i+1].Began
		}
		begun := time.Duration(0)
		if i > 0 {
			begun = p.Marks[i-1].Began
		}
		before, _ := p.Between(begun, m.Began, r.Config.Interval)
		after, failed := p.Between(m.Began, until, r.Config.Interval)
		name := m.Name
		if m.Err != "" {
			name += ": " + m.Err
		}
		t.Add(name, m.Began.Seconds(), m.Took.Seconds(), MS(LatencyOf(before).P99), MS(LatencyOf(after).P99), MS(LatencyOf(after).Max), failed)
	}
	return t
}

// MainLatency is the name of what a scenario is about.
func MainLatency(scenario string) string {
	switch scenario {
	case load.Locate, load.Everywhere:
		return "options"
	case load.Call:
		return "invite"
	case load.Presence:
		return "notify"
	}
	return "register"
}

func benchOf(r *load.Result, run *Run) Bench {
	p, c := r.Measured, &r.Config
	pace := fmt.Sprintf("window=%d", c.Window)
	if c.Rate > 0 {
		pace = fmt.Sprintf("rate=%g", c.Rate)
	}
	first := run.Latency[MainLatency(p.Scenario)]
	b := Bench{
		Name: fmt.Sprintf("%s%s/nodes=%d/users=%d/sockets=%d/%s", strings.ToUpper(p.Scenario[:1]), p.Scenario[1:], len(c.Targets), c.Users, c.Workers*c.Sockets, pace),
		N:    p.Units(),
		Values: []Value{
			{float64(first.P50 * 1000), "ns/op"}, {p.Rate(), "req/s"}, {float64(first.P99), "p99-us"}, {float64(first.P999), "p999-us"},
			{float64(p.Failed), "errors"}, {float64(p.Retransmissions), "retrans"},
		},
	}
	sum := 0.0
	for _, u := range run.Processes {
		b.Values = append(b.Values, Value{u.CPUus, u.Name + "-cpu-us/op"}, Value{float64(u.RSS), u.Name + "-RSS-B"})
		sum += u.CPUus
	}
	if len(run.Processes) > 0 {
		b.Values = append(b.Values, Value{sum, "cpu-us/op"})
	}
	return b
}
