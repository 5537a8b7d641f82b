package sipfront

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// watched is a user with subscriptions at this node.
type watched struct {
	aor string
	// Presentity is what is known of the user.
	*actors.Presentity
	packages []*packageState
	// waiting are subscriptions that are due; the user stands in notifier.ready while there are any.
	waiting []*subscription
	inReady bool
	// inflight counts NOTIFYs without an answer.
	inflight int

	// queued, asking: the owner is to be asked, or is being asked; again: once more after that.
	queued, asking, again bool
	// refreshed are subscriptions whose NOTIFY waits for the owner's word, or for
	// none to come.
	refreshed []*subscription
	// lookMS is the earliest timer of this user.
	lookMS int64
}

// packageState is a user in one event package, with the subscriptions to it.
type packageState struct {
	pkg   event.Package
	state *event.State
	subs  []*subscription
	// documents are those of state for all watchers, by media type, where the
	// package has such.
	documents map[string]event.Document
}

// maxWatcherInfos bounds the watchers that a node tells of for winfo documents:
// they stand in a record, which goes between nodes as a whole.
const maxWatcherInfos = 100

// user finds or makes a watched user.
func (n *notifier) user(aor string) *watched {
	u := n.users[aor]
	if u == nil {
		u = &watched{aor: aor, Presentity: actors.NewPresentity(aor, n.loading)}
		n.users[aor] = u
		n.poke()
	}
	return u
}

// package_ finds or makes a user's state in a package.
func (u *watched) package_(pkg event.Package) *packageState {
	for _, ps := range u.packages {
		if ps.pkg.Name() == pkg.Name() {
			return ps
		}
	}
	ps := &packageState{pkg: pkg}
	u.packages = append(u.packages, ps)
	return ps
}

// subs counts the user's subscriptions here.
func (u *watched) subs() (count int) {
	for _, ps := range u.packages {
		count += len(ps.subs)
	}
	return count
}

// changed makes new states where there is something new to show, and makes
// those watchers due.
func (n *notifier) changed(u *watched) {
	if !u.Known() {
		return
	}
	now := n.nowMS()
	for _, ps := range u.packages {
		if len(ps.subs) == 0 {
			continue
		}
		if n.renew(u, ps, now) {
			for _, sub := range ps.subs {
				n.due(sub, now)
			}
		}
	}
	if u.subs() > 0 && !u.Says(n.interest(u, now)) {
		// Who watches the watchers has come or gone.
		n.ask(u)
	}
	if next := nextExpiry(u.Rec, now); next != 0 {
		n.lookAt(u, next)
	}
}

// renew makes the state of a user in a package anew, and tells whether that
// shows anything new.
func (n *notifier) renew(u *watched, ps *packageState, now int64) bool {
	st := stateOf(ps.pkg.Name(), u.Rec, now)
	if ps.state != nil && !ps.pkg.Changed(ps.state, st) {
		return false
	}
	ps.state, ps.documents = st, nil
	return true
}

// lookAt makes sure that a user is looked at when ms has come.
func (n *notifier) lookAt(u *watched, ms int64) {
	if u.lookMS != 0 && u.lookMS <= ms {
		return
	}
	u.lookMS = ms
	n.at(timer{ms: ms, user: u})
}

// lookAtUser is a user's timer: something has expired, or the owner is to be asked again.
func (n *notifier) lookAtUser(u *watched, now int64) {
	if u.lookMS > now {
		return // an earlier timer of the same user
	}
	u.lookMS = 0
	if n.users[u.aor] != u {
		return
	}
	if u.Waits() {
		n.ask(u)
	}
	prune(u.Rec, now)
	n.changed(u)
}

// interest is what this node wants to be told of a user, as the lease carries it.
func (n *notifier) interest(u *watched, now int64) []byte {
	i := &messages.Interest{}
	for _, ps := range u.packages {
		if len(ps.subs) == 0 {
			continue
		}
		e := &messages.EventInterest{Event: ps.pkg.Name()}
		if n.packages[e.Event+".winfo"] != nil && (u.watches(e.Event+".winfo") || wantsWatchers(u.Rec, e.Event, now)) {
			e.Watchers = watcherInfos(ps.subs)
		}
		i.Events = append(i.Events, e)
	}
	slices.SortFunc(i.Events, func(a, b *messages.EventInterest) int { return bytes.Compare([]byte(a.Event), []byte(b.Event)) })
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(i)
	if err != nil {
		return nil
	}
	return b
}

// watches tells whether somebody here watches the user in a package.
func (u *watched) watches(pkg string) bool {
	return slices.ContainsFunc(u.packages, func(ps *packageState) bool { return ps.pkg.Name() == pkg && len(ps.subs) > 0 })
}

// watcherInfos are the subscriptions as a winfo document shows them: those that
// wait for a decision first, then the oldest.
func watcherInfos(subs []*subscription) (list []*messages.WatcherInfo) {
	for _, sub := range subs {
		if !sub.accepted {
			continue
		}
		w := &messages.WatcherInfo{
			Id: strconv.FormatUint(sub.p.Id, 36), Aor: sub.p.Watcher, Status: "active", Event: "subscribe",
			SinceMs: sub.p.SinceMs, ExpiresMs: sub.p.ExpiresMs,
		}
		if sub.verdict == event.Confirm {
			w.Status = "pending"
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b *messages.WatcherInfo) int {
		if a.Status != b.Status {
			if a.Status == "pending" {
				return -1
			}
			return 1
		}
		return bytes.Compare([]byte(strconv.FormatInt(a.SinceMs, 10)+a.Id), []byte(strconv.FormatInt(b.SinceMs, 10)+b.Id))
	})
	return list[:min(len(list), maxWatcherInfos)]
}

// ask has a user's owner asked soon.
func (n *notifier) ask(u *watched) {
	switch {
	case u.asking:
		u.again = true
	case !u.queued:
		u.queued = true
		n.toAsk = append(n.toAsk, u)
	}
}

// askOwners asks for those that wait, a bounded number at a time.
func (n *notifier) askOwners(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.asking < maxAsking && len(n.toAsk) > 0 {
		u := n.toAsk[0]
		n.toAsk[0] = nil
		n.toAsk = n.toAsk[1:]
		u.queued = false
		if u.asking || n.users[u.aor] != u {
			continue
		}
		u.asking = true
		n.asking++
		n.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, n.s.cfg.LookupTimeout)
			defer cancel()
			err := n.askOwner(ctx, u)
			n.mu.Lock()
			defer n.mu.Unlock()
			u.asking = false
			n.asking--
			n.answered(u, err)
			n.poke()
		})
	}
}

// answered decides what follows a question to the owner.
func (n *notifier) answered(u *watched, err error) {
	now := n.nowMS()
	for _, sub := range u.refreshed {
		n.due(sub, now)
	}
	u.refreshed = nil
	switch {
	case err != nil:
		n.lookAt(u, now+u.Unanswered())
		return
	case u.again:
		u.again = false
		n.ask(u)
	}
	n.tidy(u)
}

// tidy forgets a user whom nobody here watches, once the owner knows that.
func (n *notifier) tidy(u *watched) {
	if u.subs() == 0 && len(u.waiting) == 0 && !u.Interested() && !u.asking && !u.queued && n.users[u.aor] == u {
		delete(n.users, u.aor)
		if u.lookMS != 0 {
			n.outdated(1)
		}
	}
}

// askOwner asks for a user's state, and says what this node wants to be told.
func (n *notifier) askOwner(ctx context.Context, u *watched) error {
	n.s.count.statePulls.Add(1)
	n.mu.Lock()
	interest, untilMS := n.wants(u)
	m := u.Question(interest, untilMS)
	n.mu.Unlock()
	owner := n.s.owner(u.aor)
	res, err := n.s.parts.Presentities.Subscribe(ctx, m)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	show, againMS := u.Answered(m, interest, owner, res)
	if againMS > 0 {
		n.lookAt(u, n.nowMS()+againMS)
	}
	if !show {
		return nil
	}
	prune(u.Rec, n.nowMS())
	n.changed(u)
	n.poke()
	return nil
}

// wants is what the owner is to tell this node of, and until when.
func (n *notifier) wants(u *watched) (interest []byte, untilMS int64) {
	for _, ps := range u.packages {
		for _, sub := range ps.subs {
			untilMS = max(untilMS, sub.p.ExpiresMs)
		}
	}
	return n.interest(u, n.nowMS()), untilMS
}

// followView asks again for the users who have another owner than when they were
// asked for: the last one may have accepted what it could not tell any more.
func (n *notifier) followView() {
	if n.s.parts.Round == nil {
		return
	}
	if round := n.s.parts.Round(); round != n.round {
		n.round = round
		n.askAgain(func(u *watched) bool { return n.s.owner(u.aor) != u.Owner() })
	}
}

// owner is who a user's state is asked for.
func (s *Server) owner(aor string) string {
	if s.parts.Owner == nil {
		return ""
	}
	return s.parts.Owner(aor)
}

// PeerBack says that the connection with a node has been renewed: what it told
// meanwhile may be lost.
func (s *Server) PeerBack(node string) {
	s.watch.askAgain(func(u *watched) bool { return u.Owner() == node })
}

// FlowClosed ends the subscriptions that nothing but a flow led to.
func (s *Server) FlowClosed(id *messages.FlowID) {
	if id.GetStream() {
		s.watch.flowClosed(id)
	}
}

// Reauthorize decides anew who may watch whom, after rules have changed.
func (s *Server) Reauthorize() { s.watch.reauthorize() }

// LoadSubscriptions takes those from disk that this node served before it
// stopped. It is called once, before Run.
func (s *Server) LoadSubscriptions() error { return s.watch.load() }

// DeactivateSubscriptions ends all, and begins none, for their watchers to come
// again to another node, until it is called with false.
func (s *Server) DeactivateSubscriptions(on bool) { s.watch.drain(on) }

// SubscriptionsTold waits until every NOTIFY that is due has been sent and
// answered, or returns ctx's error.
func (s *Server) SubscriptionsTold(ctx context.Context) error {
	tick := time.NewTicker(notifierTick)
	defer tick.Stop()
	for !s.watch.idle() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

var _ Presentities = (*actors.Client)(nil)
