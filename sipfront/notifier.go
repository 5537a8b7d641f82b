package sipfront

import (
	"container/heap"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
	"hereis/sipfront/event"
)

// Subscriptions keeps on disk what a node must know of the subscriptions that
// it serves, to go on after a crash: the cluster's store.
type Subscriptions interface {
	// PutSubscription keeps sub in the place of what is there under its id, and
	// calls done when that is as durable as configured, never before it returns.
	PutSubscription(sub *messages.Subscription, done func(error))
	DropSubscription(id uint64, done func(error))
	LoadSubscriptions(f func(*messages.Subscription) error) error
}

// Authorizer decides who may watch whom. It must not block.
type Authorizer interface {
	Authorize(w event.Watching) event.Verdict
}

// policy is the Authorizer without rules.
type policy event.Policy

func (p policy) Authorize(w event.Watching) event.Verdict {
	return (*event.Rules)(nil).Verdict(event.Policy(p), w)
}

// notifier is this node as notifier (RFC 6665): it serves the subscriptions that
// have come in here, to whichever users. What it knows of a user is a copy that
// the user's owner keeps right: it is told of each change, once for all watchers
// here, and asks when it may have missed one.
//
// Everything is guarded by one mutex, which is not held over disk, network or
// questions. What is to be sent is sent by the goroutine of run alone.
type notifier struct {
	s        *Server
	packages map[string]event.Package
	// names are those of the packages, for Allow-Events.
	names string
	auth  Authorizer

	// wake tells run that there is something to do; one slot, sent to by anybody, never closed.
	wake chan struct{}
	wg   sync.WaitGroup
	// round is the last view that run has seen.
	round uint64

	mu    sync.Mutex
	users map[string]*watched
	// usages are the subscriptions by dialog and event.
	usages map[usage]*subscription
	// streams are the subscriptions over each connection, by the flow's counter.
	streams map[uint64][]*subscription
	timers  timers
	// ready are users with subscriptions that are due; each has its turn.
	ready []*watched
	// loading: who is watched now was watched before this node restarted.
	loading bool
	// virtual counts the virtual subscriptions to members of lists.
	virtual int
	// fetches counts those that have not been told yet.
	fetches int
	// stale counts the timers of subscriptions and users that are gone.
	stale int
	// inflight counts NOTIFYs without an answer.
	inflight int
	// asking counts questions to owners that are under way, toAsk are those that wait.
	asking int
	toAsk  []*watched
	// draining: all subscriptions end.
	draining bool
}

// usage names a subscription (RFC 6665 4.4.1): the dialog and, as a dialog may
// have several, the event.
type usage struct{ callID, localTag, remoteTag, event, id string }

func usageOf(p *messages.Subscription) usage {
	return usage{p.CallId, p.LocalTag, p.RemoteTag, p.Event, p.EventId}
}

// maxAsking bounds the questions to owners that are under way on the notifier's own account.
const maxAsking = 64

// notifierTick is how often run looks at the timers, and notifierRest how often
// where nobody watches anybody, until somebody does.
const (
	notifierTick = 50 * time.Millisecond
	notifierRest = time.Second
)

func newNotifier(s *Server, packages []event.Package, auth Authorizer) (*notifier, error) {
	n := &notifier{
		s: s, packages: map[string]event.Package{}, auth: auth, wake: make(chan struct{}, 1),
		users: map[string]*watched{}, usages: map[usage]*subscription{}, streams: map[uint64][]*subscription{},
	}
	if n.auth == nil {
		n.auth = policy(event.Open)
		if s.digest != nil {
			n.auth = policy(event.Authenticated)
		}
	}
	var names []string
	for _, p := range packages {
		if n.packages[p.Name()] != nil || len(p.NotifyTypes()) == 0 {
			return nil, errors.New("event package " + p.Name() + " is there twice, or has no media type")
		}
		n.packages[p.Name()] = p
		names = append(names, p.Name())
	}
	slices.Sort(names)
	n.names = strings.Join(names, ", ")
	return n, nil
}

// eventError is errEvent with the packages that are served.
type eventError struct{ allow string }

func (eventError) Error() string { return errEvent.Error() }

// Is makes it errEvent.
func (eventError) Is(target error) bool { return target == errEvent }

// packageOf is the package of a request's Event and the value's parameters;
// errEvent if this node does not serve it.
func (n *notifier) packageOf(r *request) (event.Package, string, error) {
	values := r.values("Event")
	if len(values) != 1 {
		return nil, "", eventError{n.names}
	}
	name, params, _ := strings.Cut(values[0], ";")
	p := n.packages[strings.TrimSpace(name)]
	if p == nil {
		return nil, "", eventError{n.names}
	}
	if params != "" {
		params = ";" + params
	}
	return p, params, nil
}

// serves tells whether a request with an Event is for this node: a package that
// it does not serve is for the user's devices.
func (n *notifier) serves(r *request) bool {
	values := r.values("Event")
	if len(values) != 1 {
		return true // malformed, whoever serves it
	}
	name, _, _ := strings.Cut(values[0], ";")
	return n.packages[strings.TrimSpace(name)] != nil
}

// timer is a moment at which a subscription or a user is looked at.
type timer struct {
	ms   int64
	sub  *subscription
	user *watched
	// expiry: the subscription may be over; otherwise it may be told again.
	expiry bool
}

// timers is a heap by time.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].ms < t[j].ms }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = timer{}
	*t = (*t)[:len(*t)-1]
	return last
}

func (n *notifier) at(t timer) { heap.Push(&n.timers, t) }

// outdated says that up to count timers are of nobody any more. They hold what
// they are of, for hours: with half of all, they are taken out.
func (n *notifier) outdated(count int) {
	n.stale += count
	if n.stale <= len(n.timers)/2 || n.stale < minStale {
		return
	}
	n.stale = 0
	n.timers = slices.DeleteFunc(n.timers, func(t timer) bool {
		if t.sub != nil {
			return t.sub.gone
		}
		return n.users[t.user.aor] != t.user
	})
	heap.Init(&n.timers)
}

// minStale is how many outdated timers are borne with.
const minStale = 256

// poke makes run look.
func (n *notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notifier) nowMS() int64 { return n.s.parts.Cluster.NowMS() }

// run sends what is due until ctx ends.
func (n *notifier) run(ctx context.Context) {
	tick := time.NewTimer(notifierTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			n.wg.Wait()
			return
		case <-tick.C:
		case <-n.wake:
		}
		n.followView()
		n.fire()
		n.askOwners(ctx)
		n.send()
		tick.Reset(n.rest())
	}
}

// rest is how long run may wait. Whoever comes to watch wakes it.
func (n *notifier) rest() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.users)+len(n.usages)+len(n.timers)+len(n.ready)+len(n.toAsk)+n.inflight+n.asking == 0 {
		return notifierRest
	}
	return notifierTick
}

// fire looks at what the timers say.
func (n *notifier) fire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.nowMS()
	for len(n.timers) > 0 && n.timers[0].ms <= now {
		switch t := heap.Pop(&n.timers).(timer); {
		case t.sub != nil && t.expiry:
			n.checkExpiry(t.sub, t.ms, now)
		case t.sub != nil:
			t.sub.timed = false
			n.due(t.sub, now)
		default:
			n.lookAtUser(t.user, now)
		}
	}
}

// load takes the subscriptions from disk. Those over a connection that nothing
// can bring back have ended with it; the others are told where things stand.
func (n *notifier) load() error {
	return n.s.parts.Subscriptions.LoadSubscriptions(func(p *messages.Subscription) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.loading = true
		defer func() { n.loading = false }()
		pkg := n.packages[p.Event]
		lost := p.FlowBound && p.GetFlow().GetStream()
		if pkg == nil || p.ExpiresMs <= n.nowMS() || lost {
			n.s.parts.Subscriptions.DropSubscription(p.Id, func(error) {})
			return nil
		}
		sub := &subscription{p: p, pkg: pkg, cseq: p.Reserved, version: p.Reserved, accepted: true, force: true}
		sub.verdict = n.verdictOf(p)
		n.attach(sub)
		n.attachMembers(sub)
		n.ask(sub.user)
		if sub.verdict == event.Block {
			// The rules have changed while this node was away.
			n.end(sub, "rejected", n.nowMS())
		}
		return nil
	})
}

// verdictOf asks the Authorizer about a subscription.
func (n *notifier) verdictOf(p *messages.Subscription) event.Verdict {
	v := n.auth.Authorize(event.Watching{
		Presentity: p.Aor, Watcher: p.Watcher, Authenticated: p.Authenticated, Package: p.Event,
	})
	switch {
	case p.List && v == event.Confirm:
		return event.Allow // each member decides
	case p.List && v == event.PoliteBlock:
		return event.Block
	}
	return v
}

// reauthorize decides anew on every subscription.
func (n *notifier) reauthorize() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.nowMS()
	for _, sub := range n.usages {
		n.reauthorizeMembers(sub, now)
		v := n.verdictOf(sub.p)
		if v == sub.verdict {
			continue
		}
		was := sub.verdict
		sub.verdict = v
		switch {
		case v == event.Block:
			n.end(sub, "rejected", now)
		case was != v:
			sub.told, sub.force = nil, true
			n.due(sub, now)
		}
		n.ask(sub.user)
	}
	n.poke()
}

// watches tells whether a user is watched here.
func (n *notifier) watches(aor string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.users[aor] != nil
}

// stateChanged takes in what an owner tells of a user who is watched here.
func (n *notifier) stateChanged(m *messages.StateChanged) {
	n.s.count.stateChanges.Add(1)
	if !slices.Contains(m.Watching, n.s.parts.Cluster.Self()) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.users[m.Aor]
	if u == nil {
		// An interest that has outlived its last subscription, as after a crash.
		u = n.user(m.Aor)
		u.Outlived(m)
		n.ask(u)
		n.poke()
		return
	}
	switch {
	case !u.Told(m):
		n.s.count.stateGaps.Add(1)
		n.ask(u)
	case !m.GetDelta().Empty():
		n.changed(u)
	}
	n.poke()
}

// askAgain asks the owners of the users that which wants: something may have been missed.
func (n *notifier) askAgain(which func(u *watched) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.users {
		if which(u) {
			n.ask(u)
		}
	}
	n.poke()
}

// flowClosed ends what nothing but a flow led to (CONSISTENCY rule 3).
func (n *notifier) flowClosed(id *messages.FlowID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, sub := range slices.Clone(n.streams[id.GetCounter()]) {
		if sub.p.FlowBound && sub.p.Flow.Same(id) {
			n.drop(sub)
		}
	}
}

// drain ends every subscription, so that its watcher comes again, to another
// node: deactivated (RFC 6665 4.4.1).
func (n *notifier) drain(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = on
	if !on {
		return
	}
	now := n.nowMS()
	for _, sub := range n.usages {
		n.end(sub, "deactivated", now)
	}
	n.poke()
}

// idle tells whether nothing waits to be sent or answered: who waits for a share has NOTIFYs without an answer.
func (n *notifier) idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.inflight == 0 && len(n.ready) == 0
}

// counts are the subscriptions, the watched users and the NOTIFYs without an answer.
func (n *notifier) counts() (subs, users, inflight int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.usages) + n.virtual, len(n.users), n.inflight
}

// attach takes a subscription in.
func (n *notifier) attach(sub *subscription) {
	u := n.user(sub.p.Aor)
	sub.user = u
	sub.of = u.package_(sub.pkg)
	sub.of.subs = append(sub.of.subs, sub)
	n.usages[usageOf(sub.p)] = sub
	n.poke()
	if f := sub.p.GetFlow(); f.GetStream() {
		n.streams[f.Counter] = append(n.streams[f.Counter], sub)
	}
	n.fileExpiry(sub)
}

// detach takes a subscription out; what it still has to say it says.
func (n *notifier) detach(sub *subscription) {
	if sub.gone {
		return
	}
	sub.gone = true
	sub.of.subs = without(sub.of.subs, sub)
	if n.usages[usageOf(sub.p)] == sub {
		delete(n.usages, usageOf(sub.p))
	}
	n.leaveStream(sub)
	n.detachMembers(sub)
	n.ask(sub.user)
	n.outdated(2)
}

func (n *notifier) leaveStream(sub *subscription) {
	f := sub.p.GetFlow()
	if !f.GetStream() {
		return
	}
	if rest := without(n.streams[f.Counter], sub); len(rest) > 0 {
		n.streams[f.Counter] = rest
	} else {
		delete(n.streams, f.Counter)
	}
}

func without(list []*subscription, sub *subscription) []*subscription {
	i := slices.Index(list, sub)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	list[i] = list[last]
	list[last] = nil
	return list[:last]
}

// drop ends a subscription without a word.
func (n *notifier) drop(sub *subscription) {
	if !sub.gone {
		n.detach(sub)
		n.forget(sub)
	}
	sub.silent = true
}

// forget takes a subscription off the disk.
func (n *notifier) forget(sub *subscription) {
	n.s.parts.Subscriptions.DropSubscription(sub.p.Id, func(error) {})
}

// end ends a subscription with a last NOTIFY.
func (n *notifier) end(sub *subscription, reason string, now int64) {
	if sub.gone {
		return
	}
	n.detach(sub)
	n.forget(sub)
	sub.reason = reason
	n.due(sub, now)
}

// store keeps a subscription on disk. It is called with the mutex held, so that
// what is known later is written later.
func (n *notifier) store(sub *subscription, done func(error)) {
	p := proto.CloneOf(sub.p)
	p.Reserved = max(p.Reserved, sub.asked)
	n.s.parts.Subscriptions.PutSubscription(p, done)
}
