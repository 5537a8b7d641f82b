package cluster

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// The one loop (rule 10): whatever a node holds is pushed to {its edge, owner,
// backup} until acknowledged. It is replication, announce, hand-over, drain,
// rejoin, heal and lost disk. The first push of a write goes out at once; all
// else goes through a queue for each peer, in messages of bounded size, of
// which a bounded number may be unacknowledged.

const (
	retrySlotMS  = 50
	firstRetryMS = 50
	lastRetryMS  = 2000
	// replyGraceMS is how long an edge waits for the second holder's own word.
	replyGraceMS = 100
	// windowLostMS gives back the window of a bulk message that is not acknowledged.
	windowLostMS = 1000
)

// target is a member that has not acknowledged an entry's record.
type target struct {
	peer *neighbor
	// nextMS is when it may be pushed (again).
	nextMS int64
	tries  uint8
	// queued: the entry stands in the peer's bulk queue.
	queued bool
	// light: the hash is offered first, as the peer most likely has the record.
	light bool
	// tell: a former edge, which need not be a holder to acknowledge.
	tell bool
	// handover: "done" is not said to the peer before it acknowledges (rule 14).
	handover bool
}

// bulkQueue is what waits to be pushed to one peer.
type bulkQueue struct {
	mu sync.Mutex
	// aors wait, in order; each stands here once for each target with queued set.
	aors []string
	// window has the messages under way, by number, with the time of sending.
	window map[uint64]int64
	last   uint64
}

func (q *bulkQueue) push(aor string) {
	q.mu.Lock()
	q.aors = append(q.aors, aor)
	q.mu.Unlock()
}

// addTarget notes that a peer must acknowledge e, and pushes at once what is a
// write of now. e's shard is locked.
func (c *Core) addTarget(now int64, s *shard, e *entry, t target, o origin) {
	if e.x == nil {
		e.x = &extra{}
	}
	have := e.x.target(t.peer)
	if have == nil {
		e.x.targets = append(e.x.targets, target{peer: t.peer, light: t.light, tell: t.tell, nextMS: t.nextMS})
		have = &e.x.targets[len(e.x.targets)-1]
	} else {
		have.light = have.light && t.light
		have.tell = have.tell && t.tell
		if t.nextMS != 0 {
			return // it is asked again in any case
		}
	}
	if t.handover {
		markHandover(have)
	}
	switch {
	case t.nextMS != 0:
		c.fileRetry(s, e, have.nextMS)
	case t.light:
		c.enqueue(e, have)
	default:
		c.pushNow(now, s, e, have, o.urgent)
	}
}

func markHandover(t *target) {
	if !t.handover {
		t.handover = true
		t.peer.handover.Add(1)
	}
}

func (x *extra) target(p *neighbor) *target {
	if x == nil {
		return nil
	}
	for i := range x.targets {
		if x.targets[i].peer == p {
			return &x.targets[i]
		}
	}
	return nil
}

// drop removes a target.
func (x *extra) drop(p *neighbor) {
	if t := x.target(p); t != nil {
		if t.handover {
			p.handover.Add(-1)
		}
		x.targets = slices.DeleteFunc(x.targets, func(t target) bool { return t.peer == p })
	}
}

// enqueue hands e to the peer's bulk queue. What goes that way is either a
// hand-over or has failed once: "done" waits for it.
func (c *Core) enqueue(e *entry, t *target) {
	markHandover(t)
	if !t.queued {
		t.queued = true
		t.peer.bulk.push(e.rec.Aor)
	}
}

// pushNow sends one record by itself; it may ride unless somebody waits for it.
func (c *Core) pushNow(now int64, s *shard, e *entry, t *target, urgent bool) {
	c.stats.Copies.Add(1)
	v := c.view.Load()
	m := &messages.Push{
		Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest, Urgent: urgent,
		Items: []*messages.PushItem{{Aor: e.rec.Aor, Hash: e.hash, Record: e.rec}},
	}
	if urgent {
		c.event(t.peer, m)
	} else {
		c.ride(t.peer, m)
	}
	c.sent(now, s, e, t)
}

// sent times the repetition of a push.
func (c *Core) sent(now int64, s *shard, e *entry, t *target) {
	t.nextMS = now + min(int64(firstRetryMS)<<min(t.tries, 6), lastRetryMS)
	if t.tries < 255 {
		t.tries++
	}
	c.fileRetry(s, e, t.nextMS)
}

// fileRetry makes e be looked at when ms has come.
func (c *Core) fileRetry(s *shard, e *entry, ms int64) {
	slot := max(ms/retrySlotMS+1, s.retrySlot+1)
	if e.x.retrySlot != 0 && e.x.retrySlot <= slot {
		return
	}
	e.x.retrySlot = slot
	s.retries[slot] = append(s.retries[slot], e)
}

// retry queues what has not been acknowledged in time. s is locked.
func (c *Core) retry(now int64, s *shard) {
	to := now / retrySlotMS
	if to-s.retrySlot > int64(len(s.retries))+100 {
		for slot := range s.retries {
			if slot <= to {
				c.retrySlot(now, s, slot)
			}
		}
		s.retrySlot = to
	}
	for s.retrySlot < to {
		s.retrySlot++
		c.retrySlot(now, s, s.retrySlot)
	}
}

func (c *Core) retrySlot(now int64, s *shard, slot int64) {
	list := s.retries[slot]
	delete(s.retries, slot)
	for _, e := range list {
		if e.gone || e.x == nil || e.x.retrySlot != slot {
			continue
		}
		e.x.retrySlot = 0
		for i := range e.x.targets {
			t := &e.x.targets[i]
			switch {
			case t.queued:
			case t.nextMS > now:
				c.fileRetry(s, e, t.nextMS)
			default:
				if t.tries > 0 {
					c.stats.Retries.Add(1)
				}
				c.enqueue(e, t)
			}
		}
	}
}

// tickBulk moves every peer's queue.
func (c *Core) tickBulk(now int64) {
	v := c.view.Load()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil {
			c.pump(now, p)
		}
	}
}

// pump sends from a peer's queue as far as its window allows.
func (c *Core) pump(now int64, p *neighbor) {
	for {
		batch, aors := p.bulk.take(now, c.cfg.BulkWindow)
		if len(aors) == 0 {
			return
		}
		v := c.view.Load()
		m := &messages.Push{Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest, Batch: batch}
		size, used := 0, 0
		for _, aor := range aors {
			if item := c.bulkItem(now, v, aor, p); item != nil {
				m.Items = append(m.Items, item)
				size += proto.Size(item) + 4
			}
			used++
			if size >= c.cfg.BulkBytes-1024 {
				break
			}
		}
		p.bulk.untake(batch, aors[used:], len(m.Items) > 0)
		if len(m.Items) > 0 {
			c.stats.Pushes.Add(int64(len(m.Items)))
			c.event(p, m)
		}
	}
}

// bulkChunk is how many AoRs are looked at for one bulk message.
const bulkChunk = 512

// take opens a place in the window and returns what may go with it.
func (q *bulkQueue) take(now int64, window int) (batch uint64, aors []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for b, at := range q.window {
		if at+windowLostMS < now {
			delete(q.window, b)
		}
	}
	if len(q.aors) == 0 || len(q.window) >= window {
		return 0, nil
	}
	n := min(len(q.aors), bulkChunk)
	aors = slices.Clone(q.aors[:n])
	q.aors = q.aors[n:]
	if len(q.aors) == 0 {
		q.aors = nil
	}
	q.last++
	if q.window == nil {
		q.window = make(map[uint64]int64)
	}
	q.window[q.last] = now
	return q.last, aors
}

// untake gives back what did not fit, and the window if nothing was sent.
func (q *bulkQueue) untake(batch uint64, rest []string, sent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(rest) > 0 {
		q.aors = append(slices.Clone(rest), q.aors...)
	}
	if !sent {
		delete(q.window, batch)
	}
}

func (q *bulkQueue) acked(batch uint64) {
	q.mu.Lock()
	delete(q.window, batch)
	q.mu.Unlock()
}

// reviveBulk forgets what was under way on a stream that is gone.
func (c *Core) reviveBulk(now int64, p *neighbor) {
	p.bulk.mu.Lock()
	p.bulk.window = nil
	p.bulk.mu.Unlock()
	c.pump(now, p)
}

// bulkItem is what a queued AoR has to say to a peer by now, or nil.
func (c *Core) bulkItem(now int64, v *view, aor string, p *neighbor) *messages.PushItem {
	s := c.shard(aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[aor]
	if e == nil {
		return nil
	}
	t := e.x.target(p)
	if t == nil || !t.queued {
		return nil
	}
	t.queued = false
	i := v.index(p.name)
	if e.rec.Empty() || i == none || v.nodes[i].peer != p {
		e.x.drop(p)
		c.acknowledged(v, s, e)
		return nil
	}
	item := &messages.PushItem{Aor: aor, Hash: e.hash}
	if !t.light {
		item.Record = e.rec
	} else {
		c.stats.Offers.Add(1)
		item.Edge = c.scope(v, e, i)
		if item.Edge != "" {
			item.Hash = hashPart(e.rec, item.Edge)
		}
	}
	c.sent(now, s, e, t)
	return item
}

// scope is the edge whose part of e this node and node i share, empty if they
// share all of it.
func (c *Core) scope(v *view, e *entry, i int) string {
	switch {
	case !v.holds(i, e.rec.Aor):
		return v.nodes[i].Name
	case !v.holds(v.self, e.rec.Aor) && (e.x == nil || !e.x.former):
		return c.cfg.Name
	}
	return ""
}

// onPush merges what a peer sent and acknowledges it.
func (c *Core) onPush(now int64, from string, m *messages.Push) {
	v := c.view.Load()
	if p := v.peer(from); p != nil {
		p.saw(m.Incarnation, m.Round, m.Digest)
	}
	ack := &messages.Ack{Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest, Batch: m.Batch}
	edges := make(map[string]*messages.AckItem)
	var after effects
	for _, item := range m.Items {
		ack.Items = append(ack.Items, c.takeItem(now, v, from, item, m.Batch != 0, edges, &after))
	}
	if p := v.peer(from); p != nil && (m.Urgent || m.Batch != 0) {
		c.event(p, ack)
	} else if p != nil {
		c.ride(p, ack)
	}
	for name, item := range edges {
		if p := v.peer(name); p != nil {
			c.ride(p, &messages.Ack{
				Incarnation: c.cfg.Incarnation, Round: v.round, Digest: v.digest,
				Items: []*messages.AckItem{item},
			})
		}
	}
	after.run()
}

// takeItem merges one record, or compares its hash. It adds to edges what is
// acknowledged to the edges of what is new, so that these need not push it.
func (c *Core) takeItem(now int64, v *view, from string, item *messages.PushItem, bulk bool, edges map[string]*messages.AckItem, after *effects) *messages.AckItem {
	s := c.shard(item.Aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[item.Aor]
	ack := &messages.AckItem{Aor: item.Aor, Hash: item.Hash, Edge: item.Edge, Holder: v.holds(v.self, item.Aor)}
	if item.Record == nil {
		ack.Want = e == nil || hashPart(e.rec, item.Edge) != item.Hash
		return ack
	}
	e, changed := c.apply(now, v, s, item.Aor, item.Record, origin{from: from, bulk: bulk}, after)
	if e == nil {
		return ack
	}
	ack.Winner = winner(e.rec, item.Record)
	if changed && !bulk && ack.Holder {
		for _, l := range item.Record.Leases {
			if l.Edge != from && l.Edge != c.cfg.Name && l.Edge != "" && edges[l.Edge] == nil {
				edges[l.Edge] = &messages.AckItem{
					Aor: item.Aor, Edge: l.Edge, Hash: hashPart(e.rec, l.Edge), Holder: true,
				}
			}
		}
	}
	return ack
}

// winner is what of have has won over something in pushed, or nil.
func winner(have, pushed *messages.Record) *messages.Record {
	w := &messages.Record{Aor: have.Aor}
	if have.Floor != nil && have.Floor.Compare(pushed.Floor) > 0 && (pushed.Floor != nil || len(pushed.Leases) > 0) {
		w.Floor = have.Floor
	}
	for _, l := range pushed.Leases {
		if mine := have.Lease(l.Key); mine != nil && mine.Compare(l) > 0 {
			w.Leases = append(w.Leases, mine)
		}
		for _, x := range have.Ended {
			if x.Edge == l.Edge && x.Flow.Same(l.Flow) && !pushed.HasEnded(x.Edge, x.Flow) {
				w.Ended = append(w.Ended, x)
			}
		}
	}
	if w.Empty() {
		return nil
	}
	return w
}
