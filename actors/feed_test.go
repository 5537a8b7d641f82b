package actors

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hereis/messages"
)

// fakeCopy is one node's copy of the users, and its feed.
type fakeCopy struct {
	feed *Feed
	recs map[string]Sight
	live map[string]uint64
	// late are changes that have not reached the node.
	late []func()
	// parted: the node does not hear everybody.
	parted bool
}

func newFakeCopy(id uint64, live map[string]uint64) *fakeCopy {
	return &fakeCopy{feed: NewFeed(id, "*", 4), recs: map[string]Sight{}, live: live}
}

func (c *fakeCopy) Synced() bool { return !c.parted }

func (c *fakeCopy) Live() map[string]uint64 { return c.live }

func (c *fakeCopy) Look(aor string) Sight {
	s := c.recs[aor]
	s.Live = c.live
	return s
}

func (c *fakeCopy) Each(each func(string, Sight)) {
	for _, aor := range slices.Sorted(maps.Keys(c.recs)) {
		each(aor, c.Look(aor))
	}
}

func (c *fakeCopy) set(aor string, rec *messages.Record, ms int64) {
	before := c.Look(aor)
	c.recs[aor] = Sight{Record: rec, MS: ms}
	c.feed.Changed(aor, before, c.Look(aor))
}

func (c *fakeCopy) setLive(live map[string]uint64) {
	was := c.live
	c.live = live
	for _, aor := range slices.Sorted(maps.Keys(c.recs)) {
		before := c.Look(aor)
		before.Live = was
		c.feed.Changed(aor, before, c.Look(aor))
	}
}

// fakeReader is a program that watches.
type fakeReader struct {
	copy   *fakeCopy
	watch  *Watch
	id     string
	online map[string]bool
	named  map[string]bool
	newest map[string]int64
	// last is where it was connected last.
	last *fakeCopy
}

func newFakeReader() *fakeReader {
	return &fakeReader{online: map[string]bool{}, newest: map[string]int64{}}
}

func (r *fakeReader) connect(now int64, c *fakeCopy, damp int64) {
	if r.copy, r.named = c, nil; r.last != c {
		clear(r.newest) // another node may be behind for a moment
	}
	r.last = c
	r.watch = c.feed.Watch(now, c, WatchConfig{From: r.id, Snapshot: true, DampMS: damp, Backlog: 3})
}

func (r *fakeReader) leave() {
	if r.copy != nil {
		r.copy.feed.Unwatch(r.watch)
		r.copy = nil
	}
}

func (r *fakeReader) read(t rapid.TB, now int64, n int) {
	for range n {
		e, _ := r.watch.Next(now, r.copy)
		if e == nil {
			if id := r.watch.Position(now, r.copy); id != "" {
				r.id = id
			}
			return
		}
		r.id = e.ID
		switch e.Kind {
		case SyncBegins:
			r.named = map[string]bool{}
		case SyncEnds:
			for aor := range r.online {
				r.online[aor] = r.online[aor] && r.named[aor]
			}
			r.named = nil
		default:
			if e.MS < r.newest[e.AoR] {
				t.Fatalf("%s of %d after that of %d", e.AoR, e.MS, r.newest[e.AoR])
			}
			r.newest[e.AoR], r.online[e.AoR] = e.MS, e.Online
			if r.named != nil {
				r.named[e.AoR] = true
			}
		}
	}
}

// A reader that goes away at any moment and comes back at any node ends with
// what one knows that has stayed, and with what is so.
func TestFeed_WhoComesBackKnowsWhatWhoStayedKnows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := int64(1_800_000_000_000)
		live := map[string]uint64{"e1": 1, "e2": 2}
		var copies []*fakeCopy
		for i := range 2 {
			copies = append(copies, newFakeCopy(uint64(i+1), live))
		}
		damp := rapid.SampledFrom([]int64{0, 700}).Draw(t, "damp")
		stays, hops := newFakeReader(), newFakeReader()
		stays.connect(now, copies[0], damp)
		users := []string{"sip:a@x", "sip:b@x", "sip:c@x", "sip:d@x", "sip:e@x", "sip:f@x"}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				now += rapid.Int64Range(1, 900).Draw(t, "ms")
				aor := rapid.SampledFrom(users).Draw(t, "aor")
				edge := rapid.SampledFrom([]string{"e1", "e2"}).Draw(t, "edge")
				rec, at := atEdge(aor, edge, now, rapid.Bool().Draw(t, "dead")), now
				for _, c := range copies {
					set := func() { c.set(aor, rec, at) }
					if len(c.late) > 0 || rapid.Bool().Draw(t, "late") {
						c.late = append(c.late, set)
					} else {
						set()
					}
				}
			},
			"edge": func(t *rapid.T) {
				now += 10
				next := maps.Clone(live)
				if _, up := next["e2"]; up {
					delete(next, "e2")
				} else {
					next["e2"] = 2
				}
				live = next
				for _, c := range copies {
					c.arrive()
					c.setLive(live)
				}
			},
			"hop": func(t *rapid.T) {
				hops.leave()
				if rapid.IntRange(0, 3).Draw(t, "at") > 0 {
					hops.connect(now, rapid.SampledFrom(copies).Draw(t, "copy"), damp)
				}
			},
			"read": func(t *rapid.T) {
				stays.read(t, now, rapid.IntRange(0, 5).Draw(t, "n"))
				if hops.copy != nil {
					hops.read(t, now, rapid.IntRange(0, 5).Draw(t, "n"))
				}
			},
			"wait": func(t *rapid.T) {
				// Within slackMS every change has reached every node.
				for _, c := range copies {
					c.arrive()
				}
				now += rapid.SampledFrom([]int64{100, 5_000, 70_000}).Draw(t, "ms")
			},
		})
		for _, c := range copies {
			c.arrive()
		}
		if hops.copy == nil {
			hops.connect(now, copies[1], damp)
		}
		now += 1000
		stays.read(t, now, 1000)
		hops.read(t, now, 1000)
		for _, aor := range users {
			want := len(copies[0].Look(aor).Devices()) > 0
			if stays.online[aor] != want || hops.online[aor] != want {
				t.Fatalf("%s: %v for who stayed, %v for who came back, is %v", aor, stays.online[aor], hops.online[aor], want)
			}
		}
	})
}

// atEdge is the record of a user with one device at an edge since node time ms,
// or not any more.
func atEdge(aor, edge string, ms int64, dead bool) *messages.Record {
	return &messages.Record{Aor: aor, Leases: []*messages.Lease{{
		Key: []byte("k"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: edge, Vouch: 2, Stamp: &messages.Stamp{Ms: ms},
		ExpiresMs: ms + 1e9, Dead: dead, Payload: []byte{byte(bindingFlowBound) << 3, 1},
	}}}
}

func (c *fakeCopy) arrive() {
	for _, set := range c.late {
		set()
	}
	c.late = nil
}

func TestCursorText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &Cursor{
			Feed: rapid.Uint64().Draw(t, "feed"), Seq: rapid.Uint64().Draw(t, "seq"), MS: rapid.Int64().Draw(t, "ms"),
			Pattern: rapid.Uint32().Draw(t, "pattern"), Edges: rapid.SliceOf(rapid.Uint32()).Draw(t, "edges"),
		}
		back, ok := ParseCursor(c.String())
		if !ok || fmt.Sprint(*back) != fmt.Sprint(*c) {
			t.Fatalf("got %v, want %v", back, c)
		}
		// What is none of ours is no crash.
		ParseCursor(rapid.String().Draw(t, "text"))
	})
	for _, s := range []string{"", "x", "AQ", "AgAAAAAAAAAAAAAAAAAA", "AQAAAAAAAAAAAAAAAAAAAAE"} {
		if c, ok := ParseCursor(s); ok {
			t.Errorf("%q is %v", s, c)
		}
	}
}
