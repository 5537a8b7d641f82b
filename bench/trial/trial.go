// Package trial runs loads against servers that it starts, and takes what
// they cost: CPU with the idle part subtracted, memory, messages between nodes,
// and users that a node does not find. compare.go interleaves several servers;
// scale.go grows one.
package trial

import (
	"context"
	"fmt"
	"time"

	"hereis/bench/load"
	"hereis/bench/metrics"
	"hereis/bench/proc"
	"hereis/bench/rig"
)

const (
	// warmUsers register before anything is measured.
	warmUsers = 1000
	// convergeTimeout is how long nodes may take to find each other's users.
	convergeTimeout = 2 * time.Minute
)

// How long the quiet cluster is left alone, and then watched. Tests have less.
var quietTime, idleTime = time.Second, 3 * time.Second

// Stand is a running cluster that is being measured.
type Stand struct {
	Cluster *rig.Cluster
	// Idle is CPU time per second of all nodes together, without load.
	Idle float64
	// IdleBytes, IdleFrames and IdleWrites are what nodes send each other per second without load.
	IdleBytes, IdleFrames, IdleWrites float64

	next uint64 // first user that was not used yet
}

// Open starts a cluster, waits until every node finds the users of every
// other, warms it up, and measures it idle.
func Open(ctx context.Context, spec rig.Spec) (*Stand, error) {
	c, err := rig.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	s := &Stand{Cluster: c}
	if err := s.prepare(ctx); err != nil {
		c.Logs(errorLog{&err})
		_ = c.Stop() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// errorLog appends what is written to an error.
type errorLog struct{ err *error }

func (l errorLog) Write(b []byte) (int, error) {
	*l.err = fmt.Errorf("%w\n%s", *l.err, b)
	return len(b), nil
}

func (s *Stand) prepare(ctx context.Context) error {
	if err := s.Converge(ctx); err != nil {
		return err
	}
	cfg := s.Config(load.Register, warmUsers)
	if r, err := load.Run(ctx, cfg, nil); err != nil {
		return err
	} else if r.Measured.Failed > 0 {
		return fmt.Errorf("%s: warm-up: %v", s.Cluster.Spec.Name(), r.Measured.Codes)
	}
	return s.measureIdle(ctx, idleTime)
}

// Converge waits until users who register now are found at every node.
func (s *Stand) Converge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, convergeTimeout)
	defer cancel()
	for {
		cfg := s.Config(load.Everywhere, uint64(4*len(s.Cluster.Nodes)))
		cfg.Timeout = 2 * time.Second
		r, err := load.Run(ctx, cfg, nil)
		if err == nil && r.Measured.Failed == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: nodes do not find each other's users: %w", s.Cluster.Spec.Name(), err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// Config is a load of the stand's nodes with users that were not used before.
func (s *Stand) Config(scenario string, users uint64) load.Config {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First = scenario, users, s.Take(users)
	cfg.Targets, cfg.Domain = s.Cluster.Targets(), s.Cluster.Spec.Domain
	cfg.Password = s.Cluster.Spec.Password
	if s.Cluster.Spec.TCP {
		cfg.Transport = load.TCP
	}
	return cfg
}

// Take reserves users that were not used before, and tells the first.
func (s *Stand) Take(users uint64) (first uint64) {
	first = s.next
	s.next += users
	return first
}

// measureIdle watches the quiet cluster for a time.
func (s *Stand) measureIdle(ctx context.Context, during time.Duration) error {
	// What the warm-up left behind is no idle load.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(quietTime):
	}
	before, err := metrics.Read(ctx, s.Cluster.Admins())
	if err != nil {
		return err
	}
	m, err := proc.NewMeter(s.Cluster.PIDs())
	if err != nil {
		return err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(during):
	}
	var cpu time.Duration
	for _, u := range m.Read() {
		cpu += u.CPU
	}
	seconds := time.Since(start).Seconds()
	s.Idle = cpu.Seconds() / seconds
	after, err := metrics.Read(ctx, s.Cluster.Admins())
	sent := after.Since(before)
	s.IdleBytes, s.IdleFrames, s.IdleWrites = sent[metrics.Bytes]/seconds, sent[metrics.Frames]/seconds, sent[metrics.Writes]/seconds
	return err
}

// Run is one measured load.
type Run struct {
	Server string
	Nodes  int
	Result *load.Result
	// CPU is microseconds of all nodes per unit, idle subtracted.
	CPU float64
	// RSS is how much resident memory of all nodes grew, in bytes per user of
	// the run; only the scenario register makes it mean something.
	RSS float64
	// Frames, Bytes and Writes between nodes per unit, idle subtracted; 0 for servers that do not count them.
	Frames, Bytes, Writes float64
	// Missing are pairs of user and node such that the node did not find the user; -1 if not checked.
	Missing int64
}

// Load runs cfg against the stand.
func (s *Stand) Load(ctx context.Context, cfg load.Config, progress func(load.Progress)) (*Run, error) {
	cfg.PIDs, cfg.Admins = s.Cluster.PIDs(), s.Cluster.Admins()
	result, err := load.Run(ctx, cfg, progress)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Cluster.Spec.Name(), err)
	}
	p := result.Measured
	units := float64(max(p.Units(), 1))
	idle := time.Duration(s.Idle * float64(p.Window))
	after, before := p.RSS()
	r := &Run{
		Server: s.Cluster.Spec.Name(), Nodes: len(s.Cluster.Nodes), Result: result, Missing: -1,
		CPU: float64((p.CPU() - idle).Microseconds()) / units,
		RSS: (float64(after) - float64(before)) / float64(cfg.Users),
		// What is sent without load is subtracted, too.
		Frames: (p.Counters[metrics.Frames] - s.IdleFrames*p.Window.Seconds()) / units,
		Writes: (p.Counters[metrics.Writes] - s.IdleWrites*p.Window.Seconds()) / units,
		Bytes:  (p.Counters[metrics.Bytes] - s.IdleBytes*p.Window.Seconds()) / units,
	}
	if result.Checked != nil {
		r.Missing = int64(result.Checked.Failed)
	}
	return r, nil
}

// Close stops the cluster.
func (s *Stand) Close() error { return s.Cluster.Stop() }
