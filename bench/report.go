package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hereis/bench/load"
	"hereis/bench/trial"
)

// progressLine writes one line over itself.
func progressLine(w io.Writer) func(load.Progress) {
	last := ""
	return func(p load.Progress) {
		if p.Phase != last && last != "" {
			fmt.Fprintln(w)
		}
		last = p.Phase
		done := p.OK + p.Failed
		share := ""
		if p.Total > 0 {
			share = fmt.Sprintf(" of %d (%d %%)", p.Total, 100*done/p.Total)
		}
		rate := float64(done) / max(p.Elapsed.Seconds(), 0.001)
		fmt.Fprintf(w, "\r%s: %d%s, %.0f/s, %d failed, %d retransmitted, %s   ", p.Phase, done, share, rate, p.Failed, p.Retransmissions, p.Elapsed.Round(time.Second/10))
		if p.Total > 0 && done >= p.Total {
			fmt.Fprintln(w)
			last = ""
		}
	}
}

func report(w io.Writer, format string, r *load.Result) {
	switch format {
	case "json":
		writeJSON(w, r)
	case "go":
		writeGo(w, r)
	default:
		writeTable(w, r)
	}
}

// latency is the percentiles of one histogram, in microseconds.
type latency struct {
	Mean float64 `json:"mean_us"`
	P50  int64   `json:"p50_us"`
	P90  int64   `json:"p90_us"`
	P99  int64   `json:"p99_us"`
	P999 int64   `json:"p999_us"`
	Max  int64   `json:"max_us"`
}

func summary(h *hdrhistogram.Histogram) latency {
	if h == nil { // nothing was answered
		return latency{}
	}
	return latency{h.Mean(), h.ValueAtQuantile(50), h.ValueAtQuantile(90), h.ValueAtQuantile(99), h.ValueAtQuantile(99.9), h.Max()}
}

type jsonProcess struct {
	Name      string  `json:"name"`
	PID       int     `json:"pid"`
	CPUus     float64 `json:"cpu_us_per_unit"`
	CPU       float64 `json:"cpu_s"`
	RSSBefore uint64  `json:"rss_before_bytes"`
	RSS       uint64  `json:"rss_bytes"`
	Gone      bool    `json:"gone,omitempty"`
}

type jsonReport struct {
	Scenario        string             `json:"scenario"`
	Loop            string             `json:"loop"`
	Users           uint64             `json:"users"`
	Sockets         int                `json:"sockets"`
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
	Answered        uint64             `json:"answered"`
	ACKs            uint64             `json:"acks"`
	BYEs            uint64             `json:"byes"`
	NoACK           uint64             `json:"unacknowledged"`
	Latency         map[string]latency `json:"latency"`
	Processes       []jsonProcess      `json:"processes,omitempty"`
}

func writeJSON(w io.Writer, r *load.Result) {
	p, c := r.Measured, r.Config
	out := jsonReport{
		Scenario: p.Scenario, Loop: loop(&c), Users: c.Users, Sockets: c.Sockets, Rate: c.Rate,
		Took: p.Took.Seconds(), PerSecond: p.Rate(), OK: p.OK, Failed: p.Failed, Codes: p.Codes,
		Retransmissions: p.Retransmissions, Stray: p.Stray, Late: p.Late,
		Answered: p.Answered, ACKs: p.ACKs, BYEs: p.BYEs, NoACK: p.NoACK, Latency: map[string]latency{},
	}
	if c.Rate == 0 {
		out.Window = c.Window
	}
	for _, t := range c.Targets {
		out.Targets = append(out.Targets, t.String())
	}
	for what, h := range p.Latency {
		out.Latency[what] = summary(h)
	}
	for _, u := range p.Processes {
		out.Processes = append(out.Processes, jsonProcess{u.Name, u.PID, perUnit(u.CPU, p), u.CPU.Seconds(), u.RSSBefore, u.RSS, u.Gone})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(out) // plain values; a broken pipe has no one to be told
}

func loop(c *load.Config) string {
	if c.Rate > 0 {
		return "open"
	}
	return "closed"
}

// perUnit is CPU time per unit in microseconds.
func perUnit(cpu time.Duration, p *load.Phase) float64 {
	return float64(cpu.Microseconds()) / max(1, float64(p.OK+p.Failed))
}

// writeGo writes Go's benchmark format, for benchstat. ns/op is the median latency.
func writeGo(w io.Writer, r *load.Result) {
	p, c := r.Measured, r.Config
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: hereis/bench\n", runtime.GOOS, runtime.GOARCH)
	pace := fmt.Sprintf("window=%d", c.Window)
	if c.Rate > 0 {
		pace = fmt.Sprintf("rate=%g", c.Rate)
	}
	name := fmt.Sprintf("Benchmark%s%s/nodes=%d/users=%d/sockets=%d/%s", strings.ToUpper(p.Scenario[:1]), p.Scenario[1:], len(c.Targets), c.Users, c.Sockets, pace)
	first := summary(p.Latency[mainLatency(p)])
	fmt.Fprintf(w, "%s-%d\t%d\t%d ns/op\t%.1f req/s\t%d p99-us\t%d p999-us\t%d errors\t%d retrans", name, runtime.NumCPU(),
		p.OK+p.Failed, first.P50*1000, p.Rate(), first.P99, first.P999, p.Failed, p.Retransmissions)
	var sum time.Duration
	for _, u := range p.Processes {
		fmt.Fprintf(w, "\t%.2f %s-cpu-us/op\t%d %s-RSS-B", perUnit(u.CPU, p), u.Name, u.RSS, u.Name)
		sum += u.CPU
	}
	if len(p.Processes) > 0 {
		fmt.Fprintf(w, "\t%.2f cpu-us/op", perUnit(sum, p))
	}
	fmt.Fprintln(w)
}

// mainLatency is the name of what the scenario is about.
func mainLatency(p *load.Phase) string {
	switch p.Scenario {
	case load.Locate:
		return "options"
	case load.Call:
		return "invite"
	}
	return "register"
}

func writeTable(w io.Writer, r *load.Result) {
	p, c := r.Measured, r.Config
	pace := fmt.Sprintf("closed loop, window %d", c.Window)
	if c.Rate > 0 {
		pace = fmt.Sprintf("open loop, %g/s", c.Rate)
	}
	fmt.Fprintf(w, "%s  %d users, %d target(s), %d socket(s), %s\n", p.Scenario, c.Users, len(c.Targets), c.Sockets, pace)
	fmt.Fprintf(w, "%d in %s: %.0f/s, %d ok, %d failed, %d retransmitted, %d stray, %d late\n",
		p.OK+p.Failed, p.Took.Round(time.Millisecond), p.Rate(), p.OK, p.Failed, p.Retransmissions, p.Stray, p.Late)
	for _, k := range slices.Sorted(maps.Keys(p.Codes)) {
		fmt.Fprintf(w, "  %-12s %d\n", k, p.Codes[k])
	}
	if p.Scenario == load.Call {
		fmt.Fprintf(w, "answering side: %d answered, %d acknowledged, %d ended, %d never acknowledged\n", p.Answered, p.ACKs, p.BYEs, p.NoACK)
	}
	fmt.Fprintf(w, "%-10s %9s %9s %9s %9s %9s %9s  ms\n", "latency", "mean", "p50", "p90", "p99", "p99.9", "max")
	for _, what := range slices.Sorted(maps.Keys(p.Latency)) {
		l := summary(p.Latency[what])
		fmt.Fprintf(w, "%-10s %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f\n", what, l.Mean/1000, ms(l.P50), ms(l.P90), ms(l.P99), ms(l.P999), ms(l.Max))
	}
	for _, u := range p.Processes {
		gone := ""
		if u.Gone {
			gone = "  (ended during the run)"
		}
		fmt.Fprintf(w, "%-10s pid %d: CPU %.1f us per unit, resident %.1f MB (%+.1f MB)%s\n", u.Name, u.PID, perUnit(u.CPU, p),
			float64(u.RSS)/1e6, (float64(u.RSS)-float64(u.RSSBefore))/1e6, gone)
	}
}

func ms(us int64) float64 { return float64(us) / 1000 }

// writeCompared prints what each server cost and how the first compares with each other one.
func writeCompared(w io.Writer, c *trial.Compared) {
	names := c.Names()
	for _, scenario := range c.Comparison.Scenarios {
		fmt.Fprintf(w, "%s: %d node(s), %d users a run, %d rounds, interleaved; median [min-max]\n", scenario, max(1, c.Comparison.Servers[0].Nodes), c.Comparison.Shape.Users, c.Comparison.Rounds)
		fmt.Fprintf(w, "%-16s %-24s %-24s %-12s %-12s %10s %8s %8s\n", "", "CPU us per unit", "units per second", "p50 ms", "p99 ms", "B/user", "failed", "missing")
		for _, name := range names {
			runs := c.Of(scenario, name)
			what := func(q float64) func(*trial.Run) float64 {
				return func(r *trial.Run) float64 {
					h := r.Result.Measured.Latency[mainLatency(r.Result.Measured)]
					if h == nil {
						return 0
					}
					return float64(h.ValueAtQuantile(q)) / 1000
				}
			}
			failed, missing := uint64(0), "-"
			for _, r := range runs {
				failed += r.Result.Measured.Failed
				if r.Missing >= 0 {
					missing = fmt.Sprint(r.Missing)
				}
			}
			fmt.Fprintf(w, "%-16s %-24s %-24s %-12.3g %-12.3g %10.0f %8d %8s\n", name,
				trial.SpreadOf(runs, func(r *trial.Run) float64 { return r.CPU }),
				trial.SpreadOf(runs, func(r *trial.Run) float64 { return r.Result.Measured.Rate() }),
				trial.SpreadOf(runs, what(50)).Median, trial.SpreadOf(runs, what(99)).Median,
				trial.SpreadOf(runs, func(r *trial.Run) float64 { return r.RSS }).Median, failed, missing)
		}
		for _, by := range names[1:] {
			fmt.Fprintf(w, "CPU %s / %s: %s\n", names[0], by, c.Ratio(scenario, names[0], by, func(r *trial.Run) float64 { return r.CPU }))
		}
	}
	for _, name := range names {
		fmt.Fprintf(w, "idle %s: %.2f %% of a core\n", name, 100*c.Idle[name])
	}
}
