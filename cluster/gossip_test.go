package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/messages"
)

// memberMemory is a MemberStore in memory.
type memberMemory struct {
	mu sync.Mutex
	m  map[string]*messages.RememberedMember
}

func (s *memberMemory) LoadMembers() (list []*messages.RememberedMember, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.m {
		list = append(list, m)
	}
	return list, nil
}

func (s *memberMemory) SaveMember(m *messages.RememberedMember) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[m.Name] = m
	return nil
}

func (s *memberMemory) DropMember(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, name)
	return nil
}

func (s *memberMemory) get(name string) *messages.RememberedMember {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[name]
}

// gossipNode is a Gossip that runs, and what it said last.
type gossipNode struct {
	*Gossip
	memory *memberMemory
	ended  chan error // Run's result
	stop   func()     // without leaving

	mu   sync.Mutex
	list []Member
	// first is the first list that was reported.
	first []Member
}

func startGossip(t *testing.T, name string, incarnation uint64, change func(*GossipConfig)) *gossipNode {
	t.Helper()
	n := &gossipNode{memory: &memberMemory{m: map[string]*messages.RememberedMember{}}, ended: make(chan error, 1)}
	cfg := GossipConfig{
		Self: Member{Name: name, Incarnation: incarnation, Stream: "127.0.0.1:1", Remote: "127.0.0.1:2", Region: "r", Zone: "z", Version: "v"},
		Bind: "127.0.0.1:0", Store: n.memory,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	n.Gossip, err = NewGossip(cfg, n.changed, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.ended <- n.Run(ctx)
	}()
	n.stop = func() { cancel(); <-done }
	t.Cleanup(n.stop)
	return n
}

func (n *gossipNode) changed(list []Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = list
	if n.first == nil {
		n.first = list
	}
}

// firstView is view of the first report.
func (n *gossipNode) firstView() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return listed(n.first)
}

func (n *gossipNode) member(name string) Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.list {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// view is the live members, then "!" and the failed ones.
func (n *gossipNode) view() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return listed(n.list)
}

func listed(list []Member) string {
	var live, failed []string
	for _, m := range list {
		if m.FailedMS == 0 {
			live = append(live, m.Name)
		} else {
			failed = append(failed, "!"+m.Name)
		}
	}
	slices.Sort(live)
	slices.Sort(failed)
	return strings.Join(append(live, failed...), " ")
}

func joining(addrs ...string) func(*GossipConfig) {
	return func(c *GossipConfig) { c.Join = addrs }
}

func wantViews(t *testing.T, want string, nodes ...*gossipNode) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, n.cfg.Self.Name+" sees "+want, func() bool { return n.view() == want })
	}
}

func TestGossipJoinDrainLeave(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	b := startGossip(t, "b", 2, joining(a.Addr()))
	c := startGossip(t, "c", 3, joining(a.Addr()))
	wantViews(t, "a b c", a, b, c)
	want := Member{Name: "c", Incarnation: 3, Stream: "127.0.0.1:1", Remote: "127.0.0.1:2", Gossip: c.Addr(), Region: "r", Zone: "z", Version: "v"}
	if got := b.member("c"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := c.SetDraining(true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all see c draining", func() bool {
		return a.member("c").Draining && b.member("c").Draining && c.member("c").Draining
	})
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.stop()
	wantViews(t, "a b", a, b)
	eventually(t, "c is not remembered", func() bool { return a.memory.get("c").GetLeftMs() != 0 && b.memory.get("c").GetLeftMs() != 0 })
	if len(a.Remembered()) != 0 {
		t.Errorf("got %v", a.Remembered())
	}
}

func TestKilledMemberIsFoundFailedAndComesBack(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	b := startGossip(t, "b", 1, joining(a.Addr()))
	c := startGossip(t, "c", 1, joining(a.Addr()))
	wantViews(t, "a b c", a, b, c)
	killed := time.Now()
	c.stop()
	wantViews(t, "a b !c", a, b)
	t.Logf("found after %v", time.Since(killed))
	eventually(t, "c is remembered as failed", func() bool {
		m := a.memory.get("c")
		return m != nil && m.FailedMs != 0 && m.Gossip == c.Addr()
	})
	// Nothing tells the new c where the others are: they dial it (rule 19).
	c2 := startGossip(t, "c", 2, func(cfg *GossipConfig) { cfg.Bind = c.Addr() })
	wantViews(t, "a b c", a, b, c2)
	eventually(t, "with its new incarnation", func() bool {
		return a.member("c").Incarnation == 2 && b.member("c").Incarnation == 2 && a.memory.get("c").FailedMs == 0
	})
}

func TestRule18_RestartReplacesTheOldAtOnce(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		a := startGossip(t, "a", 1, nil)
		b := startGossip(t, "b", 1, joining(a.Addr()))
		c := startGossip(t, "c", 1, joining(a.Addr()))
		wantViews(t, "a b c", a, b, c)
		c.stop()
		start := time.Now()
		c2 := startGossip(t, "c", 2, func(cfg *GossipConfig) {
			cfg.Join = []string{a.Addr()}
			if same {
				cfg.Bind = c.Addr()
			}
		})
		eventually(t, "both see the new incarnation", func() bool {
			return a.member("c").Incarnation == 2 && b.member("c").Incarnation == 2 && a.member("c").Gossip == c2.Addr()
		})
		t.Logf("same address %v: replaced after %v", same, time.Since(start))
		wantViews(t, "a b c", a, b, c2)
	}
}

func TestRule18_SecondLiveNodeOfANameIsRefused(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	b := startGossip(t, "b", 1, joining(a.Addr()))
	wantViews(t, "a b", a, b)
	twin := startGossip(t, "b", 2, joining(a.Addr()))
	select {
	case err := <-twin.ended:
		if !errors.Is(err, ErrNameTaken) {
			t.Fatalf("got %v, want ErrNameTaken", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the twin was let in")
	}
	if got := a.member("b").Incarnation; got != 1 {
		t.Errorf("a follows the twin: incarnation %d", got)
	}
	select {
	case err := <-b.ended:
		t.Fatalf("the first b ended: %v", err)
	default:
	}
}

func TestRule19_RememberedMembersAreDialledForEver(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	// b knows a from its disk alone.
	b := startGossip(t, "b", 1, func(c *GossipConfig) {
		c.Store = &memberMemory{m: map[string]*messages.RememberedMember{"a": {Name: "a", Incarnation: 1, Gossip: a.Addr()}}}
	})
	wantViews(t, "a b", a, b)
	// Both forget nothing while apart, and a third finds them by either.
	c := startGossip(t, "c", 1, func(c *GossipConfig) {
		c.Store = &memberMemory{m: map[string]*messages.RememberedMember{"gone": {Name: "gone", Incarnation: 9, Gossip: "127.0.0.1:1", FailedMs: 77}}}
		c.Join = []string{"localhost:" + b.Addr()[len("127.0.0.1:"):]}
	})
	wantViews(t, "a b c", a, b)
	wantViews(t, "a b c !gone", c)
	if m := c.member("gone"); m.FailedMS != 77 {
		t.Errorf("got %+v", m)
	}
	if c.Forget("a") || !c.Forget("gone") {
		t.Error("Forget takes failed members, and them alone")
	}
	wantViews(t, "a b c", c)
}

func TestForgetReachesEveryNode(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	b := startGossip(t, "b", 1, joining(a.Addr()))
	c := startGossip(t, "c", 1, joining(a.Addr()))
	wantViews(t, "a b c", a, b, c)
	c.stop()
	wantViews(t, "a b !c", a, b)
	if !a.Forget("c") {
		t.Fatal("not forgotten")
	}
	wantViews(t, "a b", a, b)
	eventually(t, "also on disk", func() bool { return a.memory.get("c").GetLeftMs() != 0 && b.memory.get("c").GetLeftMs() != 0 })
	// Forgotten is not banned.
	c2 := startGossip(t, "c", 2, joining(b.Addr()))
	wantViews(t, "a b c", a, b, c2)
}

func TestGossipIsEncrypted(t *testing.T) {
	t.Parallel()
	other, err := DeriveKeys([]byte("another secret altogether"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(k *Keys, join ...string) func(*GossipConfig) {
		return func(c *GossipConfig) { c.Keys, c.Join = k, join }
	}
	a := startGossip(t, "a", 1, with(testKeys(t)))
	b := startGossip(t, "b", 1, with(testKeys(t), a.Addr()))
	stranger := startGossip(t, "s", 1, with(other, a.Addr()))
	plain := startGossip(t, "p", 1, with(nil, a.Addr()))
	wantViews(t, "a b", a, b)
	wantViews(t, "s", stranger)
	wantViews(t, "p", plain)
}

func TestIncarnationBelowWhatPeersRemember(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	b := startGossip(t, "b", 50, joining(a.Addr()))
	wantViews(t, "a b", a, b)
	b.stop()
	wantViews(t, "a !b", a)
	again := startGossip(t, "b", 7, joining(a.Addr())) // its disk is new, its clock behind
	var ie IncarnationError
	if err := <-again.ended; !errors.As(err, &ie) || ie.Known != 50 {
		t.Fatalf("got %v, want IncarnationError of 50", err)
	}
}

func TestGossipRefusals(t *testing.T) {
	ok := GossipConfig{Self: Member{Name: "a", Incarnation: 1}, Bind: "127.0.0.1:0"}
	for name, c := range map[string]struct {
		change func(*GossipConfig)
		want   error
	}{
		"off loopback": {func(c *GossipConfig) { c.Bind = "0.0.0.0:0" }, ErrInsecure},
		"metadata":     {func(c *GossipConfig) { c.Self.Region = strings.Repeat("r", 512) }, ErrMeta},
		"name":         {func(c *GossipConfig) { c.Self.Name = "a b" }, ErrName},
	} {
		cfg := ok
		c.change(&cfg)
		if _, err := NewGossip(cfg, nil, slog.New(slog.DiscardHandler)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// A node that is to join others is not alone before it has tried.
func TestRule14_TheFirstReportWaitsForTheFirstAttemptToJoin(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	wantViews(t, "a", a)
	for i := range uint64(5) {
		b := startGossip(t, "b", 2+i, joining(a.Addr()))
		wantViews(t, "a b", b)
		if first := b.firstView(); first != "a b" {
			t.Errorf("the first report is of %q, want of both", first)
		}
		b.stop()
	}
	// Nobody there: the first report comes all the same.
	alone := startGossip(t, "c", 1, joining("127.0.0.1:1"))
	wantViews(t, "c", alone)
}

func TestLeaveAndDrainAfterRunHasEnded(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", 1, nil)
	wantViews(t, "a", a)
	a.stop()
	if err := a.SetDraining(true); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v, want ErrStopped", err)
	}
	if err := a.Leave(t.Context()); err != nil {
		t.Error(err)
	}
}
