package transport

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"hereis/messages"
)

// flowTable finds the flows that have an id: by id, and UDP ones by their
// 4-tuple. A datagram alone makes no entry; asking its flow for an id does. So
// forged sources cost nothing until the core vouches for one, and the bound
// with its eviction of the least recently named is only a second line.
//
// An evicted UDP flow is no loss: whoever stored its addresses restores it.
//
// Every phone is a flow, and nearly all are at rest: a UDP flow in here is its
// addresses and its id in a slot of an array, and two numbers that lead to it,
// with no pointer for the garbage collector to follow. The Flow is made for
// whoever asks.
type flowTable struct {
	ways   wayTable
	seed   maphash.Seed
	max    int
	shards [flowShards]flowShard
	ids    [flowShards]idShard
	onDrop func()
}

const (
	flowShards = 64
	// noSlot ends a list of slots.
	noSlot = ^uint32(0)
)

type tuple struct{ local, remote netip.AddrPort }

type flowKey struct{ incarnation, counter uint64 }

func keyOf(id *messages.FlowID) flowKey {
	return flowKey{id.GetIncarnation(), id.GetCounter()}
}

// flowShard orders its UDP flows by last use.
type flowShard struct {
	mu sync.Mutex
	// byTo has the slot of a 4-tuple by its hash. Of two tuples with one hash the
	// later one is in here.
	byTo           map[uint64]uint32
	slots          []pinnedFlow
	newest, oldest uint32
	// free is the first slot without a flow; older leads to the next.
	free uint32
}

// pinnedFlow is a UDP flow that has an id, or a free slot.
type pinnedFlow struct {
	id           flowKey
	ip           [16]byte
	way          uint32
	newer, older uint32
	port         uint16
}

// way is what many flows have in common: their socket here, and of their remote
// address the family and the zone.
type way struct {
	socket *udpSocket
	v4     bool
	zone   string
}

// wayTable numbers the ways, which are few: a socket's, for each link at most.
type wayTable struct {
	mu  sync.Mutex // guards the replacing of all
	all atomic.Pointer[[]way]
}

func (t *wayTable) list() []way {
	if all := t.all.Load(); all != nil {
		return *all
	}
	return nil
}

// number is the index of a way in the list.
func (t *wayTable) number(w way) uint32 {
	if i := slices.Index(t.list(), w); i >= 0 {
		return uint32(i)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.list()
	i := slices.Index(all, w)
	if i < 0 {
		i = len(all)
		all = append(slices.Clone(all), w)
		t.all.Store(&all)
	}
	return uint32(i)
}

// idShard has connections themselves, and of UDP flows where they are.
type idShard struct {
	mu      sync.RWMutex
	streams map[flowKey]Flow
	pinned  map[flowKey]place
}

// place is a slot of a shard.
type place struct {
	shard uint8
	slot  uint32
}

func newFlowTable(maxUDP int, onDrop func()) *flowTable {
	t := &flowTable{seed: maphash.MakeSeed(), max: max(1, maxUDP/flowShards), onDrop: onDrop}
	for i := range t.shards {
		s := &t.shards[i]
		s.byTo, s.newest, s.oldest, s.free = make(map[uint64]uint32), noSlot, noSlot, noSlot
		t.ids[i].streams = make(map[flowKey]Flow)
		t.ids[i].pinned = make(map[flowKey]place)
	}
	return t
}

func (t *flowTable) idShard(k flowKey) *idShard {
	return &t.ids[(k.counter^k.incarnation)%flowShards]
}

// pin returns the id that f's 4-tuple has, or gives it the one that makeID returns.
func (t *flowTable) pin(f *udpFlow, makeID func(stream bool) *messages.FlowID) flowKey {
	hash := maphash.Comparable(t.seed, f.tuple())
	n := hash % flowShards
	s := &t.shards[n]
	s.mu.Lock()
	slot, known := s.byTo[hash]
	if known && t.same(&s.slots[slot], f) {
		s.unlink(slot)
		s.link(slot)
		id := s.slots[slot].id
		s.mu.Unlock()
		return id
	}
	var victim flowKey
	switch full := len(s.byTo) >= t.max; {
	case known:
		victim = s.remove(slot, hash)
	case full:
		socket, remote := t.ends(&s.slots[s.oldest])
		victim = s.remove(s.oldest, maphash.Comparable(t.seed, tuple{socket.l.addr, remote}))
	}
	id := keyOf(makeID(false))
	slot = s.add(hash, t.pinned(f, id))
	s.mu.Unlock()
	t.putPlace(id, place{uint8(n), slot})
	if victim != (flowKey{}) {
		t.drop(victim)
		t.onDrop()
	}
	return id
}

// pinned is f in a slot.
func (t *flowTable) pinned(f *udpFlow, id flowKey) pinnedFlow {
	addr := f.remote.Addr()
	p := pinnedFlow{id: id, port: f.remote.Port(), way: t.ways.number(way{f.socket, addr.Is4(), addr.Zone()})}
	if addr.Is4() {
		ip := addr.As4()
		copy(p.ip[:], ip[:])
	} else {
		p.ip = addr.As16()
	}
	return p
}

// ends are the socket and the remote address of what is in a slot.
func (t *flowTable) ends(p *pinnedFlow) (*udpSocket, netip.AddrPort) {
	w := t.ways.list()[p.way]
	addr := netip.AddrFrom16(p.ip).WithZone(w.zone)
	if w.v4 {
		addr = netip.AddrFrom4([4]byte(p.ip[:4]))
	}
	return w.socket, netip.AddrPortFrom(addr, p.port)
}

// same tells whether f is what is in a slot.
func (t *flowTable) same(p *pinnedFlow, f *udpFlow) bool {
	socket, remote := t.ends(p)
	return socket.l == f.socket.l && remote == f.remote
}

func (k flowKey) message() *messages.FlowID {
	return &messages.FlowID{Incarnation: k.incarnation, Counter: k.counter}
}

// add puts a flow into a free slot, as the newest. s is locked, as below.
func (s *flowShard) add(hash uint64, f pinnedFlow) uint32 {
	slot := s.free
	if slot == noSlot {
		slot = uint32(len(s.slots))
		s.slots = append(s.slots, f)
	} else {
		s.free = s.slots[slot].older
		s.slots[slot] = f
	}
	s.byTo[hash] = slot
	s.link(slot)
	return slot
}

// remove empties a slot, and tells whose it was.
func (s *flowShard) remove(slot uint32, hash uint64) flowKey {
	id := s.slots[slot].id
	delete(s.byTo, hash)
	s.unlink(slot)
	s.slots[slot] = pinnedFlow{older: s.free}
	s.free = slot
	return id
}

// link makes a slot the newest one.
func (s *flowShard) link(slot uint32) {
	f := &s.slots[slot]
	f.newer, f.older = noSlot, s.newest
	if s.newest == noSlot {
		s.oldest = slot
	} else {
		s.slots[s.newest].newer = slot
	}
	s.newest = slot
}

func (s *flowShard) unlink(slot uint32) {
	f := &s.slots[slot]
	if f.newer == noSlot {
		s.newest = f.older
	} else {
		s.slots[f.newer].older = f.older
	}
	if f.older == noSlot {
		s.oldest = f.newer
	} else {
		s.slots[f.older].newer = f.newer
	}
}

// put makes a connection findable by its id.
func (t *flowTable) put(id *messages.FlowID, f Flow) {
	k := keyOf(id)
	s := t.idShard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[k] = f
}

func (t *flowTable) putPlace(k flowKey, p place) {
	s := t.idShard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned[k] = p
}

func (t *flowTable) drop(k flowKey) {
	s := t.idShard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, k)
	delete(s.pinned, k)
}

// byID finds the flow of an id.
func (t *flowTable) byID(id *messages.FlowID) (Flow, bool) {
	k := keyOf(id)
	s := t.idShard(k)
	s.mu.RLock()
	stream, isStream := s.streams[k]
	at, isPinned := s.pinned[k]
	s.mu.RUnlock()
	if isStream || !isPinned {
		return stream, isStream
	}
	of := &t.shards[at.shard]
	of.mu.Lock()
	p := of.slots[at.slot]
	of.mu.Unlock()
	if p.id != k { // it has just been evicted, and its slot may be another's
		return nil, false
	}
	socket, remote := t.ends(&p)
	f := &udpFlow{socket: socket, remote: remote}
	f.id.Store(k.message())
	return f, true
}

func (t *flowTable) len() int {
	n := 0
	for i := range t.ids {
		s := &t.ids[i]
		s.mu.RLock()
		n += len(s.streams) + len(s.pinned)
		s.mu.RUnlock()
	}
	return n
}
