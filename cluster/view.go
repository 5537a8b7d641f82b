package cluster

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"hereis/messages"
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
	return v
}

// placeable are the members that may hold: not draining, not flapping; if that
// leaves nobody, then all.
func placeable(nodes []viewNode, without func(string) bool) []int {
	pick := func(ok func(*viewNode) bool) (is []int) {
		for i := range nodes {
			if ok(&nodes[i]) {
				is = append(is, i)
			}
		}
		return is
	}
	for _, ok := range []func(*viewNode) bool{
		func(n *viewNode) bool { return !n.Draining && !without(n.Name) },
		func(n *viewNode) bool { return !n.Draining },
	} {
		if is := pick(ok); len(is) > 0 {
			return is
		}
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

// settling is a node's knowledge of how far its own view is confirmed (rule
// 14). It is guarded by Core.viewMu.
type settling struct {
	// reported has the members that said "done" for the present round, each
	// with the round that it was in itself.
	reported map[string]uint64
	// askedMS and wait time the next Report.
	askedMS, waitMS int64
	// base is the last view in which this node was settled, and since all
	// views from it to the present one; nil base: none, or a wake-up since.
	base  *view
	since []*view
}

// flaps remembers the changes of one member.
type flaps struct {
	changes []int64
	untilMS int64
}

// Members takes the whole list of members, live and failed.
func (c *Core) Members(now int64, list []Member) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	c.members = slices.Clone(list)
	c.countFlaps(now, list)
	first := !c.heard
	c.heard = true
	c.renew(now, first)
}

// Woke starts a new round: no report counts any more, and nothing that this
// node concludes from itself alone (rule 16).
func (c *Core) Woke(now int64) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
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
	st.askedMS, st.waitMS = 0, 0
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

// onReport takes a member's question and its quarantines. The answer is given
// by answerReports as soon as it is true.
func (c *Core) onReport(now int64, from string, m *messages.Report) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	changed := false
	for _, q := range m.Quarantines {
		until := min(q.UntilMs, now+flapQuietMS+messages.SkewBoundMS)
		f := c.flapping[q.Name]
		if f == nil {
			f = &flaps{}
			c.flapping[q.Name] = f
		}
		if until > f.untilMS && until > now {
			changed = changed || f.untilMS <= now
			f.untilMS = until
		}
	}
	if changed {
		c.renew(now, false)
	}
	v := c.view.Load()
	p := v.peer(from)
	if p == nil {
		// It may become a member here in a moment; it will ask again.
		return
	}
	if p.wants == nil || p.wants.Incarnation != m.Incarnation || p.wants.Round < m.Round {
		p.wants, p.compared = m, false
		c.sumAgain()
		// This member has been in another view since it reported to us, or has
		// slept: what it said then is void.
		if r, ok := c.settling.reported[from]; ok && r < m.Round {
			delete(c.settling.reported, from)
			c.settling.askedMS = 0
			c.checkSettled(now, v)
		}
	}
	p.answered = false
	c.answerReports(now, v)
}

// answerReports offers each member that asks what its sums say that it lacks,
// and says "done" when it has acknowledged that. An acknowledgement given in an
// earlier round of it proves nothing: it may have let go since. viewMu is held.
func (c *Core) answerReports(now int64, v *view) {
	if c.scanning() {
		return
	}
	for i := range v.nodes {
		p := v.nodes[i].peer
		if p == nil || p.wants == nil || p.answered || p.wants.Digest != v.digest ||
			p.wants.Incarnation != v.nodes[i].Incarnation {
			continue
		}
		if !p.compared {
			p.compared = true
			if buckets, of := differing(c.scan.sums[p.name], p.wants.Buckets); len(buckets) > 0 {
				c.offerBuckets(now, v, p, buckets, of)
			}
		}
		if p.handover.Load() != 0 {
			continue
		}
		p.answered = c.event(p, &messages.Reported{
			Incarnation: c.cfg.Incarnation, ReporterRound: v.round,
			AskerIncarnation: p.wants.Incarnation, Round: p.wants.Round, Digest: v.digest,
		})
	}
}

// onReported counts a member's "done".
func (c *Core) onReported(now int64, from string, m *messages.Reported) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	v := c.view.Load()
	if m.AskerIncarnation != c.cfg.Incarnation || m.Round != v.round || m.Digest != v.digest || !v.has(from, m.Incarnation) {
		return
	}
	c.settling.reported[from] = m.ReporterRound
	c.checkSettled(now, v)
}

// checkSettled decides whether the view is settled. viewMu is held.
func (c *Core) checkSettled(now int64, v *view) {
	settled := c.heard && (len(v.nodes) > 1 || len(v.failed) == 0)
	for i := range v.nodes {
		if i != v.self {
			_, ok := c.settling.reported[v.nodes[i].Name]
			settled = settled && ok
		}
	}
	c.settled.Store(settled)
	if settled {
		c.settling.base, c.settling.since = v, nil
	}
	c.publishShortcut(v)
}

// shortcut is rule 14's per-AoR settledness: what is known without all reports.
type shortcut struct {
	// base is the last settled view, chain the views since, the present one last.
	base  *view
	chain []*view
	// missing are the members, new since base, that have not reported.
	missing []string
}

// publishShortcut makes the state of settling readable without viewMu.
func (c *Core) publishShortcut(v *view) {
	st := &c.settling
	if st.base == nil || len(st.since) > 4 {
		// After many changes in a row waiting for the reports is cheaper than this.
		c.short.Store(nil)
		return
	}
	sc := &shortcut{base: st.base, chain: st.since}
	for i := range v.nodes {
		n := &v.nodes[i]
		if i == v.self || alwaysIn(n.Name, n.Incarnation, st.base, st.since) {
			continue
		}
		if _, ok := st.reported[n.Name]; !ok {
			sc.missing = append(sc.missing, n.Name)
		}
	}
	c.short.Store(sc)
}

// alwaysIn tells whether a member was in base and in every view since.
func alwaysIn(name string, incarnation uint64, base *view, since []*view) bool {
	if !base.has(name, incarnation) {
		return false
	}
	for _, v := range since {
		if !v.has(name, incarnation) {
			return false
		}
	}
	return true
}

// complete tells whether this node knows all there is to know of an AoR,
// beside what a member named except may have itself.
func (c *Core) complete(v *view, aor, except string) bool {
	missing, ok := c.lacking(v, aor, except)
	return ok && len(missing) == 0
}

// lacking names the members whose word is missing for this node to know all
// there is to know of an AoR, beside what a member named except may have
// itself; false: that cannot be said.
func (c *Core) lacking(v *view, aor, except string) ([]string, bool) {
	if c.settled.Load() {
		return nil, v.holds(v.self, aor)
	}
	sc := c.short.Load()
	if sc == nil || len(v.nodes) == 1 && len(v.failed) > 0 || !sc.base.holder(c.self.Name, c.self.Incarnation, aor) {
		return nil, false
	}
	for _, w := range sc.chain {
		// A former holder serves as if it still were one, until rule 10 lets
		// it go: but only as long as nobody held it in between.
		if !w.holds(w.self, aor) && (w != v || len(sc.chain) != 1 || except == "") {
			return nil, false
		}
	}
	missing := slices.DeleteFunc(slices.Clone(sc.missing), func(name string) bool { return name == except })
	return missing, true
}

// askReports asks those members that have not reported. viewMu is held.
func (c *Core) askReports(now int64, v *view) {
	st := &c.settling
	if c.settled.Load() || c.scanning() || now < st.askedMS+st.waitMS {
		return
	}
	st.askedMS = now
	st.waitMS = min(max(50, st.waitMS*2), 2000)
	var flapping []*messages.Quarantine
	for name, f := range c.flapping {
		if f.untilMS > now {
			flapping = append(flapping, &messages.Quarantine{Name: name, UntilMs: f.untilMS})
		}
	}
	for i := range v.nodes {
		if _, ok := st.reported[v.nodes[i].Name]; !ok && i != v.self {
			c.event(v.nodes[i].peer, &messages.Report{
				Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest,
				Quarantines: flapping, Buckets: c.scan.sums.packed(v.nodes[i].Name),
			})
		}
	}
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
