package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hereis/bench/load"
	"hereis/bench/metrics"
	"hereis/bench/report"
	"hereis/bench/swarm"
)

// underway is a load during which something is done to the servers.
type underway struct {
	Scenario string `arg:"" optional:"" default:"locate" help:"What is loaded: locate, call, mix, register, ..."`
	scenarioCmd
}

// config has a rate, a duration and a timeline, whatever the flags say.
func (c *underway) config(s *site) (load.Config, error) {
	if c.Rate == 0 {
		c.Rate = 500
	}
	if c.Duration == 0 {
		c.Duration = 30 * time.Second
	}
	cfg, err := c.shape.config(c.Scenario, s)
	if cfg.Interval >= time.Second && c.Interval == 0 {
		cfg.Interval = c.Duration / 120
	}
	cfg.SampleEvery = cfg.Interval
	return cfg, err
}

// failoverCmd is bench failover.
type failoverCmd struct {
	underway
	Node    int    `default:"0" help:"With --server: the node to kill, counted from 1; default the last."`
	Kill    int    `placeholder:"PID" help:"With --target: the process to kill. It should serve no --target, but may serve a --registrar."`
	Restart string `placeholder:"COMMAND" help:"With --target: the command that starts it again, for sh -c."`
}

func (c *failoverCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	s, err := c.open(ctx, &c.shape, nil)
	if err != nil {
		return err
	}
	defer s.close()
	kill := func(context.Context) error { return syscall.Kill(c.Kill, syscall.SIGKILL) }
	restart := func(ctx context.Context) error { return shell(ctx, c.Restart) }
	if s.stand != nil {
		if c.Nodes < 2 {
			return errors.New("--nodes: a failover needs two or more")
		}
		cluster := s.stand.Cluster
		node := cluster.Nodes[len(cluster.Nodes)-1]
		if c.Node > 0 && c.Node <= len(cluster.Nodes) {
			node = cluster.Nodes[c.Node-1]
		}
		kill = func(context.Context) error { node.Kill(); return nil }
		restart = func(ctx context.Context) error { return cluster.Restart(ctx, node) }
		// All nodes take registrations; those that stay are asked.
		s.registrars = s.targets
		s.targets = nil
		for _, n := range cluster.Nodes {
			if n != node {
				s.targets = append(s.targets, n.SIP())
			}
		}
		// A node that is down can be neither read nor measured.
		s.admins = nil
		delete(s.pids, node.Name)
	} else if c.Kill == 0 {
		return errors.New("--kill: the process to kill is needed, or --server")
	}
	cfg, err := c.config(s)
	if err != nil {
		return err
	}
	cfg.Check = true
	cfg.Events = []load.Event{{At: cfg.Duration / 3, Name: "kill", Do: kill}}
	if s.stand != nil || c.Restart != "" {
		cfg.Events = append(cfg.Events, load.Event{At: 2 * cfg.Duration / 3, Name: "restart", Do: restart})
	}
	return c.measure(ctx, cfg, s, stdout, stderr)
}

func shell(ctx context.Context, command string) error {
	if out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// joinCmd is bench join.
type joinCmd struct {
	underway
	Start string `placeholder:"COMMAND" help:"With --target: the command that starts the node and returns when it has, for sh -c."`
}

func (c *joinCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	s, err := c.open(ctx, &c.shape, nil)
	if err != nil {
		return err
	}
	defer s.close()
	start := func(ctx context.Context) error { return shell(ctx, c.Start) }
	if s.stand != nil {
		start = func(ctx context.Context) error { _, err := s.stand.Cluster.Add(ctx); return err }
	} else if c.Start == "" {
		return errors.New("--start: a command is needed, or --server")
	}
	cfg, err := c.config(s)
	if err != nil {
		return err
	}
	cfg.Check = true
	cfg.Events = []load.Event{{At: cfg.Duration / 3, Name: "join", Do: start}}
	_, progress := c.voice(stderr)
	result, err := swarm.Run(ctx, cfg, c.Processes, progress)
	if err != nil {
		return err
	}
	d := report.OfRun(result, append(facts(), s.facts...))
	if t, ok := moved(result); ok {
		d.Tables = append(d.Tables, t)
	}
	if err := c.write(stdout, d); err != nil {
		return err
	}
	return failures(result)
}

// moved tells what the nodes that were there sent to others beyond what they sent before the join.
func moved(r *load.Result) (t report.Table, ok bool) {
	p := r.Measured
	if len(p.Marks) == 0 || len(p.Samples) < 3 {
		return t, false
	}
	join := p.Marks[0].Began
	first, last := p.Samples[0], p.Samples[len(p.Samples)-1]
	before := first
	for _, s := range p.Samples {
		if s.At <= join {
			before = s
		}
	}
	if before.At <= first.At || last.At <= before.At {
		return t, false
	}
	t = report.Table{Title: "Sent between nodes by those that were there", Columns: []string{"", "per second before", "per second from the join on", "moved", "moved per user"},
		Note: "Moved is what was sent from the join to the end beyond the rate of before. What the new node itself sent is not in it."}
	for _, one := range []struct{ what, name string }{{"bytes", metrics.Bytes}, {"messages", metrics.Frames}} {
		rate := (before.Counters[one.name] - first.Counters[one.name]) / (before.At - first.At).Seconds()
		after := last.Counters[one.name] - before.Counters[one.name]
		seconds := (last.At - before.At).Seconds()
		extra := max(0, after-rate*seconds)
		t.Add(one.what, rate, after/seconds, extra, extra/float64(r.Config.Users))
	}
	return t, true
}

// soakCmd is bench soak.
type soakCmd struct{ scenarioCmd }

func (c *soakCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	if c.Duration == 0 {
		c.Duration = time.Hour
	}
	if c.Rate == 0 {
		c.Rate = 200
	}
	if c.Interval == 0 {
		c.Interval = max(time.Second, c.Duration/300)
	}
	s, err := c.open(ctx, &c.shape, nil)
	if err != nil {
		return err
	}
	defer s.close()
	cfg, err := c.config(load.Mix, s)
	if err != nil {
		return err
	}
	cfg.SampleEvery = cfg.Interval
	cfg.Check = true
	_, progress := c.voice(stderr)
	result, err := swarm.Run(ctx, cfg, c.Processes, progress)
	if result == nil || result.Measured == nil {
		return err
	}
	d := report.OfRun(result, append(facts(), s.facts...))
	d.Tables = append(d.Tables, drift(result))
	if writeErr := c.write(stdout, d); writeErr != nil || err != nil {
		return errors.Join(writeErr, err)
	}
	return failures(result)
}

// drift compares the second quarter of a soak with the last: what grows shows here.
func drift(r *load.Result) report.Table {
	p := r.Measured
	t := report.Table{Title: "Drift", Columns: []string{"", "second quarter", "last quarter", "per hour"},
		Note: "The first quarter, in which caches fill, is left out. Means over all servers together."}
	n := len(p.Samples)
	if n < 8 {
		return t
	}
	mean := func(ss []load.Sample, v func(load.Sample) float64) (m float64) {
		for _, s := range ss {
			m += v(s) / float64(len(ss))
		}
		return m
	}
	second, last := p.Samples[n/4:n/2], p.Samples[3*n/4:]
	hours := (last[0].At - second[0].At).Hours()
	for _, one := range []struct {
		name string
		v    func(load.Sample) float64
	}{
		{"resident MB", func(s load.Sample) float64 { return float64(s.RSS) / 1e6 }},
		{"heap in use MB", func(s load.Sample) float64 { return s.Counters[metrics.HeapBytes] / 1e6 }},
		{"goroutines", func(s load.Sample) float64 { return s.Counters[metrics.Goroutines] }},
		{"open files", func(s load.Sample) float64 { return s.Counters[metrics.OpenFiles] }},
	} {
		a, b := mean(second, one.v), mean(last, one.v)
		t.Add(one.name, a, b, (b-a)/hours)
	}
	interval := r.Config.Interval
	took := p.Took
	a, _ := p.Between(took/4, took/2, interval)
	b, _ := p.Between(3*took/4, took, interval)
	t.Add("p99 ms", report.MS(report.LatencyOf(a).P99), report.MS(report.LatencyOf(b).P99), "")
	return t
}

// connectionsCmd is bench connections.
type connectionsCmd struct{ scenarioCmd }

func (c *connectionsCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	// Everybody comes from one address here.
	c.Transport = load.TCP
	s, err := c.open(ctx, &c.shape, []string{"--max-connections-per-source", "1000000"})
	if err != nil {
		return err
	}
	defer s.close()
	cfg, err := c.config(load.Locate, s)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if cfg.Users+100 > limit.Cur {
		return fmt.Errorf("--users: %d connections need more descriptors than the %d that this process may have (ulimit -n)", cfg.Users, limit.Cur)
	}
	_, progress := c.voice(stderr)
	result, err := load.RunConnections(ctx, cfg, progress)
	if err != nil {
		return err
	}
	if err := c.write(stdout, connectionsReport(result, append(facts(), s.facts...))); err != nil {
		return err
	}
	if n := result.Connected.Failed + result.Kept.Failed + result.Reached.Failed + result.Closed; n > 0 {
		return fmt.Errorf("%w: %d failures", errFailed, n)
	}
	return nil
}

func connectionsReport(r *load.Connections, facts []report.Fact) *report.Document {
	d := &report.Document{Title: fmt.Sprintf("%d TCP connections to %d node(s), one for each user", r.Config.Users, len(r.Config.Targets)), Facts: facts}
	t := report.Table{Columns: []string{"", "ok", "failed", "per second", "p50 ms", "p99 ms", "max ms", "CPU us each", "codes"},
		Note: fmt.Sprintf("connect: TCP and REGISTER over it (RFC 5626); ping: CRLF CRLF and its pong; reach: OPTIONS at another node, answered over the user's connection. %d connections were closed by the servers.", r.Closed)}
	names := map[string]*load.Phase{"connect": r.Connected, "ping": r.Kept, "reach": r.Reached}
	for _, name := range []string{"connect", "ping", "reach"} {
		p := names[name]
		h := p.Latency[name]
		if name == "reach" {
			h = p.Latency["options"]
		}
		l := report.LatencyOf(h)
		var codes []string
		for code, n := range p.Codes {
			codes = append(codes, code+": "+strconv.FormatUint(n, 10))
		}
		t.Add(name, p.OK, p.Failed, p.Rate(), report.MS(l.P50), report.MS(l.P99), report.MS(l.Max), float64(p.CPU().Microseconds())/float64(max(1, p.Units())), strings.Join(codes, ", "))
		d.Bench = append(d.Bench, report.Bench{Name: fmt.Sprintf("Connections/%s/users=%d", name, r.Config.Users), N: p.Units(),
			Values: []report.Value{{Value: float64(l.P50 * 1000), Unit: "ns/op"}, {Value: p.Rate(), Unit: "req/s"}, {Value: float64(p.Failed), Unit: "errors"}}})
	}
	d.Tables = append(d.Tables, t)
	if after, before := r.Connected.RSS(); before > 0 {
		m := report.Table{Title: "Memory of the servers", Columns: []string{"", "bytes"}}
		m.Add("per connection and registration", (float64(after)-float64(before))/float64(r.Config.Users))
		d.Tables = append(d.Tables, m)
	}
	d.Data = map[string]any{"connect": r.Connected, "ping": r.Kept, "reach": r.Reached, "closed": r.Closed}
	return d
}
