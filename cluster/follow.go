package cluster

import (
	"maps"
	"slices"
	"sync"

	"hereis/messages"
)

// Sight is a user as seen from this node.
type Sight struct {
	// Record is what a holder knows of the user; nil: nobody knows anything.
	// It is never to be changed.
	Record *messages.Record
	// MS is the node time of the owner at which it was so: a lease that expires
	// later was alive. A refresh is not told of, so what has expired since may
	// have been refreshed.
	MS int64
	// Live are the edges that can be reached from here, by name, with their
	// incarnations. It is never changed.
	Live map[string]uint64
}

// Follower is told what becomes of the users that it follows.
type Follower interface {
	// Changed tells that a user is not seen as before: not every difference
	// means something. Calls come one at a time, with the Follow locked: it must
	// not block, nor use the Follow.
	Changed(aor string, before, after Sight)
	// Synced tells, in the same way, that the copy has become complete.
	Synced()
}

// Follow is a copy of what the owners hold of the users that match a pattern,
// kept up to date from the whole cluster: by a listing of each member's users,
// then by an event for each change that can be seen. A lost event, a broken
// stream and a change of members are mended by listing again. Two things are
// promised: an older state of a user is never told of after a newer one; and
// when the members are settled and can hear each other, the copy is equal to
// what the owners hold within a few seconds.
type Follow struct {
	core    *Core
	pattern string
	sink    Follower
	// generation of this node's interest, from which on it is in there.
	generation uint64
	// ready is closed by tick when there is something to show.
	ready chan struct{}
	// over is closed by end.
	over chan struct{}

	// mu guards what follows. It is not taken with watchTable.mu held.
	mu    sync.Mutex
	users map[string]*followed
	// fading are those users of whom nothing is alive.
	fading map[string]struct{}
	fadeMS int64
	// live are the edges that count as reachable, of the view with digest, which
	// is this node's since viewMS; whole: all edges of it are in live.
	live    map[string]uint64
	digest  uint64
	viewMS  int64
	whole   bool
	started int64
	sweeps  map[string]*sweep
	// marks counts the words; that of a user tells when the last came.
	marks  uint64
	synced bool
	ended  bool
}

// followed is one user in the copy.
type followed struct {
	rec *messages.Record
	// ms is Sight.MS.
	ms int64
	// from, incarnation and order are of the last word of the owner; mixed:
	// something of other members' words has been merged in.
	from               string
	incarnation, order uint64
	mixed              bool
	mark               uint64
}

const (
	// fadeKeepMS is how long a user of whom nothing is alive is remembered: at
	// least as long as holders keep what has died (earlyMS).
	fadeKeepMS = 120_000
	// readyMS is how long a new Follow waits for members that do not answer.
	readyMS = 2000
	// edgesMS is how long an edge that has come (back) waits for its owners'
	// words before its users are believed to be as they were.
	edgesMS = 5000
	// sweepMS is how long a listing that failed waits before it is repeated, and
	// sweepPageMS how long a page may take.
	sweepMS = 300
	// believeMS is how long what a follower has been told is not taken back
	// because the owner does not know it (any more).
	believeMS = 10_000
)

// Follow begins to follow the users that pattern names: an AoR, a domain as
// "@example.com", or "*". close ends it. The error is ErrStopped or ErrTooManyWatches.
func (c *Core) Follow(now int64, pattern string, sink Follower) (*Follow, error) {
	defer c.stir()
	v := c.view.Load()
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, ErrStopped
	}
	if len(t.follows) >= c.cfg.MaxWatches {
		return nil, ErrTooManyWatches
	}
	t.generation++
	f := &Follow{
		core: c, pattern: pattern, sink: sink, generation: t.generation, ready: make(chan struct{}), over: make(chan struct{}),
		users: make(map[string]*followed), fading: make(map[string]struct{}), sweeps: make(map[string]*sweep),
		digest: v.digest, live: v.edges(), viewMS: now, whole: true, started: now,
	}
	t.follows = append(t.follows, f)
	t.count()
	return f, nil
}

// edges are the live nodes with their incarnations.
func (v *view) edges() map[string]uint64 {
	live := make(map[string]uint64, len(v.nodes))
	for i := range v.nodes {
		live[v.nodes[i].Name] = v.nodes[i].Incarnation
	}
	return live
}

// Close ends the Follow. Nothing is told of when it has returned.
func (f *Follow) Close() {
	t := &f.core.watches
	t.mu.Lock()
	t.follows = slices.DeleteFunc(t.follows, func(o *Follow) bool { return o == f })
	t.count()
	t.mu.Unlock()
	f.end()
}

func (f *Follow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		close(f.over)
		f.open()
	}
}

// open lets those go on who wait for Ready. mu is held.
func (f *Follow) open() {
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
}

// stopWatches ends every Follow.
func (c *Core) stopWatches() {
	t := &c.watches
	t.mu.Lock()
	follows := t.follows
	t.follows, t.ended = nil, true
	t.count()
	t.mu.Unlock()
	for _, f := range follows {
		f.end()
	}
}

// Ready is closed when every member of the view has listed its users, or has
// not done so for two seconds, or the Follow has ended.
func (f *Follow) Ready() <-chan struct{} { return f.ready }

// Over is closed when nothing is told of any more.
func (f *Follow) Over() <-chan struct{} { return f.over }

// Ended tells whether it is.
func (f *Follow) Ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// Do gives use the copy, locked: nothing is told of meanwhile.
func (f *Follow) Do(use func(Copy)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	use(Copy{f})
}

// Copy is the state of a Follow within Do, Changed and Synced.
type Copy struct{ f *Follow }

// Synced: the copy is complete, as far as this node can know.
func (c Copy) Synced() bool { return c.f.synced }

// Live are the edges within reach. It is never changed.
func (c Copy) Live() map[string]uint64 { return c.f.live }

// Look is the sight of one user.
func (c Copy) Look(aor string) Sight {
	if e := c.f.users[aor]; e != nil {
		return Sight{e.rec, e.ms, c.f.live}
	}
	return Sight{Live: c.f.live}
}

// Each gives the sight of every user of whom anything is remembered.
func (c Copy) Each(each func(aor string, s Sight)) {
	for aor, e := range c.f.users {
		each(aor, Sight{e.rec, e.ms, c.f.live})
	}
}

// word takes in what a member says of a user.
func (f *Follow) word(v *view, ev *messages.UserEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.take(v, ev, false)
	}
}

// take merges a word into the copy. listed: it is of a listing by the owner
// that knows all, in this node's view, and stands for itself. mu is held.
//
// behind: a listing knows less than what has been told already.
func (f *Follow) take(v *view, ev *messages.UserEvent, listed bool) (behind bool) {
	f.marks++
	e := f.users[ev.Aor]
	if e == nil {
		e = &followed{from: ev.Node, incarnation: ev.Incarnation}
		f.users[ev.Aor] = e
	}
	e.mark = f.marks
	same := e.from == ev.Node && e.incarnation == ev.Incarnation
	if same && (ev.Order < e.order || ev.Order == e.order && !listed && e.rec != nil) {
		return false
	}
	owner, _ := v.place(ev.Aor)
	isOwner := v.name(owner) == ev.Node
	before := Sight{e.rec, e.ms, f.live}
	if listed && lacks(ev.Record, e.rec, ev.Ms-believeMS) {
		listed, e.mixed, behind = false, true, true
	}
	switch {
	case listed && isOwner, isOwner && ev.Complete && same && !e.mixed:
		e.rec, e.mixed = ev.Record, false
	default:
		// Until the owner is sure, nothing of what was known is given up.
		next := e.rec.Clone()
		next.Aor = ev.Aor
		next.Merge(ev.Record)
		dropUnderFloor(next)
		e.mixed = e.mixed || e.rec != nil || !isOwner
		e.rec = next
	}
	if isOwner {
		e.from, e.incarnation, e.order = ev.Node, ev.Incarnation, ev.Order
	}
	if isOwner || before.Record == nil {
		e.ms = max(e.ms, ev.Ms)
	}
	f.tell(ev.Aor, e, before)
	return behind
}

// lacks tells whether in knows less than have does of what was written after a
// node time. A copy may be late, although nobody knows of it any more.
func lacks(in, have *messages.Record, sinceMS int64) bool {
	return slices.ContainsFunc(have.GetLeases(), func(l *messages.Lease) bool {
		if l.Stamp.GetMs() <= sinceMS || underFloor(in, l) {
			return false
		}
		is := in.Lease(l.Key)
		return is == nil || is.Compare(l) < 0
	})
}

// tell tells the follower of a change, and notes what has nothing alive. mu is held.
func (f *Follow) tell(aor string, e *followed, before Sight) {
	alive := slices.ContainsFunc(e.rec.GetLeases(), func(l *messages.Lease) bool { return e.rec.Alive(l, e.ms) })
	if alive {
		delete(f.fading, aor)
	} else {
		f.fading[aor] = struct{}{}
	}
	f.sink.Changed(aor, before, Sight{e.rec, e.ms, f.live})
}

// tick goes on with listings and follows the view.
func (f *Follow) tick(now int64, v *view) {
	var ask []*sweep
	f.mu.Lock()
	if f.ended {
		f.mu.Unlock()
		return
	}
	if f.digest != v.digest {
		f.digest, f.viewMS, f.whole = v.digest, now, false
		f.loseEdges(v.edges())
	}
	synced, listed := true, true
	for i := range v.nodes {
		s := f.sweeps[v.nodes[i].Name]
		if s == nil {
			s = &sweep{node: v.nodes[i].Name}
			f.sweeps[s.node] = s
		}
		key, told, clean := f.core.heardFrom(now, v, i, f.generation)
		good := told && s.good == key
		synced, listed = synced && good && clean, listed && s.listed
		if told && !good && !s.running && now >= s.nextMS && (clean || !s.listed) {
			s.begin(now, key, f.marks)
		}
		if s.running && !s.asked {
			s.asked = true
			ask = append(ask, s)
		}
	}
	for name := range f.sweeps {
		if !v.live(name) {
			delete(f.sweeps, name)
		}
	}
	if synced && !f.synced {
		f.sink.Synced()
	}
	f.synced = synced
	if !f.whole && (synced || now >= f.viewMS+edgesMS) {
		f.whole = true
		f.setEdges(v.edges())
	}
	if listed || now >= f.started+readyMS {
		f.open()
	}
	f.fade(now)
	f.mu.Unlock()
	for _, s := range ask {
		if s.after == "" {
			f.core.stats.Listings.Add(1)
		}
		f.askPage(now, s)
	}
}

// loseEdges takes edges that are gone, or have restarted, out of those that
// can be reached. mu is held.
func (f *Follow) loseEdges(now map[string]uint64) {
	kept := maps.Clone(f.live)
	maps.DeleteFunc(kept, func(name string, incarnation uint64) bool { return now[name] != incarnation })
	f.setEdges(kept)
}

// setEdges changes who can be reached, and tells of the users for whom that
// may make a difference. mu is held.
func (f *Follow) setEdges(live map[string]uint64) {
	was := f.live
	if maps.Equal(was, live) {
		return
	}
	f.live = live
	for aor, e := range f.users {
		if slices.ContainsFunc(e.rec.GetLeases(), func(l *messages.Lease) bool { return was[l.Edge] != live[l.Edge] }) {
			f.sink.Changed(aor, Sight{e.rec, e.ms, was}, Sight{e.rec, e.ms, live})
		}
	}
}

// fade forgets users of whom nothing has been alive for long. mu is held.
func (f *Follow) fade(now int64) {
	if now < f.fadeMS+fadeKeepMS/8 {
		return
	}
	f.fadeMS = now
	for aor := range f.fading {
		if e := f.users[aor]; e == nil || e.ms+fadeKeepMS < now {
			delete(f.users, aor)
			delete(f.fading, aor)
		}
	}
}
