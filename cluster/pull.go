package cluster

import (
	"hereis/messages"
)

// holdersAsked is how many members in the rendezvous order are asked first:
// the other holder, and those that were holders before members came or went.
const holdersAsked = 4

// pull is a record being completed, with the requests that wait for it (rule 11).
type pull struct {
	aor      string
	round    uint64
	requests []*request
	// asked and waiting are members. few: their word is all that is missing;
	// wide: they are all members.
	asked, waiting map[string]bool
	few, wide      bool
	deadline       int64
	// agree: all that answered did so in this node's view.
	agree bool
}

// park makes a request wait until the record is complete, and starts to
// complete it. s is locked.
func (c *Core) park(now int64, v *view, s *shard, rq *request, after *effects) {
	c.stats.Parked.Add(1)
	if p := s.pulls[rq.aor]; p != nil && p.round == v.round {
		p.requests = append(p.requests, rq)
		return
	} else if p != nil {
		c.finishPull(now, v, s, p, false, after)
	}
	p := &pull{
		aor: rq.aor, round: v.round, requests: []*request{rq},
		asked: make(map[string]bool), waiting: make(map[string]bool), agree: true,
	}
	s.pulls[rq.aor] = p
	c.stats.Pulls.Add(1)
	ask := v.order(rq.aor, holdersAsked)
	if missing, ok := c.lacking(v, rq.aor, ""); ok && !rq.standIn && len(missing) > 0 {
		p.few, ask = true, ask[:0]
		for _, name := range missing {
			ask = append(ask, v.index(name))
		}
	}
	c.askFor(now, v, s, p, ask, after)
}

// askFor asks members for what they have, and goes on if there is nobody to ask.
func (c *Core) askFor(now int64, v *view, s *shard, p *pull, nodes []int, after *effects) {
	p.deadline = now + millis(c.cfg.PullWait)
	m := &messages.Pull{Aor: p.aor, Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest}
	for _, i := range nodes {
		if i == none || v.nodes[i].peer == nil || p.asked[v.nodes[i].Name] {
			continue
		}
		n := &v.nodes[i]
		if !c.event(n.peer, m) {
			p.agree = false
			continue
		}
		p.asked[n.Name], p.waiting[n.Name] = true, true
	}
	if len(p.waiting) == 0 {
		c.nextStep(now, v, s, p, after)
	}
}

// nextStep asks all members after the holders, and ends the pull after all.
func (c *Core) nextStep(now int64, v *view, s *shard, p *pull, after *effects) {
	if p.few && p.agree && len(p.waiting) == 0 {
		c.finishPull(now, v, s, p, true, after)
		return
	}
	if p.wide {
		// Alone and not settled: others have failed, or the membership has not spoken
		// yet, as in the first moments of a node that joins.
		alone := len(v.nodes) == 1
		c.finishPull(now, v, s, p, p.agree && len(p.waiting) == 0 && !alone, after)
		return
	}
	if c.broadcasts.Load() >= int64(c.cfg.MaxBroadcasts) {
		c.stats.BroadcastsRefused.Add(1)
		delete(s.pulls, p.aor)
		c.stats.Parked.Add(-int64(len(p.requests)))
		for _, rq := range p.requests {
			after.add(func() {
				rq.reply(fail(messages.FailureCode_FAILURE_CODE_RETRY, "too many records are being completed"))
			})
		}
		return
	}
	p.wide = true
	c.broadcasts.Add(1)
	if len(v.nodes) > 1 {
		c.stats.Broadcasts.Add(1)
	}
	all := make([]int, len(v.nodes))
	for i := range all {
		all[i] = i
	}
	c.askFor(now, v, s, p, all, after)
}

// finishPull executes what has waited.
func (c *Core) finishPull(now int64, v *view, s *shard, p *pull, complete bool, after *effects) {
	delete(s.pulls, p.aor)
	if p.wide {
		c.broadcasts.Add(-1)
	}
	c.stats.Parked.Add(-int64(len(p.requests)))
	if e := s.entry(p.aor); e != nil && complete {
		if e.x == nil {
			e.x = &extra{}
		}
		e.x.completeRound = v.round
	}
	for _, rq := range p.requests {
		if p.round != v.round || !rq.standIn && !ownedBy(v, p.aor) {
			// The view has changed meanwhile: the door is asked again.
			after.add(func() { c.gate(now, rq) })
			continue
		}
		if rq.deadline != 0 && now > rq.deadline {
			c.stats.TooLate.Add(1)
			after.reply(rq, fail(messages.FailureCode_FAILURE_CODE_TOO_LATE, "deadline passed before execution"))
			continue
		}
		rq.widened = true
		c.execute(now, v, s, rq, complete, after)
	}
}

func ownedBy(v *view, aor string) bool {
	owner, _ := v.place(aor)
	return owner == v.self
}

// expirePulls goes on where somebody does not answer. s is locked.
func (c *Core) expirePulls(now int64, s *shard, after *effects) {
	if len(s.pulls) == 0 {
		return
	}
	v := c.view.Load()
	for _, p := range s.pulls {
		switch {
		case p.round != v.round:
			c.finishPull(now, v, s, p, false, after)
		case p.deadline <= now:
			p.agree = p.agree && len(p.waiting) == 0
			c.nextStep(now, v, s, p, after)
		}
	}
}

// onPull gives what this node has, and says whether that is all there is.
func (c *Core) onPull(from string, m *messages.Pull) {
	v := c.view.Load()
	p := v.peer(from)
	if p == nil {
		return // no member yet: it asks again in a view of its own that has us both
	}
	r := &messages.Pulled{Aor: m.Aor, Incarnation: m.Incarnation, Round: m.Round, Digest: v.digest}
	s := c.shard(m.Aor)
	s.mu.Lock()
	if e := s.entry(m.Aor); e != nil {
		r.Record = e.rec
	}
	r.Complete = c.complete(v, m.Aor, from) || s.completed(m.Aor, v.round)
	s.mu.Unlock()
	c.event(p, r)
}

// onPulled takes in an answer.
func (c *Core) onPulled(now int64, from string, m *messages.Pulled) {
	v := c.view.Load()
	var after effects
	s := c.shard(m.Aor)
	s.mu.Lock()
	defer func() {
		s.mu.Unlock()
		after.run()
	}()
	p := s.pulls[m.Aor]
	if p == nil || m.Incarnation != c.cfg.Incarnation || m.Round != v.round || p.round != v.round || !p.waiting[from] {
		return
	}
	delete(p.waiting, from)
	if m.Record != nil {
		c.apply(now, v, s, m.Aor, m.Record, origin{from: from, bulk: true}, &after)
	}
	p.agree = p.agree && m.Digest == v.digest
	switch {
	case m.Complete && m.Digest == v.digest:
		c.finishPull(now, v, s, p, true, &after)
	case len(p.waiting) == 0:
		c.nextStep(now, v, s, p, &after)
	}
}
