package cluster

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"
)

// Flapping (rule 14): a member with flapChanges changes within flapWindowMS
// gets no placement until it has been stable for flapQuietMS.
const (
	flapChanges  = 3
	flapWindowMS = 60_000
	flapQuietMS  = 30_000
)

// view is what a node holds as live at one time. It never changes: a change of
// members makes a new one with a new round.
type view struct {
	// round counts the changes of this node's view, its start and its wake-ups.
	round uint64
	// digest is of the names and incarnations of nodes, and of who gets placement.
	digest uint64
	// nodes are the live members, this one too, by name.
	nodes []viewNode
	// self is this node's index in nodes.
	self int
	// placeable are the indices of those that may be owner or backup.
	placeable []int
	// failed are the remembered members that are not live.
	failed []Member
	// isLive and incarnationOf are the methods live and incarnation as values, which each question is given.
	isLive        func(name string) bool
	incarnationOf func(name string) uint64
}

type viewNode struct {
	Member
	hash uint64
	// peer is nil for this node itself.
	peer *neighbor
}

// newView makes the view of the members in list; self is always in it.
// without tells who gets no placement, although live.
func newView(round uint64, self Member, list []Member, without func(name string) bool, peerOf func(Member) *neighbor) *view {
	v := &view{round: round}
	v.nodes = append(v.nodes, viewNode{Member: self, hash: xxh3.HashString(self.Name)})
	for _, m := range list {
		switch {
		case m.Name == self.Name:
			// A node knows itself best; only that it drains is said by the list.
			v.nodes[0].Draining = v.nodes[0].Draining || m.Draining
			v.nodes[0].Stream, v.nodes[0].Remote, v.nodes[0].Gossip = m.Stream, m.Remote, m.Gossip
		case m.FailedMS != 0:
			v.failed = append(v.failed, m)
		default:
			v.nodes = append(v.nodes, viewNode{Member: m, hash: xxh3.HashString(m.Name), peer: peerOf(m)})
		}
	}
	slices.SortFunc(v.nodes, func(a, b viewNode) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	v.self = v.index(self.Name)
	v.placeable = placeable(v.nodes, without)
	v.digest = v.sum()
	v.isLive, v.incarnationOf = v.live, v.incarnation
	return v
}

// placeable are the members that may hold: not draining, not flapping; but one
// holder alone is worse than a flapping second one, and if that leaves nobody,
// then all may.
func placeable(nodes []viewNode, without func(string) bool) []int {
	pick := func(ok func(*viewNode) bool) (is []int) {
		for i := range nodes {
			if ok(&nodes[i]) {
				is = append(is, i)
			}
		}
		return is
	}
	if is := pick(func(n *viewNode) bool { return !n.Draining && !without(n.Name) }); len(is) > 1 {
		return is
	}
	if is := pick(func(n *viewNode) bool { return !n.Draining }); len(is) > 0 {
		return is
	}
	return pick(func(*viewNode) bool { return true })
}

// sum is the digest. Placement is part of it, as two nodes that place
// differently must not believe each other settled.
func (v *view) sum() uint64 {
	var b []byte
	for i := range v.nodes {
		b = append(b, v.nodes[i].Name...)
		b = append(b, 0)
		b = binary.BigEndian.AppendUint64(b, v.nodes[i].Incarnation)
		if slices.Contains(v.placeable, i) {
			b = append(b, 1)
		}
	}
	return xxh3.Hash(b)
}

// index finds a member by name, or none.
func (v *view) index(name string) int {
	i, ok := slices.BinarySearchFunc(v.nodes, name, func(n viewNode, name string) int {
		return cmp.Compare(n.Name, name)
	})
	if !ok {
		return none
	}
	return i
}

// has tells whether a member is live in this incarnation.
func (v *view) has(name string, incarnation uint64) bool {
	i := v.index(name)
	return i != none && v.nodes[i].Incarnation == incarnation
}

// live tells whether a node is in the view.
func (v *view) live(name string) bool { return v.index(name) != none }

// incarnation is that of a live member, 0 for others.
func (v *view) incarnation(name string) uint64 {
	if i := v.index(name); i != none {
		return v.nodes[i].Incarnation
	}
	return 0
}

// peer finds another live member, or nil.
func (v *view) peer(name string) *neighbor {
	if i := v.index(name); i != none {
		return v.nodes[i].peer
	}
	return nil
}

// name is that of node i, empty for none.
func (v *view) name(i int) string {
	if i == none {
		return ""
	}
	return v.nodes[i].Name
}

// same tells whether o has the same members, placement and remembered failures.
func (v *view) same(o *view) bool {
	return v.digest == o.digest && len(v.failed) == len(o.failed) &&
		v.nodes[v.self].Draining == o.nodes[o.self].Draining
}

// holder tells whether (name, incarnation) was owner or backup of an AoR.
func (v *view) holder(name string, incarnation uint64, aor string) bool {
	owner, backup := v.place(aor)
	for _, i := range [...]int{owner, backup} {
		if i != none && v.nodes[i].Name == name && v.nodes[i].Incarnation == incarnation {
			return true
		}
	}
	return false
}

// flaps remembers the changes of one member.
type flaps struct {
	changes []int64
	untilMS int64
}

// Members takes the whole list of members, live and failed.
func (c *Core) Members(now int64, list []Member) {
	c.see(now)
	defer c.stir()
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	c.members = slices.Clone(list)
	c.noteAway(now, list)
	c.countFlaps(now, list)
	first := !c.heard
	c.heard = true
	c.renew(now, first)
}

// Woke starts a new round: no report counts any more, and nothing that this
// node concludes from itself alone (rule 16).
func (c *Core) Woke(now int64) {
	c.see(now)
	defer c.stir()
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	c.settling.wokeMS = now
	c.renew(now, true)
}

// renew makes a new view if the members or their placement have changed, or if
// it is forced. viewMu is held.
func (c *Core) renew(now int64, woke bool) {
	old := c.view.Load()
	v := newView(old.round+1, c.self, c.members, func(name string) bool {
		f := c.flapping[name]
		return f != nil && f.untilMS > now
	}, c.peerOf)
	if !woke && v.same(old) {
		// The list may have brought addresses, which nothing here depends on.
		return
	}
	st := &c.settling
	if woke {
		st.base, st.since = nil, nil
	} else if st.base != nil {
		st.since = append(st.since, v)
	}
	st.reported = make(map[string]uint64, len(v.nodes))
	st.askedMS, st.waitMS, st.confirmed = 0, 0, false
	c.settled.Store(false)
	c.stats.Rounds.Add(1)
	c.view.Store(v)
	c.beginScan(v)
	c.checkSettled(now, v)
}

// countFlaps notes which members came, went or restarted. A first appearance
// is no change.
func (c *Core) countFlaps(now int64, list []Member) {
	for _, m := range list {
		if m.Name == c.self.Name {
			continue
		}
		state := memberState{m.Incarnation, m.FailedMS == 0}
		last, known := c.lastState[m.Name]
		c.lastState[m.Name] = state
		if !known || last == state {
			continue
		}
		f := c.flapping[m.Name]
		if f == nil {
			f = &flaps{}
			c.flapping[m.Name] = f
		}
		f.changes = append(f.changes, now)
		f.changes = slices.DeleteFunc(f.changes, func(t int64) bool { return t < now-flapWindowMS })
		if len(f.changes) >= flapChanges {
			f.untilMS = now + flapQuietMS
		}
	}
}

// memberState is what counts as a change when it changes.
type memberState struct {
	incarnation uint64
	live        bool
}

// tickView ends quarantines, repeats questions and answers those of others.
func (c *Core) tickView(now int64) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	for name, f := range c.flapping {
		if f.untilMS != 0 && f.untilMS <= now {
			f.untilMS = 0
			c.renew(now, false)
		}
		if f.untilMS == 0 && (len(f.changes) == 0 || f.changes[len(f.changes)-1] < now-flapWindowMS) {
			delete(c.flapping, name)
		}
	}
	v := c.view.Load()
	c.askReports(now, v)
	c.answerReports(now, v)
}

// Settled tells whether this node knows all that it should hold (rule 14).
func (c *Core) Settled() bool { return c.settled.Load() }

// viewNames lists the members of the view that which wants; nil wants all.
func (c *Core) viewNames(which func(Member) bool) []string {
	v := c.view.Load()
	names := make([]string, 0, len(v.nodes))
	for i := range v.nodes {
		if which == nil || which(v.nodes[i].Member) {
			names = append(names, v.nodes[i].Name)
		}
	}
	return names
}

// MemberStatus is a member as this node sees it.
type MemberStatus struct {
	Member
	// State is "self", "live", "draining" or "failed".
	State string
	// Quarantined: it flaps and gets no placement.
	Quarantined bool
	// Reported: it has handed over all that this node should hold.
	Reported bool
	// Settled, Round and Digest are this node's own; for peers the last that they sent.
	Settled bool
	Round   uint64
	Digest  uint64
	// InFlight are unanswered requests there, and RoundTrip their mean time in ms.
	InFlight  int64
	RoundTrip float64
	// FailedForMS is how long it has been failed, in ms.
	FailedForMS int64
}

// MemberStatus lists the members of the view and the remembered failed ones.
func (c *Core) MemberStatus(now int64) []MemberStatus {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	v := c.view.Load()
	var out []MemberStatus
	for i := range v.nodes {
		n := &v.nodes[i]
		s := MemberStatus{Member: n.Member, State: "live"}
		if n.Draining {
			s.State = "draining"
		}
		if f := c.flapping[n.Name]; f != nil {
			s.Quarantined = f.untilMS > now
		}
		if i == v.self {
			s.State = "self"
			s.Settled, s.Round, s.Digest = c.settled.Load(), v.round, v.digest
		} else {
			_, s.Reported = c.settling.reported[n.Name]
			s.Round, s.Digest = n.peer.seenRound.Load(), n.peer.seenDigest.Load()
			s.InFlight, s.RoundTrip = n.peer.inflight.Load(), n.peer.roundTrip()
		}
		out = append(out, s)
	}
	for _, m := range v.failed {
		out = append(out, MemberStatus{Member: m, State: "failed", FailedForMS: now - m.FailedMS})
	}
	return out
}
