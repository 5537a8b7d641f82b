package cluster

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"hereis/messages"
)

// interestMS is how long a member's interest is remembered; it is repeated
// three times in that time.
const interestMS = 30_000

// ErrTooManyWatches is what a watcher above Config.MaxWatches gets.
var ErrTooManyWatches = errors.New("too many watchers")

// watchTable has this node's watchers, and what other members watch.
type watchTable struct {
	mu sync.Mutex
	// local are the watchers of this node.
	local map[*watcher]struct{}
	// remote has the patterns of each member, and when they are forgotten.
	remote map[string]interest
	sentMS int64
	ended  bool
}

// watcher is one receiver of events.
type watcher struct {
	pattern string
	// events is sent to by publish and closed by unwatch, both with
	// watchTable.mu held; Config.WatchBuffer deep, as a sender never waits.
	events chan *messages.UserEvent
}

type interest struct {
	patterns []string
	untilMS  int64
}

func (t *watchTable) init() {
	t.local = make(map[*watcher]struct{})
	t.remote = make(map[string]interest)
}

// matches tells whether a pattern names an AoR: the AoR itself, its
// "@domain", or "*".
func matches(pattern, aor string) bool {
	return pattern == "*" || pattern == aor ||
		strings.HasPrefix(pattern, "@") && strings.HasSuffix(aor, pattern)
}

func (c *Core) watch(now int64, pattern string) (*watcher, error) {
	t := &c.watches
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return nil, ErrStopped
	}
	if len(t.local) >= c.cfg.MaxWatches {
		t.mu.Unlock()
		return nil, ErrTooManyWatches
	}
	w := &watcher{pattern: pattern, events: make(chan *messages.UserEvent, c.cfg.WatchBuffer)}
	t.local[w] = struct{}{}
	t.mu.Unlock()
	c.shareInterest(now, "")
	return w, nil
}

func (c *Core) unwatch(w *watcher) {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.local[w]; ok {
		delete(t.local, w)
		close(w.events)
	}
}

func (c *Core) stopWatches() {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for w := range t.local {
		delete(t.local, w)
		close(w.events)
	}
}

// shareInterest tells a member, or all if to is empty, what is watched here.
func (c *Core) shareInterest(now int64, to string) {
	m := c.ownInterest()
	if to == "" {
		c.watches.mu.Lock()
		c.watches.sentMS = now
		c.watches.mu.Unlock()
	}
	if len(m.Patterns) == 0 {
		return
	}
	v := c.view.Load()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil && (to == "" || to == p.name) {
			c.event(p, m)
		}
	}
}

// ownInterest is what the watchers of this node want to know.
func (c *Core) ownInterest() *messages.WatchInterest {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &messages.WatchInterest{TtlMs: interestMS}
	for w := range t.local {
		m.Patterns = append(m.Patterns, w.pattern)
	}
	slices.Sort(m.Patterns)
	m.Patterns = slices.Compact(m.Patterns)
	return m
}

// tickWatches repeats this node's interest.
func (c *Core) tickWatches(now int64) {
	t := &c.watches
	t.mu.Lock()
	due := len(t.local) > 0 && now >= t.sentMS+interestMS/3
	t.mu.Unlock()
	if due {
		c.shareInterest(now, "")
	}
}

// onInterest remembers what a member watches.
func (c *Core) onInterest(now int64, from string, m *messages.WatchInterest) {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remote[from] = interest{
		patterns: m.Patterns[:min(len(m.Patterns), c.cfg.MaxWatches)],
		untilMS:  now + min(m.TtlMs, 2*interestMS),
	}
	for name, i := range t.remote {
		if i.untilMS < now {
			delete(t.remote, name)
		}
	}
}

// publish sends an event to the nodes that watch the user, this one too.
func (c *Core) publish(ev *messages.UserEvent) {
	t := &c.watches
	t.mu.Lock()
	var to []string
	for name, i := range t.remote {
		if i.untilMS >= ev.Ms && slices.ContainsFunc(i.patterns, func(p string) bool { return matches(p, ev.Aor) }) {
			to = append(to, name)
		}
	}
	t.mu.Unlock()
	c.onUserEvent(ev)
	v := c.view.Load()
	for _, name := range to {
		if p := v.peer(name); p != nil {
			c.stats.Events.Add(1)
			c.ride(p, ev)
		}
	}
}

// onUserEvent hands an event to this node's watchers; one that is slow misses it.
func (c *Core) onUserEvent(ev *messages.UserEvent) {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.local {
		if !matches(w.pattern, ev.Aor) {
			continue
		}
		select {
		case w.events <- ev:
		default:
			c.stats.WatchDrops.Add(1)
		}
	}
}
