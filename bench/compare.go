package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hereis/bench/load"
	"hereis/bench/rig"
	"hereis/bench/trial"
)

// compareCmd is bench compare.
type compareCmd struct {
	Scenario []string      `arg:"" optional:"" default:"register" help:"Scenarios: register, refresh, locate, call."`
	Server   []string      `short:"S" placeholder:"[LABEL=]KIND[@PROGRAM]" help:"Servers to compare, the first with each of the others; default: hereis and what is installed of kamailio, kamailio-fm, opensips."`
	Nodes    int           `short:"N" default:"1" help:"Nodes of each server."`
	Workers  int           `default:"2" help:"Worker processes (peers) or threads (Hereis) of each node."`
	Rounds   int           `default:"5" help:"How often each server is loaded, in turn."`
	Users    uint64        `short:"u" default:"50000" help:"Users of each run."`
	Sockets  int           `short:"s" default:"4" help:"Sockets."`
	Window   int           `short:"w" default:"8" help:"Closed loop: units outstanding per socket."`
	Rate     float64       `short:"r" help:"Open loop: units per second over all sockets."`
	Settle   time.Duration `help:"Time after a run that still counts; default: 1s for registrations at one node, else 6.5s."`
	Check    bool          `default:"true" negatable:"" help:"Ask every node for every user after the last round of register."`
	common
}

func (c *compareCmd) run(ctx context.Context, stdout, stderr io.Writer) error {
	shape := load.DefaultConfig()
	shape.Users, shape.Sockets, shape.Window, shape.Rate = c.Users, c.Sockets, c.Window, c.Rate
	comparison := trial.Comparison{Scenarios: c.Scenario, Rounds: c.Rounds, Shape: shape, Settle: c.Settle, Check: c.Check}
	done, err := c.servers(ctx, &comparison, stderr)
	defer done()
	if err != nil {
		return err
	}
	say, progress := c.voice(stderr)
	compared, err := trial.Compare(ctx, comparison, say, progress)
	if err != nil {
		return err
	}
	writeCompared(stdout, compared)
	return compared.Err()
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
	done = func() {}
	own := ""
	for _, name := range names {
		spec := parseServer(name)
		spec.Nodes, spec.Workers = c.Nodes, c.Workers
		if rig.IsHereis(spec.Kind) && spec.Binary == "" {
			if own == "" {
				if own, done, err = buildHereis(ctx); err != nil {
					return done, err
				}
			}
			spec.Binary = own
		}
		comparison.Servers = append(comparison.Servers, spec)
	}
	return done, nil
}

// parseServer reads [LABEL=]KIND[@PROGRAM].
func parseServer(s string) (spec rig.Spec) {
	if label, rest, ok := strings.Cut(s, "="); ok {
		spec.Label, s = label, rest
	}
	spec.Kind, spec.Binary, _ = strings.Cut(s, "@")
	if spec.Binary != "" {
		if abs, err := filepath.Abs(spec.Binary); err == nil {
			spec.Binary = abs // a node runs in a folder of its own
		}
	}
	return spec
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

// errFailed: the run ended, and some of its units failed.
var errFailed = errors.New("some units failed")
