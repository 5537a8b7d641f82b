package trial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hereis/bench/load"
	"hereis/bench/report"
	"hereis/bench/rig"
)

// Comparison says what to run against what.
type Comparison struct {
	// Servers are compared; the first is what the others are measured by.
	Servers []rig.Spec
	// Scenarios are run in turn.
	Scenarios []string
	// Rounds is how often each server is asked in turn.
	Rounds int
	// Shape of each load: Users, Sockets, Window, Rate and the like. Its
	// scenario, targets and first user are filled in.
	Shape load.Config
	// Settle is the time after each run that counts as the server's; 0: a
	// second for registrations at one node, else 6.5 s, so that the timers of
	// transactions (RFC 3261 17: 64*T1 at most, 5 s in Kamailio's default) are in.
	Settle time.Duration
	// Check asks every node for every user of the last round.
	Check bool
}

// Compared is what a comparison came to.
type Compared struct {
	Comparison Comparison
	// Runs are in the order in which they ran: round by round, server by server.
	Runs []*Run
	// Idle is CPU per second without load, by server.
	Idle map[string]float64
}

// Compare starts all servers and loads one at a time, in turn, so that what
// disturbs the machine meanwhile disturbs all. Each round begins with another
// server. The others are idle, not stopped. With an error it returns what it has until then, if anything.
func Compare(ctx context.Context, c Comparison, say func(format string, args ...any), progress func(load.Progress)) (*Compared, error) {
	out := &Compared{Comparison: c, Idle: map[string]float64{}}
	var stands []*Stand
	defer func() {
		for _, s := range stands {
			_ = s.Close() // its measurements are taken; what it says when it stops is no result
		}
	}()
	for _, spec := range c.Servers {
		say("starting %s, %d node(s)", spec.Name(), max(1, spec.Nodes))
		s, err := Open(ctx, spec)
		if err != nil {
			return nil, err
		}
		stands = append(stands, s)
		out.Idle[spec.Name()] = s.Idle
	}
	for _, scenario := range c.Scenarios {
		for round := range c.Rounds {
			for i := range stands {
				s := stands[(i+round)%len(stands)]
				r, err := c.run(ctx, s, scenario, round, progress)
				if err != nil {
					return out, err
				}
				say("%s round %d of %d: %-14s %6.1f us CPU, %6.0f/s, %d failed", scenario, round+1, c.Rounds, r.Server, r.CPU,
					r.Result.Measured.Rate(), r.Result.Measured.Failed)
				out.Runs = append(out.Runs, r)
			}
		}
	}
	return out, nil
}

func (c *Comparison) run(ctx context.Context, s *Stand, scenario string, round int, progress func(load.Progress)) (*Run, error) {
	cfg := s.Config(scenario, c.Shape.Users)
	shape := c.Shape
	shape.Scenario, shape.First, shape.Targets, shape.Domain = cfg.Scenario, cfg.First, cfg.Targets, cfg.Domain
	shape.Settle = c.Settle
	if shape.Settle == 0 {
		shape.Settle = time.Second
		if len(cfg.Targets) > 1 || scenario != load.Register && scenario != load.Refresh {
			shape.Settle = 6500 * time.Millisecond
		}
	}
	shape.Check = c.Check && round == c.Rounds-1 && scenario == load.Register
	return s.Load(ctx, shape, progress)
}

// Names are the servers in order.
func (c *Compared) Names() (names []string) {
	for _, s := range c.Comparison.Servers {
		names = append(names, s.Name())
	}
	return names
}

// Of are the runs of a server in a scenario, by round.
func (c *Compared) Of(scenario, server string) (runs []*Run) {
	for _, r := range c.Runs {
		if r.Server == server && r.Result.Measured.Scenario == scenario {
			runs = append(runs, r)
		}
	}
	return runs
}

// Spread is a value with what it varied between.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (s Spread) String() string {
	return fmt.Sprintf("%s [%s-%s]", report.Number(s.Median), report.Number(s.Min), report.Number(s.Max))
}

// SpreadOf is the spread of a value over runs; zero for none.
func SpreadOf(runs []*Run, value func(*Run) float64) Spread {
	var vs []float64
	for _, r := range runs {
		vs = append(vs, value(r))
	}
	return spread(vs)
}

func spread(vs []float64) Spread {
	if len(vs) == 0 {
		return Spread{}
	}
	vs = slices.Sorted(slices.Values(vs))
	mid := len(vs) / 2
	median := vs[mid]
	if len(vs)%2 == 0 {
		median = (vs[mid-1] + vs[mid]) / 2
	}
	return Spread{Median: median, Min: vs[0], Max: vs[len(vs)-1]}
}

// Ratio is, round by round, a value of one server divided by that of another.
func (c *Compared) Ratio(scenario, server, by string, value func(*Run) float64) Spread {
	a, b := c.Of(scenario, server), c.Of(scenario, by)
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if d := value(b[i]); d > 0 {
			ratios = append(ratios, value(a[i])/d)
		}
	}
	return spread(ratios)
}

// Err tells what went wrong in runs of Hereis: units that failed, users that a
// node did not find. What peers fail at is a result, and in the report.
func (c *Compared) Err() error {
	var errs []error
	ours := map[string]bool{}
	for _, s := range c.Comparison.Servers {
		ours[s.Name()] = rig.IsHereis(s.Kind)
	}
	for _, r := range c.Runs {
		if !ours[r.Server] {
			continue
		}
		if n := r.Result.Measured.Failed; n > 0 {
			errs = append(errs, fmt.Errorf("%s %s: %d failed: %v", r.Server, r.Result.Measured.Scenario, n, r.Result.Measured.Codes))
		}
		if r.Missing > 0 {
			errs = append(errs, fmt.Errorf("%s: %d times a node did not find a user: %v", r.Server, r.Missing, r.Result.Checked.Codes))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
