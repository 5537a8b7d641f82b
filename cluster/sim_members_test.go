package cluster_test

import (
	"hereis/cluster"
	"hereis/messages"
)

// What nodes of a simulation know of each other, and how that goes wrong.

// pair names two nodes in either order.
func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// sever breaks the way between two nodes, who hear of it up to a heartbeat's
// timeout later. Others still know both as members.
func (w *world) sever(n, m *simNode, within int64) {
	w.severed[pair(n.name, m.name)] = true
	for _, d := range [][2]*simNode{{n, m}, {m, n}} {
		w.after(w.rng.Int64N(within+1), func() { w.streamIs(d[0], d[1]) })
	}
}

func (w *world) mend(n, m *simNode) {
	delete(w.severed, pair(n.name, m.name))
	w.streamIs(n, m)
	w.streamIs(m, n)
}

// streamIs tells n whether its stream to m is usable.
func (w *world) streamIs(n, m *simNode) {
	broken := w.severed[pair(n.name, m.name)]
	n.noStream[m.name] = broken
	switch {
	case !n.up:
	case n.asleep:
		n.inbox = append(n.inbox, func() { w.streamIs(n, m) })
	case broken:
		n.core.PeerDown(w.now+n.skew, m.name)
	case m.up:
		n.core.PeerUp(w.now+n.skew, &messages.Hello{Name: m.name, Incarnation: m.inc})
		if w.streamUp != nil {
			w.streamUp(n, m.name)
		}
	}
}

// sleep stops a node's process for ms; the others take it for failed if that
// is long, and what they send waits for it.
func (w *world) sleep(n *simNode, ms int64) {
	n.asleep = true
	inc := n.inc
	w.spread(1500)
	w.after(ms, func() {
		if !n.asleep || n.inc != inc {
			return
		}
		n.asleep = false
		n.core.Woke(w.now + n.skew)
		for _, f := range n.inbox {
			f()
		}
		n.inbox = nil
		w.spread(500)
	})
}

// known is the list of members that a node's membership gives it.
func (w *world) known(n *simNode) (list []cluster.Member) {
	for _, k := range w.nodes {
		if m, ok := n.knows[k.name]; ok {
			list = append(list, m)
		}
	}
	return list
}

// gossip lets node n learn how m is by now.
func (w *world) gossip(n, m *simNode) {
	if !n.up || n.asleep || n == m {
		return
	}
	have, known := n.knows[m.name]
	is := have
	if m.left {
		if known {
			delete(n.knows, m.name)
			n.core.Members(w.now+n.skew, w.known(n))
		}
		return
	}
	if m.up && !m.asleep && m.side == n.side && !n.blind[m.name] {
		is = cluster.Member{Name: m.name, Incarnation: m.inc, Draining: m.draining}
	} else if known && have.FailedMS == 0 {
		is.FailedMS = w.now
	}
	if is == have {
		return
	}
	n.knows[m.name] = is
	n.core.Members(w.now+n.skew, w.known(n))
	if is.FailedMS == 0 && is.Incarnation != have.Incarnation && !n.noStream[m.name] && w.streamUp != nil {
		// Another life of it, with another stream.
		w.streamUp(n, m.name)
	}
}

// drain makes a node hand over.
func (w *world) drain(n *simNode) {
	n.draining = true
	n.knows[n.name] = cluster.Member{Name: n.name, Incarnation: n.inc, Draining: true}
	n.core.Members(w.now+n.skew, w.known(n))
	w.spread(300)
}

// depart ends a life in order: all is on disk, and nobody takes it for failed.
func (w *world) depart(n *simNode) {
	n.disk.flush(1 << 62)
	w.crash(n)
	n.left = true
	w.spread(300)
}

// spread lets everybody learn of all members, each at a time of its own up to within ms.
func (w *world) spread(within int64) {
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			w.after(w.rng.Int64N(within+1), func() { w.gossip(n, m) })
		}
	}
}
