package cluster

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// deafOnce is a grain that a connection has ended to: the first message is lost.
type deafOnce struct {
	heard *atomic.Int64
	lost  chan struct{} // closed by the grain when the first message has come
}

func (d *deafOnce) Receive(ac actor.Context) {
	if m, ok := ac.Message().(*wrapperspb.StringValue); ok {
		if d.heard.Add(1) == 1 {
			close(d.lost)
			return
		}
		ac.Respond(m)
	}
}

// A message that was under way when the connection ended is put again: at once,
// and not when all of the request's time is over.
func TestARequestLostWithItsConnectionIsPutAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	d := &deafOnce{heard: new(atomic.Int64), lost: make(chan struct{})}
	a, err := NewActors(ActorConfig{
		Self: Member{Name: "a", Incarnation: 1, Remote: addr}, Listen: addr, Owner: func(string) string { return "a" },
		Kinds: []*pcluster.Kind{pcluster.NewKind("deaf", actor.PropsFromProducer(func() actor.Actor { return d }))},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		a.settleRequests(t)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	go func() {
		<-d.lost
		a.system.EventStream.Publish(&remote.EndpointTerminatedEvent{Address: "127.0.0.1:1"})
	}()
	asking, stop := context.WithTimeout(t.Context(), requestTimeout)
	defer stop()
	if _, err := a.Request(asking, "deaf", "x", wrapperspb.String("hi")); err != nil || d.heard.Load() != 2 {
		t.Errorf("got %v, and the grain was asked %d times; want an answer to the second", err, d.heard.Load())
	}
}

// settleRequests waits for the tries that were lost: each ends with its request's time.
func (a *Actors) settleRequests(t *testing.T) {
	t.Helper()
	eventually(t, "no request waits", func() bool { return a.requests.Load() == 0 })
}
