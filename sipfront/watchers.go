package sipfront

import (
	"cmp"
	"slices"

	"hereis/messages"
	"hereis/sipfront/event"
)

// watchersPage bounds the watchers in one answer to a node that asks for them:
// it goes between nodes beside what calls wait for.
const watchersPage = 200

// WatchersHere lists the subscriptions to a user that this node serves, in the
// order of their ids, from the first after m.After on: those by list too.
func (s *Server) WatchersHere(m *messages.Watchers) *messages.WatchersHere {
	n := s.watch
	list := n.servedTo(m.GetAor(), m.GetAfter())
	slices.SortFunc(list, func(a, b servedTo) int { return cmp.Compare(a.p.Id, b.p.Id) })
	res := &messages.WatchersHere{NowMs: n.nowMS(), More: len(list) > watchersPage}
	for _, w := range list[:min(len(list), watchersPage)] {
		res.Watchers = append(res.Watchers, w.message())
	}
	return res
}

// servedTo is a subscription with what may change of it.
type servedTo struct {
	p       *messages.Subscription
	verdict event.Verdict
	list    string
}

// servedTo are the subscriptions to a user after an id.
func (n *notifier) servedTo(aor string, after uint64) (list []servedTo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.users[aor]
	if u == nil {
		return nil
	}
	for _, ps := range u.packages {
		for _, sub := range ps.subs {
			w := servedTo{p: sub.p, verdict: sub.verdict}
			switch {
			case sub.p.Id <= after:
				continue
			case sub.parent != nil:
				w.list = sub.parent.p.Aor
			case !sub.accepted:
				continue // it may be refused yet
			}
			list = append(list, w)
		}
	}
	return list
}

func (w servedTo) message() *messages.ServedWatcher {
	m := &messages.ServedWatcher{
		Id: w.p.Id, Event: w.p.Event, Watcher: w.p.Watcher, Authenticated: w.p.Authenticated, State: "active",
		SinceMs: w.p.SinceMs, ExpiresMs: w.p.ExpiresMs, List: w.list,
	}
	switch w.verdict {
	case event.Confirm:
		m.State = "pending"
	case event.PoliteBlock:
		m.State = "polite-block"
	case event.Block:
		m.State = "rejected"
	}
	return m
}
