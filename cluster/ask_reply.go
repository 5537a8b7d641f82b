package cluster

import (
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// receiveReply takes an answer for the question that it names, and for no
// other (rule 20).
func (c *Core) receiveReply(now int64, from string, env *messages.Envelope) {
	t := &c.asks
	t.mu.Lock()
	a := t.open[env.Id]
	if a == nil || env.Incarnation != c.cfg.Incarnation || env.Aor != a.aor {
		t.mu.Unlock()
		c.stats.StrayReplies.Add(1)
		return
	}
	for i, s := range a.sent {
		if s.peer.name == from {
			c.measure(s.peer, now-s.ms)
			s.peer.inflight.Add(-1)
			a.sent = append(a.sent[:i], a.sent[i+1:]...)
			break
		}
	}
	t.mu.Unlock()
	msg, err := env.Open()
	if err != nil {
		c.stats.BadMessages.Add(1)
		msg = fail(messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE, err.Error())
	}
	if w, ok := msg.(interface{ GetWrites() *messages.Record }); ok && !w.GetWrites().Empty() {
		c.takeWrites(now, from, a.aor, w.GetWrites())
	}
	c.answer(now, a, msg, env.StandIn)
}

// measure keeps the mean round trip to a peer.
func (c *Core) measure(p *neighbor, ms int64) {
	old := p.meanRTT.Load()
	sample := max(ms*1000, 500)
	if old == 0 {
		p.meanRTT.Store(sample)
		return
	}
	p.meanRTT.Store(old + (sample-old)/8)
}

// takeWrites merges what a holder has accepted from this edge, before anybody
// is told: the second holder's acknowledgement then finds it here.
func (c *Core) takeWrites(now int64, from, aor string, writes *messages.Record) {
	var after effects
	s := c.shard(aor)
	s.mu.Lock()
	c.apply(now, c.view.Load(), s, aor, writes, origin{from: from, reply: true, keeps: true}, &after)
	s.mu.Unlock()
	after.run()
}

// answer decides whether an answer ends the question: a positive from either
// holder does, a negative only from the owner (rule 13).
func (c *Core) answer(now int64, a *ask, msg proto.Message, standIn bool) {
	f, failed := msg.(*messages.Failure)
	if !failed {
		if l, ok := msg.(*messages.Located); ok && !l.Final && a.part != nil {
			c.answerInPart(now, a, l, standIn)
			return
		}
		c.finishAsk(a, msg, nil)
		return
	}
	switch f.Code {
	case messages.FailureCode_FAILURE_CODE_RETRY, messages.FailureCode_FAILURE_CODE_NOT_HOLDER,
		messages.FailureCode_FAILURE_CODE_OVERLOADED, messages.FailureCode_FAILURE_CODE_TOO_LATE:
		if a.node == "" {
			c.askAgain(now, a, f, standIn)
			return
		}
	default:
		if standIn && a.lookup {
			// The owner's word is waited for; the next try may find another owner.
			c.timeAsk(now, a)
			return
		}
	}
	c.finishAsk(a, f, nil)
}

// answerInPart gives a positive to the asker that may lack something and goes on:
// a stand-in may lack what the owner has, whose word is still awaited, and an owner
// that has not settled what a member has that was silent, so that it is asked
// again (rules 11, 13).
func (c *Core) answerInPart(now int64, a *ask, msg *messages.Located, standIn bool) {
	c.asks.mu.Lock()
	finished := a.finished
	a.parted = true
	if !standIn {
		a.retryMS, a.sentMS = now+resendMS<<min(a.tries, 3), 0
	}
	c.asks.mu.Unlock()
	if finished {
		return
	}
	a.part(msg, func() { c.forgetAsk(a) })
	c.timeAsk(now, a)
}

// askAgain waits a while, longer each time and never the same, and asks again.
func (c *Core) askAgain(now int64, a *ask, f *messages.Failure, standIn bool) {
	c.asks.mu.Lock()
	if !standIn || !a.lookup {
		if f.Code == messages.FailureCode_FAILURE_CODE_RETRY || f.Code == messages.FailureCode_FAILURE_CODE_OVERLOADED {
			a.last = f
		}
		wait := int64(25) << min(a.tries, 5)
		a.retryMS = now + wait/2 + int64(c.parts.Rand()%uint64(wait))
		a.sentMS = 0
	}
	c.asks.mu.Unlock()
	c.timeAsk(now, a)
}

// finishAsk ends a question, once.
func (c *Core) finishAsk(a *ask, msg proto.Message, err error) {
	if c.forgetAsk(a) {
		a.done(msg, err)
	}
}

// forgetAsk takes a question off the table; false: that has been done.
func (c *Core) forgetAsk(a *ask) bool {
	c.asks.mu.Lock()
	defer c.asks.mu.Unlock()
	if a.finished {
		return false
	}
	a.finished = true
	delete(c.asks.open, a.id)
	for _, s := range a.sent {
		s.peer.inflight.Add(-1)
	}
	a.sent = nil
	return true
}
