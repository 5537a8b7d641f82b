package actors

import (
	"maps"

	"hereis/messages"
)

// Event is one thing that a watcher is told.
type Event struct {
	// ID is where to go on after this event, at any node: a Cursor. Within a sync
	// it is one from which there is nothing but another sync.
	ID   string
	Kind EventKind
	// AoR is the user; empty for the two marks of a sync.
	AoR string
	// Online is how the user is after the event.
	Online bool
	Reason Reason
	// Device is what caused it; Devices are those within reach.
	Device  *messages.Lease
	Devices []*messages.Lease
	// Published is what the user has published of their presence.
	Published []*messages.Publication
	// MS is the node time at which the user's owner saw it.
	MS int64
	// Complete, of a SyncEnds: the list has everybody. Otherwise some node did
	// not answer, and another sync follows when it does.
	Complete bool
}

// Users is the copy of what the owners hold that a Feed is made from.
type Users interface {
	// Synced: the copy is complete, as far as anybody knows.
	Synced() bool
	// Live are the edges within reach.
	Live() map[string]uint64
	// Look is the present sight of a user, Each gives those of all.
	Look(aor string) Sight
	Each(func(aor string, s Sight))
}

const (
	// resumeMS is how old a cursor may be: holders keep what has died for longer.
	resumeMS = 60_000
	// slackMS is how long a change may take until every node that watches has it.
	slackMS = 10_000
)

// Feed turns the changes of one pattern's users into events for any number of
// watchers. It is plain state: its methods, and those of its Watches, are called
// one at a time.
type Feed struct {
	id      uint64
	pattern string
	seq     uint64
	watches map[*Watch]struct{}
	// ring has the last changes, that of seq at seq modulo its length.
	ring []change
	// nowMS is the highest node time heard of.
	nowMS int64
	// live are the edges within reach at the last change, lives counts how often
	// they were others.
	live  map[string]uint64
	lives uint64
}

// change is a step of the copy, noted at node time ms.
type change struct {
	aor           string
	seq           uint64
	ms            int64
	before, after Sight
	// lives is Feed.lives before it.
	lives uint64
}

// NewFeed makes a feed with an id that no other has, which remembers that many
// changes for those who come back.
func NewFeed(id uint64, pattern string, remember int) *Feed {
	return &Feed{id: id, pattern: pattern, watches: make(map[*Watch]struct{}), ring: make([]change, remember)}
}

// Changed takes in a change of a user.
func (f *Feed) Changed(aor string, before, after Sight) {
	if StepBetween(before, after).Kind == "" {
		return
	}
	f.seq++
	f.nowMS = max(f.nowMS, after.MS)
	c := change{aor: aor, seq: f.seq, ms: f.nowMS, before: before, after: after, lives: f.lives}
	if !maps.Equal(f.live, after.Live) {
		f.live = after.Live
		f.lives++
	}
	f.ring[f.seq%uint64(len(f.ring))] = c
	for w := range f.watches {
		w.note(c, false)
		w.wake()
	}
}

// Synced takes in that the copy has become complete: whoever was given an
// incomplete list gets another, and so does who has come from a node that may
// have known of somebody of whom nobody knows any more.
func (f *Feed) Synced() {
	for w := range f.watches {
		if w.incomplete || w.doubtMS != 0 {
			w.sync = syncWanted
			w.wake()
		}
	}
}

// WatchConfig is what a watcher wants.
type WatchConfig struct {
	// From is the ID of the last event that the watcher has seen; empty: none.
	From string
	// Snapshot: begin with those who are online, if From does not say where to go on.
	Snapshot bool
	// DampMS: who goes offline and is online again within that time did not.
	DampMS int64
	// Backlog is how many users may have changed unsent; above it the watcher
	// gets a sync instead.
	Backlog int
	// Wake is called when there may be an event. It must not block.
	Wake func()
	// Resynced is called when a backlog has been given up for a sync.
	Resynced func()
}

// Watch begins to collect events for a watcher at node time now.
func (f *Feed) Watch(now int64, users Users, cfg WatchConfig) *Watch {
	w := &Watch{feed: f, cfg: cfg, pending: make(map[string]*pending)}
	f.watches[w] = struct{}{}
	f.nowMS = max(f.nowMS, now)
	w.begin(now, users)
	return w
}

// Unwatch ends a watcher.
func (f *Feed) Unwatch(w *Watch) { delete(f.watches, w) }
