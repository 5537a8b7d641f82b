package hereis

import (
	"cmp"
	"context"
	"slices"

	"hereis/actors"
	"hereis/messages"
)

// WatchersAt are those who watch a user by one node.
type WatchersAt struct {
	Node     string
	Watchers []*messages.ServedWatcher
	// NowMS is the node time to which expiries compare.
	NowMS int64
	// More: there are more than were asked for.
	More bool
	// Err: the node did not answer, or not to the end.
	Err error
}

// Watchers asks every live node who watches a user there, for limit watchers of
// each at most. Nodes come in the order of their names; a page of each is in
// flight at a time. A subscription that begins, ends or moves meanwhile may be
// listed or not.
func (n *Node) Watchers(ctx context.Context, aor actors.AoR, limit int) []WatchersAt {
	var out []WatchersAt
	open := map[string]*messages.Watchers{}
	for _, m := range n.cluster.AskAll(ctx, &messages.Watchers{Aor: string(aor)}, nil) {
		at := WatchersAt{Node: m.Node}
		if at.take(typed[*messages.WatchersHere](m.Reply, m.Err)) {
			open[m.Node] = at.next(aor)
		}
		out = append(out, at)
	}
	for i := range out {
		at := &out[i]
		for open[at.Node] != nil && len(at.Watchers) < limit {
			if !at.take(Ask[*messages.WatchersHere](ctx, n, ToNode(at.Node), open[at.Node])) {
				break
			}
			open[at.Node] = at.next(aor)
		}
		if len(at.Watchers) > limit {
			at.Watchers, at.More = at.Watchers[:limit], true
		}
	}
	slices.SortFunc(out, func(a, b WatchersAt) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// take takes a page in, and tells whether there is another one.
func (at *WatchersAt) take(page *messages.WatchersHere, err error) bool {
	if err != nil {
		at.Err, at.More = err, false
		return false
	}
	at.Watchers = append(at.Watchers, page.GetWatchers()...)
	at.NowMS, at.More = page.GetNowMs(), page.GetMore() && len(page.GetWatchers()) > 0
	return at.More
}

// next is the question for the page after the last one.
func (at *WatchersAt) next(aor actors.AoR) *messages.Watchers {
	return &messages.Watchers{Aor: string(aor), After: at.Watchers[len(at.Watchers)-1].GetId()}
}
