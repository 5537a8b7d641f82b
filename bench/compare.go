package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"hereis/bench/load"
	"hereis/bench/rig"
	"hereis/bench/trial"
)

// compareCmd is bench compare.
type compareCmd struct {
	Scenario  []string      `arg:"" optional:"" default:"register" help:"Scenarios: register, refresh, locate, call, ..."`
	Server    []string      `short:"S" placeholder:"[LABEL=]KIND[@PROGRAM]" help:"Servers to compare, the first with each of the others; default: hereis and what is installed of kamailio, kamailio-fm, opensips."`
	Nodes     int           `short:"N" default:"1" help:"Nodes of each server."`
	Cores     int           `default:"2" help:"Worker processes (peers) or threads (Hereis) of each node."`
	Rounds    int           `default:"5" help:"How often each server is loaded, in turn."`
	Users     uint64        `short:"u" default:"50000" help:"Users of each run."`
	Requests  uint64        `short:"n" help:"Units of each run; default: one for each user."`
	Sockets   int           `short:"s" default:"4" help:"Sockets."`
	Window    int           `short:"w" default:"8" help:"Closed loop: units outstanding per socket."`
	Rate      float64       `short:"r" help:"Open loop: units per second over all sockets."`
	Transport string        `enum:"udp,tcp" default:"udp" help:"udp or tcp."`
	Settle    time.Duration `help:"Time after a run that still counts; default: 1s for registrations at one node, else 6.5s."`
	Check     bool          `default:"true" negatable:"" help:"Ask every node for every user after the last round of register."`
	AskAll    bool          `help:"Ask every node for the users while they register."`
	Near      bool          `help:"Users register at the node that is asked for them, instead of the next (locate, call)."`
	output
}

func (c *compareCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	shape := load.DefaultConfig()
	shape.Users, shape.Requests, shape.Sockets, shape.Window, shape.Rate = c.Users, c.Requests, c.Sockets, c.Window, c.Rate
	shape.Transport, shape.AskAll, shape.Near = c.Transport, c.AskAll, c.Near
	comparison := trial.Comparison{Scenarios: c.Scenario, Rounds: c.Rounds, Shape: shape, Settle: c.Settle, Check: c.Check}
	done, err := c.servers(ctx, &comparison, stderr)
	defer done()
	if err != nil {
		return err
	}
	say, progress := c.voice(stderr)
	compared, err := trial.Compare(ctx, comparison, say, progress)
	if compared == nil || len(compared.Runs) == 0 {
		return err
	}
	// Also of a comparison that was broken off, as far as it has come.
	if writeErr := c.write(stdout, compared.Report(facts())); writeErr != nil || err != nil {
		return errors.Join(writeErr, err)
	}
	if err := compared.Err(); err != nil {
		return fmt.Errorf("%w:\n%w", errFailed, err)
	}
	return nil
}

// servers fills in what is compared; done removes what was built for it.
func (c *compareCmd) servers(ctx context.Context, comparison *trial.Comparison, stderr io.Writer) (done func(), err error) {
	names := c.Server
	if len(names) == 0 {
		names = []string{rig.Hereis}
		for _, kind := range []string{rig.Kamailio, rig.KamailioFM, rig.OpenSIPS} {
			if err := rig.Installed(kind); err != nil {
				fmt.Fprintf(stderr, "left out: %v\n", err)
				continue
			}
			names = append(names, kind)
		}
	}
	var all []func()
	done = func() {
		for _, f := range all {
			f()
		}
	}
	for _, name := range names {
		spec, remove, err := serverSpec(ctx, name)
		all = append(all, remove)
		if err != nil {
			return done, err
		}
		spec.Nodes, spec.Workers, spec.TCP = c.Nodes, c.Cores, c.Transport == load.TCP
		comparison.Servers = append(comparison.Servers, spec)
	}
	return done, nil
}

// buildHereis builds the product of this module into a temporary folder.
func buildHereis(ctx context.Context) (binary string, done func(), err error) {
	dir, err := os.MkdirTemp("", "hereis-build-")
	if err != nil {
		return "", func() {}, err
	}
	done = func() { os.RemoveAll(dir) }
	binary = filepath.Join(dir, "hereis")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "hereis/cmd/hereis").CombinedOutput()
	if err != nil {
		return "", done, fmt.Errorf("go build hereis/cmd/hereis: %w\n%s", err, out)
	}
	return binary, done, nil
}

// scaleCmd is bench scale.
type scaleCmd struct {
	Counts  []int  `name:"n" short:"n" sep:"," default:"1,2,4,8,16,20" help:"Numbers of nodes."`
	Server  string `short:"S" default:"hereis" placeholder:"[LABEL=]KIND[@PROGRAM]" help:"What to start."`
	Cores   int    `default:"2" help:"Worker threads or processes of each node."`
	Rounds  int    `default:"3" help:"Runs of each number of nodes: their users register all over the cluster."`
	Users   uint64 `short:"u" default:"10000" help:"Users of each run."`
	PerNode int    `name:"sockets" short:"s" default:"2" help:"Sockets of the generator for each node."`
	Window  int    `short:"w" default:"8" help:"Units outstanding per socket."`
	output
}

func (c *scaleCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	spec, done, err := serverSpec(ctx, c.Server)
	defer done()
	if err != nil {
		return err
	}
	spec.Workers = c.Cores
	shape := load.DefaultConfig()
	shape.Users, shape.Sockets, shape.Window = c.Users, c.PerNode, c.Window
	say, progress := c.voice(stderr)
	scaled, err := trial.Scale(ctx, trial.Scaling{Server: spec, Counts: c.Counts, Rounds: c.Rounds, Shape: shape}, say, progress)
	if len(scaled.Points) == 0 {
		return err
	}
	if writeErr := c.write(stdout, scaled.Report(facts())); writeErr != nil || err != nil {
		return errors.Join(writeErr, err)
	}
	if err := scaled.Err(); err != nil {
		return fmt.Errorf("%w:\n%w", errFailed, err)
	}
	return nil
}

// fillCmd is bench fill.
type fillCmd struct {
	Steps     []uint64      `name:"users" short:"u" sep:"," default:"10000,500000,1000000" help:"Populations at which the cluster is looked at."`
	Server    string        `short:"S" default:"hereis" placeholder:"[LABEL=]KIND[@PROGRAM]" help:"What to start."`
	Nodes     int           `short:"N" default:"3" help:"Nodes."`
	Cores     int           `default:"2" help:"Worker threads or processes of each node."`
	Sockets   int           `short:"s" default:"8" help:"Sockets of each process of the generator."`
	Window    int           `short:"w" default:"32" help:"Units outstanding per socket while it is filled."`
	Processes int           `default:"1" help:"Processes of the generator."`
	ProbeRate float64       `default:"2000" help:"REGISTERs per second of new users, at each population."`
	ProbeTime time.Duration `default:"10s" help:"How long."`
	Settle    time.Duration `default:"10s" help:"Quiet time before memory is read."`
	Idle      time.Duration `default:"30s" help:"How long the quiet cluster's CPU and traffic are measured: nodes compare what they hold every 30 s."`
	Devices   bool          `help:"Each user has a loopback address of their own, as behind a NAT."`
	Restart   bool          `help:"Kill a node in the end, start it again, and wait for its registrations (hereis-async, hereis-sync)."`
	output
}

func (c *fillCmd) run(ctx context.Context, _ string, stdout, stderr io.Writer) error {
	spec, done, err := serverSpec(ctx, c.Server)
	defer done()
	if err != nil {
		return err
	}
	spec.Nodes, spec.Workers = c.Nodes, c.Cores
	shape := load.DefaultConfig()
	shape.Sockets, shape.Window, shape.Devices = c.Sockets, c.Window, c.Devices
	say, progress := c.voice(stderr)
	filled, err := trial.Fill(ctx, trial.Filling{
		Server: spec, Steps: c.Steps, Shape: shape, Processes: c.Processes, ProbeRate: c.ProbeRate, ProbeTime: c.ProbeTime, Settle: c.Settle, Idle: c.Idle, Restart: c.Restart,
	}, say, progress)
	if err != nil {
		return err
	}
	if err := c.write(stdout, filled.Report(facts())); err != nil {
		return err
	}
	if err := filled.Err(); err != nil {
		return fmt.Errorf("%w: %w", errFailed, err)
	}
	return nil
}
