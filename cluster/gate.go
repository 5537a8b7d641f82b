package cluster

import (
	"slices"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// request is one question at the gate.
type request struct {
	msg proto.Message
	aor string
	// asker is the node that asked first.
	asker string
	// deadline is the node time after which nobody waits for the answer.
	deadline int64
	// standIn: the asker wants the backup to answer if this is it.
	standIn bool
	// widened: all have been asked on its account already.
	widened bool
	// env is nil for a question of this node, which is ask, asked at askedMS.
	env     *messages.Envelope
	ask     *ask
	askedMS int64
	core    *Core
}

// reply answers the question. It is called exactly once, with no lock held.
func (rq *request) reply(msg proto.Message) {
	if rq.ask != nil {
		rq.core.answer(rq.askedMS, rq.ask, msg, rq.standIn)
		return
	}
	rq.core.sendReply(rq, msg)
}

// receiveRequest opens a peer's question.
func (c *Core) receiveRequest(now int64, from string, env *messages.Envelope) {
	rq := &request{aor: env.Aor, asker: from, deadline: env.DeadlineMs, standIn: env.StandIn, env: env, core: c}
	if env.ForwardedFor != "" {
		rq.asker = env.ForwardedFor
	}
	msg, err := env.Open()
	if err != nil {
		c.stats.BadMessages.Add(1)
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE, err.Error()))
		return
	}
	rq.msg = msg
	c.gate(now, rq)
}

// sendReply answers a peer's question, whichever peer forwarded it.
func (c *Core) sendReply(rq *request, msg proto.Message) {
	env, err := messages.WrapParcel(messages.EnvelopeKind_ENVELOPE_KIND_REPLY, msg)
	if err != nil {
		c.stats.BadMessages.Add(1)
		return
	}
	defer env.Free()
	env.Incarnation, env.Id, env.Aor, env.StandIn = rq.env.Incarnation, rq.env.Id, rq.env.Aor, rq.standIn
	if !c.parts.Network.Send(rq.asker, &env.Envelope) && !c.relay(rq.asker, &env.Envelope) {
		c.stats.SendDrops.Add(1)
	}
}

// gate is the door of the node that should answer (rule 21).
func (c *Core) gate(now int64, rq *request) {
	if rq.deadline != 0 && now > rq.deadline && !c.off.HolderStamps {
		c.stats.TooLate.Add(1)
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_TOO_LATE, "deadline passed before execution"))
		return
	}
	if rq.aor == "" {
		c.nodeMessage(now, rq)
		return
	}
	v := c.view.Load()
	owner, backup := v.place(rq.aor)
	forwarded := rq.env.GetForwardedFor() != ""
	switch {
	case owner == v.self:
		rq.standIn = false
	case backup == v.self && (rq.standIn || forwarded):
		rq.standIn = true
	case !forwarded && rq.env != nil && owner != none:
		c.forward(v, owner, rq)
		return
	default:
		rq.standIn = false
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_NOT_HOLDER, "neither owner nor backup"))
		return
	}
	if h := c.handlers[messages.TypeName(rq.msg)]; h != nil {
		c.handle(h, rq)
		return
	}
	c.serve(now, v, rq)
}

// forward sends a request on, once, to the node that this one holds for the
// owner; that node answers the asker itself.
func (c *Core) forward(v *view, owner int, rq *request) {
	c.stats.Forwards.Add(1)
	env := &messages.Envelope{
		Kind: rq.env.Kind, Type: rq.env.Type, Payload: rq.env.Payload, DeadlineMs: rq.env.DeadlineMs,
		Incarnation: rq.env.Incarnation, Id: rq.env.Id, Aor: rq.env.Aor, Grain: rq.env.Grain,
		ForwardedFor: rq.asker,
	}
	if to := v.nodes[owner].Name; !c.parts.Network.Send(to, env) && !c.relay(to, env) {
		c.stats.SendDrops.Add(1)
		rq.standIn = false
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_NOT_HOLDER, "owner cannot be reached from here"))
	}
}

// nodeMessage answers what is asked of the node itself.
func (c *Core) nodeMessage(now int64, rq *request) {
	rq.standIn = false
	if h := c.handlers[messages.TypeName(rq.msg)]; h != nil {
		c.handle(h, rq)
		return
	}
	switch m := rq.msg.(type) {
	case *messages.Snapshot:
		rq.reply(c.snapshot(now, m))
	case *messages.WatchInterest:
		rq.reply(c.onInterest(now, rq.asker, m))
	case *messages.Count:
		rq.reply(c.counted(now, m))
	case *messages.Ping:
		rq.reply(&messages.Pong{SentMs: m.SentMs, NowMs: now})
	default:
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE, "no handler for "+messages.TypeName(rq.msg)))
	}
}

func (c *Core) handle(h Handler, rq *request) {
	if c.start == nil || !c.start(h, rq) {
		c.stats.Overloaded.Add(1)
		rq.reply(fail(messages.FailureCode_FAILURE_CODE_OVERLOADED, "too many handlers run"))
	}
}

// serve executes a request, at once if the record is complete and otherwise
// when it has been completed (rule 11). A stand-in's Locate need not wait: what
// it finds counts, and if it finds nothing, or that has been tried, it completes
// itself then.
func (c *Core) serve(now int64, v *view, rq *request) {
	var room [4]effect
	after := effects(room[:0])
	s := c.shard(rq.aor)
	s.mu.Lock()
	m, lookup := rq.msg.(*messages.Locate)
	complete := c.complete(v, rq.aor, "") || s.completed(rq.aor, v.round)
	full := rq.standIn && m.GetFull()
	switch {
	case c.stats.Parked.Load() >= int64(c.cfg.MaxParked) && !(complete && lookup):
		// What need not wait is answered under any load.
		c.stats.Overloaded.Add(1)
		after.reply(rq, fail(messages.FailureCode_FAILURE_CODE_OVERLOADED, "too many requests wait"))
	case !full && (complete || rq.standIn && lookup):
		c.execute(now, v, s, rq, complete, &after)
	default:
		c.park(now, v, s, rq, &after)
	}
	s.mu.Unlock()
	after.run()
}

// completed tells whether a record has been completed by asking in this round.
func (s *shard) completed(aor string, round uint64) bool {
	e := s.find(xxh3.HashString(aor), aor)
	return e != nil && e.x != nil && e.x.completeRound == round
}

// execute asks the grains, and sees to the copies before it lets the reply go. s is locked.
func (c *Core) execute(now int64, v *view, s *shard, rq *request, complete bool, after *effects) {
	e := s.entry(rq.aor)
	if kind := adds(rq.msg); kind != 0 && !c.makeRoom(now, s, e, kind) {
		after.reply(rq, fail(messages.FailureCode_FAILURE_CODE_RETRY, "too many dead keys"))
		return
	}
	var rec *messages.Record
	if e != nil {
		rec = e.rec
	} else {
		rec = &messages.Record{Aor: rq.aor}
	}
	a := c.question(now, v, s, rq, rec, complete)
	if c.debug {
		c.logAnswer(rq, a)
	}
	c.fillWhere(now, v, rq, a.Reply, complete)
	if l, ok := a.Reply.(*messages.Located); ok && l.Final {
		l.Final = c.lacksNothing(v, s, rq.aor)
	}
	if a.Writes.Empty() {
		if rq.standIn && !rq.widened && negative(rq, a) {
			rq.widened = true
			c.park(now, v, s, rq, after)
			return
		}
		if a.Repeat && e != nil {
			c.awaitCopies(now, v, s, e, rq, a, after)
			return
		}
		after.reply(rq, a.Reply)
		return
	}
	if e == nil && c.full(s) {
		c.stats.UsersRefused.Add(1)
		after.reply(rq, fail(messages.FailureCode_FAILURE_CODE_OVERLOADED, "too many users"))
		return
	}
	mine := rq.asker == c.cfg.Name
	e, _ = c.apply(now, v, s, rq.aor, a.Writes, origin{
		from: rq.asker, gate: true, keeps: mine, urgent: a.All || mine, tell: slices.Clone(a.Tell),
	}, after)
	if e == nil {
		after.reply(rq, a.Reply)
		return
	}
	s.accepted.note(now, a.Writes)
	c.awaitCopies(now, v, s, e, rq, a, after)
}

// full tells whether a shard, which is locked, has its part of all users that
// there may be. Users are spread evenly: nobody can choose where one belongs
// but by trying names.
func (c *Core) full(s *shard) bool { return s.n >= max(c.cfg.MaxUsers/shards, 1) }

// asked is a shard's room for the question that is being answered: there is one
// at a time, and Grains do not keep it.
type asked struct {
	question Question
	aor      string
	now      int64
}

// prepare gives a shard's questions what is the same in all of them.
func (c *Core) prepare(s *shard) {
	q := &s.asked
	q.question.AcceptedMS = func(key []byte) int64 { return s.accepted.at(s.entry(q.aor), key) }
	q.question.NewStamp = func() *messages.Stamp { return c.hlc.next(q.now) }
}

// question asks the grains. s is locked.
func (c *Core) question(now int64, v *view, s *shard, rq *request, rec *messages.Record, complete bool) *Answer {
	s.asked.aor, s.asked.now = rq.aor, now
	q := &s.asked.question
	q.Message, q.Record, q.NowMS = c.stamped(now, rq.msg), rec, now
	q.StandIn, q.Settled, q.FailedMember = rq.standIn, complete, len(v.failed) > 0
	q.LiveEdge, q.EdgeIncarnation = v.isLive, v.incarnationOf
	if c.off.OldLivesCount {
		q.EdgeIncarnation = nil
	}
	a := c.parts.Grains.Answer(q)
	q.Message, q.Record = nil, nil
	return a
}

// stamped is the message itself, as its edge has stamped it (rule 1).
func (c *Core) stamped(now int64, msg proto.Message) proto.Message {
	r, ok := msg.(*messages.Register)
	if !ok || !c.off.HolderStamps {
		return msg
	}
	again := proto.CloneOf(r)
	again.Stamp, again.AgeMs = c.hlc.next(now), 0
	return again
}

// negative tells whether a stand-in's answer is one that only the owner may
// give (rule 13).
func negative(rq *request, a *Answer) bool {
	if _, lookup := rq.msg.(*messages.Locate); !lookup {
		return false
	}
	_, failed := a.Reply.(*messages.Failure)
	return failed
}

// adds is the kind of lease that a request may make a new key of, 0 for none.
func adds(msg proto.Message) messages.LeaseKind {
	switch msg.(type) {
	case *messages.Register:
		return messages.LeaseKind_LEASE_KIND_BINDING
	case *messages.Publish:
		return messages.LeaseKind_LEASE_KIND_PUBLICATION
	case *messages.StoreMessage:
		return messages.LeaseKind_LEASE_KIND_MESSAGE
	}
	return messages.LeaseKind_LEASE_KIND_UNSPECIFIED
}

// makeRoom lets the oldest acknowledged dead key go if an AoR has too many of a kind (rule 4).
func (c *Core) makeRoom(now int64, s *shard, e *entry, kind messages.LeaseKind) bool {
	if e == nil {
		return true
	}
	dead, oldest := 0, -1
	for i, l := range e.rec.Leases {
		if e.rec.Alive(l, now) || max(l.Kind, messages.LeaseKind_LEASE_KIND_BINDING) != kind {
			continue
		}
		dead++
		if oldest < 0 || l.Stamp.Compare(e.rec.Leases[oldest].Stamp) < 0 {
			oldest = i
		}
	}
	if dead < c.cfg.MaxDead {
		return true
	}
	if e.x != nil && len(e.x.targets) > 0 {
		return dead < 2*c.cfg.MaxDead
	}
	before := e.rec
	next := before.Clone()
	next.Leases = slices.Delete(next.Leases, oldest, oldest+1)
	c.replace(s, e, next, hashPart(next, ""))
	c.stats.DeadEvicted.Add(1)
	c.store(e, before)
	c.unindex(before, next)
	return true
}

// fillWhere adds what only the node knows to an answer for people.
func (c *Core) fillWhere(now int64, v *view, rq *request, reply proto.Message, complete bool) {
	w, ok := reply.(*messages.Whereabouts)
	if !ok {
		return
	}
	owner, backup := v.place(rq.aor)
	w.Owner, w.Backup, w.Node, w.NowMs, w.Settled = v.name(owner), v.name(backup), c.cfg.Name, now, complete
	w.View = w.View[:0]
	for i := range v.nodes {
		w.View = append(w.View, v.nodes[i].Name)
	}
}
