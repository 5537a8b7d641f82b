package hereis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"hereis"
	"hereis/actors"
)

// watching reads what a watcher is told, and keeps who is online by it.
type watching struct {
	t      *testing.T
	w      *hereis.Watcher
	online map[string]bool
	last   string
	seen   []string
}

func watch(t *testing.T, n *member, o hereis.WatchOptions) *watching {
	t.Helper()
	w, err := n.Watch(t.Context(), "@example.com", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &watching{t: t, w: w, online: map[string]bool{}}
}

// next reads one event, as text.
func (w *watching) next(wait time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), wait)
	defer cancel()
	e, err := w.w.Next(ctx)
	if err != nil {
		return "", err
	}
	w.last = e.ID
	if e.AoR != "" {
		w.online[string(e.AoR)] = e.Online
	}
	text := string(e.Kind)
	if e.AoR != "" {
		text += " " + e.AoR
	}
	if e.Reason != "" {
		text += " " + string(e.Reason)
	}
	w.seen = append(w.seen, text)
	return text, nil
}

func (w *watching) expect(want ...string) {
	w.t.Helper()
	for _, text := range want {
		got, err := w.next(15 * time.Second)
		if err != nil || got != text {
			w.t.Fatalf("got %q, %v, want %q; seen %q", got, err, text, w.seen)
		}
	}
}

func (w *watching) silent(wait time.Duration) {
	w.t.Helper()
	if got, err := w.next(wait); !errors.Is(err, context.DeadlineExceeded) {
		w.t.Errorf("got %q, %v, want nothing", got, err)
	}
}

// bound registers a device that only its flow reaches (RFC 5626).
func (p *phone) bound(n *member, user string, expires int) {
	p.t.Helper()
	got := p.send(n, "REGISTER", "sip:example.com", user, "Supported: path, outbound",
		fmt.Sprintf(`Contact: <sip:%s@%s;ob>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-%012d>";reg-id=1`, user, p.addr(), 1),
		fmt.Sprintf("Expires: %d", expires))
	if got[:11] != "SIP/2.0 200" {
		p.t.Fatal(got)
	}
}

func TestWatch_SnapshotThenChangesWithoutGap(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	p := newPhone(t)
	p.register(nodes[0], "alice", 600)
	p.register(nodes[1], "bob", 600)
	w := watch(t, nodes[2], hereis.WatchOptions{Snapshot: true})
	w.expect("sync-begin")
	got := []string{}
	for range 2 {
		text, err := w.next(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if want := []string{"state sip:alice@example.com", "state sip:bob@example.com"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.expect("sync-end")
	p.register(nodes[2], "carol", 600)
	w.expect("online sip:carol@example.com registered")
	p.register(nodes[0], "bob", 0)
	w.expect("offline sip:bob@example.com unregistered")
}

// Who watched at a node that stops goes on at another, and misses nothing.
func TestWatch_GoesOnAtAnotherNode(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	p := newPhone(t)
	w := watch(t, nodes[0], hereis.WatchOptions{})
	p.register(nodes[1], "alice", 600)
	p.register(nodes[1], "bob", 600)
	w.expect("online sip:alice@example.com registered", "online sip:bob@example.com registered")
	w.w.Close()
	// At the same node: exactly what came since.
	p.register(nodes[2], "carol", 600)
	w2 := watch(t, nodes[0], hereis.WatchOptions{From: w.last})
	w2.expect("online sip:carol@example.com registered")
	w2.silent(300 * time.Millisecond)
	w2.w.Close()
	// At another: how those are now who may have changed.
	p.register(nodes[1], "alice", 0)
	w3 := watch(t, nodes[1], hereis.WatchOptions{From: w2.last})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := w3.next(time.Second); err != nil {
			break
		}
	}
	if got, told := w3.online["sip:alice@example.com"]; got || !told || slices.Contains(w3.seen, "sync-begin") {
		t.Errorf("alice online %v, told %v: %q", got, told, w3.seen)
	}
	if w3.last = w3.w.Position(); w3.last == "" {
		t.Error("no position, though everything was told")
	}
	// What is no position of ours, or of another pattern, begins anew.
	w4 := watch(t, nodes[2], hereis.WatchOptions{From: "bogus"})
	w4.expect("sync-begin")
}

// Users whose devices are all at a node that goes are offline, and online again
// when it returns; those whom anybody can call stay.
func TestWatch_EdgeLost(t *testing.T) {
	cfgs := configs(t, 3)
	for i := range cfgs {
		cfgs[i].Durability = "sync"
	}
	nodes := startAll(t, cfgs, nil)
	w := watch(t, nodes[0], hereis.WatchOptions{})
	bound, free := newPhone(t), newPhone(t)
	bound.bound(nodes[2], "alice", 600)
	w.expect("online sip:alice@example.com registered")
	free.register(nodes[2], "bob", 600)
	w.expect("online sip:bob@example.com registered")
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	w.expect("offline sip:alice@example.com edge-lost")
	nodes[2] = start(t, cfgs[2], nil)
	w.expect("online sip:alice@example.com edge-back")
	bound.bound(nodes[2], "alice", 0)
	w.expect("offline sip:alice@example.com unregistered")
	if !w.online["sip:bob@example.com"] {
		t.Error("bob, whom anybody can call, is offline")
	}
}

// A user who is back before the damping is over has not been away: of three
// changes that follow each other at once, the last is told.
func TestWatch_Damp(t *testing.T) {
	nodes := startAll(t, configs(t, 2), nil)
	p := newPhone(t)
	w := watch(t, nodes[0], hereis.WatchOptions{Damp: 4 * time.Second})
	p.register(nodes[1], "alice", 600)
	w.expect("online sip:alice@example.com registered")
	p.register(nodes[1], "alice", 0)
	p.register(nodes[1], "alice", 600)
	p.register(nodes[1], "alice", 0)
	w.expect("offline sip:alice@example.com unregistered")
	p.register(nodes[1], "alice", 600)
	w.expect("online sip:alice@example.com registered")
	// Without damping, another pair would be in the queue by now.
	w.silent(300 * time.Millisecond)
}

func TestWatch_Iterator(t *testing.T) {
	nodes := startAll(t, configs(t, 1), nil)
	p := newPhone(t)
	p.register(nodes[0], "alice", 600)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var kinds []actors.EventKind
	for e, err := range hereis.Watch(ctx, nodes[0].Node, "sip:alice@example.com", hereis.WatchOptions{Snapshot: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if kinds = append(kinds, e.Kind); e.Kind == actors.SyncEnds {
			cancel()
		}
	}
	if want := []actors.EventKind{actors.SyncBegins, actors.IsState, actors.SyncEnds}; !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
	// A node that stops ends its watchers.
	w := watch(t, nodes[0], hereis.WatchOptions{})
	if err := nodes[0].stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.next(20 * time.Second); !errors.Is(err, hereis.ErrWatchEnded) {
		t.Errorf("got %v, want %v", err, hereis.ErrWatchEnded)
	}
	for _, err := range hereis.Watch(t.Context(), nodes[0].Node, "*", hereis.WatchOptions{}) {
		if err == nil {
			t.Error("an event of a node that has stopped")
		}
	}
}

// What a user publishes is told, whichever nodes they, the owner and the watcher
// are at; a refresh is not.
func TestWatch_Presence(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	a := newAgent(t)
	w := watch(t, nodes[2], hereis.WatchOptions{})
	presence := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		e, err := w.w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		basic, notes := hereis.PresenceOf(e)
		if got := fmt.Sprint(e.Kind, " ", e.AoR, " ", e.Online, " ", basic, " ", notes, " ", len(e.Published)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		w.last = e.ID
	}
	tag := a.publish(nodes[0], "at lunch", "")
	presence("presence sip:alice@example.com false open [at lunch] 1")
	newPhone(t).register(nodes[1], "alice", 600)
	presence("online sip:alice@example.com true open [at lunch] 1")
	tag = a.publish(nodes[1], "at lunch", tag)
	a.publish(nodes[0], "back", tag)
	presence("presence sip:alice@example.com true open [back] 1")
	w.silent(200 * time.Millisecond)

	snap := watch(t, nodes[1], hereis.WatchOptions{Snapshot: true})
	snap.expect("sync-begin", "state sip:alice@example.com", "sync-end")
}
