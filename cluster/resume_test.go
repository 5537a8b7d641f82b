package cluster_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"hereis/actors"
	"hereis/cluster"
)

// post is a node's feed of everybody, through one life of the node.
type post struct {
	n      *simNode
	core   *cluster.Core
	feed   *actors.Feed
	follow *cluster.Follow
}

func (p *post) Changed(aor string, before, after cluster.Sight) {
	p.feed.Changed(aor, actors.Sight(before), actors.Sight(after))
}

func (p *post) Synced() { p.feed.Synced() }

// sights is a copy as a Feed wants it, in an order that a seed replays.
type sights struct{ cluster.Copy }

func (s sights) Look(aor string) actors.Sight { return actors.Sight(s.Copy.Look(aor)) }

func (s sights) Each(each func(string, actors.Sight)) {
	all := map[string]actors.Sight{}
	s.Copy.Each(func(aor string, sight cluster.Sight) { all[aor] = actors.Sight(sight) })
	for _, aor := range slices.Sorted(maps.Keys(all)) {
		each(aor, all[aor])
	}
}

// reader is a program that watches: it knows who is online by what it was told,
// and where it was.
type reader struct {
	h      *history
	online map[string]bool
	id     string
	at     *post
	watch  *actors.Watch
	// named are those of a sync that goes on.
	named map[string]bool
	log   []string
}

func (r *reader) connect(p *post, damp int64) {
	r.at, r.named = p, nil
	cfg := actors.WatchConfig{From: r.id, Snapshot: true, DampMS: damp, Backlog: 5}
	p.follow.Do(func(c cluster.Copy) { r.watch = p.feed.Watch(r.h.now+p.n.skew, sights{c}, cfg) })
	r.log = append(r.log, fmt.Sprintf("%d: connects to %s", r.h.now-startMS, p.n.name))
}

func (r *reader) leave() {
	if r.at == nil {
		return
	}
	r.at.follow.Do(func(cluster.Copy) { r.at.feed.Unwatch(r.watch) })
	r.at = nil
}

// read takes up to n events.
func (r *reader) read(n int) {
	for range n {
		var e *actors.Event
		r.at.follow.Do(func(c cluster.Copy) {
			if e, _ = r.watch.Next(r.h.now+r.at.n.skew, sights{c}); e == nil {
				if id := r.watch.Position(r.h.now+r.at.n.skew, sights{c}); id != "" {
					r.id = id
				}
			}
		})
		if e == nil {
			return
		}
		r.take(e)
	}
}

func (r *reader) take(e *actors.Event) {
	r.log = append(r.log, fmt.Sprintf("%d: %s %s %s online %v complete %v", r.h.now-startMS, e.Kind, e.AoR, e.Reason, e.Online, e.Complete))
	switch e.Kind {
	case actors.SyncBegins:
		r.named = map[string]bool{}
	case actors.SyncEnds:
		for aor := range r.online {
			if e.Complete && !r.named[aor] {
				r.online[aor] = false
			}
		}
		r.named = nil
	default:
		r.online[e.AoR] = e.Online
		if r.named != nil {
			r.named[e.AoR] = true
		}
	}
	r.id = e.ID
}

// TestSimulationResume plays histories in which programs watch, read slowly, go
// away in the middle of anything, and come back at any node: in the quiet after
// it they all know the same, which is what is so.
func TestSimulationResume(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 5
	}
	playMany(t, n, playResumed)
}

func playResumed(t *testing.T, seed uint64) {
	h := newHistory(t, seed+200_000)
	h.settle()
	posts := map[*cluster.Core]*post{}
	open := func() (ready []*post) {
		for _, n := range h.nodes {
			if !n.up {
				continue
			}
			p := posts[n.core]
			if p == nil {
				p = &post{n: n, core: n.core, feed: actors.NewFeed(h.rng.Uint64(), "*", 8)}
				var err error
				if p.follow, err = n.core.Follow(h.now+n.skew, "*", p); err != nil {
					t.Fatal(err)
				}
				posts[n.core] = p
			}
			select {
			case <-p.follow.Ready():
				ready = append(ready, p)
			default:
			}
		}
		return ready
	}
	readers := make([]*reader, 4)
	for i := range readers {
		readers[i] = &reader{h: h, online: map[string]bool{}}
	}
	move := func(r *reader, i int) {
		if r.at != nil && (!r.at.n.up || r.at.n.core != r.at.core || h.rng.IntN(4) == 0) {
			r.leave()
		}
		if ready := open(); r.at == nil && len(ready) > 0 && h.rng.IntN(3) > 0 {
			r.connect(ready[h.rng.IntN(len(ready))], int64(i%2)*500)
		}
		if r.at != nil {
			r.read(h.rng.IntN(6))
		}
	}
	open()
	h.lossy = true
	for range 25 {
		h.disturb()
		for range 3 {
			h.act(h.devices[h.rng.IntN(len(h.devices))])
		}
		for i, r := range readers {
			move(r, i)
		}
		h.run(h.rng.Int64N(700))
		if h.rng.IntN(15) == 0 {
			h.idle(h.rng.Int64N(90_000))
		}
	}
	h.quiet()
	open()
	h.run(4000)
	ready := open()
	for i, r := range readers {
		if r.at != nil && r.at.n.core != r.at.core {
			r.leave()
		}
		if r.at == nil {
			r.connect(ready[i%len(ready)], 0)
		}
		r.read(1000)
	}
	h.run(2000)
	for _, d := range h.devices {
		owner, _ := h.holders(h.nodes[0], d.aor)
		if h.expiring(owner, d.aor) {
			continue
		}
		want := len(actors.Sight{Record: owner.core.Record(d.aor), MS: h.now + owner.skew, Live: h.edges()}.Devices()) > 0
		for i, r := range readers {
			r.read(1000)
			if got := r.online[d.aor]; got != want {
				t.Errorf("reader %d at %s has %s online %v, want %v; owner has %v\n%s", i, r.at.n.name, d.aor, got, want,
					owner.core.Record(d.aor), strings.Join(append(r.log, h.log...), "\n"))
			}
		}
	}
	for _, p := range posts {
		p.follow.Close()
	}
	if t.Failed() {
		t.Logf("replay with: -run 'TestSimulationResume/%d$' -seeds 1 -seed %d", seed, seed)
	}
}
