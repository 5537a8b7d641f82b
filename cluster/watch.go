package cluster

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// interestMS is how long a member's interest is remembered; it is repeated
// several times in that time.
const interestMS = 30_000

// ErrTooManyWatches is what a follower above Config.MaxWatches gets.
var ErrTooManyWatches = errors.New("too many watchers")

// watchTable has this node's followers, how it hears of users from other
// members, and what those follow.
type watchTable struct {
	mu sync.Mutex
	// follows are the followers of this node, and generation counts how often
	// they changed.
	follows    []*Follow
	generation uint64
	// heard is how this node hears from each member of its view.
	heard map[string]*hearing
	// remote has the interest of each member.
	remote map[string]*interest
	ended  bool
	// some: there is anything in follows or remote. It is written with mu held and
	// read without.
	some atomic.Bool
}

// interest is what a member follows.
type interest struct {
	patterns []string
	// untilMS is when it is forgotten.
	untilMS int64
	// epoch is of this interest since it was last forgotten, sent the events since.
	epoch, sent uint64
}

func (t *watchTable) init() {
	t.heard = make(map[string]*hearing)
	t.remote = make(map[string]*interest)
}

// matches tells whether a pattern names an AoR: the AoR itself, its
// "@domain", or "*".
func matches(pattern, aor string) bool {
	return pattern == "*" || pattern == aor ||
		strings.HasPrefix(pattern, "@") && strings.HasSuffix(aor, pattern)
}

// onInterest remembers what a member follows, and tells it where this node is
// with events for it.
func (c *Core) onInterest(now int64, from string, m *messages.WatchInterest) *messages.WatchPosition {
	v := c.view.Load()
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	i := t.remote[from]
	if i == nil {
		i = &interest{epoch: c.parts.Rand()}
		t.remote[from] = i
		t.some.Store(true)
	}
	i.patterns = m.Patterns[:min(len(m.Patterns), c.cfg.MaxWatches)]
	i.untilMS = now + min(m.TtlMs, 2*interestMS)
	return &messages.WatchPosition{
		Incarnation: c.cfg.Incarnation, Epoch: i.epoch, Sent: i.sent,
		Round: v.round, Digest: v.digest, Settled: c.settled.Load(),
	}
}

// forget forgets the members whose interest has ended. mu is held.
func (t *watchTable) forget(now int64) {
	for name, i := range t.remote {
		if i.untilMS < now {
			delete(t.remote, name)
		}
	}
	t.some.Store(len(t.follows)+len(t.remote) > 0)
}

// publish sends an event to the nodes that follow the user, this one too. One
// that is lost on its way leaves a gap that the receiver sees.
func (c *Core) publish(now int64, ev *messages.UserEvent) {
	v := c.view.Load()
	t := &c.watches
	t.mu.Lock()
	follows := t.matching(ev.Aor)
	told := 0
	for i := range v.nodes {
		p := v.nodes[i].peer
		if p == nil || !t.remote[p.name].wants(now, ev.Aor) {
			continue
		}
		own, to := shallow(ev), t.remote[p.name]
		to.sent++
		told++
		own.Epoch, own.Sent = to.epoch, to.sent
		c.stats.Events.Add(1)
		c.ride(p, own)
	}
	if told < len(t.remote) {
		// One that is not in the view may have this node in its own: it will see the gap.
		for name, to := range t.remote {
			if v.peer(name) == nil && to.wants(now, ev.Aor) {
				to.sent++
			}
		}
	}
	t.mu.Unlock()
	for _, f := range follows {
		f.word(v, ev)
	}
}

// wants tells whether a member is still interested in a user.
func (i *interest) wants(now int64, aor string) bool {
	return i != nil && i.untilMS >= now && slices.ContainsFunc(i.patterns, func(p string) bool { return matches(p, aor) })
}

// shallow copies an event for one receiver; the record is shared.
func shallow(ev *messages.UserEvent) *messages.UserEvent {
	return &messages.UserEvent{
		Aor: ev.Aor, Ms: ev.Ms, Node: ev.Node, Record: ev.Record,
		Incarnation: ev.Incarnation, Order: ev.Order, Complete: ev.Complete,
	}
}

// matching are the followers of an AoR. mu is held.
func (t *watchTable) matching(aor string) (follows []*Follow) {
	for _, f := range t.follows {
		if matches(f.pattern, aor) {
			follows = append(follows, f)
		}
	}
	return follows
}

// onUserEvent takes in a member's word on a user.
func (c *Core) onUserEvent(now int64, from string, ev *messages.UserEvent) {
	v := c.view.Load()
	if ev.Node != from || !v.has(from, ev.Incarnation) || ev.Record == nil {
		// A word of an earlier life is worth nothing: what is true of it, the
		// holders of now say.
		return
	}
	t := &c.watches
	t.mu.Lock()
	if h := t.heard[from]; h != nil {
		h.event(now, ev)
	}
	follows := t.matching(ev.Aor)
	t.mu.Unlock()
	for _, f := range follows {
		f.word(v, ev)
	}
}

// tickWatches tells members what is followed here, and asks them for what is
// missing.
func (c *Core) tickWatches(now int64) {
	t := &c.watches
	if !t.some.Load() {
		return
	}
	t.mu.Lock()
	t.forget(now)
	if len(t.follows) == 0 {
		t.mu.Unlock()
		return
	}
	v := c.view.Load()
	follows := slices.Clone(t.follows)
	m := t.interest()
	generation := t.generation
	var tell []string
	for i := range v.nodes {
		n := &v.nodes[i]
		if i == v.self {
			continue
		}
		h := t.heard[n.Name]
		if h == nil || h.incarnation != n.Incarnation {
			h = &hearing{incarnation: n.Incarnation}
			t.heard[n.Name] = h
		}
		h.tick(now)
		if h.due(now, v, generation) {
			h.asked, h.askedMS = generation, now
			tell = append(tell, n.Name)
		}
	}
	for name := range t.heard {
		if !v.live(name) {
			delete(t.heard, name)
		}
	}
	t.mu.Unlock()
	for _, name := range tell {
		c.AskNode(now, name, m, now+answerMS, func(reply proto.Message, _ error) { c.onPosition(name, generation, reply) })
	}
	for _, f := range follows {
		f.tick(now, v)
	}
}

// interest is what the followers of this node want to know. mu is held.
func (t *watchTable) interest() *messages.WatchInterest {
	m := &messages.WatchInterest{TtlMs: interestMS}
	for _, f := range t.follows {
		m.Patterns = append(m.Patterns, f.pattern)
	}
	slices.Sort(m.Patterns)
	m.Patterns = slices.Compact(m.Patterns)
	return m
}

// onPosition takes the answer of a member; a failure is asked again in its time.
func (c *Core) onPosition(name string, generation uint64, reply proto.Message) {
	m, ok := reply.(*messages.WatchPosition)
	if !ok {
		return
	}
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.heard[name]; h != nil && h.incarnation == m.Incarnation {
		h.position(h.askedMS, generation, m)
	}
}

// hearAgain makes the member whose stream is up again be asked at once.
func (c *Core) hearAgain(name string) {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.heard[name]; h != nil {
		h.askedMS = 0
	}
}
