package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/alecthomas/kong"

	"hereis"
)

// nodeCmd runs one node. Its flags are the fields of hereis.Config.
type nodeCmd struct {
	File        string `name:"config" placeholder:"FILE" env:"HEREIS_CONFIG" help:"YAML file with the same names as the flags; flags win over the environment (HEREIS_NAME), that over the file."`
	PrintConfig bool   `name:"print-config" help:"Print each setting and where it came from, and exit."`
	// StopWithStdin is how dev's nodes notice that dev is gone, however it went.
	StopWithStdin bool `name:"stop-with-stdin" hidden:""`

	Settings configFlags `embed:""`
}

// configFlags are the fields of a Config without its methods: the parser would
// call Validate before other sources are known.
type configFlags hereis.Config

// Run runs the node until ctx ends, then gives it StopTimeout.
func (c *nodeCmd) Run(ctx context.Context, a *app, line *kong.Context) error {
	s, err := a.loadSettings(c.File, flagsSet(line))
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return s.print(a)
	}
	log := newLogger(a.stderr, s.config)
	if s.sources["domain"] == "derived" {
		log.Info("no domain is given: the advertised address is served", "domain", s.config.Domains[0])
	}
	for _, name := range s.unknownEnv {
		log.Warn("an environment variable has our prefix and means nothing", "name", name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.StopWithStdin {
		survivePipes()
		// It ends with stdin, which nothing else can interrupt, or with the process.
		go func() {
			_, _ = io.Copy(io.Discard, a.stdin)
			cancel()
		}()
	}
	return stopInTime(ctx, s.config, func(ctx context.Context) error { return a.runNode(ctx, s.config, log) })
}

// stopInTime runs f, and leaves it behind if it does not return in time after
// ctx has ended: the process exits then, which the node's data survives.
func stopInTime(ctx context.Context, cfg hereis.Config, f func(context.Context) error) error {
	done := make(chan error, 1) // one value, from the goroutine below
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.StopTimeout)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-late.Done():
		return fmt.Errorf("the node did not stop within %s", cfg.StopTimeout)
	}
}

func newLogger(w io.Writer, cfg hereis.Config) *slog.Logger {
	var level slog.Level
	// Validate has seen the level.
	_ = level.UnmarshalText([]byte(cfg.LogLevel))
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
