package hereis_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// Who watches a user is known from every node, whichever nodes they watch by, to
// the last of more than fit into an answer between nodes; one that is down is named.
func TestWatchersFromEveryNode(t *testing.T) {
	cfgs := configs(t, 3)
	file := withFile(t, friends)
	for i := range cfgs {
		cfgs[i].Lists = file
	}
	nodes := startAll(t, cfgs, nil)
	watcher := newAgent(t)
	const many = 250
	for i := range many {
		watcher.subscribe(nodes[0], fmt.Sprint("w", i))
	}
	watcher.subscribe(nodes[1], "desk", "Event: dialog", "Expires: 600")
	list := "sip:friends@example.com"
	watcher.ask(nodes[2], "SUBSCRIBE", list, "sip:lister@example.com", "<"+list+">", "lister", "",
		"Event: presence", "Expires: 600", "Supported: eventlist")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, from := range nodes {
		var seen []string
		for _, at := range from.Watchers(ctx, "sip:alice@example.com", 10_000) {
			if at.Err != nil || at.More {
				t.Errorf("%s: %v, more %v", at.Node, at.Err, at.More)
			}
			for _, w := range at.Watchers {
				if w.State != "active" || w.ExpiresMs-at.NowMS > 600_000 || w.ExpiresMs < at.NowMS {
					t.Errorf("%s: %v", at.Node, w)
				}
				if !slices.Contains(seen, w.Watcher) {
					seen = append(seen, w.Watcher)
				}
				if by := (w.Watcher == "sip:lister@example.com"); by != (w.List == list) || by != (at.Node == "n3") {
					t.Errorf("%s: %v", at.Node, w)
				}
				if desk := w.Watcher == "sip:desk@example.com"; desk != (w.Event == "dialog") || desk != (at.Node == "n2") {
					t.Errorf("%s: %v", at.Node, w)
				}
			}
		}
		if len(seen) != many+2 {
			t.Errorf("%d watchers seen from %s, want %d", len(seen), from.Name(), many+2)
		}
	}
	if at := nodes[1].Watchers(ctx, "sip:alice@example.com", 3); len(at) != 3 || len(at[0].Watchers) != 3 || !at[0].More {
		t.Errorf("3 at most: %v", at)
	}
	if at := nodes[1].Watchers(ctx, "sip:nobody@example.com", 3); len(at) != 3 || len(at[0].Watchers)+len(at[1].Watchers)+len(at[2].Watchers) != 0 {
		t.Errorf("nobody: %v", at)
	}
}
