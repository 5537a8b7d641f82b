package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hereis"
	"hereis/admin"
	"hereis/bench/ports"
	"hereis/messages/messagestest"
)

// greeters runs three nodes in this process that know a message type of their
// own, and returns their admin addresses.
func greeters(t *testing.T) []string {
	t.Helper()
	var cfgs []hereis.Config
	addrs := ports.Addrs(t, 12)
	for i := range 3 {
		free := addrs[4*i:]
		cfg := hereis.DefaultConfig()
		cfg.Name, cfg.Data = fmt.Sprintf("g%d", i+1), filepath.Join(t.TempDir(), "data")
		cfg.SIP, cfg.Cluster, cfg.ClusterStream, cfg.Admin = free[:1], free[1], free[2], free[3]
		// Several nodes in one process: proto.actor's remote has globals.
		cfg.ClusterRemote, cfg.Durability, cfg.Domains = "none", "async", []string{"example.com"}
		cfgs = append(cfgs, cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(cfgs))
	var admins []string
	for _, cfg := range cfgs {
		cfg.Join = []string{cfgs[0].Cluster, cfgs[1].Cluster, cfgs[2].Cluster}
		node, err := hereis.New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		hereis.Handle(node, func(ctx context.Context, q *messagestest.Greet) (*messagestest.Greeting, error) {
			return &messagestest.Greeting{Text: "hello " + q.Name + " " + string(hereis.AskedFrom(ctx).AoR), Node: node.Name()}, nil
		})
		go func() { done <- serve(ctx, node, cfg, slog.New(slog.DiscardHandler)) }()
		admins = append(admins, cfg.Admin)
	}
	t.Cleanup(func() {
		cancel()
		for range cfgs {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return admins
}

// TestSend_TypeAddedInATest: a type that this test adds is sent from the
// command line to a node, to a user and to all, and the replies are printed.
func TestSend_TypeAddedInATest(t *testing.T) {
	admins := greeters(t)
	send := func(to, typeName, question string) (code int, replies []admin.SendReply) {
		t.Helper()
		code, out, _ := call(t, nil, "send", "--admin", admins[0], "--output", "json", "--to", to, typeName, question)
		replies = decodeReplies(t, out)
		return code, replies
	}
	becomesTrue(t, "all three nodes answer", func() bool {
		code, replies := send("all", "hereis.test.Greet", `{"name":"you"}`)
		return code == 0 && len(replies) == 3
	})
	code, replies := send("g2", "hereis.test.Greet", `{"name":"you"}`)
	if code != 0 || len(replies) != 1 || !strings.Contains(string(replies[0].Answer), `"g2"`) {
		t.Errorf("to a node: got %d, %+v", code, replies)
	}
	code, replies = send("sip:alice@example.com", "hereis.test.Greet", `{"name":"you"}`)
	if code != 0 || len(replies) != 1 || !strings.Contains(string(replies[0].Answer), "hello you sip:alice@example.com") {
		t.Errorf("to a user: got %d, %+v", code, replies)
	}
	// A type that nobody handles is an answer of each node, and no success.
	code, replies = send("all", "hereis.test.Unheard", `{}`)
	if failed := slices.ContainsFunc(replies, func(r admin.SendReply) bool { return r.Error == "" }); code == 0 || failed {
		t.Errorf("a type without a handler: got %d, %v", code, replies)
	}
}

func decodeReplies(t *testing.T, out string) []admin.SendReply {
	t.Helper()
	var got struct{ Replies []admin.SendReply }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return got.Replies
}
