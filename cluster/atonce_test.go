package cluster_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// twin is one of two nodes, each alone, that are told the same.
type twin struct {
	core  *cluster.Core
	flows *openFlows
	disk  *disk
	// atOnce: a REGISTER is taken in at once where that is possible; begun and
	// renewed count those that were.
	atOnce         bool
	begun, renewed int
}

func newTwin(t rapid.TB, atOnce, keeps bool, limits actors.Limits) *twin {
	cfg := cluster.DefaultConfig()
	cfg.Name, cfg.Incarnation = "n1", 7
	cfg.MaxUsers = 4 * 64 // four of the neighbours are as many as may be
	cfg.MaxUnstored = 2
	w := &twin{
		atOnce: atOnce, flows: &openFlows{open: map[uint64]bool{2: true, 3: true}},
		disk: &disk{none: !keeps, recs: make(map[string]*messages.Record)},
	}
	core, err := cluster.NewCore(cfg, cluster.Parts{
		Network: nowhere{}, Store: w.disk, Grains: grains{actors.New(limits)},
		Flows: w.flows, Log: slog.New(slog.DiscardHandler), Rand: rand.New(rand.NewPCG(1, 2)).Uint64,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.core = core
	core.Members(startMS, nil)
	return w
}

// stored is what is on the twin's disk.
func (w *twin) stored() string {
	var b strings.Builder
	for _, aor := range slices.Sorted(maps.Keys(w.disk.recs)) {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(w.disk.recs[aor])
		fmt.Fprintf(&b, "%s: %x %v\n", aor, text, err)
	}
	return b.String()
}

// said is what became of a REGISTER.
type said struct {
	nowMS    int64
	bindings []*messages.Lease
	failure  *messages.Failure
}

func (s *said) String() string { return fmt.Sprintf("at %d: %v, %v", s.nowMS, s.bindings, s.failure) }

// register does what an edge does. A stamp that was made for what could not be done
// at once serves the ordinary way too, so that both clocks go alike.
func (w *twin) register(t rapid.TB, now int64, r *messages.Register) *said {
	r = proto.CloneOf(r)
	out := &said{}
	if w.atOnce {
		room := proto.CloneOf(r)
		room.Stamp = &messages.Stamp{}
		known := strings.Contains(w.core.Dump(), hex.EncodeToString([]byte(r.Aor)))
		answers := 0
		ok := w.core.AtOnce(now, room, func(nowMS, expiresMS int64, err error) {
			left := w.core.Record(r.Aor).Leases[0]
			if answers++; left.ExpiresMs != expiresMS || nowMS != now {
				t.Fatalf("expires at %d, said %d; at %d, said %d", left.ExpiresMs, expiresMS, now, nowMS)
			}
			if err != nil {
				out.failure = &messages.Failure{Detail: err.Error()}
			} else {
				out.nowMS, out.bindings = nowMS, []*messages.Lease{left}
			}
		})
		stamp := proto.CloneOf(room.Stamp)
		if w.disk.flush(now); ok {
			proto.Reset(room) // what still shares it is spoiled
		}
		switch {
		case ok && answers != 1 || !ok && answers != 0:
			t.Fatalf("%t, and answered %d times", ok, answers)
		case ok && known:
			w.renewed++
			return out
		case ok:
			w.begun++
			return out
		case stamp.Incarnation != 0:
			r.Stamp = stamp
		}
	}
	if r.Stamp == nil {
		r.Stamp = w.core.NewStamp(now)
	}
	w.core.Ask(now, r.Aor, r, 0, func(reply proto.Message, err error) {
		switch reply := reply.(type) {
		case *messages.Registered:
			w.core.Keep(now, reply.Writes, func(err error) {
				if err != nil {
					out.failure = &messages.Failure{Detail: err.Error()}
				} else {
					out.nowMS, out.bindings = reply.NowMs, reply.Bindings
				}
			})
		case *messages.Failure:
			out.failure = reply
		}
	})
	w.disk.flush(now)
	return out
}

// TestAtOnce_IsTheOrdinaryWay: whatever devices do, a node that takes REGISTERs in
// at once says, knows and stores the same as one that never does, to the byte, and
// has the same things to do later.
func TestAtOnce_IsTheOrdinaryWay(t *testing.T) {
	begun, renewed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		limits := actors.DefaultLimits()
		limits.MaxBindings = rapid.IntRange(1, 3).Draw(rt, "bindings")
		limits.Jitter = rapid.SampledFrom([]float64{0, 0.2}).Draw(rt, "jitter")
		keeps := rapid.Bool().Draw(rt, "disk")
		a, b := newTwin(rt, true, keeps, limits), newTwin(rt, false, keeps, limits)
		now := int64(startMS)
		pass := func(ms int64) {
			now += ms
			a.core.Tick(now)
			b.core.Tick(now)
			if got, want := a.core.Dump(), b.core.Dump(); got != want {
				rt.Fatalf("at once:\n%s\nordinary:\n%s", got, want)
			}
			a.disk.flush(now)
			b.disk.flush(now)
			if got, want := a.stored(), b.stored(); got != want {
				rt.Fatalf("stored at once:\n%s\nordinary:\n%s", got, want)
			}
		}
		pass(10)
		cseq := uint32(10)
		often := rapid.IntRange(0, 30)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			r := drawRegister(rt, often, &cseq)
			if got, want := a.register(rt, now, r), b.register(rt, now, r); got.String() != want.String() {
				rt.Fatalf("at once %v\nordinary %v\nto %v", got, want, r)
			}
			switch rapid.IntRange(0, 19).Draw(rt, "then") {
			case 0: // another in the same tick
			case 4, 5, 6: // and in the same millisecond, but at rest
				pass(0)
			case 1:
				flow := &messages.FlowID{Incarnation: 7, Counter: 2, Stream: true}
				a.flows.open[2], b.flows.open[2] = false, false
				a.core.EndFlow(now, flow)
				b.core.EndFlow(now, flow)
			case 2:
				ms := now + rapid.Int64Range(0, 3000).Draw(rt, "ahead")
				a.core.RaiseClock(now, ms)
				b.core.RaiseClock(now, ms)
				pass(10)
			case 7: // the disk takes nothing for a while
				a.disk.err, b.disk.err = errors.New("no room"), errors.New("no room")
			case 8, 9:
				a.disk.err, b.disk.err = nil, nil
			case 3:
				pass(rapid.Int64Range(10, 2_000_000).Draw(rt, "long"))
			default:
				pass(rapid.Int64Range(10, 20_000).Draw(rt, "ms"))
			}
		}
		a.disk.err, b.disk.err = nil, nil
		pass(1000)
		pass(1000)
		pass(4_000_000)
		begun += a.begun
		renewed += a.renewed
	})
	if begun == 0 || renewed == 0 {
		t.Errorf("%d were begun and %d renewed at once", begun, renewed)
	}
}

// neighbours are AoRs whose records lie side by side, of sizes that a renewal may
// make too large for their cell.
var neighbours = func() (all []string) {
	for i := 0; len(all) < 6; i++ {
		aor := fmt.Sprintf("sip:%s%d@example.com", strings.Repeat("u", 3*len(all)), i)
		if cluster.ShardOf(aor) == 7 {
			all = append(all, aor)
		}
	}
	return all
}()

// drawRegister is a REGISTER like those before it, but for what differs now and then.
func drawRegister(rt *rapid.T, often *rapid.Generator[int], cseq *uint32) *messages.Register {
	odd := func(what string) bool { return often.Draw(rt, what) == 17 }
	c := &messages.RegisterContact{Uri: "sip:dev@192.0.2.1:5060", Q: 1000, FlowBound: odd("bound")}
	r := &messages.Register{
		Aor: rapid.SampledFrom(neighbours).Draw(rt, "aor"), CallId: "c", Edge: "n1", Incarnation: 7, Contacts: []*messages.RegisterContact{c},
		Flow: &messages.FlowID{Incarnation: 7, Counter: 1}, Transport: "udp", Local: "192.0.2.9:5060", Remote: "192.0.2.1:5060", UserAgent: "x",
	}
	*cseq++
	if r.Cseq = *cseq; odd("cseq") {
		r.Cseq -= uint32(rapid.IntRange(1, 3).Draw(rt, "lower"))
	}
	for _, change := range []struct {
		what string
		f    func()
	}{
		{"contact", func() {
			c.Uri = rapid.SampledFrom([]string{"sip:dev2@192.0.2.1", "sip:dev@192.0.2.1:5060;x=y", "sip:DEV@192.0.2.1:5060", "SIP:dev@192.0.2.1:5060"}).Draw(rt, "uri")
		}},
		{"instance", func() { c.InstanceId, c.RegId = "urn:1", uint32(rapid.IntRange(0, 1).Draw(rt, "reg-id")) }},
		{"more", func() {
			r.Contacts = append(r.Contacts, &messages.RegisterContact{Uri: "sip:other@192.0.2.2", Q: 500, Params: []string{"a=b"}})
		}},
		{"call-id", func() { r.CallId = "d" }},
		{"stream", func() {
			r.Flow = &messages.FlowID{Incarnation: 7, Counter: uint64(rapid.IntRange(2, 4).Draw(rt, "flow")), Stream: true}
		}},
		{"flow", func() { r.Flow = &messages.FlowID{Incarnation: 7, Counter: 5} }},
		{"remote", func() { r.Remote = "192.0.2.1:5070" }},
		{"agent", func() { r.UserAgent = "" }},
		{"path", func() { r.Path = []string{"<sip:p;lr>"} }},
		{"age", func() { r.AgeMs = rapid.Int64Range(0, 30_000).Draw(rt, "age ms") }},
		{"nothing", func() { r.Contacts = nil }},
		{"star", func() { r.Contacts, r.Star, r.HasExpires = nil, true, true }},
	} {
		if odd(change.what) {
			change.f()
		}
	}
	expires := rapid.SampledFrom([]uint32{3600, 600, 60, 1 << 31, 5, 0})
	if rapid.Bool().Draw(rt, "expires") && !r.Star {
		c.ExpiresS, c.HasExpires = expires.Draw(rt, "of contact"), true
	} else if rapid.Bool().Draw(rt, "header") && !r.Star {
		r.ExpiresS, r.HasExpires = expires.Draw(rt, "of header"), true
	}
	return r
}

// TestAtOnce_WhileOthersComeAndGo: a node takes in refreshes at once for as long as it is
// alone; when another joins, that one has all of it, and what is renewed then is
// copied as always.
func TestAtOnce_WhileOthersComeAndGo(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 100+seed, 2)
		w.lossy = seed%2 == 1
		one, two := w.nodes[0], w.nodes[1]
		one.disk.none, two.disk.none = true, true
		w.start(one, true)
		w.run(2000)
		var devices []*device
		for i := range 30 {
			d := &device{aor: fmt.Sprintf("sip:u%d@example.com", i), id: fmt.Sprint(i), steady: true}
			devices = append(devices, d)
			w.mustRegister(d, one, 600)
		}
		w.run(50)
		refresh := func(when string, inPlace bool) {
			t.Helper()
			before := w.inPlace
			for _, d := range devices {
				w.mustRegister(d, one, 600)
				w.run(w.rng.Int64N(3) * 10)
			}
			if got := w.inPlace - before; (got > 0) != inPlace {
				t.Fatalf("%s: %d of %d taken in at once", when, got, len(devices))
			}
		}
		refresh("alone", true)
		w.start(two, true)
		w.spread(300)
		for range 3 {
			for _, d := range devices {
				w.mustRegister(d, one, 600)
			}
			w.run(200)
		}
		w.runUntil(20_000, "settled", w.allSettled)
		refresh("with another", false)
		w.run(15_000)
		w.checkCopies(devices)
		for _, d := range devices {
			for _, n := range w.nodes {
				if targets, code := w.locate(n, d.aor); !slices.ContainsFunc(targets, func(t *messages.Target) bool { return t.CallId == d.id }) {
					t.Fatalf("seed %d: %s at %s: %v, %v", seed, d.aor, n.name, targets, code)
				}
			}
		}
		w.lossy = false
		w.depart(two)
		w.run(5000)
		refresh("alone again", true)
		w.run(1000)
		for _, d := range devices {
			if targets, code := w.locate(one, d.aor); len(targets) != 1 {
				t.Fatalf("seed %d: %s: %v, %v", seed, d.aor, targets, code)
			}
		}
	}
}

// names are those of whom a follower has been told.
type names []string

func (n *names) Changed(aor string, _, _ cluster.Sight) { *n = append(*n, aor) }
func (n *names) Synced()                                {}

// TestAtOnce_FollowersAreTold: a node that somebody follows, here or elsewhere, takes
// in new users in the ordinary way, by which followers are told.
func TestAtOnce_FollowersAreTold(t *testing.T) {
	w := newTwin(t, true, false, actors.DefaultLimits())
	now := int64(startMS + 1000)
	w.core.Tick(now)
	cseq := uint32(0)
	register := func(aor string) *said {
		cseq++
		now += 20
		w.core.Tick(now)
		return w.register(t, now, &messages.Register{
			Aor: aor, CallId: "c", Cseq: cseq, Edge: "n1", Incarnation: 7, HasExpires: true, ExpiresS: 600,
			Contacts: []*messages.RegisterContact{{Uri: "sip:dev@192.0.2.1", Q: 1000}},
		})
	}
	if register("sip:a@example.com"); w.begun != 1 {
		t.Fatal("nobody follows, and it was not at once")
	}
	sink := &names{}
	follow, err := w.core.Follow(now, "*", sink)
	if err != nil {
		t.Fatal(err)
	}
	now += 20
	w.core.Tick(now)
	if register("sip:b@example.com"); w.begun != 1 || !slices.Contains(*sink, "sip:b@example.com") {
		t.Errorf("followed: %d at once, told of %v", w.begun, *sink)
	}
	if register("sip:b@example.com"); w.renewed != 1 {
		t.Error("followed: a refresh is not at once")
	}
	follow.Close()
	if register("sip:c@example.com"); w.begun != 2 {
		t.Error("not followed any more, and it was not at once")
	}
	interest := func() {
		w.core.AskNode(now, "n1", &messages.WatchInterest{Patterns: []string{"*"}, TtlMs: 5000}, 0, func(proto.Message, error) {})
	}
	interest()
	if register("sip:d@example.com"); w.begun != 2 {
		t.Error("another follows, and it was at once")
	}
	now += 6000
	if register("sip:e@example.com"); w.begun != 3 {
		t.Error("another has followed, and it was not at once")
	}
}
