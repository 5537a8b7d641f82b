package trial

import (
	"fmt"
	"strings"

	"hereis/bench/load"
	"hereis/bench/report"
)

// figures are what is printed of each server and scenario.
type figures struct {
	Scenario  string            `json:"scenario"`
	Server    string            `json:"server"`
	Nodes     int               `json:"nodes"`
	CPU       Spread            `json:"cpu_us_per_unit"`
	PerSecond Spread            `json:"units_per_s"`
	P50       Spread            `json:"p50_ms"`
	P99       Spread            `json:"p99_ms"`
	RSS       Spread            `json:"rss_bytes_per_user"`
	Frames    Spread            `json:"messages_per_unit"`
	Bytes     Spread            `json:"bytes_per_unit"`
	Writes    Spread            `json:"writes_per_unit"`
	Failed    uint64            `json:"failed"`
	Missing   int64             `json:"missing"`
	Ratios    map[string]Spread `json:"cpu_ratio_by_server,omitempty"`
	Runs      []report.Run      `json:"runs"`
}

func cpu(r *Run) float64 { return r.CPU }

// at is a percentile of what the scenario is about, in milliseconds.
func at(q float64) func(*Run) float64 {
	return func(r *Run) float64 {
		h := r.Result.Measured.Latency[report.MainLatency(r.Result.Measured.Scenario)]
		if h == nil {
			return 0
		}
		return report.MS(h.ValueAtQuantile(q))
	}
}

func figuresOf(runs []*Run) figures {
	f := figures{
		CPU: SpreadOf(runs, cpu), PerSecond: SpreadOf(runs, func(r *Run) float64 { return r.Result.Measured.Rate() }),
		P50: SpreadOf(runs, at(50)), P99: SpreadOf(runs, at(99)), RSS: SpreadOf(runs, func(r *Run) float64 { return r.RSS }),
		Frames: SpreadOf(runs, func(r *Run) float64 { return r.Frames }), Bytes: SpreadOf(runs, func(r *Run) float64 { return r.Bytes }),
		Writes: SpreadOf(runs, func(r *Run) float64 { return r.Writes }), Missing: -1,
	}
	for _, r := range runs {
		f.Server, f.Nodes, f.Scenario = r.Server, r.Nodes, r.Result.Measured.Scenario
		f.Failed += r.Result.Measured.Failed
		if r.Missing >= 0 {
			f.Missing = max(f.Missing, 0) + r.Missing
		}
		f.Runs = append(f.Runs, report.RunOf(r.Result))
	}
	return f
}

func (f *figures) missing() string {
	if f.Missing < 0 {
		return "-"
	}
	return fmt.Sprint(f.Missing)
}

func (f *figures) bench(name string) report.Bench {
	b := report.Bench{Name: name, Values: []report.Value{
		{Value: f.P50.Median * 1e6, Unit: "ns/op"}, {Value: f.CPU.Median, Unit: "cpu-us/op"}, {Value: f.PerSecond.Median, Unit: "req/s"},
		{Value: f.P99.Median * 1e3, Unit: "p99-us"}, {Value: float64(f.Failed), Unit: "errors"},
	}}
	for _, r := range f.Runs {
		b.N += r.OK + r.Failed
	}
	if f.Frames.Median > 0 {
		b.Values = append(b.Values, report.Value{Value: f.Frames.Median, Unit: "messages/op"}, report.Value{Value: f.Bytes.Median, Unit: "node-B/op"})
	}
	return b
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Report is the comparison as a document.
func (c *Compared) Report(facts []report.Fact) *report.Document {
	names, shape := c.Names(), c.Comparison.Shape
	nodes := max(1, c.Comparison.Servers[0].Nodes)
	d := &report.Document{
		Title: fmt.Sprintf("%s on %d node(s): %s", strings.Join(names, ", "), nodes, strings.Join(c.Comparison.Scenarios, ", ")),
		Facts: append(facts, report.Fact{Name: "Load", Value: fmt.Sprintf("%d users a run, %s, %d rounds, servers in turn; median [min-max]",
			shape.Users, report.Pace(&shape), c.Comparison.Rounds)}),
	}
	var all []figures
	for _, scenario := range c.Comparison.Scenarios {
		t := report.Table{Title: title(scenario), Columns: []string{"", "CPU us per unit", "units per second", "p50 ms", "p99 ms", "B per user", "failed", "missing"}}
		ratios := report.Table{Columns: []string{"CPU, round by round", "ratio"}}
		latencies := map[string]*load.Phase{}
		for i, name := range names {
			runs := c.Of(scenario, name)
			f := figuresOf(runs)
			t.Add(name, f.CPU, f.PerSecond, f.P50.Median, f.P99.Median, f.RSS.Median, f.Failed, f.missing())
			if i > 0 {
				r := c.Ratio(scenario, names[0], name, cpu)
				f.Ratios = map[string]Spread{names[0]: r}
				ratios.Add(names[0]+" / "+name, r)
			}
			all = append(all, f)
			for _, r := range runs {
				d.Bench = append(d.Bench, figuresOfOne(r).bench(fmt.Sprintf("%s/server=%s/nodes=%d", title(scenario), name, nodes)))
				latencies[name] = r.Result.Measured // of the last round
			}
		}
		d.Tables = append(d.Tables, t)
		if len(ratios.Rows) > 0 {
			d.Tables = append(d.Tables, ratios)
		}
		d.Charts = append(d.Charts, report.Percentiles(title(scenario)+": latency by percentile, last round", names, latencies))
	}
	d.Charts = append(c.cpuChart(), d.Charts...)
	idle := report.Table{Title: "Without load", Columns: []string{"", "% of a core, all nodes"}, Note: "Subtracted from the CPU of the runs."}
	for _, name := range names {
		idle.Add(name, 100*c.Idle[name])
	}
	d.Tables = append(d.Tables, idle)
	d.Data = all
	return d
}

func figuresOfOne(r *Run) *figures {
	f := figuresOf([]*Run{r})
	return &f
}

// cpuChart is a group of bars for each scenario.
func (c *Compared) cpuChart() []report.Chart {
	chart := report.Chart{Title: "CPU per request, all nodes", X: "", Y: "microseconds", Labels: c.Comparison.Scenarios, Note: "Bars are medians, lines what the rounds varied between. Less is better."}
	for _, name := range c.Names() {
		s := report.Series{Name: name}
		for _, scenario := range c.Comparison.Scenarios {
			v := SpreadOf(c.Of(scenario, name), cpu)
			s.Y, s.Low, s.High = append(s.Y, v.Median), append(s.Low, v.Min), append(s.High, v.Max)
		}
		chart.Series = append(chart.Series, s)
	}
	return []report.Chart{chart}
}

// Report is the cost curve as a document.
func (s *Scaled) Report(facts []report.Fact) *report.Document {
	spec, shape := s.Scaling.Server, s.Scaling.Shape
	d := &report.Document{
		Title: fmt.Sprintf("What a REGISTER costs %s as nodes are added", spec.Name()),
		Facts: append(facts, report.Fact{Name: "Load", Value: fmt.Sprintf("%d new users a run, spread over all nodes, %d socket(s) a node x %d, %d runs; median [min-max]",
			shape.Users, shape.Sockets, shape.Window, s.Scaling.Rounds)}),
	}
	t := report.Table{
		Columns: []string{"nodes", "CPU us per REGISTER", "messages", "bytes", "writes", "p99 ms", "per second", "failed", "missing", "missing, asked meanwhile", "idle % of a core", "idle B/s"},
		Note: "CPU, messages, bytes and writes (system calls) are between all nodes together, per REGISTER; without what the quiet cluster uses. " +
			"Missing: pairs of a user and a node that does not find them afterwards; in the second column, while nodes were asked for each user as they registered.",
	}
	var all []figures
	cost, messages := report.Series{Name: "CPU us"}, report.Series{Name: "messages"}
	for _, p := range s.Points {
		f := figuresOf(p.Runs)
		all = append(all, f)
		t.Add(fmt.Sprint(p.Nodes), f.CPU, f.Frames.Median, f.Bytes.Median, f.Writes.Median, f.P99.Median, f.PerSecond.Median, f.Failed, f.missing(), p.AskedMissing, 100*p.Idle, p.IdleBytes)
		x := float64(p.Nodes)
		cost.X, cost.Y, cost.Low, cost.High = append(cost.X, x), append(cost.Y, f.CPU.Median), append(cost.Low, f.CPU.Min), append(cost.High, f.CPU.Max)
		messages.X, messages.Y = append(messages.X, x), append(messages.Y, f.Frames.Median)
		for _, r := range p.Runs {
			d.Bench = append(d.Bench, figuresOfOne(r).bench(fmt.Sprintf("Register/server=%s/nodes=%d", spec.Name(), p.Nodes)))
		}
	}
	d.Tables, d.Data = []report.Table{t}, all
	d.Charts = []report.Chart{{Title: "CPU per REGISTER, summed over all nodes", X: "nodes", Y: "microseconds", Series: []report.Series{cost}}}
	if messages.Y[len(messages.Y)-1] > 0 {
		d.Charts = append(d.Charts, report.Chart{Title: "Messages between nodes per REGISTER", X: "nodes", Y: "messages", Series: []report.Series{messages}})
	}
	return d
}
