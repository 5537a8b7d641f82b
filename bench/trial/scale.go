package trial

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hereis/bench/load"
	"hereis/bench/rig"
)

// Scaling says how a cluster grows.
type Scaling struct {
	Server rig.Spec
	// Counts are the numbers of nodes.
	Counts []int
	// Rounds is how often new users register at each.
	Rounds int
	// Shape of each load; its Sockets are for each node.
	Shape load.Config
}

// Scaled is a cost curve.
type Scaled struct {
	Scaling Scaling
	Points  []Point
}

// Point is one number of nodes.
type Point struct {
	Nodes int
	Runs  []*Run
	// AskedMissing are pairs of user and node missing after a run in which all
	// nodes were asked for the users as they registered.
	AskedMissing uint64
	// AskedCodes are the answers of the check after it.
	AskedCodes map[string]uint64
	// AskedFailed are failures of that run.
	AskedFailed uint64
	// Idle is CPU per second without load; IdleBytes, bytes between nodes per second.
	Idle, IdleBytes float64
}

// Scale measures one number of nodes after the other. With an error it returns what it has until then.
func Scale(ctx context.Context, sc Scaling, say func(format string, args ...any), progress func(load.Progress)) (*Scaled, error) {
	out := &Scaled{Scaling: sc}
	for _, n := range sc.Counts {
		p, err := sc.point(ctx, n, say, progress)
		if err != nil {
			return out, err
		}
		out.Points = append(out.Points, *p)
	}
	return out, nil
}

func (sc *Scaling) point(ctx context.Context, n int, say func(string, ...any), progress func(load.Progress)) (p *Point, err error) {
	spec := sc.Server
	spec.Nodes = n
	say("starting %d node(s)", n)
	s, err := Open(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // its measurements are taken
	p = &Point{Nodes: n, Idle: s.Idle, IdleBytes: s.IdleBytes}
	for range sc.Rounds {
		cfg := sc.load(s)
		cfg.Check = true
		r, err := s.Load(ctx, cfg, progress)
		if err != nil {
			return nil, err
		}
		p.Runs = append(p.Runs, r)
		say("%d nodes: %.1f us CPU, %.2f messages, %.0f bytes per REGISTER, %d failed, asked everywhere afterwards: %v", n, r.CPU, r.Frames, r.Bytes, r.Result.Measured.Failed, r.Result.Checked.Codes)
	}
	cfg := sc.load(s)
	cfg.Check, cfg.AskAll = true, true
	r, err := s.Load(ctx, cfg, progress)
	if err != nil {
		return nil, err
	}
	p.AskedCodes = r.Result.Checked.Codes
	p.AskedMissing, p.AskedFailed = r.Result.Checked.Failed, r.Result.Measured.Failed+r.Result.Measured.Beside.Failed
	say("%d nodes, asked while they register: %d failed, %d missing", n, p.AskedFailed, p.AskedMissing)
	return p, nil
}

func (sc *Scaling) load(s *Stand) load.Config {
	cfg := s.Config(load.Register, sc.Shape.Users)
	cfg.Sockets, cfg.Window, cfg.Settle = sc.Shape.Sockets*len(s.Cluster.Nodes), sc.Shape.Window, 2*time.Second
	return cfg
}

// Err tells what failed or was missing.
func (s *Scaled) Err() error {
	var errs []error
	for _, p := range s.Points {
		for _, r := range p.Runs {
			if n := r.Result.Measured.Failed; n > 0 || r.Missing > 0 {
				errs = append(errs, fmt.Errorf("%d nodes: %d failed: %v; %d missing: %v", p.Nodes, n, r.Result.Measured.Codes, r.Missing, r.Result.Checked.Codes))
			}
		}
		if p.AskedFailed > 0 || p.AskedMissing > 0 {
			errs = append(errs, fmt.Errorf("%d nodes, asked while users registered: %d failed; %d missing: %v", p.Nodes, p.AskedFailed, p.AskedMissing, p.AskedCodes))
		}
	}
	return errors.Join(errs...)
}
