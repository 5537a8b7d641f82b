package cluster

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echo is a grain that answers with its node and identity.
type echo struct{ node, identity string }

func (e *echo) Receive(ac actor.Context) {
	switch m := ac.Message().(type) {
	case *pcluster.ClusterInit:
		e.identity = m.Identity.Identity
	case *wrapperspb.StringValue:
		ac.Respond(wrapperspb.String(e.node + " " + e.identity + " " + m.Value))
	}
}

// placement is an Owner over names, by a hash.
type placement struct {
	mu    sync.Mutex
	names []string
}

func (p *placement) set(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = names
}

func (p *placement) owner(identity string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.names) == 0 {
		return ""
	}
	h := fnv.New32a()
	h.Write([]byte(identity))
	return p.names[int(h.Sum32()>>8)%len(p.names)]
}

type actorNode struct {
	*Actors
	member Member
	stop   func()
}

func startActors(t *testing.T, name string, incarnation uint64, p *placement, keys *Keys) *actorNode {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	self := Member{Name: name, Incarnation: incarnation, Remote: addr}
	a, err := NewActors(ActorConfig{
		Self: self, Listen: addr, Keys: keys, Owner: p.owner,
		Kinds: []*pcluster.Kind{pcluster.NewKind("echo", actor.PropsFromProducer(func() actor.Actor { return &echo{node: name} }))},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		start := time.Now()
		if err := <-ended; err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
		if took := time.Since(start); took > 20*time.Second { // a hang, not a slow machine
			t.Errorf("%s: took %v to stop", name, took)
		}
	})
	t.Cleanup(func() {
		a.settleRequests(t)
		stop()
	})
	return &actorNode{a, self, stop}
}

func (a *actorNode) ask(t *testing.T, identity, text string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := a.Request(ctx, "echo", identity, wrapperspb.String(text))
	if err != nil {
		return "", err
	}
	return r.(*wrapperspb.StringValue).Value, nil
}

// proto.actor's own StartMember takes a second more, every time: of twenty
// starts, one that took less shows that ours does without, however slow the machine is.
func TestActorsAreReadyWithoutThePauseOfStartMember(t *testing.T) {
	p := &placement{}
	p.set("a")
	var fastest time.Duration
	for range 20 {
		start := time.Now()
		a := startActors(t, "a", 1, p, nil)
		if got, err := a.ask(t, "x", "hi"); err != nil || got != "a x hi" {
			t.Fatalf("got %q, %v", got, err)
		}
		took := time.Since(start)
		if took < 900*time.Millisecond {
			return
		}
		if fastest == 0 || took < fastest {
			fastest = took
		}
		a.stop()
	}
	t.Errorf("the fastest of twenty starts took %v", fastest)
}

func TestUnknownKindAndStoppedSystem(t *testing.T) {
	p := &placement{}
	p.set("a")
	a := startActors(t, "a", 1, p, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := a.Request(ctx, "nothing", "x", wrapperspb.String("")); err == nil {
		t.Error("an unknown kind answered")
	}
	if took := time.Since(start); took > 10*time.Second { // a hang, not a slow machine
		t.Errorf("took %v", took)
	}
	a.stop()
	if _, err := a.Request(t.Context(), "echo", "x", wrapperspb.String("")); !errors.Is(err, ErrNotStarted) {
		t.Errorf("got %v, want ErrNotStarted", err)
	}
	// What counts proto.actor's log lines of a failed request outlives its actor
	// system by up to a second.
	eventually(t, "nothing of the system is left", func() bool {
		buf := make([]byte, 1<<20)
		return !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("NewThrottleWithLogger"))
	})
}

func TestTakenPortIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := NewActors(ActorConfig{Self: Member{Name: "a", Incarnation: 1}, Listen: ln.Addr().String(), Owner: (&placement{}).owner}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestActorsWithoutASecretOnLoopbackOnly(t *testing.T) {
	_, err := NewActors(ActorConfig{Self: Member{Name: "a", Incarnation: 1}, Listen: "0.0.0.0:7062", Owner: (&placement{}).owner}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrInsecure) {
		t.Errorf("got %v, want ErrInsecure", err)
	}
}

// Rule 20: what a peer sends to proto.actor's remote ends no process. Each of
// these batches panics in an unguarded one.
func TestRule20_RemoteSurvivesWhatAPeerSends(t *testing.T) {
	p := &placement{}
	p.set("a")
	a := startActors(t, "a", 1, p, nil)
	if _, err := a.ask(t, "x", "hi"); err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient(a.member.Remote, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := remote.NewRemotingClient(cc)
	target := actor.NewPID(a.member.Remote, activatorName)
	good := &remote.MessageEnvelope{}
	batch := func(types []string, envs ...*remote.MessageEnvelope) *remote.RemoteMessage {
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: &remote.MessageBatch{
			TypeNames: types, Targets: []*actor.PID{target}, Envelopes: envs,
		}}}
	}
	for name, msg := range map[string]*remote.RemoteMessage{
		"unknown type":       batch([]string{"hereis.FromTheFuture"}, good),
		"type out of range":  batch(nil, good),
		"target":             batch([]string{"hereis.Locate"}, &remote.MessageEnvelope{Target: 7}),
		"target below":       batch([]string{"hereis.Locate"}, &remote.MessageEnvelope{Target: -1}),
		"sender":             batch([]string{"hereis.Locate"}, &remote.MessageEnvelope{Sender: 9}),
		"serializer":         batch([]string{"hereis.Locate"}, &remote.MessageEnvelope{SerializerId: 99}),
		"terminated, no who": batch([]string{"actor.Terminated"}, good),
		"bytes":              batch([]string{"hereis.Locate"}, &remote.MessageEnvelope{MessageData: []byte{0xff}}),
		"empty":              {},
		"connect":            {MessageType: &remote.RemoteMessage_ConnectRequest{}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			st, err := client.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Send(msg); err != nil {
				t.Fatal(err)
			}
			if err := st.CloseSend(); err != nil {
				t.Fatal(err)
			}
			for err == nil { // until the server is done with it
				_, err = st.Recv()
			}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Fatal("the stream was not ended")
			}
		})
	}
	if _, err := client.ListProcesses(t.Context(), &remote.ListProcessesRequest{}); err == nil {
		t.Error("a call that is not implemented answered")
	}
	if got, err := a.ask(t, "x", "still"); err != nil || got != "a x still" {
		t.Fatalf("got %q, %v", got, err)
	}
	if dropped, _ := a.Dropped(); dropped < 6 {
		t.Errorf("got %d dropped, want 6 at least", dropped)
	}
}

// proto.actor reads its list of blocked members, for each peer that connects,
// without the lock under which it is written when a member goes.
func TestWhoConnectsIsAnsweredWhileMembersGo(t *testing.T) {
	p := &placement{}
	p.set("a")
	a := startActors(t, "a", 1, p, nil)
	if _, err := a.ask(t, "x", "hi"); err != nil { // it runs
		t.Fatal(err)
	}
	cc, err := grpc.NewClient(a.member.Remote, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	st, err := remote.NewRemotingClient(cc).Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for i := range 50 {
			a.SetMembers([]Member{a.member, {Name: "b", Incarnation: uint64(i + 1), Remote: "127.0.0.1:1"}})
			a.SetMembers([]Member{a.member})
		}
	}()
	connect := &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{ServerConnection: &remote.ServerConnection{SystemId: "b~1~1"}},
	}}}
	for range 50 {
		if err := st.Send(connect); err != nil {
			t.Fatal(err)
		}
		answer, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r := answer.GetConnectResponse(); r == nil || r.Blocked || r.MemberId == "" {
			t.Fatalf("got %v", answer)
		}
	}
	<-gone
}

func TestRemoteRefusesForeignCertificates(t *testing.T) {
	p := &placement{}
	p.set("a")
	a := startActors(t, "a", 1, p, testKeys(t))
	if _, err := a.ask(t, "x", "hi"); err != nil {
		t.Fatal(err)
	}
	other, err := DeriveKeys([]byte("another secret altogether"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := other.NodeTLS("b", "h2")
	if err != nil {
		t.Fatal(err)
	}
	for _, creds := range []credentials.TransportCredentials{insecure.NewCredentials(), credentials.NewTLS(conf)} {
		cc, err := grpc.NewClient(a.member.Remote, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		st, err := remote.NewRemotingClient(cc).Receive(ctx)
		if err == nil {
			_, err = st.Recv()
		}
		cancel()
		cc.Close()
		if err == nil {
			t.Error("let in")
		}
	}
}
