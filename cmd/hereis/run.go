package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"hereis"
	"hereis/admin"
)

// runNode runs a node until ctx ends, and once more if it says that it can be
// started again: the second start is above whatever the peers remembered.
func runNode(ctx context.Context, cfg hereis.Config, log *slog.Logger) error {
	pacing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var pacer sync.WaitGroup
	pacer.Go(func() { paceGC(pacing) })
	defer pacer.Wait()
	defer stop()
	err := runOnce(ctx, cfg, log)
	if !errors.Is(err, hereis.ErrStartAgain) || ctx.Err() != nil {
		return err
	}
	log.Warn("the node starts again", "err", err)
	return runOnce(ctx, cfg, log)
}

// runOnce runs a node and its admin API until ctx ends. The API stops last, so
// that one can watch a node stop; should it fail, the node stops too.
func runOnce(ctx context.Context, cfg hereis.Config, log *slog.Logger) error {
	node, err := hereis.New(cfg, log)
	if err != nil {
		return err
	}
	return serve(ctx, node, cfg, log)
}

// serve is runNode for a node that has been made.
func serve(ctx context.Context, node *hereis.Node, cfg hereis.Config, log *slog.Logger) error {
	if cfg.Admin == "" {
		logUp(log, node, cfg)
		return node.Run(ctx)
	}
	srv, err := admin.New(admin.Config{Addr: cfg.Admin, Pprof: cfg.Pprof, Collectors: node.Collectors()}, api{node}, log)
	if err == nil {
		_, err = srv.Listen(ctx)
	}
	if err != nil {
		return errors.Join(err, node.Close())
	}
	logUp(log, node, cfg)
	group, failed := errgroup.WithContext(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer stopServing()
		return node.Run(failed)
	})
	group.Go(func() error { return srv.Run(serving) })
	return group.Wait()
}

// logUp says that every port is taken and the node runs.
func logUp(log *slog.Logger, node *hereis.Node, cfg hereis.Config) {
	log.Info("node is up", "node", node.Name(), "incarnation", node.Incarnation(),
		"sip", strings.Join(node.SIPAddrs(), " "), "gossip", node.GossipAddr(),
		"domains", strings.Join(node.Domains(), " "), "durability", cfg.Durability)
}
