package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// wallClock is node time in a bubble.
type wallClock struct{}

func (wallClock) NowMS() int64 { return time.Now().UnixMilli() }

// safeDisk is a Store for several goroutines.
type safeDisk struct {
	mu sync.Mutex
	d  disk
}

func (s *safeDisk) Keeps() bool { return true }

func (s *safeDisk) Put(rec *messages.Record, done func(error)) {
	go func() {
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		s.d.Put(rec, func(error) {})
		s.d.flush(0)
		s.mu.Unlock()
		done(nil)
	}()
}
func (s *safeDisk) Load(f func(*messages.Record) error) error { return s.d.Load(f) }
func (s *safeDisk) Err() error                                { return nil }

type noFlows struct{}

func (noFlows) Open(*messages.FlowID) bool { return true }
func (noFlows) Superseded(*messages.Lease) {}

// bubble starts n nodes that run until the test's function returns.
func bubble(t *testing.T, n int, f func(ctx context.Context, nodes []*cluster.Node), prepare ...func(*cluster.Node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		net := cluster.NewMemoryNetwork(time.Now().UnixMilli())
		var running sync.WaitGroup
		var nodes []*cluster.Node
		var members []cluster.Member
		for i := range n {
			cfg := cluster.DefaultConfig()
			cfg.Name, cfg.Incarnation = fmt.Sprintf("n%d", i+1), uint64(i+1)
			node, err := cluster.New(cfg, cluster.Parts{
				Network: net.From(cfg.Name), Store: &safeDisk{d: disk{recs: map[string]*messages.Record{}}},
				Grains: grains{actors.New(actors.DefaultLimits())}, Flows: noFlows{}, Clock: wallClock{},
				Log: slog.New(slog.DiscardHandler), Rand: rand.Uint64,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range prepare {
				p(node)
			}
			net.Attach(cfg.Name, func(_ int64, from string, env *messages.Envelope) { node.Receive(from, env) })
			nodes = append(nodes, node)
			members = append(members, cluster.Member{Name: cfg.Name, Incarnation: cfg.Incarnation})
		}
		for _, node := range nodes {
			running.Go(func() {
				if err := node.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			node.MembersChanged(members)
		}
		running.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Millisecond)
				net.Advance(time.Now().UnixMilli())
			}
		})
		for slices.ContainsFunc(nodes, func(n *cluster.Node) bool { return !n.Settled() }) {
			time.Sleep(10 * time.Millisecond)
		}
		f(ctx, nodes)
		cancel()
		running.Wait()
	})
}

func registerAt(ctx context.Context, n *cluster.Node, aor, id string, expires uint32) error {
	_, err := actors.NewClient(n).Register(ctx, &messages.Register{
		Aor: aor, CallId: id, Cseq: uint32(time.Now().Unix() % 1e9), Flow: n.NewFlowID(false),
		Contacts: []*messages.RegisterContact{{Uri: "sip:" + id + "@192.0.2.1", ExpiresS: expires, HasExpires: true, FlowBound: true}},
	})
	return err
}

func TestNodeRegisterAndLocateFromEverywhere(t *testing.T) {
	bubble(t, 3, func(ctx context.Context, nodes []*cluster.Node) {
		for i := range 20 {
			aor := fmt.Sprintf("sip:u%d@example.com", i)
			if err := registerAt(ctx, nodes[i%3], aor, "x", 600); err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes {
				got, err := actors.NewClient(n).Locate(ctx, actors.AoR(aor))
				if err != nil || len(got.Targets) != 1 || got.Targets[0].Edge != nodes[i%3].Name() || !got.Final {
					t.Fatalf("%s from %s: %v, %v", aor, n.Name(), got, err)
				}
				where, err := n.Where(ctx, aor)
				if err != nil || where.Owner == "" || where.Backup == "" || where.Node != where.Owner || len(where.View) != 3 {
					t.Fatalf("where %s: %v, %v", aor, where, err)
				}
			}
		}
	})
}

func TestNodeHandlers(t *testing.T) {
	handlers := func(n *cluster.Node) {
		n.Handle("hereis.Ping", func(_ context.Context, from, aor string, msg proto.Message) (proto.Message, error) {
			switch msg.(*messages.Ping).SentMs {
			case 1:
				panic("on purpose")
			case 2:
				return nil, fmt.Errorf("an error")
			case 3:
				return nil, nil
			}
			return &messages.MemberMeta{Name: n.Name(), Zone: from, Region: aor}, nil
		})
	}
	bubble(t, 3, func(ctx context.Context, nodes []*cluster.Node) {
		a := nodes[0]
		for _, sent := range []int64{1, 2, 3} {
			reply, err := a.AskNode(ctx, "n2", &messages.Ping{SentMs: sent})
			if f, ok := reply.(*messages.Failure); err != nil || !ok || f.Code != messages.FailureCode_FAILURE_CODE_INTERNAL {
				t.Errorf("handler %d: %v, %v", sent, reply, err)
			}
		}
		if got := nodes[1].Stats().Panics.Load(); got != 1 {
			t.Errorf("panics: got %d, want 1", got)
		}
		results := a.AskAll(ctx, &messages.Ping{}, nil)
		for i, r := range results {
			if m, ok := r.Reply.(*messages.MemberMeta); !ok || m.Name != r.Node || m.Zone != "n1" {
				t.Errorf("result %d: %+v", i, r)
			}
		}
		if len(results) != 3 {
			t.Errorf("%d results, want 3", len(results))
		}
		for i := range 10 {
			aor := fmt.Sprintf("sip:h%d@example.com", i)
			reply, err := a.Ask(ctx, aor, &messages.Ping{})
			where, _ := a.Where(ctx, aor)
			if m, ok := reply.(*messages.MemberMeta); err != nil || !ok || m.Name != where.GetOwner() || m.Region != aor {
				t.Errorf("to the owner of %s: %v, %v, want %s", aor, reply, err, where.GetOwner())
			}
		}
		reply, err := a.AskNode(ctx, "n2", &messages.Hello{})
		if f, ok := reply.(*messages.Failure); err != nil || !ok || f.Code != messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE {
			t.Errorf("no handler: %v, %v", reply, err)
		}
	}, handlers)
}

func TestNodeAskAllIsPartialWhenANodeIsSilent(t *testing.T) {
	handlers := func(n *cluster.Node) {
		n.Handle("hereis.Ping", func(ctx context.Context, _, _ string, _ proto.Message) (proto.Message, error) {
			if n.Name() == "n2" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &messages.Pong{}, nil
		})
	}
	bubble(t, 3, func(ctx context.Context, nodes []*cluster.Node) {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		answers := 0
		for _, r := range nodes[0].AskAll(short, &messages.Ping{}, nil) {
			if _, ok := r.Reply.(*messages.Pong); ok {
				answers++
			} else if r.Node != "n2" {
				t.Errorf("%s: %v, %v", r.Node, r.Reply, r.Err)
			}
		}
		if answers != 2 {
			t.Errorf("got %d answers, want 2", answers)
		}
	}, handlers)
}

func TestNodeStopAnswersWhatIsOpen(t *testing.T) {
	bubble(t, 2, func(ctx context.Context, nodes []*cluster.Node) {
		n := nodes[0]
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if err := n.Run(stopped); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Ask(ctx, "sip:x@example.com", &messages.Locate{Aor: "sip:x@example.com"}); err != cluster.ErrStopped {
			t.Errorf("got %v, want ErrStopped", err)
		}
	})
}
