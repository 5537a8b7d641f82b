package cluster

import (
	"cmp"
	"math"
	"slices"

	"hereis/messages"
)

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
	// wokeMS is when this node last woke up, 0 when a settled peer has
	// confirmed its view since; confirmed: that has happened in the present round.
	wokeMS    int64
	confirmed bool
}

// wokeAloneMS is how long a node that woke up waits for the word of a settled
// peer. All may have slept, and then nobody is settled: gossip has brought
// everybody's news by then, and the reports of all must do.
const wokeAloneMS = 3000

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

// answerReports pushes again to each member that asks what it has not
// acknowledged, offers it what its sums say that it lacks, and says "done" when it has acknowledged that. An acknowledgement given in an
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
			c.hurry(p)
			if buckets, of := differing(c.scan.sums.of(p.name), p.wants.Buckets); len(buckets) > 0 {
				c.offerBuckets(now, v, p, buckets, of, math.MaxInt64)
			}
		}
		if c.owes(p) {
			continue
		}
		p.answered = c.event(p, &messages.Reported{
			Incarnation: c.cfg.Incarnation, ReporterRound: v.round,
			AskerIncarnation: p.wants.Incarnation, Round: p.wants.Round, Digest: v.digest,
			Settled: c.settled.Load(),
		})
	}
}

// owes tells whether a member has not acknowledged all that it must before it
// is told "done". viewMu is held.
func (c *Core) owes(p *neighbor) bool {
	if c.off.WaitForAbsent {
		for _, q := range c.peers {
			if q.handover.Load() != 0 {
				return true
			}
		}
	}
	return p.handover.Load() != 0
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
	c.settling.confirmed = c.settling.confirmed || m.Settled
	c.checkSettled(now, v)
}

// checkSettled decides whether the view is settled. viewMu is held.
func (c *Core) checkSettled(now int64, v *view) {
	settled := c.heard && (len(v.nodes) > 1 || len(v.failed) == 0)
	for i := range v.nodes {
		if i != v.self && !c.off.SettledAtOnce {
			_, ok := c.settling.reported[v.nodes[i].Name]
			settled = settled && ok
		}
	}
	settled = settled && (c.mayTrustReports(now) || len(v.nodes) == 1)
	c.settled.Store(settled)
	if settled {
		c.settling.base, c.settling.since, c.settling.wokeMS = v, nil, 0
	}
	c.publishShortcut(v)
}

// mayTrustReports: after a wake-up the reports of members that are not settled
// themselves are not enough (rule 16). viewMu is held.
func (c *Core) mayTrustReports(now int64) bool {
	st := &c.settling
	return st.wokeMS == 0 || st.confirmed || c.off.AnyWakes || now >= st.wokeMS+wokeAloneMS
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

// lacksNothing tells whether an owner's complete record can lack nothing that has
// been acknowledged: a backup of before has missed what the owner, which may be
// dead, had accepted and not copied, until it has settled or asked (rule 13).
func (c *Core) lacksNothing(v *view, s *shard, aor string) bool {
	if c.settled.Load() || s.completed(aor, v.round) {
		return true
	}
	sc := c.short.Load()
	return sc != nil && ownedBy(sc.base, aor) && !slices.ContainsFunc(sc.chain, func(w *view) bool { return !ownedBy(w, aor) })
}

// askReports asks those members whose report is missing. viewMu is held.
func (c *Core) askReports(now int64, v *view) {
	st := &c.settling
	if c.settled.Load() || c.scanning() || now < st.askedMS+st.waitMS {
		return
	}
	if len(st.reported) == len(v.nodes)-1 && c.mayTrustReports(now) {
		c.checkSettled(now, v)
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
	slices.SortFunc(flapping, func(a, b *messages.Quarantine) int { return cmp.Compare(a.Name, b.Name) })
	for i := range v.nodes {
		// When all have reported and none of them was settled, each is asked again.
		if _, ok := st.reported[v.nodes[i].Name]; i != v.self && (!ok || len(st.reported) == len(v.nodes)-1) {
			c.event(v.nodes[i].peer, &messages.Report{
				Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest,
				Quarantines: flapping, Buckets: c.scan.sums.packed(v.nodes[i].Name, fineBuckets),
			})
		}
	}
}
