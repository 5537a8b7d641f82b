package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/messages"
)

// inbox is a Receiver that remembers what it was told.
type inbox struct {
	mu     sync.Mutex
	events []string // "up n1 5", "down n1"
	got    []*messages.Envelope
	fail   func(env *messages.Envelope) // may panic; set by failing
}

func (b *inbox) Receive(from string, env *messages.Envelope) {
	b.mu.Lock()
	fail := b.fail
	b.mu.Unlock()
	if fail != nil {
		fail(env)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if env.From != from {
		panic("from " + env.From)
	}
	b.got = append(b.got, env)
}

// failing has f see what comes first.
func (b *inbox) failing(f func(env *messages.Envelope)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = f
}

func (b *inbox) PeerUp(h *messages.Hello) { b.event(fmt.Sprintf("up %s %d", h.Name, h.Incarnation)) }

func (b *inbox) PeerDown(name string) { b.event("down " + name) }

func (b *inbox) event(e string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *inbox) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events)
}

func (b *inbox) envelopes() []*messages.Envelope {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) up(name string) bool {
	up := false
	for _, e := range b.told() {
		if strings.HasPrefix(e, "up "+name+" ") {
			up = true
		}
		if e == "down "+name {
			up = false
		}
	}
	return up
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// streamNode is Streams that run, and their Receiver.
type streamNode struct {
	*Streams
	*inbox
	member Member
	stop   func()
}

func startStreams(t *testing.T, name string, incarnation uint64, change func(*StreamConfig)) *streamNode {
	t.Helper()
	cfg := StreamConfig{
		Self:   &messages.Hello{Name: name, Incarnation: incarnation},
		Listen: "127.0.0.1:0", Heartbeat: 50 * time.Millisecond, Timeout: 2 * time.Second, RedialMax: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	b := &inbox{}
	s, err := NewStreams(cfg, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return &streamNode{s, b, Member{Name: name, Incarnation: incarnation, Stream: s.Addr()}, stop}
}

func introduce(nodes ...*streamNode) {
	var all []Member
	for _, n := range nodes {
		all = append(all, n.member)
	}
	for _, n := range nodes {
		n.SetMembers(all)
	}
}

func note(i int) *messages.Envelope {
	return &messages.Envelope{Kind: messages.EnvelopeKind_ENVELOPE_KIND_EVENT, Type: "hereis.Locate", Id: uint64(i), Payload: []byte("x")}
}

func testKeys(t *testing.T) *Keys {
	t.Helper()
	k, err := DeriveKeys([]byte("a secret of the test's own"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
