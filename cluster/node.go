package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// tickEvery is how often the core is told the time, unless nothing happens (rouse.go).
const tickEvery = 10 * time.Millisecond

// ErrStopped is what a question gets from a node that is not running any more.
var ErrStopped = errors.New("node is stopped")

// Node is the shell of a Core: it gives it the time, runs handlers in
// goroutines of their own, and has the calls that wait.
type Node struct {
	core     *Core
	parts    Parts
	handlers sync.WaitGroup
	running  chan struct{} // one token for each handler that runs; MaxHandlers deep
	stop     context.CancelFunc
	ctx      context.Context // ends with Run; handlers get it

	flowCounter atomic.Uint64
	tables      counted
}

// New checks and allocates; it does no IO.
func New(cfg Config, p Parts) (*Node, error) {
	core, err := NewCore(cfg, p)
	if err != nil {
		return nil, err
	}
	n := &Node{core: core, parts: p, running: make(chan struct{}, cfg.MaxHandlers)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	core.start = n.startHandler
	return n, nil
}

// Load reads this node's own leases from its store; it is called once, before Run.
func (n *Node) Load() error { return n.core.Load(n.parts.Clock.NowMS()) }

// Run gives the core the time until ctx ends, and returns when no handler runs
// any more. Questions still open are answered with ErrStopped.
func (n *Node) Run(ctx context.Context) error {
	t := time.NewTimer(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			n.stop()
			n.core.Stop()
			n.handlers.Wait()
			return nil
		case <-n.core.stirring.rouse:
			t.Reset(tickEvery)
		case <-t.C:
			t.Reset(n.tick())
		}
	}
}

// tick lets pass what is due, and tells how long the next one may wait. What it
// leads to leaves together.
func (n *Node) tick() time.Duration {
	if together, ok := n.parts.Network.(interface {
		Begin()
		End()
	}); ok {
		together.Begin()
		defer together.End()
	}
	now := n.parts.Clock.NowMS()
	n.core.Tick(now)
	return n.core.pause(now)
}

// Receive takes in what a peer sent. A panic ends this message alone (rule 20).
func (n *Node) Receive(from string, env *messages.Envelope) {
	defer func() {
		if r := recover(); r != nil {
			n.core.stats.Panics.Add(1)
			n.parts.Log.Error("message panicked", "node", from, "kind", env.GetType(), "err", fmt.Sprint(r))
		}
	}()
	n.core.Receive(n.parts.Clock.NowMS(), from, env)
}

// PeerUp is told when a stream to a member is usable.
func (n *Node) PeerUp(hello *messages.Hello) { n.core.PeerUp(n.parts.Clock.NowMS(), hello) }

// PeerDown is told when a stream to a member is gone.
func (n *Node) PeerDown(name string) { n.core.PeerDown(n.parts.Clock.NowMS(), name) }

// MembersChanged takes the whole list of members: live ones and remembered failed ones.
func (n *Node) MembersChanged(ms []Member) { n.core.Members(n.parts.Clock.NowMS(), ms) }

// Away takes the members that left or were forgotten and are not back, before
// MembersChanged takes the list without them (rule 4).
func (n *Node) Away(list []Away) { n.core.Away(n.parts.Clock.NowMS(), list) }

// Woke tells that the process slept for longer than its peers wait (rule 16).
func (n *Node) Woke() { n.core.Woke(n.parts.Clock.NowMS()) }

// Owner is the name of the first holder of a key in the view, empty if nobody holds anything.
func (n *Node) Owner(key string) string { return n.core.Owner(key) }

// Round changes with every change of the view, and after a sleep.
func (n *Node) Round() uint64 { return n.core.view.Load().round }

// Name is the stable name of this node.
func (n *Node) Name() string { return n.core.cfg.Name }

// Incarnation is this process's.
func (n *Node) Incarnation() uint64 { return n.core.cfg.Incarnation }

// NowMS is the node time in milliseconds since the Unix epoch.
func (n *Node) NowMS() int64 { return n.parts.Clock.NowMS() }

// NewStamp makes a stamp for a request that has just arrived (rule 1).
func (n *Node) NewStamp() *messages.Stamp { return n.core.NewStamp(n.parts.Clock.NowMS()) }

// RaiseClock makes all later stamps be above ms, as FAILURE_CODE_CLOCK_BEHIND asks for (rule 1).
func (n *Node) RaiseClock(ms int64) { n.core.RaiseClock(n.parts.Clock.NowMS(), ms) }

// NewFlowID names a new flow of this node; stream if it is a connection.
func (n *Node) NewFlowID(stream bool) *messages.FlowID {
	return &messages.FlowID{Incarnation: n.Incarnation(), Counter: n.flowCounter.Add(1), Stream: stream}
}

// EndFlow tells that a flow of this node is over: what was registered over it
// is unreachable, whatever its stamp (rule 3).
func (n *Node) EndFlow(flow *messages.FlowID) { n.core.EndFlow(n.parts.Clock.NowMS(), flow) }

// Keep stores what a holder has accepted from this edge, before the 200 is
// sent, and returns when it is as durable as configured (rule 5).
func (n *Node) Keep(ctx context.Context, rec *messages.Record) error {
	done := make(chan error, 1)
	n.KeepAsync(rec, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// KeepAsync is Keep with a continuation, which is called by the store's
// goroutine, or inline when there is nothing to store.
func (n *Node) KeepAsync(rec *messages.Record, done func(error)) {
	n.core.Keep(n.parts.Clock.NowMS(), rec, done)
}

// KeepErr is why this node cannot store leases, or nil; a REGISTER is then
// refused before a holder is asked (rule 7).
func (n *Node) KeepErr() error { return n.parts.Store.Err() }

// DrainStatus tells how far this node has handed over what it holds for others.
func (n *Node) DrainStatus() DrainStatus { return n.core.DrainStatus() }

// Settled tells whether this node knows all that it should hold (rule 14).
func (n *Node) Settled() bool { return n.core.Settled() }

// Members lists the members with what this node knows of each.
func (n *Node) Members() []MemberStatus { return n.core.MemberStatus(n.parts.Clock.NowMS()) }

// Stats are the counters of this node; they go on counting.
func (n *Node) Stats() *Stats { return &n.core.stats }

// Own counts the live leases of a kind that this node is the edge of, by AoR.
func (n *Node) Own(kind messages.LeaseKind) map[string]int {
	return n.core.Own(n.parts.Clock.NowMS(), kind)
}

// Tables counts what this node holds. It looks at every record, so that with many
// users it is not done at each call (counted).
func (n *Node) Tables() Tables {
	return n.tables.get(func() Tables { return n.core.Tables(n.parts.Clock.NowMS()) })
}

// counted are the tables of the last count.
type counted struct {
	mu    sync.Mutex
	last  Tables
	until time.Time
}

// countedRest is for how many times as long as a count took there is no other:
// whoever asks, and however often, it takes one part in twenty of a processor.
const countedRest = 19

func (t *counted) get(count func() Tables) Tables {
	t.mu.Lock()
	defer t.mu.Unlock()
	if began := time.Now(); !began.Before(t.until) {
		t.last = count()
		now := time.Now()
		t.until = now.Add(countedRest * now.Sub(began))
	}
	return t.last
}

// AskAsync asks the owner of an AoR and calls done exactly once: with the
// answer, which may be a *messages.Failure, or with ErrStopped. No answer by
// the deadline is FAILURE_CODE_RETRY, a full queue FAILURE_CODE_OVERLOADED.
// deadlineMS is node time; 0 is now + AskTimeout. When this node is the owner
// and nothing need be awaited, done is called before AskAsync returns. done
// must not block.
func (n *Node) AskAsync(aor string, msg proto.Message, deadlineMS int64, done func(proto.Message, error)) {
	n.core.Ask(n.parts.Clock.NowMS(), aor, msg, deadlineMS, n.observed(msg, done))
}

// AtOnce takes in a REGISTER that does no more than renew the user's one lease, or
// make the first one, where no other node has to know of that. then is called once
// the lease is stored, perhaps before AtOnce returns, and must not block: it is told
// when the lease was written and when it expires, in node time, or why it could not
// be stored. r, which has room for a stamp and is given it, may not be changed until
// then; it is not kept beyond. False: nothing has been done, and AskAsync is the way.
func (n *Node) AtOnce(r *messages.Register, then func(nowMS, expiresMS int64, err error)) bool {
	if n.parts.Observe == nil {
		return n.core.AtOnce(n.parts.Clock.NowMS(), r, then)
	}
	began := time.Now()
	ok := n.core.AtOnce(n.parts.Clock.NowMS(), r, then)
	if ok {
		n.parts.Observe(registerType, time.Since(began))
	}
	return ok
}

// LookupAsync is AskAsync for a Locate whose asker can use an answer that grows
// (rule 13). A positive of a stand-in, or of an owner that does not know all, is
// given to part, perhaps more than once, and done is called with the word of an
// owner that does, or with FAILURE_CODE_RETRY at the deadline. forget ends the question: done is not called any more, unless that
// has begun. part must not block. Nil: any positive is the answer.
func (n *Node) LookupAsync(aor string, m *messages.Locate, deadlineMS int64, part func(reply proto.Message, forget func()), done func(proto.Message, error)) {
	if n.parts.Observe == nil || part == nil {
		n.core.Lookup(n.parts.Clock.NowMS(), aor, m, deadlineMS, part, n.observed(m, done))
		return
	}
	// What counts is how long the asker had nothing at all.
	var answered atomic.Bool
	began := time.Now()
	observe := func() {
		if !answered.Swap(true) {
			n.parts.Observe(messages.TypeName(m), time.Since(began))
		}
	}
	n.core.Lookup(n.parts.Clock.NowMS(), aor, m, deadlineMS, func(reply proto.Message, forget func()) {
		observe()
		part(reply, forget)
	}, func(reply proto.Message, err error) {
		observe()
		done(reply, err)
	})
}

// observed tells how long a question took when it is done.
func (n *Node) observed(msg proto.Message, done func(proto.Message, error)) func(proto.Message, error) {
	if n.parts.Observe == nil {
		return done
	}
	began := time.Now()
	return func(reply proto.Message, err error) {
		n.parts.Observe(messages.TypeName(msg), time.Since(began))
		done(reply, err)
	}
}

// Ask is AskAsync that waits. Its error is ctx's or ErrStopped.
func (n *Node) Ask(ctx context.Context, aor string, msg proto.Message) (proto.Message, error) {
	return n.await(ctx, func(deadline int64, done func(proto.Message, error)) {
		n.AskAsync(aor, msg, deadline, done)
	})
}

// AskNode asks a node itself.
func (n *Node) AskNode(ctx context.Context, node string, msg proto.Message) (proto.Message, error) {
	return n.await(ctx, func(deadline int64, done func(proto.Message, error)) {
		n.core.AskNode(n.parts.Clock.NowMS(), node, msg, deadline, n.observed(msg, done))
	})
}

// Result is one node's answer to AskAll.
type Result struct {
	Node  string
	Reply proto.Message
	Err   error
}

// AskAll asks the members of the view that which wants (nil: every one), this
// node too, and returns what each said by the deadline; a node that said
// nothing has a Failure.
func (n *Node) AskAll(ctx context.Context, msg proto.Message, which func(Member) bool) []Result {
	nodes := n.core.viewNames(which)
	results := make([]Result, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			reply, err := n.AskNode(ctx, node, msg)
			results[i] = Result{Node: node, Reply: reply, Err: err}
		})
	}
	wg.Wait()
	return results
}

// Where asks for all that is known of an AoR, for people.
func (n *Node) Where(ctx context.Context, aor string) (*messages.Whereabouts, error) {
	reply, err := n.Ask(ctx, aor, &messages.Where{Aor: aor})
	if err != nil {
		return nil, err
	}
	w, ok := reply.(*messages.Whereabouts)
	if !ok {
		return nil, &FailureError{Failure: asFailure(reply)}
	}
	return w, nil
}

// FailureError is a Failure as an error, for calls whose answer has a type.
type FailureError struct{ Failure *messages.Failure }

func (e *FailureError) Error() string {
	return fmt.Sprintf("cluster: %s: %s", e.Failure.GetCode(), e.Failure.GetDetail())
}

// Snapshot asks a node for the users that it owns and that are online.
func (n *Node) Snapshot(ctx context.Context, node string, q *messages.Snapshot) (*messages.Snapshotted, error) {
	reply, err := n.AskNode(ctx, node, q)
	if err != nil {
		return nil, err
	}
	s, ok := reply.(*messages.Snapshotted)
	if !ok {
		return nil, &FailureError{Failure: asFailure(reply)}
	}
	return s, nil
}

// Follow begins to follow the users that pattern names: an AoR, a domain as
// "@example.com", or "*". Close ends it. The error is ErrStopped or ErrTooManyWatches.
func (n *Node) Follow(pattern string, sink Follower) (*Follow, error) {
	return n.core.Follow(n.parts.Clock.NowMS(), pattern, sink)
}

// await turns a call with a continuation into one that waits.
func (n *Node) await(ctx context.Context, ask func(deadline int64, done func(proto.Message, error))) (proto.Message, error) {
	type answer struct {
		reply proto.Message
		err   error
	}
	var deadline int64
	if t, ok := ctx.Deadline(); ok {
		// Node time runs beside the wall clock: only the distance counts.
		deadline = n.parts.Clock.NowMS() + time.Until(t).Milliseconds()
	}
	got := make(chan answer, 1)
	ask(deadline, func(reply proto.Message, err error) { got <- answer{reply, err} })
	select {
	case a := <-got:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
