package actors

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// fakeAsker answers from its own goroutine, as a gate may.
type fakeAsker struct{ err error }

func (f fakeAsker) AskThen(aor string, msg proto.Message, done func(proto.Message, error)) {
	go func() {
		if f.err != nil {
			done(nil, f.err)
			return
		}
		done(&messages.Whereabouts{Record: &messages.Record{Aor: aor}}, nil)
	}()
}

func ask(t *testing.T, asker Asker, msg any) any {
	t.Helper()
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	t.Cleanup(system.Shutdown)
	// The kind's own middleware needs a started cluster; the grain does not.
	pid := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return &userGrain{asker: asker} }))
	system.Root.Send(pid, &pcluster.ClusterInit{Identity: &pcluster.ClusterIdentity{Identity: testAoR, Kind: UserKind}})
	res, err := system.Root.RequestFuture(pid, msg, 5*time.Second).Result()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestUserGrain_HandsQuestionsToTheGate(t *testing.T) {
	if kind := NewUserKind(fakeAsker{}); kind.Kind != UserKind || kind.Props == nil {
		t.Errorf("kind %v", kind)
	}
	if w, ok := ask(t, fakeAsker{}, &messages.Where{Aor: testAoR}).(*messages.Whereabouts); !ok || w.Record.Aor != testAoR {
		t.Errorf("got %v", w)
	}
	f, ok := ask(t, fakeAsker{err: ErrOverloaded}, &messages.Locate{Aor: testAoR}).(*messages.Failure)
	if !ok || !errors.Is(FromFailure(f), ErrOverloaded) {
		t.Errorf("got %v", f)
	}
	f, ok = ask(t, fakeAsker{}, "text").(*messages.Failure)
	if !ok || !errors.Is(FromFailure(f), ErrUnknownType) {
		t.Errorf("got %v", f)
	}
}
