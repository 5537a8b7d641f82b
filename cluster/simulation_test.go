package cluster_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"hereis/cluster"
	"hereis/messages"
)

var (
	seeds    = flag.Int("seeds", defaultSeeds, "how many histories TestSimulation plays")
	fromSeed = flag.Uint64("seed", 0, "the first of them")
	simFor   = flag.Duration("simfor", 0, "begin no history after this time; 0: play all")
)

// TestSimulation plays random histories of delay, duplication, loss, crashes
// with and without disk, slow disks and full ones, clocks that are off, cuts of one node, of
// halves, of one direction and of one pair, processes that stand still, members
// that leave and return, and devices that move, expire and are removed, one or all. It checks in the quiet period after
// each what docs/consistency.md promises. HEREIS_SIM_SEEDS is the number of
// histories where the flag is not given; with -simfor it says how many it played.
func TestSimulation(t *testing.T) {
	n := *seeds
	if env, err := strconv.Atoi(os.Getenv("HEREIS_SIM_SEEDS")); err == nil && n == defaultSeeds {
		n = env
	}
	if testing.Short() {
		n = 10
	}
	playMany(t, n, func(t *testing.T, seed uint64) { play(t, seed) })
}

// playMany plays n histories, or as many as the flags say.
func playMany(t *testing.T, n int, play func(*testing.T, uint64)) {
	if *seeds != defaultSeeds {
		n = *seeds
	}
	began, played := time.Now(), new(atomic.Int64)
	if *simFor > 0 {
		t.Cleanup(func() {
			fmt.Printf("%s: %d of %d histories in %v\n", t.Name(), played.Load(), n, time.Since(began).Round(time.Second))
		})
	}
	for i := range n {
		seed := *fromSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			if *simFor > 0 && time.Since(began) > *simFor {
				t.SkipNow()
			}
			play(t, seed)
			played.Add(1)
		})
	}
}

func TestSimulationReplaysExactly(t *testing.T) {
	for seed := range uint64(3) {
		if a, b := play(t, seed), play(t, seed); a != b {
			t.Errorf("seed %d: two plays differ", seed)
		}
	}
}

// history is one random history of a world and the devices in it.
type history struct {
	*world
	devices []*device
	// maxSkew is how far a node's clock may be off, in ms, either way.
	maxSkew int64
	digest  uint64
	// ills is what disks are ill by, nil if none ever is.
	ills *rand.Rand
	// unwritten is told of users something of whom was acknowledged and is lost.
	unwritten func(aor string)
}

// aors of the history, each in a part of the table of its own: the order of
// two in one part is not determined, and a seed must replay exactly.
func aorsApart(n int) (aors []string) {
	taken := map[uint64]bool{}
	for i := 0; len(aors) < n; i++ {
		aor := fmt.Sprintf("sip:u%d@example.com", i)
		if shard := cluster.ShardOf(aor); !taken[shard] {
			taken[shard] = true
			aors = append(aors, aor)
		}
	}
	return aors
}

// newHistory draws what is constant in it from the seed: the number of nodes
// and devices, how far clocks are off, how durable and slow disks are.
func newHistory(t testing.TB, seed uint64) *history {
	h := &history{world: newWorld(t, seed, 3+int(seed%3)), maxSkew: 20}
	w := h.world
	w.cfg = func(c *cluster.Config) { c.DigestEvery = 10 * time.Second }
	w.trace = func(from, to string, env *messages.Envelope) {
		h.digest = xxh3.HashString(fmt.Sprint(h.digest, w.now, from, to, env.Type, xxh3.Hash(env.Payload)))
	}
	if w.rng.IntN(4) == 0 {
		h.maxSkew = 900
	}
	async := w.rng.IntN(3) == 0
	for _, n := range w.nodes {
		n.skew = w.rng.Int64N(2*h.maxSkew) - h.maxSkew
		n.disk.async = async
		n.disk.delay = func() int64 { return w.now + w.rng.Int64N(60) }
	}
	if seed%3 == 0 {
		h.ills = rand.New(rand.NewPCG(seed, 2))
	}
	for i, aor := range aorsApart(7) {
		many := 2
		if i == 6 {
			many = maxBindings + 2
		}
		for range many {
			d := newDevice(aor, fmt.Sprintf("d%d", len(h.devices)))
			d.stream = len(h.devices)%4 == 3
			h.devices = append(h.devices, d)
		}
	}
	return h
}

func play(t *testing.T, seed uint64) uint64 {
	h := newHistory(t, seed)
	h.settle()
	h.lossy = true
	for range 25 {
		h.disturb()
		h.sickenDisks()
		for range 3 {
			h.act(h.devices[h.rng.IntN(len(h.devices))])
		}
		h.run(h.rng.Int64N(700))
		if h.rng.IntN(15) == 0 {
			h.idle(h.rng.Int64N(90_000))
		}
	}
	h.quiet()
	for _, d := range h.devices {
		h.check(d)
	}
	h.checkCopies(h.devices)
	h.last()
	if t.Failed() {
		t.Logf("replay with: -run 'TestSimulation/%d$' -seeds 1 -seed %d", seed, seed)
	}
	return h.digest
}

// idle lets a long time pass in long steps.
func (h *history) idle(ms int64) {
	h.note("idle %d", ms)
	h.step = 100
	h.run(ms)
	h.now -= h.now % 10
	h.step = 5
}

// crowded: the AoR has more devices than bindings are allowed.
func (h *history) crowded(d *device) bool { return d.aor == h.devices[len(h.devices)-1].aor }

// act lets a device do something at a random edge.
func (h *history) act(d *device) {
	n := h.nodes[h.rng.IntN(len(h.nodes))]
	if d.busy || !n.up || n.asleep || n.draining || n.disk.err != nil || h.now < d.restMS {
		return // across a cut, order is node time within the skew of the clocks
	}
	if h.rng.IntN(12) == 0 {
		h.actStar(d, n)
		return
	}
	d.busy = true
	expires := uint32(3600)
	switch h.rng.IntN(8) {
	case 0, 1:
		expires = 0
	case 2, 3:
		expires = 60 + h.rng.Uint32N(30)
	}
	d.state = -1
	ended := false
	end := func() {
		d.busy = d.busy && ended
		ended = true
	}
	h.register(d, n, expires, func(bool, *messages.Failure) {
		end()
		d.restMS = h.now + 100 + 2*h.maxSkew
	})
	// Its edge may have died with it.
	h.after(4500, end)
}

// actStar removes all devices of an AoR when none of them does anything else.
func (h *history) actStar(d *device, n *simNode) {
	var all []*device
	for _, o := range h.devices {
		if o.aor != d.aor {
			continue
		}
		if o.busy || h.now < o.restMS {
			return
		}
		all = append(all, o)
	}
	for _, o := range all {
		// What has been removed stays so; what has not may or may not be.
		o.busy = true
		if o.state != 0 {
			o.state = -1
		}
	}
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		for _, o := range all {
			o.busy, o.restMS = false, h.now+100+2*h.maxSkew
		}
	}
	h.star(d, n, func(ok bool) {
		for _, o := range all {
			if ok && !ended {
				o.state = 0
			}
		}
		end()
	})
	h.after(4500, end)
}

// disturb changes something about the cluster.
func (h *history) disturb() {
	w := h.world
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	m := w.nodes[w.rng.IntN(len(w.nodes))]
	whole := w.allSettled() && len(w.later) == 0
	for _, n := range w.nodes {
		whole = whole && n.up && !n.asleep && len(w.severed) == 0 && n.side == 0 && n.core.Tables(w.now).Unacknowledged == 0
	}
	switch w.rng.IntN(14) {
	case 0:
		if n.up {
			h.crashOne(n, whole)
		}
	case 1:
		n.side = 1 - n.side
		w.note("cut %s: %d", n.name, n.side)
		w.spread(1500)
		w.after(w.rng.Int64N(4000), func() { w.heal(n) })
	case 2:
		for _, o := range w.nodes {
			o.side = w.rng.IntN(2)
			w.note("halves: %s: %d", o.name, o.side)
			w.after(4000, func() { w.heal(o) })
		}
		w.spread(1500)
	case 3:
		w.note("%s does not reach %s", n.name, m.name)
		w.oneWay[[2]string{n.name, m.name}] = true
		w.after(w.rng.Int64N(4000), func() { delete(w.oneWay, [2]string{n.name, m.name}) })
	case 4:
		if n.up && n != m {
			w.note("%s takes %s for failed", n.name, m.name)
			n.blind[m.name] = true
			w.gossip(n, m)
			w.after(w.rng.Int64N(4000), func() {
				delete(n.blind, m.name)
				w.gossip(n, m)
			})
		}
	case 5:
		if n.up && !n.draining {
			h.leaveAndReturn(n)
		}
	case 6:
		if n != m && len(w.severed) == 0 {
			w.note("%s and %s have no stream", n.name, m.name)
			w.sever(n, m, 2000)
			w.after(w.rng.Int64N(15_000), func() { w.mend(n, m) })
		}
	case 7:
		if n.up && !n.asleep && !n.draining {
			w.note("%s sleeps", n.name)
			w.sleep(n, w.rng.Int64N(6000))
		}
	}
}

// sickenDisks has a disk take no writes for a while, a short or a long one. Nobody
// can register at its node meanwhile.
func (h *history) sickenDisks() {
	if h.ills == nil || h.ills.IntN(8) != 0 {
		return
	}
	n := h.nodes[h.ills.IntN(len(h.nodes))]
	h.note("the disk of %s is full", n.name)
	n.disk.err = errFull
	h.after(h.ills.Int64N(10_000)*(1+h.ills.Int64N(12)), func() {
		h.note("the disk of %s is well", n.name)
		n.disk.err = nil
	})
}

// crashOne kills a node. Its disk is lost only if everything is in order, and
// then nothing else goes wrong until the holders have given back what they have.
func (h *history) crashOne(n *simNode, whole bool) {
	w := h.world
	w.note("crash %s", n.name)
	h.forgetUnwritten(n)
	w.crash(n)
	w.spread(1500)
	lost := whole && w.rng.IntN(2) == 0
	w.after(w.rng.Int64N(3000), func() { w.restart(n, lost) })
	if lost {
		w.run(3000)
		w.runUntil(40_000, "settled after a lost disk", w.allSettled)
		w.run(1000)
	}
}

// forgetUnwritten: what was acknowledged before it was on disk is not promised.
func (h *history) forgetUnwritten(n *simNode) {
	for _, p := range n.disk.pending {
		if n.disk.async && h.unwritten != nil {
			h.unwritten(p.rec.Aor)
		}
		for _, d := range h.devices {
			if d.aor == p.rec.Aor && n.disk.async {
				d.state = -1
			}
		}
	}
}

// leaveAndReturn is a graceful stop, and a start from the old disk much later.
func (h *history) leaveAndReturn(n *simNode) {
	w, inc := h.world, n.inc
	w.note("drain %s", n.name)
	w.drain(n)
	w.after(500+w.rng.Int64N(3000), func() {
		if n.up && n.inc == inc {
			w.note("leave %s", n.name)
			w.depart(n)
			w.after(w.rng.Int64N(20_000), func() { w.restart(n, false) })
		}
	})
}

func (w *world) restart(n *simNode, lost bool) {
	if !n.up {
		w.note("restart %s lost %v", n.name, lost)
		w.start(n, lost)
		w.spread(500)
	}
}

func (w *world) heal(n *simNode) {
	n.side = 0
	w.note("heal %s", n.name)
	w.spread(500)
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%d: ", w.now-startMS)+fmt.Sprintf(format, args...))
}

// quiet lets everything come to rest: all up and well, whole, without loss.
func (h *history) quiet() {
	w := h.world
	w.run(5000)
	w.lossy, w.oneWay = false, map[[2]string]bool{}
	for p := range w.severed {
		w.mend(w.node(p[0]), w.node(p[1]))
	}
	for _, n := range w.nodes {
		if n.up && n.draining {
			w.depart(n)
		}
		w.restart(n, false)
		n.side, n.blind, n.disk.err = 0, map[string]bool{}, nil
	}
	w.spread(300)
	w.run(1000)
	w.step = 100
	// Flapping members get no placement for half a minute.
	for end := w.now + 80_000; !h.calm(); w.run(500) {
		if w.now > end {
			w.t.Errorf("not settled, or somebody in quarantine\n%s", strings.Join(w.log, "\n"))
			break
		}
	}
	// One round of digests.
	w.run(10_000 - w.now%10_000 + 6000)
	w.now -= w.now % 10
	w.step = 5
}

// calm: all are settled and nobody is in quarantine.
func (h *history) calm() bool {
	ok := h.allSettled()
	for _, n := range h.nodes {
		ok = ok && !slices.ContainsFunc(n.core.MemberStatus(h.now+n.skew), func(m cluster.MemberStatus) bool { return m.Quarantined })
	}
	return ok
}
