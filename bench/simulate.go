package main

import (
	"context"
	"io"

	"hereis/bench/paper"
)

// simulateCmd is bench simulate.
type simulateCmd struct {
	Nodes     int     `short:"N" default:"1000" help:"Number of nodes."`
	Users     uint64  `short:"u" default:"100000000" help:"Number of users."`
	Sample    uint64  `default:"2000000" help:"How many of them to place; 0: all, which takes a core some microseconds each."`
	CopyBytes float64 `default:"1024" help:"Bytes of one copy of a user's contact."`
	output
}

func (c *simulateCmd) run(_ context.Context, _ string, stdout, _ io.Writer) error {
	cfg := paper.DefaultConfig()
	cfg.Nodes, cfg.Users, cfg.Sample, cfg.CopyBytes = c.Nodes, c.Users, c.Sample, c.CopyBytes
	r, err := paper.Simulate(cfg)
	if err != nil {
		return err
	}
	return c.write(stdout, r.Report(facts()))
}
