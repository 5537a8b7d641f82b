package cluster_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// presence is a history in which users also publish their state and are watched.
type presence struct {
	*history
	publishers []*publisher
	// desks are the present ones, by node; kept is what their disks have of watchers.
	desks map[string]*desk
	// broken are the pairs (from, to) whose connection has lost something and is not renewed.
	broken map[[2]string]bool
}

// TestSimulationPresence plays histories like TestSimulation in which publishers
// publish, refresh, change, repeat and remove their state at random nodes, and
// let it expire, and in which random nodes have watchers. In the quiet after
// each every watcher knows the live publications and bindings of its users and
// nothing else, an acknowledged publication is known everywhere and a removed
// one nowhere, and all copies agree; then a last change is told to each watcher.
func TestSimulationPresence(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 5
	}
	playMany(t, n, func(t *testing.T, seed uint64) { playPresence(t, seed) })
}

func TestSimulationPresenceReplaysExactly(t *testing.T) {
	for seed := range uint64(3) {
		if a, b := playPresence(t, seed), playPresence(t, seed); a != b {
			t.Errorf("seed %d: two plays differ", seed)
		}
	}
}

func playPresence(t *testing.T, seed uint64) uint64 {
	h := &presence{history: newHistory(t, seed+300_000), desks: map[string]*desk{}, broken: map[[2]string]bool{}}
	h.born, h.ticked, h.lost = h.openNode, h.tickNode, h.loses
	h.streamUp = func(n *simNode, name string) { h.desks[n.name].peerBack(name) }
	h.unwritten = func(aor string) {
		for _, p := range h.publishers {
			if p.aor == aor {
				p.state, p.open = -1, nil
			}
		}
	}
	for i := range 8 {
		aor := h.devices[2*(i%6)].aor
		h.publishers = append(h.publishers, &publisher{aor: aor, id: fmt.Sprintf("p%d", i)})
	}
	h.settle()
	h.lossy = true
	for range 25 {
		h.disturb()
		h.act(h.devices[h.rng.IntN(len(h.devices))])
		for range 2 {
			h.actPublisher(h.publishers[h.rng.IntN(len(h.publishers))])
		}
		h.actWatcher()
		h.run(h.rng.Int64N(700))
		if h.rng.IntN(15) == 0 {
			h.idle(h.rng.Int64N(90_000))
		}
	}
	h.quiet()
	for _, d := range h.devices {
		h.check(d)
	}
	for _, p := range h.publishers {
		h.checkPublisher(p)
	}
	h.checkWatchers()
	// No node's watchers come or go while it is checked that nothing is under way. An
	// owner waits up to 2 s for the word of an edge that has kept nothing of an answer.
	h.ticked = nil
	h.run(3000)
	h.checkCopies(h.devices)
	h.ticked = h.tickNode
	h.lastChanges()
	if t.Failed() {
		t.Logf("replay with: -run 'TestSimulationPresence/%d$' -seeds 1 -seed %d", seed, seed)
	}
	return h.digest
}

// openNode opens the desk of a node's new life.
func (h *presence) openNode(n *simNode, core *cluster.Core, lost bool) {
	var kept map[string]int64
	if was := h.desks[n.name]; was != nil && !lost {
		kept = was.kept()
	}
	h.desks[n.name] = h.openDesk(n, core, kept)
}

func (h *presence) tickNode(n *simNode) {
	d := h.desks[n.name]
	if n.draining {
		// Its watchers go elsewhere.
		for _, u := range d.users {
			if u.untilMS != 0 {
				u.untilMS, u.again = 0, true
			}
		}
	}
	d.tick()
}

// loses: what a node tells is lost with its connection alone, and that is renewed.
func (h *presence) loses(from, to string, env *messages.Envelope) {
	pair := [2]string{from, to}
	told := env.Type == messages.TypeName(&messages.StateChanged{}) || env.Type == messages.TypeName(&messages.StateLost{})
	if !told || h.broken[pair] {
		return
	}
	h.broken[pair] = true
	h.after(h.rng.Int64N(2000), func() { h.renew(from, to) })
}

func (h *presence) renew(from, to string) {
	pair := [2]string{from, to}
	a, b := h.node(from), h.node(to)
	apart := a.side != b.side || h.oneWay[pair] || h.oneWay[[2]string{to, from}] || h.severed[[2]string{min(from, to), max(from, to)}]
	if apart || a.asleep || b.asleep {
		h.after(200, func() { h.renew(from, to) })
		return
	}
	delete(h.broken, pair)
	if a.up && b.up {
		h.desks[to].peerBack(from)
	}
}

// actPublisher lets a publisher do something at a random edge.
func (h *presence) actPublisher(p *publisher) {
	n := h.nodes[h.rng.IntN(len(h.nodes))]
	if p.busy || !n.up || n.asleep || n.draining || h.now < p.restMS {
		return
	}
	m := p.open
	if m == nil || h.rng.IntN(3) == 0 {
		expires := uint32(3600)
		switch h.rng.IntN(8) {
		case 0:
			if p.state == 1 {
				expires = 0
			}
		case 1, 2, 3, 4:
			expires = 60 + h.rng.Uint32N(30)
		}
		m = p.next(expires, h.rng.IntN(3) == 0)
	}
	p.busy = true
	ended := false
	end := func() {
		if !ended {
			ended, p.busy, p.restMS = true, false, h.now+100+2*h.maxSkew
		}
	}
	h.publish(p, n, m, func(ok bool, f *messages.Failure) {
		if f.GetCode() == messages.FailureCode_FAILURE_CODE_CONDITION_FAILED {
			p.open = nil // it begins anew (RFC 3903 4.1)
		}
		end()
	})
	h.after(4500, end) // its edge may have died with it
}

// actWatcher lets watchers of a user come to a random node, stay on, or go.
func (h *presence) actWatcher() {
	n, aor := h.nodes[h.rng.IntN(len(h.nodes))], h.devices[2*h.rng.IntN(6)].aor
	if !n.up || n.asleep || n.draining {
		return
	}
	switch h.rng.IntN(5) {
	case 0:
		h.desks[n.name].watch(aor, 0)
	case 1:
		h.desks[n.name].watch(aor, h.now+n.skew+30_000+h.rng.Int64N(60_000))
	default:
		h.desks[n.name].watch(aor, h.now+n.skew+3_600_000)
	}
}

// published are the live publications of a record.
func published(rec *messages.Record, now int64) (list []*messages.Publication) {
	for _, l := range rec.GetLeases() {
		if l.Kind != messages.LeaseKind_LEASE_KIND_PUBLICATION || !rec.Alive(l, now) {
			continue
		}
		pub := &messages.Publication{}
		if proto.Unmarshal(l.Payload, pub) == nil {
			list = append(list, pub)
		}
	}
	return list
}

// checkPublisher: an acknowledged publication is what every node is told who
// asks, under its entity-tag, and one that was removed or has expired is told to nobody.
func (h *presence) checkPublisher(p *publisher) {
	margin := 2*h.maxSkew + 2000
	if p.state < 0 || p.busy || p.state == 1 && h.now > p.until-margin && h.now < p.until+margin {
		return
	}
	want := p.state == 1 && h.now < p.until
	for _, n := range h.nodes {
		res, ok := h.ask(n, p.aor, &messages.Subscribe{Aor: p.aor}).(*messages.Subscribed)
		if !ok {
			h.t.Errorf("%s from %s: no answer", p.aor, n.name)
			continue
		}
		var got []*messages.Publication
		for _, pub := range published(res.State, h.now+n.skew) {
			if pub.From == p.name() {
				got = append(got, pub)
			}
		}
		if want != (len(got) == 1) || len(got) > 1 || want && (string(got[0].Body) != p.body || got[0].EntityTag != p.tag) {
			h.t.Errorf("%s of %s from %s: published %v, want %v: %q tag %s", p.name(), p.aor, n.name, got, want, p.body, p.tag)
			h.tell(p.aor)
		}
	}
}

// tell prints once what has happened to a user.
func (h *presence) tell(aor string) {
	if h.told {
		return
	}
	h.told = true
	var log []string
	for _, p := range h.publishers {
		if p.aor == aor {
			log = append(log, p.log...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.desks)) {
		if u := h.desks[name].users[aor]; u != nil {
			log = append(log, u.log...)
		}
	}
	owner, backup := h.holders(h.nodes[0], aor)
	h.t.Logf("owner %s, backup %s: %v\n%s\n%s", owner.name, backup.name, owner.core.Record(aor), strings.Join(log, "\n"), strings.Join(h.log, "\n"))
}

// checkWatchers: each node with watchers knows what the owner holds.
func (h *presence) checkWatchers() {
	for _, n := range h.nodes {
		d := h.desks[n.name]
		for _, aor := range slices.Sorted(maps.Keys(d.users)) {
			owner, _ := h.holders(h.nodes[0], aor)
			u := d.users[aor] // the question took time
			if u == nil || u.untilMS == 0 || h.expiring(owner, aor) {
				continue
			}
			rec := owner.core.Record(aor)
			if rec == nil {
				rec = &messages.Record{Aor: aor}
			}
			now := h.now
			if !u.Known() || actors.Sum(u.Rec, now) != actors.Sum(rec, now) {
				h.t.Errorf("watchers of %s at %s know %v: %v, owner has %v", aor, n.name, u.Known(), u.Rec, rec)
				h.tell(aor)
			}
		}
	}
}

// lastChanges: at rest a publication is accepted, told to all watchers, and to
// nobody who has none any more.
func (h *presence) lastChanges() {
	changed := map[string]string{}
	for _, p := range h.publishers {
		owner, _ := h.holders(h.nodes[0], p.aor)
		if changed[p.aor] != "" || p.busy || h.expiring(owner, p.aor) || len(published(owner.core.Record(p.aor), h.now)) > 6 {
			continue
		}
		if p.state == 1 && h.now > p.until-10_000 {
			p.state = -1 // it begins anew rather than find out
		}
		p.open = nil
		answered := false
		h.publish(p, h.nodes[h.rng.IntN(len(h.nodes))], p.next(3600, false), func(ok bool, f *messages.Failure) {
			answered = true
			if !ok {
				h.t.Errorf("%s of %s at rest: %v", p.name(), p.aor, f)
				h.tell(p.aor)
			}
		})
		h.runUntil(3000, "answered", func() bool { return answered })
		changed[p.aor] = p.body
	}
	h.run(1500)
	for _, n := range h.nodes {
		d := h.desks[n.name]
		for _, aor := range slices.Sorted(maps.Keys(changed)) {
			owner, _ := h.holders(h.nodes[0], aor)
			u := d.users[aor]
			watching := u != nil && u.untilMS != 0
			if watching && !slices.ContainsFunc(published(u.Rec, h.now), func(p *messages.Publication) bool { return string(p.Body) == changed[aor] }) {
				h.t.Errorf("watchers of %s at %s have not been told of %s: %v", aor, n.name, changed[aor], u.Rec)
				h.tell(aor)
			}
			l := owner.core.Record(aor).Lease([]byte("watch\x00" + n.name))
			if interested := l != nil && owner.core.Record(aor).Alive(l, h.now); interested != watching {
				h.t.Errorf("the owner of %s takes %s for interested %v, want %v", aor, n.name, interested, watching)
				h.tell(aor)
			}
		}
	}
}
