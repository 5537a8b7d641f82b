package hereis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/actors"
	"hereis/cluster/store"
	"hereis/messages"
	"hereis/messages/messagestest"
)

func TestHandleAndAsk_TypeOfAUser(t *testing.T) {
	nodes := startAll(t, configs(t, 3), func(n *hereis.Node) {
		hereis.Handle(n, func(ctx context.Context, q *messagestest.Greet) (*messagestest.Greeting, error) {
			if q.Name == "panic" {
				panic("as asked")
			}
			asked := hereis.AskedFrom(ctx)
			return &messagestest.Greeting{Text: "hello " + q.Name + " " + string(asked.AoR) + " from " + asked.From, Node: n.Name()}, nil
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for _, to := range nodes {
		got, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode(to.Name()), &messagestest.Greet{Name: "x"})
		if err != nil || got.Node != to.Name() {
			t.Errorf("ask %s: got %v, %v", to.Name(), got, err)
		}
	}
	owners := map[string]bool{}
	for i := range 30 {
		aor := actors.AoR(fmt.Sprintf("sip:u%d@example.com", i))
		var first string
		for _, n := range nodes {
			got, err := hereis.Ask[*messagestest.Greeting](ctx, n.Node, hereis.ToUser(aor), &messagestest.Greet{Name: "x"})
			if err != nil {
				t.Fatalf("ask %s: %v", aor, err)
			}
			if want := "hello x " + string(aor) + " from " + n.Name(); got.Text != want {
				t.Errorf("got %q, want %q", got.Text, want)
			}
			if first == "" {
				first = got.Node
			}
			if got.Node != first {
				t.Errorf("%s is answered by %s and by %s", aor, first, got.Node)
			}
		}
		owners[first] = true
	}
	if len(owners) != 3 {
		t.Errorf("30 users live at %d nodes, want 3", len(owners))
	}
	count := func(to hereis.To) (names []string) {
		for _, r := range hereis.AskAll[*messagestest.Greeting](ctx, nodes[1].Node, to, &messagestest.Greet{Name: "all"}) {
			if r.Err != nil || r.Answer.Node != r.Node {
				t.Errorf("%s: got %v, %v", r.Node, r.Answer, r.Err)
			}
			names = append(names, r.Node)
		}
		slices.Sort(names)
		return names
	}
	if got, want := count(hereis.Everybody()), []string{"n1", "n2", "n3"}; !slices.Equal(got, want) {
		t.Errorf("everybody: got %v, want %v", got, want)
	}
	if got, want := count(hereis.ToRegion("east")), []string{"n1", "n3"}; !slices.Equal(got, want) {
		t.Errorf("region east: got %v, want %v", got, want)
	}

	// A panic and a type without a handler are answers, and nobody is harmed.
	for _, q := range []proto.Message{&messagestest.Greet{Name: "panic"}, &messagestest.Unheard{Text: "?"}} {
		if _, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode("n2"), q); err == nil {
			t.Errorf("%T: no error", q)
		}
	}
	_, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode("n2"), &messagestest.Unheard{})
	if got, want := hereis.Code(err), messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE; got != want {
		t.Errorf("unknown type: got %v (%v), want %v", got, err, want)
	}
	if _, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.Everybody(), &messagestest.Greet{}); !errors.Is(err, hereis.ErrManyReplies) {
		t.Errorf("one answer of everybody: got %v, want %v", err, hereis.ErrManyReplies)
	}

	// A node that is gone is one reply with an error among the others.
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[:2])
	if got := len(hereis.AskAll[*messagestest.Greeting](ctx, nodes[0].Node, hereis.Everybody(), &messagestest.Greet{})); got != 2 {
		t.Errorf("after a node left: %d replies, want 2", got)
	}
}

func TestRegisterMoveAndRestart(t *testing.T) {
	cfgs := configs(t, 3)
	for i := range cfgs {
		cfgs[i].Durability = "sync"
	}
	nodes := startAll(t, cfgs, nil)
	w, err := nodes[1].Watch(t.Context(), "*", hereis.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := newPhone(t)
	if got := p.register(nodes[0], "alice", 600); !strings.HasPrefix(got, "SIP/2.0 200 ") || !strings.Contains(got, p.addr()) {
		t.Fatalf("REGISTER: got %s", got)
	}
	expect := func(online bool, edge string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for {
			e, err := w.Next(ctx)
			if err != nil {
				t.Fatalf("no event: online %v at %s: %v", online, edge, err)
			}
			if e.AoR == "sip:alice@example.com" && e.Online == online && (edge == "" || e.Device.GetEdge() == edge) {
				return
			}
		}
	}
	expect(true, "n1")
	edges := func(n *member) (out []string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		got, err := n.Locate(ctx, "sip:alice@example.com")
		if err != nil {
			return []string{err.Error()}
		}
		for _, target := range got.Targets {
			out = append(out, target.Edge)
		}
		return out
	}
	at := func(edge string, from ...*member) {
		t.Helper()
		eventually(t, "alice is found at "+edge, func() error {
			for _, n := range from {
				if got := edges(n); !slices.Equal(got, []string{edge}) {
					return fmt.Errorf("%s says %v", n.Name(), got)
				}
			}
			return nil
		})
	}
	at("n1", nodes...)
	// The same device, the same contact, at another node: it has moved.
	p.register(nodes[2], "alice", 600)
	at("n3", nodes...)

	// The node of the device goes and comes back with what it had.
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[:2])
	nodes[2] = start(t, cfgs[2], nil)
	settled(t, nodes)
	at("n3", nodes...)

	p.register(nodes[0], "alice", 0)
	expect(false, "")
	eventually(t, "alice is gone everywhere", func() error {
		for _, n := range nodes {
			if got := edges(n); len(got) != 1 || !strings.Contains(got[0], "user") {
				return fmt.Errorf("%s says %v", n.Name(), got)
			}
		}
		return nil
	})
}

// TestPeers1_6_3_UnknownUserIsSaidAtOnce: the experiment waits 5 s for silence.
func TestPeers1_6_3_UnknownUserIsSaidAtOnce(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	p := newPhone(t)
	for _, n := range nodes {
		began := time.Now()
		got := p.send(n, "INVITE", "sip:nobody@example.com", "nobody", "Contact: <sip:c@"+p.addr()+">")
		if !strings.HasPrefix(got, "SIP/2.0 404 ") {
			t.Errorf("%s: got %.40s, want 404", n.Name(), got)
		}
		// What the experiment waits: only a hang crosses it, on a slow machine too.
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", n.Name(), took)
		}
	}
}

func TestNew_TakenPortsAreClearErrors(t *testing.T) {
	cfg := configs(t, 1)[0]
	start(t, cfg, nil)
	for _, field := range []string{"sip", "cluster", "cluster-stream"} {
		other := configs(t, 1)[0]
		taken := cfg.Cluster
		switch field {
		case "sip":
			other.SIP, taken = cfg.SIP, cfg.SIP[0]
		case "cluster":
			other.Cluster = cfg.Cluster
		case "cluster-stream":
			other.ClusterStream, taken = cfg.ClusterStream, cfg.ClusterStream
		}
		n, err := hereis.New(other, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = n.Close()
			t.Errorf("%s: no error for a taken port", field)
			continue
		}
		if _, port, _ := strings.Cut(strings.TrimPrefix(taken, "udp:"), ":"); !strings.Contains(err.Error(), port) {
			t.Errorf("%s: the error does not name the port: %v", field, err)
		}
	}
}

func TestNew_SameDataFolderTwice(t *testing.T) {
	cfg := configs(t, 1)[0]
	start(t, cfg, nil)
	other := configs(t, 1)[0]
	other.Data = cfg.Data
	if n, err := hereis.New(other, slog.New(slog.DiscardHandler)); err == nil {
		_ = n.Close()
		t.Error("no error for a data folder in use")
	}
}

// A node whose disk was lost and whose clock is behind finds that its peers
// know a later incarnation of its name: it ends, and starts above it.
func TestRun_AnIncarnationBelowWhatPeersRememberIsRaisedForTheNextStart(t *testing.T) {
	cfgs := configs(t, 2)
	nodes := startAll(t, cfgs, nil)
	var known uint64
	for _, m := range nodes[0].Members() {
		if m.Name == nodes[1].Name() {
			known = m.Incarnation
		}
	}
	if err := nodes[1].stop(); err != nil {
		t.Fatal(err)
	}
	// A start in a time to come, so that any other is behind it.
	late := cfgs[1]
	late.Data = t.TempDir()
	st, err := store.Open(store.Config{Dir: late.Data, Name: late.Name}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Start(0, known+1<<40); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	n := start(t, late, nil)
	eventually(t, "the node is known with its high incarnation", func() error {
		for _, m := range nodes[0].Members() {
			if m.Name == n.Name() && m.Incarnation == n.Incarnation() && m.FailedMS == 0 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	high := n.Incarnation()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	lost := cfgs[1]
	lost.Data = t.TempDir()
	again, err := hereis.New(lost, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if again.Incarnation() >= high {
		t.Fatalf("the start is at %d, not below %d", again.Incarnation(), high)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := again.Run(ctx); !errors.Is(err, hereis.ErrStartAgain) {
		t.Fatalf("got %v, want ErrStartAgain", err)
	}
	second := start(t, lost, nil)
	if second.Incarnation() <= high {
		t.Errorf("the second start is at %d, not above %d", second.Incarnation(), high)
	}
	settled(t, []*member{nodes[0], second})
}
