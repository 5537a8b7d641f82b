package cluster_test

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// The simulation runs the real Core with the real user grains in virtual time.

// maxBindings is the limit of bindings of a user.
const maxBindings = 4

// startMS is the node time at which every simulation starts.
const startMS = 1_800_000_000_000

// grains adapts the user grains to the cluster.
type grains struct{ user *actors.User }

func (g grains) Answer(q *cluster.Question) *cluster.Answer {
	aq := actors.Question(*q)
	a := cluster.Answer(*g.user.Answer(&aq))
	return &a
}

func (g grains) Renews(r *messages.Register, rec *messages.Record, now int64) (int64, bool) {
	return g.user.Renews(r, rec, now)
}

func (g grains) Begins(r *messages.Register, lease *messages.Lease, room []byte, now int64) ([]byte, bool) {
	return g.user.Begins(r, lease, room, now)
}

func (g grains) Changed(before, after *messages.Record, now int64) bool {
	return g.user.Changed(before, after, now)
}

func (g grains) Shown(rec *messages.Record) *messages.Record { return g.user.Shown(rec) }

func (g grains) Tell(before, after *messages.Record, now int64) (*messages.StateChanged, []string) {
	return g.user.Tell(before, after, now)
}

func (g grains) Remind(before, after *messages.Record, now int64) (*messages.StateChanged, []string) {
	return g.user.Remind(before, after, now)
}

// openFlows are the stream flows of one process.
type openFlows struct {
	open       map[uint64]bool
	superseded []*messages.Lease
}

func (f *openFlows) Open(id *messages.FlowID) bool    { return f.open[id.GetCounter()] }
func (f *openFlows) Superseded(lease *messages.Lease) { f.superseded = append(f.superseded, lease) }

// simNode is one node of a world, through all its lives.
type simNode struct {
	name    string
	inc     uint64
	core    *cluster.Core
	disk    *disk
	flows   *openFlows
	up      bool
	skew    int64
	counter uint64
	// pausedMS is until when its ticks pause, as they do when nothing happens.
	pausedMS int64
	// side is the half of a partition that it is on.
	side int
	// blind: its membership takes these for failed.
	blind map[string]bool
	// asleep: its process stands still, and inbox is what has arrived meanwhile.
	asleep bool
	inbox  []func()
	// noStream are those to whom its stream has been found broken.
	noStream map[string]bool
	// draining: it is about to leave; left: it has.
	draining, left bool
	// knows is what its membership says, by name.
	knows map[string]cluster.Member
}

// world is a cluster in virtual time.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	now   int64
	net   *cluster.MemoryNetwork
	nodes []*simNode
	user  *actors.User
	// lossy: envelopes are delayed, doubled and dropped.
	lossy bool
	// step is how finely time passes, in ms.
	step  int64
	later []event
	cfg   func(*cluster.Config)
	// oneWay are the pairs (from, to) between which nothing arrives.
	oneWay map[[2]string]bool
	// severed are the pairs between which nothing arrives, either way, so that
	// their stream breaks.
	severed map[[2]string]bool
	// trace is told of every envelope, lost of those that do not arrive.
	trace, lost func(from, to string, env *messages.Envelope)
	// born is told of a node's new life before it begins, ticked of each of its ticks.
	born   func(n *simNode, core *cluster.Core, lost bool)
	ticked func(n *simNode)
	// streamUp is told that a node's stream to another is usable again.
	streamUp func(n *simNode, name string)
	off      cluster.Rules
	// inPlace counts the REGISTERs that were taken in place.
	inPlace int
	// log is what went wrong; told: it has been printed.
	log  []string
	told bool
}

type event struct {
	at int64
	f  func()
}

func newWorld(t testing.TB, seed uint64, n int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: startMS, step: 5, oneWay: map[[2]string]bool{}, severed: map[[2]string]bool{}}
	limits := actors.DefaultLimits()
	limits.Policy, limits.MaxBindings = actors.ReplaceOldest, maxBindings
	w.user = actors.New(limits)
	w.net = cluster.NewMemoryNetwork(w.now)
	w.net.Decide = w.decide
	for i := range n {
		w.nodes = append(w.nodes, &simNode{name: fmt.Sprintf("n%d", i+1), disk: &disk{recs: map[string]*messages.Record{}}})
	}
	return w
}

func (w *world) decide(from, to string, env *messages.Envelope) cluster.Fate {
	if w.trace != nil {
		w.trace(from, to, env)
	}
	fate := w.fate(from, to)
	if w.lost != nil && len(fate.DelayMS) == 0 {
		w.lost(from, to, env)
	}
	return fate
}

// fate is what becomes of an envelope.
func (w *world) fate(from, to string) cluster.Fate {
	if w.node(from).side != w.node(to).side || w.oneWay[[2]string{from, to}] ||
		w.severed[pair(from, to)] {
		return cluster.Fate{NoStream: w.node(from).noStream[to]}
	}
	if !w.lossy {
		return cluster.Fate{DelayMS: []int64{1}}
	}
	delay := func() int64 {
		if w.rng.IntN(20) == 0 {
			return w.rng.Int64N(1500)
		}
		return 1 + w.rng.Int64N(20)
	}
	switch w.rng.IntN(20) {
	case 0:
		return cluster.Fate{}
	case 1:
		return cluster.Fate{DelayMS: []int64{delay(), delay()}}
	}
	return cluster.Fate{DelayMS: []int64{delay()}}
}

func (w *world) node(name string) *simNode {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// start gives a node a new life; without its disk if lost.
func (w *world) start(n *simNode, lost bool) {
	n.inc = uint64(w.now)<<8 | w.rng.Uint64N(256)
	n.draining, n.left, n.blind = false, false, map[string]bool{}
	n.asleep, n.inbox, n.noStream = false, nil, map[string]bool{}
	delete(n.knows, n.name)
	n.up, n.flows = true, &openFlows{open: map[uint64]bool{}}
	if n.knows == nil || lost {
		n.knows = map[string]cluster.Member{}
	}
	if lost {
		n.disk.recs = map[string]*messages.Record{}
	}
	cfg := cluster.DefaultConfig()
	cfg.Name, cfg.Incarnation = n.name, n.inc
	if w.cfg != nil {
		w.cfg(&cfg)
	}
	core, err := cluster.NewCore(cfg, cluster.Parts{
		Network: w.net.From(n.name), Store: n.disk, Grains: grains{w.user}, Flows: n.flows,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Rand: w.rng.Uint64,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	core.SwitchOff(w.off)
	if w.born != nil {
		w.born(n, core, lost)
	}
	n.core = core
	if err := core.Load(w.now + n.skew); err != nil {
		w.t.Fatal(err)
	}
	n.disk.flush(w.now)
	w.net.Attach(n.name, func(now int64, from string, env *messages.Envelope) {
		if n.asleep {
			n.inbox = append(n.inbox, func() { core.Receive(w.now+n.skew, from, env) })
			return
		}
		core.Receive(now+n.skew, from, env)
	})
	for _, m := range w.nodes {
		n.noStream[m.name] = w.severed[pair(n.name, m.name)]
	}
	// Its membership remembers those whom it has seen, and has not met them yet.
	for name, m := range n.knows {
		m.FailedMS = w.now
		n.knows[name] = m
	}
	n.pausedMS = 0
	core.Members(w.now+n.skew, w.known(n))
}

// crash ends a life at once: what is not on disk is gone.
func (w *world) crash(n *simNode) {
	n.up = false
	n.core.Stop()
	n.disk.pending = nil
	w.net.Attach(n.name, nil)
}

func (w *world) after(ms int64, f func()) { w.later = append(w.later, event{w.now + ms, f}) }

// run lets ms of virtual time pass.
func (w *world) run(ms int64) {
	for end := w.now + ms; w.now < end; {
		w.now += w.step
		w.net.Advance(w.now)
		var due []event
		w.later = slices.DeleteFunc(w.later, func(e event) bool {
			if e.at <= w.now {
				due = append(due, e)
			}
			return e.at <= w.now
		})
		slices.SortStableFunc(due, func(a, b event) int { return int(a.at - b.at) })
		for _, e := range due {
			e.f()
		}
		for _, n := range w.nodes {
			if !n.up || n.asleep {
				continue
			}
			n.disk.flush(w.now)
			if w.now%10 == 0 || w.step > 5 {
				n.tick(w.now)
				if w.ticked != nil {
					w.ticked(n)
				}
			}
		}
	}
}

// tick tells a node the time, if it wants to know.
func (n *simNode) tick(now int64) {
	if !n.core.Roused() && now < n.pausedMS {
		return
	}
	n.core.Tick(now + n.skew)
	n.pausedMS = now + n.core.Pause(now+n.skew)
}

// runUntil lets time pass until ok, for at most ms.
func (w *world) runUntil(ms int64, what string, ok func() bool) {
	w.t.Helper()
	for end := w.now + ms; w.now < end; {
		if ok() {
			return
		}
		w.run(10)
	}
	if !ok() {
		w.t.Fatalf("after %d ms: not %s", ms, what)
	}
}

// settle starts all nodes and waits until each is settled.
func (w *world) settle() {
	w.t.Helper()
	for _, n := range w.nodes {
		w.start(n, false)
	}
	w.spread(0)
	w.runUntil(5000, "all settled", w.allSettled)
	w.run(200)
}

func (w *world) allSettled() bool {
	for _, n := range w.nodes {
		if n.up && (!n.core.Settled() || len(n.core.MemberStatus(w.now)) < len(w.nodes)) {
			return false
		}
	}
	return true
}
