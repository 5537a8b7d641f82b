package cluster

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// bulkQueue is what waits to be pushed to one peer.
type bulkQueue struct {
	mu sync.Mutex
	// aors wait from first on, in order; each stands here once for each target
	// with queued set. What is before first is free: hundreds of thousands may
	// wait, and are not to be moved for each message.
	aors  []string
	first int
	// window has the messages under way, by number, with the time of sending.
	window map[uint64]int64
	last   uint64
	// acks tell the peer what this edge has stored; they go with the next tick.
	acks []*messages.AckItem
}

func (q *bulkQueue) push(aor string) {
	q.mu.Lock()
	q.aors = append(q.aors, aor)
	q.mu.Unlock()
}

// tickBulk moves every peer's queue.
func (c *Core) tickBulk(now int64) {
	v := c.view.Load()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil {
			c.tellKept(v, p)
			c.pump(now, p)
		}
	}
}

func (q *bulkQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.aors) - q.first
}

// ackChunk is how many acknowledgements one message has at most.
const ackChunk = 256

func (q *bulkQueue) ack(item *messages.AckItem) {
	q.mu.Lock()
	q.acks = append(q.acks, item)
	q.mu.Unlock()
}

// tellKept tells a peer what this edge has stored since the last tick.
func (c *Core) tellKept(v *view, p *neighbor) {
	p.bulk.mu.Lock()
	acks := p.bulk.acks
	p.bulk.acks = nil
	p.bulk.mu.Unlock()
	for chunk := range slices.Chunk(acks, ackChunk) {
		c.ride(p, c.newAck(v, chunk...))
	}
}

// bulkTicks is in how many ticks a long queue falls to a third. One that is not
// long goes by one message in each tick, of some twenty records or four times as
// many offers: what is moved must not take the machine from the lookups of that
// time, at neither end.
const bulkTicks = 200

// pump sends from a peer's queue what is for one tick, as far as its window allows.
func (c *Core) pump(now int64, p *neighbor) {
	for share := p.bulk.waiting() / bulkTicks; share >= 0; {
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
			share -= len(m.Items)
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
	if len(q.aors) == q.first || len(q.window) >= window {
		return 0, nil
	}
	n := min(len(q.aors)-q.first, bulkChunk)
	aors = slices.Clone(q.aors[q.first : q.first+n])
	clear(q.aors[q.first : q.first+n])
	if q.first += n; q.first == len(q.aors) {
		q.aors, q.first = nil, 0
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
	if q.first >= len(rest) {
		q.first -= len(rest)
		copy(q.aors[q.first:], rest)
	} else { // all were taken, and others have come since
		q.aors, q.first = slices.Concat(rest, q.aors[q.first:]), 0
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

// revive forgets what was under way on a stream that is gone.
func (q *bulkQueue) revive() {
	q.mu.Lock()
	q.window = nil
	q.mu.Unlock()
}

// bulkItem is what a queued AoR has to say to a peer by now, or nil.
func (c *Core) bulkItem(now int64, v *view, aor string, p *neighbor) *messages.PushItem {
	s := c.shard(aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(aor)
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
		item.Edge = c.scope(v, aor, e.x, i)
		if item.Edge != "" {
			item.Hash = hashPart(e.rec, item.Edge)
		}
	}
	c.sent(now, s, e, t)
	return item
}
