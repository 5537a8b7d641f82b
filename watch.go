package hereis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hereis/actors"
	"hereis/cluster"
	"hereis/sipfront/event"
)

const (
	// watchLinger is how long a feed is kept after its last watcher has gone: one
	// that comes back meanwhile misses nothing and is told nothing twice.
	watchLinger = time.Minute
	// watchRemember is how many changes a feed remembers for that.
	watchRemember = 4096
)

// WatchOptions say what a watcher wants besides its pattern. The zero value:
// changes from now on.
type WatchOptions struct {
	// From is the ID of the last event that was seen, of this or any other node
	// of the cluster; empty: none. If it is no older than about a minute, the
	// watcher goes on from there; if it is, or is no ID of ours, it is given a
	// sync: everybody who is online.
	From string
	// Snapshot: begin with a sync, unless From says where to go on.
	Snapshot bool
	// Damp is how long a user must stay offline to be told of as such: who is back
	// online within it has never been away.
	Damp time.Duration
}

// Event is what a watcher is told: actors has the kinds and reasons.
type Event = actors.Event

// PresenceOf is the essence of what a user has published by an event: "open",
// "closed", or empty if nothing is said; and the notes. The documents themselves
// are in e.Published.
func PresenceOf(e *Event) (basic string, notes []string) {
	bodies := make([][]byte, len(e.Published))
	for i, p := range e.Published {
		bodies[i] = p.GetBody()
	}
	return event.Basics(bodies...)
}

// ErrWatchEnded is the error of a watcher whose node has stopped.
var ErrWatchEnded = errors.New("the node has stopped")

// Watch yields the events of the users that pattern names, from the whole
// cluster: an AoR, a domain as "@example.com", or "*". It ends with ctx, or with
// an error: ErrWatchEnded, or what kept it from beginning.
//
// What is promised: the present state of each user, after every change, at
// least once; never an older state of a user after a newer one. Changes of one
// user that come faster than they are taken coalesce; those of different users
// may change places. Online means that a call would find a device: one on a flow
// of an edge that this node can reach, or one that can be called without its
// flow. So a user whose devices are all at a node that dies goes offline with
// the reason edge-lost, and online with edge-back when it returns.
//
// A watcher that is too slow by more than Config.MaxWatchBacklog users is given a
// sync instead of what it has missed.
func Watch(ctx context.Context, n *Node, pattern string, o WatchOptions) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		w, err := n.Watch(ctx, pattern, o)
		if err != nil {
			if ctx.Err() == nil {
				yield(nil, err)
			}
			return
		}
		defer w.Close()
		for {
			e, err := w.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					yield(nil, err)
				}
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Watcher is a subscription for who wants to wait with a deadline; Watch is the
// shorter way. Next and Position are for one goroutine at a time.
type Watcher struct {
	node  *Node
	feed  *feed
	watch *actors.Watch
	// woken has room for one: sent to by the feed when there may be an event.
	woken chan struct{}
	once  sync.Once
}

// Watch begins a subscription, which Close ends. It returns when the node has
// a copy of who is online, or after two seconds without one; its errors are
// ctx's, cluster.ErrTooManyWatches and cluster.ErrStopped.
func (n *Node) Watch(ctx context.Context, pattern string, o WatchOptions) (*Watcher, error) {
	f, err := n.feeds.open(n, pattern)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.follow.Ready():
	case <-ctx.Done():
		n.feeds.release(f)
		return nil, ctx.Err()
	}
	w := &Watcher{node: n, feed: f, woken: make(chan struct{}, 1)}
	cfg := actors.WatchConfig{
		From: o.From, Snapshot: o.Snapshot, DampMS: o.Damp.Milliseconds(), Backlog: n.cfg.MaxWatchBacklog,
		Wake: w.wake, Resynced: func() { n.feeds.resyncs.Add(1) },
	}
	f.follow.Do(func(c cluster.Copy) { w.watch = f.state.Watch(n.clock.NowMS(), users{c}, cfg) })
	return w, nil
}

func (w *Watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Next waits for the next event. Its error is ctx's, or ErrWatchEnded.
func (w *Watcher) Next(ctx context.Context) (*Event, error) {
	for {
		var e *Event
		var due int64
		now := w.node.clock.NowMS()
		w.feed.follow.Do(func(c cluster.Copy) { e, due = w.watch.Next(now, users{c}) })
		if e != nil {
			return e, nil
		}
		if w.feed.follow.Ended() {
			return nil, ErrWatchEnded
		}
		if err := w.wait(ctx, now, due); err != nil {
			return nil, err
		}
	}
}

func (w *Watcher) wait(ctx context.Context, now, due int64) error {
	var at <-chan time.Time
	if due > 0 {
		t := time.NewTimer(time.Duration(max(due-now, 1)) * time.Millisecond)
		defer t.Stop()
		at = t.C
	}
	select {
	case <-w.woken:
	case <-at:
	case <-w.feed.follow.Over():
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Position is the ID to go on from if the watcher has been told everything so
// far, else empty. A watcher that has heard nothing for long should keep it, as
// its last event may be too old to go on from.
func (w *Watcher) Position() (id string) {
	w.feed.follow.Do(func(c cluster.Copy) { id = w.watch.Position(w.node.clock.NowMS(), users{c}) })
	return id
}

// Close ends the subscription.
func (w *Watcher) Close() {
	w.once.Do(func() {
		w.feed.follow.Do(func(cluster.Copy) { w.feed.state.Unwatch(w.watch) })
		w.node.feeds.release(w.feed)
	})
}

// feed is one pattern's copy and the watchers of it.
type feed struct {
	pattern string
	follow  *cluster.Follow
	// state is used with follow locked.
	state *actors.Feed
	// watchers and closing are guarded by feeds.mu; closing is when nobody has
	// watched for watchLinger.
	watchers int
	closing  *time.Timer
}

// Changed implements cluster.Follower.
func (f *feed) Changed(aor string, before, after cluster.Sight) {
	f.state.Changed(aor, actors.Sight(before), actors.Sight(after))
}

// Synced implements cluster.Follower.
func (f *feed) Synced() { f.state.Synced() }

// users is the copy as a Feed wants it.
type users struct{ cluster.Copy }

func (u users) Look(aor string) actors.Sight { return actors.Sight(u.Copy.Look(aor)) }

func (u users) Each(each func(aor string, s actors.Sight)) {
	u.Copy.Each(func(aor string, s cluster.Sight) { each(aor, actors.Sight(s)) })
}

// feeds are those of a node, by pattern.
type feeds struct {
	mu        sync.Mutex
	byPattern map[string]*feed
	// resyncs counts watchers that were too slow and got a sync.
	resyncs atomic.Uint64
}

// watchStats are the numbers of a node's watchers: patterns that are followed
// and their watchers at this time, and how often one was too slow and got a sync.
type watchStats struct {
	Patterns, Watchers int
	Resyncs            uint64
}

func (fs *feeds) numbers() watchStats {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	st := watchStats{Patterns: len(fs.byPattern), Resyncs: fs.resyncs.Load()}
	for _, f := range fs.byPattern {
		st.Watchers += f.watchers
	}
	return st
}

func (fs *feeds) open(n *Node, pattern string) (*feed, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byPattern[pattern]
	if f == nil || f.follow.Ended() {
		f = &feed{pattern: pattern, state: actors.NewFeed(rand.Uint64(), pattern, watchRemember)}
		var err error
		if f.follow, err = n.cluster.Follow(pattern, f); err != nil {
			return nil, fmt.Errorf("watch %s: %w", pattern, err)
		}
		fs.byPattern[pattern] = f
	}
	f.watchers++
	if f.closing != nil {
		f.closing.Stop()
		f.closing = nil
	}
	return f, nil
}

// release lets a feed go when nobody has watched it for a while.
func (fs *feeds) release(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.watchers--; f.watchers > 0 {
		return
	}
	f.closing = time.AfterFunc(watchLinger, func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if f.watchers > 0 {
			return
		}
		f.follow.Close()
		if fs.byPattern[f.pattern] == f {
			delete(fs.byPattern, f.pattern)
		}
	})
}

// stop ends the timers of feeds that nobody watches.
func (fs *feeds) stop() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.byPattern {
		if f.closing != nil {
			f.closing.Stop()
		}
	}
}
