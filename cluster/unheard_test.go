package cluster_test

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// A node that joins is asked before it has heard of the others: it is not alone,
// and so it does not say that a user is unknown, until its membership has spoken.
func TestRule14_NobodyIsUnknownBeforeTheMembershipHasSpoken(t *testing.T) {
	cfg := cluster.DefaultConfig()
	cfg.Name, cfg.Incarnation = "n1", 7
	core, err := cluster.NewCore(cfg, cluster.Parts{
		Network: nowhere{}, Store: &disk{recs: map[string]*messages.Record{}}, Grains: grains{actors.New(actors.DefaultLimits())},
		Flows: &openFlows{open: map[uint64]bool{}}, Log: slog.New(slog.DiscardHandler), Rand: rand.Uint64,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer core.Stop()
	now := int64(1_900_000_000_000)
	if err := core.Load(now); err != nil {
		t.Fatal(err)
	}
	locate := func() (code messages.FailureCode) {
		answered := false
		core.Ask(now, "sip:alice@example.com", &messages.Locate{Aor: "sip:alice@example.com"}, 0, func(reply proto.Message, err error) {
			f, ok := reply.(*messages.Failure)
			if answered = true; !ok {
				t.Fatalf("got %v, %v", reply, err)
			}
			code = f.Code
		})
		for range 1000 {
			if answered {
				return code
			}
			now += 10
			core.Tick(now)
		}
		t.Fatal("no answer")
		return 0
	}
	if code := locate(); code != messages.FailureCode_FAILURE_CODE_RETRY {
		t.Errorf("before: %v", code)
	}
	core.Members(now, []cluster.Member{{Name: "n1", Incarnation: 7}})
	if code := locate(); code != messages.FailureCode_FAILURE_CODE_NOT_FOUND {
		t.Errorf("a node that is alone: %v", code)
	}
}
