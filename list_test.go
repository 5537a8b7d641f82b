package hereis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hereis"
	"hereis/actors"
	"hereis/messages"
)

func TestListCountAndRemoveOverAllNodes(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	p := newPhone(t)
	want := map[string]bool{}
	for i := range 60 {
		user := fmt.Sprintf("u%d", i)
		if res := p.send(nodes[i%3], "REGISTER", "sip:example.com", user, fmt.Sprintf("Contact: <sip:%s@%s>", user, p.addr())); !strings.HasPrefix(res, "SIP/2.0 200") {
			t.Fatalf("register %s: %s", user, res)
		}
		want["sip:"+user+"@example.com"] = true
	}
	ctx := t.Context()
	for _, n := range nodes {
		mustList(t, n, want)
		users := uint64(0)
		for _, c := range n.Count(ctx, "*") {
			if c.Err != nil {
				t.Error(c.Node, c.Err)
			}
			users += c.Users
		}
		if users != 60 {
			t.Errorf("%s counts %d, want 60", n.Name(), users)
		}
	}
	removed, err := nodes[2].Remove(ctx, "sip:u7@example.com", "")
	if err != nil || len(removed.Removed) != 1 || !removed.Copied {
		t.Fatalf("rm: %v %v", removed, err)
	}
	removed, err = nodes[0].Remove(ctx, "sip:u8@example.com", "sip:u8@"+p.addr())
	if err != nil || len(removed.Removed) != 1 || !removed.Copied {
		t.Fatalf("kick: %v %v", removed, err)
	}
	if _, err := nodes[1].Remove(ctx, "sip:u8@example.com", "sip:u8@"+p.addr()); !errors.Is(err, actors.ErrNotFound) {
		t.Errorf("kick again: %v, want ErrNotFound", err)
	}
	delete(want, "sip:u7@example.com")
	delete(want, "sip:u8@example.com")
	for _, n := range nodes {
		mustList(t, n, want)
		plan, err := n.PlanCall(ctx, "sip:u7@example.com")
		if err != nil || plan.Status != 404 {
			t.Errorf("%s: call to a removed user: %+v %v", n.Name(), plan, err)
		}
		if plan, err = n.PlanCall(ctx, "sip:u9@example.com"); err != nil || len(plan.Targets) != 1 {
			t.Errorf("%s: call to another: %+v %v", n.Name(), plan, err)
		}
	}
	// It is no ban.
	if res := p.send(nodes[0], "REGISTER", "sip:example.com", "u7", fmt.Sprintf("Contact: <sip:u7@%s>", p.addr())); !strings.HasPrefix(res, "SIP/2.0 200") {
		t.Errorf("register after rm: %s", res)
	}
}

// mustList lists everybody at once and by pages of 7.
func mustList(t *testing.T, n *member, want map[string]bool) {
	t.Helper()
	var all, paged []string
	end, err := n.List(t.Context(), hereis.Query{Pattern: "@example.com"}, func(rec *messages.Record, _ int64) error {
		all = append(all, rec.Aor)
		return nil
	})
	if err != nil || len(end.Missing) > 0 || end.Next != "" {
		t.Fatalf("%s: %+v %v", n.Name(), end, err)
	}
	for cursor := ""; ; {
		end, err := n.List(t.Context(), hereis.Query{Pattern: "*", After: cursor, Limit: 7}, func(rec *messages.Record, _ int64) error {
			paged = append(paged, rec.Aor)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if cursor = end.Next; cursor == "" {
			break
		}
	}
	if !slices.Equal(all, paged) || len(all) != len(want) || slices.ContainsFunc(all, func(aor string) bool { return !want[aor] }) {
		t.Errorf("%s lists %v, by pages %v, want %v", n.Name(), all, paged, want)
	}
}

// A user who is online all the time is listed once, though members come
// and go between the pages and with them owners change.
func TestListIsCompleteWhileOwnersChange(t *testing.T) {
	cfgs := configs(t, 4)
	nodes := startAll(t, cfgs[:3], nil)
	p := newPhone(t)
	const users = 120
	for i := range users {
		user := fmt.Sprintf("u%d", i)
		if res := p.send(nodes[i%3], "REGISTER", "sip:example.com", user, fmt.Sprintf("Contact: <sip:%s@%s>", user, p.addr())); !strings.HasPrefix(res, "SIP/2.0 200") {
			t.Fatalf("register %s: %s", user, res)
		}
	}
	seen := map[string]int{}
	cursor := ""
	page := func() {
		end, err := nodes[0].List(t.Context(), hereis.Query{Pattern: "*", After: cursor, Limit: 20}, func(rec *messages.Record, _ int64) error {
			seen[rec.Aor]++
			return nil
		})
		if err != nil || len(end.Missing) > 0 {
			t.Fatalf("%+v %v", end, err)
		}
		cursor = end.Next
	}
	page()
	nodes = append(nodes, start(t, cfgs[3], nil)) // a member comes
	page()
	settled(t, nodes)
	page()
	if err := nodes[1].stop(); err != nil { // one leaves
		t.Fatal(err)
	}
	nodes = slices.Delete(nodes, 1, 2)
	page()
	settled(t, nodes)
	for cursor != "" {
		page()
	}
	if len(seen) != users {
		t.Errorf("%d users listed, want %d", len(seen), users)
	}
	for aor, n := range seen {
		if n != 1 {
			t.Errorf("%s is listed %d times", aor, n)
		}
	}
}

func TestListOfACancelledCallerEnds(t *testing.T) {
	nodes := startAll(t, configs(t, 1), nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := nodes[0].List(ctx, hereis.Query{Pattern: "*"}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
