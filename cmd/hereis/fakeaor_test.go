package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"hereis/admin"
	"hereis/messages"
)

// List implements admin.Node: 3 users, and what the pattern says.
func (f *fakeNode) List(_ context.Context, q admin.ListQuery, each func(*messages.Record, int64) error) (end admin.ListEnd, err error) {
	if q.Pattern == "@refused" {
		return end, fmt.Errorf("%w: pattern", admin.ErrBadRequest)
	}
	for _, user := range []string{"zoe", "alice", "bob"} {
		rec := &messages.Record{Aor: "sip:" + user + "@localhost", Leases: []*messages.Lease{{
			Key: []byte("k"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "node1",
			Stamp: &messages.Stamp{Ms: 1_700_000_000_000}, ExpiresMs: 1_700_000_100_000,
		}}}
		if err := each(rec, 1_700_000_040_000); err != nil {
			return end, err
		}
		if q.Limit == 1 {
			end.Cursor = rec.Aor
			break
		}
	}
	end.Settled = q.Pattern != "@unsettled"
	switch q.Pattern {
	case "@partial":
		end.Missing = []admin.Reply{{Node: "node2", Err: errors.New("no answer")}}
	case "@broken":
		return end, errors.New("boom")
	}
	return end, nil
}

// Count implements admin.Node.
func (f *fakeNode) Count(_ context.Context, pattern string) ([]admin.NodeCount, error) {
	counts := []admin.NodeCount{{Node: "node1", Users: 2, Bindings: 3}, {Node: "node2", Users: 1, Bindings: 1}}
	if pattern == "@partial" {
		counts[1] = admin.NodeCount{Node: "node2", Err: errors.New("no answer")}
	}
	return counts, nil
}

// Watchers implements admin.Node.
func (f *fakeNode) Watchers(_ context.Context, aor string, limit int) (string, []admin.NodeWatchers, error) {
	if !strings.Contains(aor, "alice") {
		return "sip:" + aor + "@localhost", nil, nil
	}
	nodes := []admin.NodeWatchers{{Node: "node1", NowMS: 1_700_000_040_000, Watchers: []*messages.ServedWatcher{
		{Id: 7, Event: "presence", Watcher: "sip:bob@localhost", Authenticated: true, State: "active", SinceMs: 1_700_000_000_000, ExpiresMs: 1_700_000_100_000},
		{Id: 9, Event: "dialog", Watcher: "sip:carol@elsewhere.example", State: "pending", SinceMs: 1_700_000_030_000, ExpiresMs: 1_700_003_600_000},
	}}, {Node: "node2", NowMS: 1_700_000_040_100, Watchers: []*messages.ServedWatcher{
		{Id: 3, Event: "presence", State: "polite-block", SinceMs: 1_700_000_040_000, ExpiresMs: 1_700_000_640_100, List: "sip:friends@localhost"},
	}}}
	if limit == 1 {
		nodes[0].Watchers, nodes[0].More = nodes[0].Watchers[:1], true
	}
	if strings.Contains(aor, "partial") {
		nodes[1] = admin.NodeWatchers{Node: "node2", Err: errors.New("no answer")}
	}
	return "sip:alice@localhost", nodes, nil
}

// Remove implements admin.Node.
func (f *fakeNode) Remove(_ context.Context, aor, binding string) (*messages.Removed, error) {
	if !strings.Contains(aor, "alice") || binding == "sip:nope" {
		return nil, admin.ErrNotFound
	}
	w, err := f.Where(context.Background(), "alice")
	if err != nil {
		return nil, err
	}
	return &messages.Removed{Removed: w.Record.Leases[1:], NowMs: w.NowMs, Copied: true}, nil
}

// PlanCall implements admin.Node.
func (f *fakeNode) PlanCall(_ context.Context, aor string) (*admin.CallPlan, error) {
	if !strings.Contains(aor, "alice") {
		return &admin.CallPlan{Status: 404, Reason: "Not Found"}, nil
	}
	return &admin.CallPlan{Final: true, Targets: []*messages.Target{
		{Contact: "sip:alice@192.0.2.1:40000", Q: 1000, Edge: "node1", EdgeLive: true, FlowBound: true, InstanceId: "urn:a", RegId: 1},
		{Contact: "sip:alice@192.0.2.1:40001", Q: 1000, Edge: "node2", EdgeLive: false, InstanceId: "urn:a", RegId: 2},
		{Contact: "sip:alice@192.0.2.2", Q: 500, Edge: "node3", EdgeLive: true, Path: []string{"<sip:p.example.com;lr>"}},
	}}, nil
}

// Healthy implements admin.Node.
func (f *fakeNode) Healthy() error { return nil }
