package cluster

import (
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// sweep is the listing of one member's users, again and again. Guarded by Follow.mu.
type sweep struct {
	node string
	// good is under what the last good listing was made.
	good heardKey
	// listed: there was a listing, good or not.
	listed bool
	// running: a listing is under way. It goes on with the users after the one
	// named, a page in each tick at most; asked: there is no answer yet.
	running, asked bool
	after          string
	// nextMS is when the next may begin.
	nextMS int64
	// key and mark are of the listing under way: users whose mark is not above
	// it have not been named. clean: all pages so far are of a node that knows all.
	key   heardKey
	mark  uint64
	clean bool
}

// heardKey is all that makes a new listing necessary when it changes.
type heardKey struct{ incarnation, epoch, gaps, round, own uint64 }

func (s *sweep) begin(now int64, key heardKey, mark uint64) {
	s.running, s.after, s.key, s.mark, s.clean = true, "", key, mark, true
	s.nextMS = now + sweepMS
}

// heardFrom tells how node i is heard: under what, whether it tells this node
// of what interests the generation, and whether it has said lately that it
// knows all, in the view of this node.
func (c *Core) heardFrom(now int64, v *view, i int, generation uint64) (key heardKey, told, clean bool) {
	if i == v.self {
		// Its own round is enough: it misses nothing of itself.
		return heardKey{incarnation: c.cfg.Incarnation, own: v.round}, true, c.settled.Load()
	}
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.heard[v.nodes[i].Name]
	if h == nil || h.incarnation != v.nodes[i].Incarnation || h.knows < generation {
		return key, false, false
	}
	key = heardKey{incarnation: h.incarnation, epoch: h.epoch, gaps: h.gaps, round: h.round, own: v.round}
	return key, true, h.settled && h.digest == v.digest && now < h.heardMS+deafMS
}

// askPage asks a member for a page of its users. s is asked: nothing else changes it.
func (f *Follow) askPage(now int64, s *sweep) {
	q := &messages.Snapshot{Pattern: f.pattern, After: s.after, Follow: true}
	f.core.AskNode(now, s.node, q, now+answerMS, func(reply proto.Message, _ error) {
		page, _ := reply.(*messages.Snapshotted)
		f.page(s, page)
	})
}

// page takes one in; nil: the member did not answer.
func (f *Follow) page(s *sweep, page *messages.Snapshotted) {
	v := f.core.view.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.sweeps[s.node] != s {
		return
	}
	s.asked = false
	if page == nil || len(page.Orders) != len(page.Records) || !v.has(s.node, page.Incarnation) {
		s.running = false
		return
	}
	s.clean = s.clean && page.Settled && page.Digest == v.digest && f.digest == v.digest
	behind := false
	for i, rec := range page.Records {
		if f.take(v, &messages.UserEvent{
			Aor: rec.Aor, Ms: page.NowMs, Node: s.node, Record: rec,
			Incarnation: page.Incarnation, Order: page.Orders[i], Complete: page.Settled,
		}, s.clean) {
			behind = true
		}
	}
	s.clean = s.clean && !behind
	if s.after = page.Next; s.after != "" {
		return
	}
	s.running, s.listed = false, true
	if s.clean {
		s.good = s.key
		f.gone(v, s, page)
	}
}

// gone ends users of a member that it has not named: it knows all, and does
// not know them. mu is held.
func (f *Follow) gone(v *view, s *sweep, page *messages.Snapshotted) {
	for aor, e := range f.users {
		if e.mark > s.mark || e.rec == nil {
			continue
		}
		if owner, _ := v.place(aor); v.name(owner) != s.node {
			continue
		}
		if lacks(&messages.Record{}, e.rec, page.NowMs-believeMS) {
			s.good = heardKey{}
			continue
		}
		before := Sight{e.rec, e.ms, f.live}
		e.rec, e.mixed, e.ms = nil, false, max(e.ms, page.NowMs)
		f.tell(aor, e, before)
	}
}
