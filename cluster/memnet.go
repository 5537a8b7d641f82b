package cluster

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Fate is what becomes of one envelope in a MemoryNetwork.
type Fate struct {
	// DelayMS has one delay for each time that the envelope arrives; none: it is lost.
	DelayMS []int64
	// NoStream: the sender has no connection and is told so.
	NoStream bool
}

// MemoryNetwork carries envelopes between nodes of one process in virtual
// time: Advance delivers what has become due. It is for tests and simulations.
type MemoryNetwork struct {
	// Decide says what becomes of an envelope, which it may keep; nil: it arrives after 1 ms.
	Decide func(from, to string, env *messages.Envelope) Fate

	mu    sync.Mutex
	nowMS int64
	nodes map[string]func(now int64, from string, env *messages.Envelope)
	queue []delivery
	seq   uint64
	sent  map[string]int
}

type delivery struct {
	at       int64
	seq      uint64
	from, to string
	env      *messages.Envelope
}

// NewMemoryNetwork starts at node time now.
func NewMemoryNetwork(now int64) *MemoryNetwork {
	return &MemoryNetwork{
		nowMS: now,
		nodes: make(map[string]func(int64, string, *messages.Envelope)),
		sent:  make(map[string]int),
	}
}

// Attach lets a node receive; nil detaches it, and what is under way to it is lost.
func (n *MemoryNetwork) Attach(name string, receive func(now int64, from string, env *messages.Envelope)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if receive == nil {
		delete(n.nodes, name)
		n.queue = slices.DeleteFunc(n.queue, func(d delivery) bool { return d.to == name })
		return
	}
	n.nodes[name] = receive
}

// Forget loses what is under way from a node.
func (n *MemoryNetwork) Forget(from string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = slices.DeleteFunc(n.queue, func(d delivery) bool { return d.from == from })
}

// From is the Network of one node.
func (n *MemoryNetwork) From(name string) Network { return memoryLink{n, name} }

// Sent counts the envelopes sent so far, by the type of their message.
func (n *MemoryNetwork) Sent() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]int, len(n.sent))
	for k, v := range n.sent {
		out[k] = v
	}
	return out
}

// Next is the time of the earliest delivery, or false.
func (n *MemoryNetwork) Next() (int64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) == 0 {
		return 0, false
	}
	return n.queue[0].at, true
}

// Advance delivers in order all that is due up to now, also what is sent meanwhile.
func (n *MemoryNetwork) Advance(now int64) {
	for {
		n.mu.Lock()
		if len(n.queue) == 0 || n.queue[0].at > now {
			n.nowMS = now
			n.mu.Unlock()
			return
		}
		d := n.queue[0]
		n.queue = n.queue[1:]
		n.nowMS = max(n.nowMS, d.at)
		at, receive := n.nowMS, n.nodes[d.to]
		n.mu.Unlock()
		if receive != nil {
			receive(at, d.from, d.env)
		}
	}
}

type memoryLink struct {
	net  *MemoryNetwork
	name string
}

// Send queues a copy of env, so that nobody shares what the receiver owns.
func (l memoryLink) Send(to string, env *messages.Envelope) bool {
	return l.net.post(l.name, to, env, 0)
}

// Ride is Send that arrives later.
func (l memoryLink) Ride(to string, env *messages.Envelope) bool {
	return l.net.post(l.name, to, env, 10)
}

func (n *MemoryNetwork) post(from, to string, env *messages.Envelope, extra int64) bool {
	env = proto.CloneOf(env) // Decide may keep it; the sender uses its own again
	fate := Fate{DelayMS: []int64{1}}
	if n.Decide != nil {
		fate = n.Decide(from, to, env)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent[env.Type]++
	if _, up := n.nodes[to]; !up || fate.NoStream {
		return false
	}
	for _, delay := range fate.DelayMS {
		n.seq++
		d := delivery{at: n.nowMS + delay + extra, seq: n.seq, from: from, to: to, env: proto.CloneOf(env)}
		i, _ := slices.BinarySearchFunc(n.queue, d, func(a, b delivery) int {
			if a.at != b.at {
				return int(a.at - b.at)
			}
			return int(int64(a.seq) - int64(b.seq))
		})
		n.queue = slices.Insert(n.queue, i, d)
	}
	return true
}
