package cluster

import (
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// askSlotMS is how finely questions are timed.
const askSlotMS = 10

// resendMS is how long a node may be silent before it is sent a question
// again, doubled each time: streams lose nothing but when they break.
const resendMS = 250

// askTable has the open questions of this node. mu guards the questions' own
// fields too.
type askTable struct {
	mu   sync.Mutex
	open map[uint64]*ask
	// slots has the questions by the slot of askSlotMS at which they are looked at.
	slots map[int64][]*ask
	slot  int64
	last  uint64
	// ended is written with mu held and read without.
	ended atomic.Bool
}

// ask is one question until its answer.
type ask struct {
	id  uint64
	aor string
	msg proto.Message
	// node is set when a node is asked, not an AoR.
	node string
	// lookup: a positive may come from either holder (rule 13).
	lookup            bool
	startMS, deadline int64
	done              func(proto.Message, error)
	// part takes a positive that may lack something, which does not end the question
	// then; nil: it does. parted: it has taken one.
	part             func(reply proto.Message, forget func())
	finished, parted bool
	// sentMS is when the owner was last asked, retryMS when it will be again
	// after an answer that is none, 0 for neither.
	sentMS, retryMS int64
	// standInMS is when the backup is asked, standInAsked whether it was.
	standInMS    int64
	standInAsked bool
	tries        int
	// nextSlot is the slot that the question stands in, 0 for none.
	nextSlot int64
	// sent are the peers that owe an answer.
	sent []sentTo
	// last is the owner's last refusal, which stands if nothing better comes.
	last *messages.Failure
}

type sentTo struct {
	peer *neighbor
	ms   int64
}

// Ask asks the owner of an AoR; Node.AskAsync has the contract.
func (c *Core) Ask(now int64, aor string, msg proto.Message, deadline int64, done func(proto.Message, error)) {
	_, lookup := msg.(*messages.Locate)
	c.ask(now, &ask{aor: aor, msg: msg, deadline: deadline, done: done, lookup: lookup})
}

// Lookup asks where a user is; Node.LookupAsync has the contract.
func (c *Core) Lookup(now int64, aor string, m *messages.Locate, deadline int64, part func(proto.Message, func()), done func(proto.Message, error)) {
	c.ask(now, &ask{aor: aor, msg: m, deadline: deadline, part: part, done: done, lookup: true})
}

// AskNode asks a node itself, which may be this one.
func (c *Core) AskNode(now int64, node string, msg proto.Message, deadline int64, done func(proto.Message, error)) {
	c.ask(now, &ask{node: node, msg: msg, deadline: deadline, done: done})
}

func (c *Core) ask(now int64, a *ask) {
	c.see(now)
	defer c.stir()
	c.stats.Asks.Add(1)
	if a.deadline == 0 {
		a.deadline = now + millis(c.cfg.AskTimeout)
	}
	a.startMS = now
	t := &c.asks
	t.mu.Lock()
	if t.ended.Load() {
		t.mu.Unlock()
		a.done(nil, ErrStopped)
		return
	}
	t.last++
	a.id = t.last
	t.mu.Unlock()
	c.askOwner(now, a)
}

// askOwner sends a question where placement says by now, or serves it here.
func (c *Core) askOwner(now int64, a *ask) {
	v := c.view.Load()
	i := v.index(a.node)
	if a.node == "" {
		i, _ = v.place(a.aor)
	}
	if i == none {
		c.finishAsk(a, fail(messages.FailureCode_FAILURE_CODE_RETRY, "no such member"), nil)
		return
	}
	if i == v.self {
		c.askHere(now, a, false)
		return
	}
	p := v.nodes[i].peer
	if p.inflight.Load() >= int64(c.cfg.MaxInFlight) {
		c.crowded(now, v, a)
		return
	}
	sent := c.sendAsk(now, a, p, false)
	c.asks.mu.Lock()
	a.sentMS = now
	if !sent {
		// No connection: the backup is asked at once.
		a.standInMS = now
	} else if a.standInMS == 0 {
		a.standInMS = now + c.patience(p, a)
	}
	c.asks.mu.Unlock()
	c.timeAsk(now, a)
}

// crowded sees to a question whose owner owes too many answers: what is under
// way stays so, a lookup goes to the backup, the rest is refused (rule 22).
func (c *Core) crowded(now int64, v *view, a *ask) {
	c.asks.mu.Lock()
	underWay := len(a.sent) > 0
	c.asks.mu.Unlock()
	if !underWay && (!a.lookup || !c.askStandIn(now, v, a)) {
		c.stats.Overloaded.Add(1)
		c.finishAsk(a, fail(messages.FailureCode_FAILURE_CODE_OVERLOADED, "too many requests unanswered"), nil)
		return
	}
	c.asks.mu.Lock()
	a.sentMS = now // the owner may have room when it is asked again
	c.asks.mu.Unlock()
	c.timeAsk(now, a)
}

// patience is how long the owner may take before the backup is asked too.
func (c *Core) patience(p *neighbor, a *ask) int64 {
	if !a.lookup {
		return millis(c.cfg.FailOver)
	}
	mean := p.meanRTT.Load()
	if mean == 0 {
		return millis(c.cfg.HedgeDelay)
	}
	return min(max(4*mean/1000, millis(c.cfg.HedgeMin)), millis(c.cfg.HedgeMax))
}

// askHere serves a question at this node's own gate.
func (c *Core) askHere(now int64, a *ask, standIn bool) {
	c.stats.LocalAsks.Add(1)
	rq := &request{msg: c.aged(now, a), aor: a.aor, asker: c.cfg.Name, deadline: a.deadline, standIn: standIn,
		ask: a, askedMS: now, core: c}
	c.gate(now, rq)
	c.timeAsk(now, a)
}

// sendAsk sends a question to a peer and counts it.
func (c *Core) sendAsk(now int64, a *ask, p *neighbor, standIn bool) bool {
	env, err := messages.WrapParcel(messages.EnvelopeKind_ENVELOPE_KIND_REQUEST, c.aged(now, a))
	if err != nil {
		c.finishAsk(a, fail(messages.FailureCode_FAILURE_CODE_INTERNAL, err.Error()), nil)
		return true
	}
	defer env.Free()
	env.Aor, env.DeadlineMs, env.Incarnation, env.Id, env.StandIn = a.aor, a.deadline, c.cfg.Incarnation, a.id, standIn
	c.asks.mu.Lock()
	if a.finished || c.asks.ended.Load() {
		c.asks.mu.Unlock()
		return true
	}
	c.asks.open[a.id] = a
	a.sent = append(a.sent, sentTo{p, now})
	p.inflight.Add(1)
	c.asks.mu.Unlock()
	if c.parts.Network.Send(p.name, &env.Envelope) {
		return true
	}
	// A third node may reach it, but the backup is asked at once.
	if !c.relay(p.name, &env.Envelope) {
		c.stats.SendDrops.Add(1)
	}
	return false
}

// aged is the message with the time it has waited here: a holder must know
// when the request reached its edge (rule 1).
func (c *Core) aged(now int64, a *ask) proto.Message {
	if now == a.startMS {
		return a.msg
	}
	switch r := a.msg.(type) {
	case *messages.Register:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.Remove:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.Publish:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.StoreMessage:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.DropMessages:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.Subscribe:
		again := proto.CloneOf(r)
		again.AgeMs += now - a.startMS
		return again
	case *messages.Locate:
		c.asks.mu.Lock()
		parted := a.parted
		c.asks.mu.Unlock()
		if parted && !r.Full {
			// The devices that the stand-in knew have not answered.
			again := proto.CloneOf(r)
			again.Full = true
			return again
		}
	}
	return a.msg
}

// askStandIn asks the backup in the owner's place; false if there is none.
func (c *Core) askStandIn(now int64, v *view, a *ask) bool {
	c.asks.mu.Lock()
	first := !a.standInAsked
	a.standInAsked = true
	c.asks.mu.Unlock()
	_, backup := v.place(a.aor)
	if !first || backup == none || a.node != "" {
		return false
	}
	if p := v.nodes[backup].peer; p != nil && p.inflight.Load() >= int64(c.cfg.MaxInFlight) {
		c.stats.Overloaded.Add(1)
		return false
	}
	if a.lookup {
		c.stats.Hedges.Add(1)
	} else {
		c.stats.FailOvers.Add(1)
	}
	if backup == v.self {
		c.askHere(now, a, true)
		return true
	}
	return c.sendAsk(now, a, v.nodes[backup].peer, true)
}

// timeAsk files a question for its next step.
func (c *Core) timeAsk(now int64, a *ask) {
	t := &c.asks
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.finished {
		return
	}
	if t.ended.Load() {
		return
	}
	t.open[a.id] = a
	next := a.deadline
	if a.standInMS != 0 && !a.standInAsked {
		next = min(next, a.standInMS)
	}
	if a.retryMS != 0 {
		next = min(next, a.retryMS)
	} else if a.sentMS != 0 {
		next = min(next, a.sentMS+resendMS<<min(a.tries, 3))
	}
	slot := max(next/askSlotMS+1, t.slot+1)
	if a.nextSlot == 0 || slot < a.nextSlot {
		a.nextSlot = slot
		t.slots[slot] = append(t.slots[slot], a)
	}
}

// tickAsks takes the next step of every question whose time has come.
func (c *Core) tickAsks(now int64) {
	t := &c.asks
	var due []*ask
	t.mu.Lock()
	to := now / askSlotMS
	if t.slot == 0 || to-t.slot > 10_000 {
		// Start, or a clock set ahead: what is filed is looked at now.
		t.slot = to - 1
		for slot, list := range t.slots {
			if slot <= to {
				t.slots[to] = append(t.slots[to], list...)
				if slot != to {
					delete(t.slots, slot)
				}
				for _, a := range list {
					a.nextSlot = to
				}
			}
		}
	}
	for t.slot < to {
		t.slot++
		for _, a := range t.slots[t.slot] {
			if !a.finished && a.nextSlot == t.slot {
				a.nextSlot = 0
				due = append(due, a)
			}
		}
		delete(t.slots, t.slot)
	}
	t.mu.Unlock()
	for _, a := range due {
		c.stepAsk(now, a)
	}
}

// stepAsk gives up, asks the backup, or asks the owner of by now again.
func (c *Core) stepAsk(now int64, a *ask) {
	if now >= a.deadline {
		if !a.parted {
			c.stats.Unanswered.Add(1)
		}
		last := a.last
		if last == nil {
			last = fail(messages.FailureCode_FAILURE_CODE_RETRY, "no full answer by the deadline")
		}
		c.finishAsk(a, last, nil)
		return
	}
	c.asks.mu.Lock()
	standIn := a.standInMS != 0 && now >= a.standInMS && !a.standInAsked
	again := a.retryMS != 0 && now >= a.retryMS ||
		a.retryMS == 0 && a.sentMS != 0 && now >= a.sentMS+resendMS<<min(a.tries, 3)
	if again {
		a.retryMS = 0
		a.tries++
		// A question that fails over may fail over again, to the backup of by then.
		a.standInAsked = a.standInAsked && a.lookup && a.tries < 2
	}
	c.asks.mu.Unlock()
	if standIn {
		c.askStandIn(now, c.view.Load(), a)
	}
	if again {
		c.stats.AskRetries.Add(1)
		c.askOwner(now, a)
		return
	}
	c.timeAsk(now, a)
}

// hurryAsks asks elsewhere what was asked of a peer whose stream is gone.
func (c *Core) hurryAsks(now int64, name string) {
	var hurt []*ask
	c.asks.mu.Lock()
	for _, a := range c.asks.open {
		for _, s := range a.sent {
			if s.peer.name == name {
				a.standInMS = now
				hurt = append(hurt, a)
				break
			}
		}
	}
	c.asks.mu.Unlock()
	for _, a := range hurt {
		c.stepAsk(now, a)
	}
}

// stopAsks answers what is open, and all later questions, with ErrStopped.
func (c *Core) stopAsks() {
	c.asks.mu.Lock()
	c.asks.ended.Store(true)
	var open []*ask
	for _, a := range c.asks.open {
		open = append(open, a)
	}
	c.asks.mu.Unlock()
	for _, a := range open {
		c.finishAsk(a, nil, ErrStopped)
	}
}
