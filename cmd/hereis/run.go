package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/actors"
	"hereis/admin"
	"hereis/messages"
)

// runNode makes a node and its HTTP API, and runs both until ctx ends or one
// of them fails.
func runNode(ctx context.Context, cfg hereis.Config, log *slog.Logger) error {
	node, err := hereis.New(cfg, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if cfg.Admin != "" {
		api, err := admin.New(admin.Config{Addr: cfg.Admin, Pprof: cfg.Pprof}, adminNode{node}, log)
		if err != nil {
			return errors.Join(err, node.Close())
		}
		if _, err := api.Listen(ctx); err != nil {
			return errors.Join(err, node.Close())
		}
		g.Go(func() error { return api.Run(ctx) })
	}
	g.Go(func() error { return node.Run(ctx) })
	log.Info("node is up", "node", node.Name(), "incarnation", node.Incarnation(),
		"sip", strings.Join(node.SIPAddrs(), " "), "gossip", node.GossipAddr(),
		"domains", strings.Join(node.Domains(), " "), "durability", cfg.Durability)
	return g.Wait()
}

// adminNode is a node in the words of the HTTP API.
type adminNode struct{ node *hereis.Node }

func (a adminNode) Where(ctx context.Context, aor string) (*messages.Whereabouts, error) {
	parsed, err := a.node.ParseAoR(aor)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	w, err := a.node.Where(ctx, parsed)
	return w, adminError(err)
}

func (a adminNode) Members() []admin.Member {
	var out []admin.Member
	for _, m := range a.node.Members() {
		am := admin.Member{
			Name: m.Name, State: admin.MemberLive, Incarnation: m.Incarnation, Region: m.Region, Zone: m.Zone,
			Gossip: m.Gossip, Stream: m.Stream, Remote: m.Remote, Version: m.Version,
			FailedMS: m.FailedMS, Self: m.Name == a.node.Name(),
		}
		switch {
		case m.FailedMS != 0:
			am.State = admin.MemberFailed
		case m.Draining:
			am.State = admin.MemberDraining
		}
		if h := a.node.Hello(m.Name); h != nil {
			am.SIP, am.Admin = h.Sip, h.Admin
		}
		out = append(out, am)
	}
	return out
}

func (a adminNode) Send(ctx context.Context, to string, question proto.Message) ([]admin.Reply, error) {
	address := hereis.Everybody()
	if to != "all" {
		address = hereis.ToNode(to)
		if strings.ContainsAny(to, ":@") {
			aor, err := a.node.ParseAoR(to)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
			}
			address = hereis.ToUser(aor)
		} else if !a.member(to) {
			return nil, fmt.Errorf("%w: no node %q", admin.ErrNotFound, to)
		}
	}
	var out []admin.Reply
	for _, r := range hereis.AskAll[proto.Message](ctx, a.node, address, question) {
		out = append(out, admin.Reply{Node: r.Node, Answer: r.Answer, Err: r.Err})
	}
	return out, nil
}

func (a adminNode) member(name string) bool {
	for _, m := range a.node.Members() {
		if m.Name == name {
			return true
		}
	}
	return false
}

// Watch takes the pattern as the cluster does, and completes an AoR.
func (a adminNode) Watch(ctx context.Context, pattern string) (<-chan *messages.UserEvent, error) {
	if pattern != "*" && !strings.HasPrefix(pattern, "@") {
		aor, err := a.node.ParseAoR(pattern)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		pattern = string(aor)
	}
	events, err := a.node.Watch(ctx, pattern)
	return events, adminError(err)
}

func (a adminNode) Ready() error { return a.node.Ready() }

func (a adminNode) Info() admin.Info {
	return admin.Info{
		Name: a.node.Name(), Incarnation: a.node.Incarnation(), Version: hereis.Version(),
		Go: runtime.Version(), SIP: a.node.SIPAddrs(), Domains: a.node.Domains(),
	}
}

func (a adminNode) Stats() map[string]float64 { return a.node.Stats() }

// adminError gives an error of the cluster the API's status.
func adminError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, actors.ErrNotFound):
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	case errors.Is(err, actors.ErrRetry), errors.Is(err, actors.ErrUnavailable), errors.Is(err, actors.ErrOverloaded):
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	return err
}
