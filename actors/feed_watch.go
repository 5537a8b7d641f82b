package actors

import (
	"cmp"
	"slices"
)

// Watch is one watcher of a Feed: what it has not been told yet, coalesced by
// user. A slow watcher misses no state, only what came between two.
type Watch struct {
	feed *Feed
	cfg  WatchConfig

	pending map[string]*pending
	// order has all that is pending by seq, ready what may be told, held what is
	// damped, by the time until which; each may also have what is not pending any more.
	order, ready, held queue

	sync syncState
	// list are the users of a sync that have not been told of; partial: it is
	// of those who may have changed, not of all.
	list    []string
	partial bool
	// incomplete: the last list was not of everybody.
	incomplete bool
	// doubtMS is until when the watcher may know from elsewhere what has not
	// reached this node, 0 if it does not.
	doubtMS int64
	// from is where the watcher goes on in a partial list.
	from *Cursor
	// edges are those within reach when what is first in order came to be
	// pending, lives is Feed.lives at that time.
	edges []uint32
	lives uint64
}

type syncState int

const (
	noSync syncState = iota
	// syncWanted: a list of all is to begin.
	syncWanted
	// syncListing: list is being told.
	syncListing
)

// pending is what a watcher has not been told of a user.
type pending struct {
	aor string
	// seq and ms are of the first change that it was not told of, base is what it knows.
	seq  uint64
	ms   int64
	base Sight
	is   Sight
	// dueMS is until when it is held, 0 if it is not.
	dueMS int64
	// queued: it is in ready. done: it is not pending any more. unsure: the
	// watcher may know a later state than base, so it is told even if nothing
	// seems to have changed.
	queued, done, unsure bool
}

// queue is a list of pendings, first in first out.
type queue struct {
	list []queuedPending
	head int
}

// queuedPending is in its queue as long as its dueMS is this.
type queuedPending struct {
	*pending
	due int64
}

func (q *queue) push(p *pending, due int64) { q.list = append(q.list, queuedPending{p, due}) }

// front drops what is done or held otherwise, and returns the first that is
// not, or nil. anyDue: how it is held does not matter.
func (q *queue) front(anyDue bool) *pending {
	for q.head < len(q.list) {
		if p := q.list[q.head]; !p.done && (anyDue || p.dueMS == p.due) {
			return p.pending
		}
		q.drop()
	}
	return nil
}

func (q *queue) drop() {
	q.list[q.head] = queuedPending{}
	q.head++
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	} else if q.head > 1024 && q.head > len(q.list)/2 {
		q.list, q.head = slices.Delete(q.list, 0, q.head), 0
	}
}

func (w *Watch) wake() {
	if w.cfg.Wake != nil {
		w.cfg.Wake()
	}
}

// begin finds where the watcher goes on: after its last event, if the feed
// remembers that far; else with those who may have changed since; else with
// everybody who is online.
func (w *Watch) begin(now int64, users Users) {
	f := w.feed
	if w.cfg.From == "" {
		if w.cfg.Snapshot {
			w.sync = syncWanted
		}
		return
	}
	c, ok := ParseCursor(w.cfg.From)
	switch {
	case !ok || c.Pattern != patternHash(f.pattern):
		w.sync = syncWanted
	case c.Feed == f.id && c.Seq <= f.seq && f.seq-c.Seq <= uint64(len(f.ring)):
		for seq := c.Seq + 1; seq <= f.seq; seq++ {
			// Its cursor is before the first change that it was not told of; of
			// others it was told more.
			w.note(f.ring[seq%uint64(len(f.ring))], true)
		}
	case users.Synced() && c.MS-slackMS >= now-resumeMS && c.MS <= now+slackMS && c.within(users.Live()):
		// Whoever may have been seen from there can be seen from here.
		w.from = &Cursor{Pattern: c.Pattern}
		if len(c.Edges) == len(users.Live()) {
			w.from.MS, w.from.Edges = c.MS, c.Edges
		}
		w.sync, w.partial, w.doubtMS = syncListing, true, now+slackMS
		users.Each(func(aor string, s Sight) {
			if s.touched(c.MS-slackMS, c.reach) {
				w.list = append(w.list, aor)
			}
		})
	default:
		w.sync = syncWanted
	}
}

// note adds a change to what is pending. again: it may have been told before.
func (w *Watch) note(c change, again bool) {
	if w.sync == syncWanted {
		return // the list will have it
	}
	if w.order.front(true) == nil {
		w.edges, w.lives = edgeHashes(c.before.Live), c.lives
	}
	p := w.pending[c.aor]
	if p == nil {
		if len(w.pending) >= w.cfg.Backlog {
			w.giveUp()
			return
		}
		p = &pending{aor: c.aor, seq: c.seq, ms: c.ms, base: c.before}
		w.pending[c.aor] = p
		w.order.push(p, 0)
	}
	p.is, p.unsure = c.after, p.unsure || again || w.feed.nowMS <= w.doubtMS
	step := StepBetween(p.base, p.is)
	switch {
	case step.Kind == "" && !p.unsure:
		w.settle(p)
	case step.Kind == WentOffline && w.cfg.DampMS > 0:
		if p.dueMS == 0 {
			p.dueMS, p.queued = w.feed.nowMS+w.cfg.DampMS, false
			w.held.push(p, p.dueMS)
		}
	default:
		p.dueMS = 0
		if !p.queued {
			p.queued = true
			w.ready.push(p, 0)
		}
	}
}

// settle ends a pending.
func (w *Watch) settle(p *pending) {
	p.done = true
	delete(w.pending, p.aor)
}

// giveUp drops a backlog that is too long: a list of all takes its place.
func (w *Watch) giveUp() {
	clear(w.pending)
	w.order, w.ready, w.held, w.list = queue{}, queue{}, queue{}, nil
	w.sync, w.partial = syncWanted, false
	if w.cfg.Resynced != nil {
		w.cfg.Resynced()
	}
}

// Next returns what the watcher is told next, or nil and the node time at which
// to ask again (0: when woken).
func (w *Watch) Next(now int64, users Users) (*Event, int64) {
	w.feed.nowMS = max(w.feed.nowMS, now)
	if w.doubtMS != 0 && now > w.doubtMS && users.Synced() {
		w.doubtMS = 0
	}
	if w.sync != noSync {
		if e := w.nextOfSync(now, users); e != nil {
			return e, 0
		}
	}
	p := w.next(now)
	if p == nil {
		if p = w.held.front(false); p != nil {
			return nil, p.dueMS
		}
		return nil, 0
	}
	step := StepBetween(p.base, p.is)
	w.settle(p)
	return &Event{
		ID: w.position(now, users), Kind: cmp.Or(step.Kind, IsState), AoR: p.aor, Online: len(step.Devices) > 0,
		Reason: step.Reason, Device: step.Device, Devices: step.Devices, Published: step.Published, MS: p.is.MS,
	}, 0
}

// next takes the next pending that may be told.
func (w *Watch) next(now int64) *pending {
	if p := w.held.front(false); p != nil && p.dueMS <= now {
		w.held.drop()
		return p
	}
	p := w.ready.front(false)
	if p != nil {
		w.ready.drop()
	}
	return p
}

// nextOfSync goes on with a list; nil: it has ended.
func (w *Watch) nextOfSync(now int64, users Users) *Event {
	if w.sync == syncWanted {
		clear(w.pending)
		w.order, w.ready, w.held = queue{}, queue{}, queue{}
		w.sync, w.partial, w.list, w.incomplete, w.doubtMS = syncListing, false, nil, !users.Synced(), 0
		users.Each(func(aor string, s Sight) {
			if len(s.Devices()) > 0 || len(s.Published()) > 0 {
				w.list = append(w.list, aor)
			}
		})
		return &Event{Kind: SyncBegins, MS: now, ID: w.position(now, users)}
	}
	for len(w.list) > 0 {
		aor := w.list[len(w.list)-1]
		w.list = w.list[:len(w.list)-1]
		if p := w.pending[aor]; p != nil {
			w.settle(p)
		}
		s := users.Look(aor)
		devices, published := s.Devices(), s.Published()
		if len(devices) == 0 && len(published) == 0 && !w.partial {
			continue // not named, not online
		}
		e := &Event{Kind: IsState, AoR: aor, Online: len(devices) > 0, Devices: devices, Published: published, MS: s.MS}
		e.ID = w.position(now, users)
		return e
	}
	w.sync, w.list = noSync, nil
	if w.partial {
		return nil
	}
	return &Event{Kind: SyncEnds, MS: now, Complete: !w.incomplete, ID: w.position(now, users)}
}

// position is where a watcher that has been told all but what is pending goes on.
func (w *Watch) position(now int64, users Users) string {
	f := w.feed
	c := &Cursor{Feed: f.id, Seq: f.seq, MS: now, Pattern: patternHash(f.pattern)}
	switch front := w.order.front(true); {
	case w.sync == syncListing && w.partial:
		c = w.from
	case w.sync == syncListing, w.incomplete:
		c = &Cursor{Pattern: c.Pattern}
	case front != nil:
		c.Seq, c.MS, c.Edges = front.seq-1, min(now, front.ms), w.edges
		if w.lives != f.lives {
			// What has been told since was seen by others: this feed alone knows
			// the way from there.
			c.MS, c.Edges = 0, nil
		}
	default:
		c.Edges = edgeHashes(users.Live())
	}
	if !users.Synced() {
		c.MS, c.Edges = 0, nil
	}
	if w.doubtMS != 0 {
		c.Feed, c.Seq = 0, 0 // the doubt would be forgotten with the watcher
	}
	return c.String()
}

// Position is where a watcher that has been told everything so far goes on, or
// empty if it has not: a quiet watcher's last event becomes too old to go on from.
func (w *Watch) Position(now int64, users Users) string {
	if w.sync != noSync || len(w.pending) > 0 {
		return ""
	}
	return w.position(now, users)
}
