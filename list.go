package hereis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
	"hereis/sipfront"
)

// listTimeout is how long a node may take for one page before it counts as missing.
const listTimeout = 2 * time.Second

// Query says which users are listed.
type Query struct {
	// Pattern is a domain as "@example.com", an AoR, or "*".
	Pattern string
	// After is the cursor of an earlier list: the last AoR that it gave.
	After string
	// Limit is how many users are listed at most; 0: all.
	Limit int
}

// Missing is a node that did not answer, and why.
type Missing struct {
	Node string
	Err  error
}

// Listed is how a list ended.
type Listed struct {
	// Next is the cursor to go on from; empty: there is no more.
	Next string
	// Missing nodes did not answer, and were not asked again: what they alone
	// know is not in the list.
	Missing []Missing
	// Settled: the view of this node was settled at the end.
	Settled bool
}

// List gives each the users who are online, in the whole cluster, in the order
// of a hash of their AoRs; nowMS is the node time to which their expiries
// compare. It holds a page of each node in memory and locks nothing. An error of each ends it.
//
// Each page is asked of both holders of a user, and of all nodes anew from one
// position: so a user who is online all the time is listed once, also when
// members come and go meanwhile and users change owners. Who comes or goes
// during the list may be in it or not.
func (n *Node) List(ctx context.Context, q Query, each func(rec *messages.Record, nowMS int64) error) (*Listed, error) {
	out, count := &Listed{}, 0
	after := q.After
	for {
		page, more, err := n.listPage(ctx, q.Pattern, after, out)
		if err != nil {
			return nil, err
		}
		for _, rec := range page.records {
			if q.Limit > 0 && count >= q.Limit {
				out.Next, out.Settled = after, n.cluster.Settled()
				return out, nil
			}
			if err := each(rec, page.nowMS); err != nil {
				return nil, err
			}
			count++
			after = rec.Aor
		}
		if more == "" {
			out.Settled = n.cluster.Settled()
			return out, nil
		}
		after = more
	}
}

// listed is one page of the whole cluster.
type listed struct {
	records []*messages.Record
	nowMS   int64
}

// listPage asks every node that has answered so far for what comes after a
// position, and merges up to the first position at which one has more to say.
func (n *Node) listPage(ctx context.Context, pattern, after string, out *Listed) (page listed, more string, err error) {
	if pattern == "*" {
		pattern = ""
	}
	asking, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	results := n.cluster.AskAll(asking, &messages.Snapshot{Pattern: pattern, After: after, Backup: true}, func(m cluster.Member) bool {
		return !slices.ContainsFunc(out.Missing, func(gone Missing) bool { return gone.Node == m.Name })
	})
	if err := ctx.Err(); err != nil {
		return page, "", err
	}
	merged := make(map[string]*messages.Record)
	for _, r := range results {
		got, err := typed[*messages.Snapshotted](r.Reply, r.Err)
		if err != nil {
			out.Missing = append(out.Missing, Missing{Node: r.Node, Err: err})
			continue
		}
		page.nowMS = max(page.nowMS, got.NowMs)
		if got.Next != "" && (more == "" || cluster.ListOrder(got.Next, more) < 0) {
			more = got.Next
		}
		for _, rec := range got.Records {
			if have := merged[rec.Aor]; have != nil {
				// What is here may be a node's own record: it is never changed.
				both := have.Clone()
				both.Merge(rec)
				rec = both
			}
			merged[rec.Aor] = rec
		}
	}
	for aor, rec := range merged {
		beyond := more != "" && cluster.ListOrder(aor, more) > 0
		if !beyond && slices.ContainsFunc(rec.Leases, func(l *messages.Lease) bool {
			return l.GetKind() <= messages.LeaseKind_LEASE_KIND_BINDING && rec.Alive(l, page.nowMS)
		}) {
			page.records = append(page.records, rec)
		}
	}
	slices.SortFunc(page.records, func(a, b *messages.Record) int { return cluster.ListOrder(a.Aor, b.Aor) })
	return page, more, nil
}

// NodeCount is how many users a node owns that are online, and their bindings.
type NodeCount struct {
	Node            string
	Users, Bindings uint64
	// Err is set if the node did not answer.
	Err error
}

// Count asks every node how many of the users that pattern names are online.
// Each user is counted by the owner: while members change, one may be counted
// twice or not at all.
func (n *Node) Count(ctx context.Context, pattern string) []NodeCount {
	if pattern == "*" {
		pattern = ""
	}
	var counts []NodeCount
	for _, r := range AskAll[*messages.Counted](ctx, n, Everybody(), &messages.Count{Pattern: pattern}) {
		counts = append(counts, NodeCount{Node: r.Node, Users: r.Answer.GetUsers(), Bindings: r.Answer.GetBindings(), Err: r.Err})
	}
	return counts
}

// Settled tells whether this node knows all that it should.
func (n *Node) Settled() bool { return n.cluster.Settled() }

// Remove ends bindings of a user: the one that binding names (its key, or its
// Contact), or all of them if that is empty, as "Contact: *" of the device
// does. No device is told, and one that registers again is let in. The error is
// actors.ErrNotFound if there is no such binding.
func (n *Node) Remove(ctx context.Context, aor actors.AoR, binding string) (*messages.Removed, error) {
	removed, err := n.client.Remove(ctx, aor, binding)
	if err != nil {
		return nil, fmt.Errorf("aor %s: %w", aor, err)
	}
	return removed, nil
}

// CallPlan is what an INVITE to a user would do now.
type CallPlan struct {
	// Targets in order: best q first, the flows of one instance together.
	Targets []*messages.Target
	// Final: nothing can be added to them.
	Final bool
	// Status and Reason are the answer if there is no target; Err is why.
	Status int
	Reason string
	Err    error
}

// PlanCall asks where a call to a user would go. Its error is that of ctx.
func (n *Node) PlanCall(ctx context.Context, aor actors.AoR) (*CallPlan, error) {
	located, err := n.client.Locate(ctx, aor)
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	p := &CallPlan{Targets: located.GetTargets(), Final: located.GetFinal(), Err: err}
	if err != nil {
		p.Status, p.Reason = sipfront.StatusOf(err)
	}
	return p, nil
}
