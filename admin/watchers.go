package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"hereis/messages"
)

// NodeWatchers are those who watch a user by one node.
type NodeWatchers struct {
	Node     string
	Watchers []*messages.ServedWatcher
	// NowMS is the node time to which their expiries compare.
	NowMS int64
	// More: there are more than were asked for. Err: the node did not answer to the end.
	More bool
	Err  error
}

// Watchers is the answer of /v1/watchers/AOR.
type Watchers struct {
	AoR      string       `json:"aor"`
	Watchers []WatcherRow `json:"watchers"`
	// More: there are more than the limit. Partial: nodes are Missing.
	More    bool          `json:"more"`
	Partial bool          `json:"partial"`
	Missing []MissingNode `json:"missing,omitempty"`
}

// WatcherRow is one subscription to a user.
type WatcherRow struct {
	Package string `json:"package"`
	// Watcher is empty for one who says nothing of themselves; Authenticated: it has
	// been shown, or a trunk vouches for it.
	Watcher       string `json:"watcher,omitempty"`
	Authenticated bool   `json:"authenticated"`
	// State is "active", "pending", "polite-block", or "rejected" for a member of a list.
	State string `json:"state"`
	// Node serves the subscription.
	Node           string  `json:"node"`
	AgeSeconds     float64 `json:"age_seconds"`
	ExpiresSeconds float64 `json:"expires_seconds"`
	// List is the resource list by which the user is watched.
	List string `json:"list,omitempty"`
}

// defaultWatchersLimit is how many watchers are listed where nothing is said,
// maxWatchersLimit how many at most.
const (
	defaultWatchersLimit = 1000
	maxWatchersLimit     = 20_000
)

// listWatchers lists who watches a user, from all nodes.
func (s *Server) listWatchers(w http.ResponseWriter, r *http.Request) {
	limit := defaultWatchersLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxWatchersLimit {
			s.fail(w, fmt.Errorf("%w: limit %q is not in 1..%d", ErrBadRequest, text, maxWatchersLimit))
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	aor, nodes, err := s.node.Watchers(ctx, r.PathValue("aor"), limit)
	if err != nil {
		s.fail(w, err)
		return
	}
	answer := newWatchers(aor, nodes)
	slices.SortStableFunc(answer.Watchers, func(a, b WatcherRow) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Watcher, b.Watcher), cmp.Compare(a.Node, b.Node))
	})
	if len(answer.Watchers) > limit {
		answer.Watchers, answer.More = answer.Watchers[:limit], true
	}
	status := http.StatusOK
	if len(answer.Watchers) == 0 && !answer.Partial {
		status = http.StatusNotFound
	}
	writeJSON(w, status, answer)
}

func newWatchers(aor string, nodes []NodeWatchers) *Watchers {
	answer := &Watchers{AoR: aor, Watchers: []WatcherRow{}}
	for _, n := range nodes {
		answer.More = answer.More || n.More
		if n.Err != nil {
			answer.Partial = true
			answer.Missing = append(answer.Missing, MissingNode{Node: n.Node, Error: n.Err.Error()})
		}
		for _, m := range n.Watchers {
			answer.Watchers = append(answer.Watchers, WatcherRow{
				Package: m.GetEvent(), Watcher: m.GetWatcher(), Authenticated: m.GetAuthenticated(), State: m.GetState(), Node: n.Node,
				AgeSeconds: float64(n.NowMS-m.GetSinceMs()) / 1000, ExpiresSeconds: float64(m.GetExpiresMs()-n.NowMS) / 1000, List: m.GetList(),
			})
		}
	}
	return answer
}
