package cluster

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"hereis/messages"
)

func restingRecord(aor string) *messages.Record {
	return &messages.Record{Aor: aor, Leases: []*messages.Lease{{
		Key: []byte(aor + ":5060"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "n1",
		Flow: &messages.FlowID{Incarnation: 7, Counter: 8}, Stamp: &messages.Stamp{Ms: 9}, CallId: "c", Payload: []byte("p"),
	}}}
}

// modelEntry is what a table should have of an AoR.
type modelEntry struct {
	rec          *messages.Record
	hash         uint64
	due, counted uint32
	stored, held bool
}

// TestTable_IsAMapOfRecords, whatever is worked with, goes to rest or cannot,
// waits for others, and has the hash of another.
func TestTable_IsAMapOfRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table
		want := make(map[string]*modelEntry)
		aors := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("sip:u%d@b", rapid.IntRange(0, 9).Draw(t, "user")) })
		id := func(aor string) uint64 { return uint64(len(aor)) + uint64(aor[5]%4) } // many have the same
		change := func(t *rapid.T, e *entry, m *modelEntry) {
			m.rec = restingRecord(e.aor)
			m.rec.Leases[0].Payload = make([]byte, rapid.IntRange(0, 900).Draw(t, "payload"))
			if rapid.IntRange(0, 9).Draw(t, "text") == 0 {
				m.rec.Floor = &messages.Floor{CallId: "\xff"} // cannot be packed
			}
			m.hash, m.due, m.stored = rapid.Uint64().Draw(t, "hash"), rapid.Uint32().Draw(t, "due"), rapid.Bool().Draw(t, "stored")
			e.rec, e.hash, e.due, e.stored = m.rec, m.hash, m.due, m.stored
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				e := tab.entryOf(id(aor), aor)
				if (e != nil) != (want[aor] != nil) {
					t.Fatalf("%s: found %t, want %t", aor, e != nil, want[aor] != nil)
				}
				if e == nil {
					e, want[aor] = tab.addAs(id(aor), aor, &messages.Record{Aor: aor}), &modelEntry{}
				}
				change(t, e, want[aor])
			},
			"remove": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				if e := tab.entryOf(id(aor), aor); e != nil {
					tab.remove(e)
					delete(want, aor)
				}
			},
			"hold": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				tab.at(id(aor), func(g glance) {
					if g.aor() == aor {
						tab.hold(g).x, want[aor].held = &extra{}, true
					}
				})
			},
			"let go": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				if e := tab.entryOf(id(aor), aor); e != nil {
					e.x, want[aor].held = nil, false
				}
			},
			"settle": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				e := tab.find(id(aor), aor)
				if e == nil {
					return
				}
				packed := e.rec == nil
				e.x, want[aor].held = nil, false
				if tab.settle(e); packed != e.gone {
					t.Fatalf("packed is %t, gone %t", packed, e.gone)
				}
			},
			"look": func(t *rapid.T) {
				aor := aors.Draw(t, "aor")
				g, ok := tab.look(id(aor), aor)
				if w := want[aor]; ok != (w != nil) || ok && (g.aor() != aor || g.hash() != w.hash) {
					t.Fatalf("%s: seen %t, want %t", aor, ok, w != nil)
				}
				if e := tab.find(id(aor), aor); e != nil && tab.empty(e) {
					t.Fatalf("%s is empty", aor)
				}
			},
			"tally": func(t *rapid.T) {
				n := rapid.Uint32().Draw(t, "number")
				for _, of := range tab.ids() {
					tab.at(of, func(g glance) {
						g.setCounted(n)
						want[g.aor()].counted = n
					})
				}
			},
			"rest": func(*rapid.T) { tab.pack() },
			"":     func(t *rapid.T) { checkTable(t, &tab, want, id) },
		})
	})
}

func checkTable(t *rapid.T, tab *table, want map[string]*modelEntry, id func(string) uint64) {
	t.Helper()
	if tab.n != len(want) {
		t.Fatalf("counted %d, want %d", tab.n, len(want))
	}
	var room messages.RecordRoom
	seen := make(map[string]int)
	look := func(g glance) bool {
		w := want[g.aor()]
		if w == nil {
			t.Fatalf("%s was removed", g.aor())
		}
		if g.id != id(g.aor()) || g.hash() != w.hash || g.due() != w.due || g.counted() != w.counted || w.held != (g.extra() != nil) {
			t.Fatalf("%s: got %x %d %d, want %+v", g.aor(), g.hash(), g.due(), g.counted(), w)
		}
		if got := g.read(&room); got.Aor != g.aor() || !proto.Equal(got, w.rec) && utf8Record(w.rec) {
			t.Fatalf("read %v, want %v", got, w.rec)
		}
		if got := g.keep(); !proto.Equal(got, w.rec) && utf8Record(w.rec) {
			t.Fatalf("kept %v, want %v", got, w.rec)
		}
		seen[string([]byte(g.aor()))]++
		return true
	}
	tab.each(look)
	for _, of := range tab.ids() {
		tab.at(of, func(g glance) { look(g) })
	}
	for aor := range want {
		if seen[aor] != 2 {
			t.Fatalf("%s was seen %d times, want twice", aor, seen[aor])
		}
	}
	ids := tab.ids()
	slices.Sort(ids)
	if n := len(ids); len(slices.Compact(ids)) != n {
		t.Fatal("a hash is listed twice")
	}
}

// utf8Record: protobuf compares no others.
func utf8Record(r *messages.Record) bool { return r.Floor == nil }

// TestTable_WhoIsAtRestHasNoEntry: neither an object nor a place in a list.
func TestTable_WhoIsAtRestHasNoEntry(t *testing.T) {
	var tab table
	for i := range 1000 {
		aor := fmt.Sprintf("sip:user%d@example.com", i)
		tab.add(aor, restingRecord(aor))
	}
	tab.pack()
	if len(tab.awake) != 0 || len(tab.busy) != 0 || tab.cells.len() != 1000 {
		t.Errorf("%d entries and %d busy ones are left, %d cells", len(tab.awake), len(tab.busy), tab.cells.len())
	}
	one := tab.entry("sip:user7@example.com")
	one.x = &extra{}
	tab.pack()
	if got := slices.Collect(maps.Values(tab.awake)); len(got) != 1 || got[0] != one || one.rec != nil {
		t.Errorf("awake are %v, want the one that waits, with its record packed", got)
	}
}

// BenchmarkRest is what a million users at rest cost: of memory, and of the
// collector's time. Before, each was an entry, an AoR, a record and a pointer
// in the map.
func BenchmarkRest(b *testing.B) {
	const users = 200_000
	shards := make([]table, 64)
	for i := range users {
		aor := fmt.Sprintf("sip:user%d@example.com", i)
		rec := restingRecord(aor)
		rec.Leases[0].Payload = make([]byte, 150)
		t := &shards[i%64]
		t.add(aor, rec)
		if len(t.busy) >= 100 {
			t.pack()
		}
	}
	benchmarkCollections(b, users)
	for i := range shards {
		shards[i].pack()
	}
}

// benchmarkCollections times whole collections, and reports the heap for each of n.
func benchmarkCollections(b *testing.B, n int) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	for b.Loop() {
		runtime.GC()
	}
	b.ReportMetric(float64(m.HeapAlloc)/float64(n), "heap-B/user")
	b.ReportMetric(float64(m.HeapObjects)/float64(n), "objects/user")
}

// TestTables_AreNotCountedAtEachCall: who asks again soon after a count that took its
// time gets the same, and later what is so by then.
func TestTables_AreNotCountedAtEachCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts, tables := 0, counted{}
		count := func() Tables {
			counts++
			time.Sleep(100 * time.Millisecond)
			return Tables{AoRs: counts}
		}
		for _, step := range []struct {
			later time.Duration
			want  int
		}{{0, 1}, {0, 1}, {1899 * time.Millisecond, 1}, {time.Millisecond, 2}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(step.later)
			if got := tables.get(count).AoRs; got != step.want {
				t.Errorf("%v later: count %d, want %d", step.later, got, step.want)
			}
		}
	})
}
