package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"hereis/bench/load"
	"hereis/bench/metrics"
	"hereis/bench/proc"
	"hereis/bench/report"
	"hereis/bench/rig"
	"hereis/bench/swarm"
)

// ownTable is how many registrations a node vouches for.
const ownTable = "hereis_table_own"

// Filling says how a cluster is filled with users.
type Filling struct {
	Server rig.Spec
	// Steps are the populations at which it is looked at.
	Steps []uint64
	// Shape of the load that fills; Processes of the generator make it.
	Shape     load.Config
	Processes int
	// ProbeRate is REGISTERs of new users per second, for ProbeTime, at each population.
	ProbeRate float64
	ProbeTime time.Duration
	// Settle is how long the cluster is left alone before its memory is read.
	Settle time.Duration
	// Idle is how long it is left alone then, to measure what it does without load.
	Idle time.Duration
	// Restart kills the last node in the end and starts it again.
	Restart bool
}

// Filled is what was seen.
type Filled struct {
	Filling Filling
	Levels  []Level
	// Back is how long a restarted node took until it answered SIP, and Whole, until
	// it had its Own registrations again; zero without a restart.
	Back, Whole time.Duration
	Own         float64
	// Answered is when it had told where each of a sample of them is, and
	// Unanswered how often it could not tell until then.
	Answered time.Duration
	// WholeCPU is the node's own CPU time until Whole: what is left of it where other work waits for the same cores.
	WholeCPU   time.Duration
	Unanswered int
	// Failed is units of all loads.
	Failed uint64
}

// Level is a population.
type Level struct {
	Users uint64
	// RSS and Heap are of all nodes, in bytes.
	RSS  uint64
	Heap float64
	// GCPause is the longest stop of any node of late, in seconds. GCStops are the
	// stops of all nodes so far, of which GCLong took more than 5 ms, and GCWaited
	// more than that until everything had stopped: that is a wait for a core.
	GCPause                   float64
	GCStops, GCLong, GCWaited float64
	// Fill is REGISTERs per second while it was filled.
	Fill float64
	// Probe is the load at ProbeRate.
	Probe *load.Phase
	// Idle is CPU per second of all nodes, and bytes between them, without load.
	Idle, IdleBytes float64
}

// Fill registers users step by step.
func Fill(ctx context.Context, f Filling, say func(string, ...any), progress func(load.Progress)) (*Filled, error) {
	s, err := Open(ctx, f.Server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // its measurements are taken
	out := &Filled{Filling: f}
	for _, users := range f.Steps {
		l, err := out.level(ctx, s, users, progress)
		if err != nil {
			return out, err
		}
		say("%d users: %.0f MB resident, p99 %.2f ms at %.0f/s, idle %.1f %% of a core", users, float64(l.RSS)/1e6,
			report.MS(report.LatencyOf(l.Probe.Latency["register"]).P99), f.ProbeRate, 100*l.Idle)
		out.Levels = append(out.Levels, *l)
	}
	if f.Restart {
		err = out.restart(ctx, s)
	}
	return out, err
}

func (f *Filled) level(ctx context.Context, s *Stand, users uint64, progress func(load.Progress)) (*Level, error) {
	l := &Level{Users: users}
	if users > s.next {
		cfg := s.Config(load.Register, users-s.next)
		cfg.Sockets, cfg.Window, cfg.Retry, cfg.Expires = f.Filling.Shape.Sockets, f.Filling.Shape.Window, true, 7200
		cfg.Devices = f.Filling.Shape.Devices
		r, err := swarm.Run(ctx, cfg, f.Filling.Processes, progress)
		if err != nil {
			return nil, err
		}
		l.Fill = r.Measured.Rate()
		f.Failed += r.Measured.Failed
	}
	if err := pause(ctx, f.Filling.Settle); err != nil {
		return nil, err
	}
	if err := s.measureIdle(ctx, f.Filling.Idle); err != nil {
		return nil, err
	}
	l.Idle, l.IdleBytes = s.Idle, s.IdleBytes
	table := proc.Snapshot()
	for _, pid := range s.Cluster.PIDs() {
		use, _ := table.Tree(pid)
		l.RSS += use.RSS
	}
	counters, err := metrics.Read(ctx, s.Cluster.Admins())
	if err != nil {
		return nil, err
	}
	l.Heap, l.GCPause = counters[metrics.HeapBytes], counters[metrics.GCPauses]
	l.GCStops = counters[metrics.GCStops]
	l.GCLong, l.GCWaited = l.GCStops-counters[metrics.GCShort], l.GCStops-counters[metrics.GCStopping]
	cfg := s.Config(load.Register, uint64(f.Filling.ProbeRate*f.Filling.ProbeTime.Seconds()))
	cfg.Sockets, cfg.Rate, cfg.Devices = f.Filling.Shape.Sockets, f.Filling.ProbeRate, f.Filling.Shape.Devices
	r, err := load.Run(ctx, cfg, progress)
	if err != nil {
		return nil, err
	}
	l.Probe = r.Measured
	f.Failed += r.Measured.Failed
	return l, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// restart kills the last node and waits until it has what it had.
func (f *Filled) restart(ctx context.Context, s *Stand) error {
	n := s.Cluster.Nodes[len(s.Cluster.Nodes)-1]
	before, err := metrics.Read(ctx, []string{n.Admin()})
	if err != nil {
		return err
	}
	f.Own = before[ownTable]
	n.Kill()
	start := time.Now()
	if err := s.Cluster.Restart(ctx, n); err != nil {
		return err
	}
	f.Back = time.Since(start)
	for time.Since(start) < convergeTimeout {
		asked := time.Now()
		if now, err := metrics.Read(ctx, []string{n.Admin()}); err == nil && now[ownTable] >= f.Own {
			f.Whole = time.Since(start)
			use, _ := proc.Snapshot().Tree(n.PID())
			f.WholeCPU = use.CPU
			return f.answers(ctx, s, start)
		}
		// Counting costs the node a look at all that it has: most of its time is to be its own.
		if err := pause(ctx, max(50*time.Millisecond, 2*time.Since(asked))); err != nil {
			return err
		}
	}
	return errors.New("a restarted node did not get its registrations back")
}

// sample is how many of the users of a restarted node it is asked for.
const sample = 1000

// answers asks the restarted node, the last one, for users who registered at
// it, spread over all of them, until it has told of each where it is.
func (f *Filled) answers(ctx context.Context, s *Stand, start time.Time) error {
	nodes := uint64(len(s.Cluster.Nodes))
	admin := s.Cluster.Nodes[nodes-1].Admin()
	mine := f.Levels[len(f.Levels)-1].Users / nodes
	for i := range min(sample, mine) {
		user := i*(mine/min(sample, mine))*nodes + nodes - 1 // user u registers at node u mod N
		for {
			ok, err := located(ctx, admin, fmt.Sprintf("sip:u%d@%s", user, s.Cluster.Spec.Domain))
			if err != nil {
				return err
			}
			if ok {
				break
			}
			f.Unanswered++
			if time.Since(start) > convergeTimeout {
				return fmt.Errorf("a restarted node does not know where user %d is", user)
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	f.Answered = time.Since(start)
	return nil
}

// located asks a node where a user is.
func located(ctx context.Context, admin, aor string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/v1/where/"+aor, nil)
	if err != nil {
		return false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, res.Body) // so that the connection is used again
	return res.StatusCode == http.StatusOK, errors.Join(err, res.Body.Close())
}

// Err tells what failed.
func (f *Filled) Err() error {
	if f.Failed > 0 {
		return fmt.Errorf("%d REGISTERs failed", f.Failed)
	}
	return nil
}

// Report is what was seen as a document.
func (f *Filled) Report(facts []report.Fact) *report.Document {
	spec := f.Filling.Server
	copies := 2 + (1-2/float64(max(2, spec.Nodes)))*1 // edge, owner and backup, where they differ
	if spec.Nodes < 2 {
		copies = 1
	}
	d := &report.Document{
		Title: fmt.Sprintf("%d node(s) of %s filled with users", spec.Nodes, spec.Name()), Data: f,
		Facts: append(facts, report.Fact{Name: "Copies", Value: fmt.Sprintf("%.2f of each contact on average: edge, owner and backup, where they are different nodes", copies)}),
	}
	t := report.Table{
		Columns: []string{"users", "resident MB", "heap MB", "B per contact", "B per contact and copy", "filled at per second", "p50 ms", "p99 ms", "failed", "longest GC stop ms", "GC stops", "over 5 ms", "of these until stopped", "idle % of a core", "idle B/s between nodes"},
		Note: fmt.Sprintf("Bytes per contact are the slope of resident memory, all nodes together, from the row above. Latency is of new users at %g/s, counted from when each was due. The GC is as the node sets it.",
			f.Filling.ProbeRate),
	}
	memory := report.Series{Name: "resident"}
	var last *Level
	for i := range f.Levels {
		l := &f.Levels[i]
		slope, each := "-", "-"
		if last != nil {
			per := (float64(l.RSS) - float64(last.RSS)) / float64(l.Users-last.Users)
			slope, each = report.Number(per), report.Number(per/copies)
		}
		p := report.LatencyOf(l.Probe.Latency["register"])
		t.Add(fmt.Sprint(l.Users), float64(l.RSS)/1e6, l.Heap/1e6, slope, each, l.Fill, report.MS(p.P50), report.MS(p.P99), l.Probe.Failed, 1000*l.GCPause, l.GCStops, l.GCLong, l.GCWaited, 100*l.Idle, l.IdleBytes)
		memory.X, memory.Y = append(memory.X, float64(l.Users)), append(memory.Y, float64(l.RSS)/1e6)
		d.Bench = append(d.Bench, report.Bench{Name: fmt.Sprintf("Filled/nodes=%d/users=%d", spec.Nodes, l.Users), N: l.Probe.Units(), Values: []report.Value{
			{Value: float64(p.P50 * 1000), Unit: "ns/op"}, {Value: float64(p.P99), Unit: "p99-us"}, {Value: float64(l.RSS), Unit: "RSS-B"}}})
		last = l
	}
	d.Tables = []report.Table{t}
	if f.Whole > 0 {
		r := report.Table{Title: "Restart of a node after kill -9", Columns: []string{"its own registrations", "answers SIP after s", "has them all after s", "CPU s until then", fmt.Sprintf("has answered for %d of them after s", sample), "times it could not"}}
		r.Add(f.Own, f.Back.Seconds(), f.Whole.Seconds(), f.WholeCPU.Seconds(), f.Answered.Seconds(), f.Unanswered)
		d.Tables = append(d.Tables, r)
	}
	d.Charts = []report.Chart{{Title: "Resident memory of all nodes", X: "users", Y: "MB", Series: []report.Series{memory}}}
	return d
}
