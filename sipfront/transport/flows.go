package transport

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"

	"hereis/messages"
)

// flowTable finds the flows that have an id: by id, and UDP ones by their
// 4-tuple. A datagram alone makes no entry; asking its flow for an id does. So
// forged sources cost nothing until the core vouches for one, and the bound
// with its eviction of the least recently named is only a second line.
//
// An evicted UDP flow is no loss: whoever stored its addresses restores it.
type flowTable struct {
	seed   maphash.Seed
	max    int
	shards [64]flowShard
	ids    [64]idShard
	onDrop func()
}

type tuple struct{ local, remote netip.AddrPort }

type flowKey struct{ incarnation, counter uint64 }

func keyOf(id *messages.FlowID) flowKey {
	return flowKey{id.GetIncarnation(), id.GetCounter()}
}

// flowShard orders its flows by last use, the newest at the front.
type flowShard struct {
	mu    sync.Mutex
	byTo  map[tuple]*list.Element // of *udpFlow
	order list.List
}

type idShard struct {
	mu   sync.RWMutex
	byID map[flowKey]Flow
}

func newFlowTable(maxUDP int, onDrop func()) *flowTable {
	t := &flowTable{seed: maphash.MakeSeed(), max: max(1, maxUDP/64), onDrop: onDrop}
	for i := range t.shards {
		t.shards[i].byTo = make(map[tuple]*list.Element)
		t.ids[i].byID = make(map[flowKey]Flow)
	}
	return t
}

func (t *flowTable) shard(k tuple) *flowShard {
	return &t.shards[maphash.Comparable(t.seed, k)%uint64(len(t.shards))]
}

func (t *flowTable) idShard(k flowKey) *idShard {
	return &t.ids[(k.counter^k.incarnation)%uint64(len(t.ids))]
}

// lookup returns the pinned UDP flow of a 4-tuple.
func (t *flowTable) lookup(k tuple) (*udpFlow, bool) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.byTo[k]; ok {
		return e.Value.(*udpFlow), true
	}
	return nil, false
}

// use returns the id that a 4-tuple has, which counts as used now, or nil.
func (t *flowTable) use(k tuple) *messages.FlowID {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byTo[k]
	if !ok {
		return nil
	}
	s.order.MoveToFront(e)
	return e.Value.(*udpFlow).id.Load()
}

// pin returns the id that f's 4-tuple has, or gives it the one that makeID returns.
func (t *flowTable) pin(f *udpFlow, makeID func() *messages.FlowID) *messages.FlowID {
	k := f.tuple()
	s := t.shard(k)
	s.mu.Lock()
	if e, ok := s.byTo[k]; ok {
		s.order.MoveToFront(e)
		id := e.Value.(*udpFlow).id.Load()
		s.mu.Unlock()
		return id
	}
	id := makeID()
	f.id.Store(id)
	s.byTo[k] = s.order.PushFront(f)
	victim := s.evict(t.max)
	s.mu.Unlock()
	t.put(id, f)
	if victim != nil {
		t.drop(victim.id.Load())
		t.onDrop()
	}
	return id
}

func (s *flowShard) evict(limit int) *udpFlow {
	if s.order.Len() <= limit {
		return nil
	}
	e := s.order.Back()
	f := s.order.Remove(e).(*udpFlow)
	delete(s.byTo, f.tuple())
	return f
}

func (t *flowTable) put(id *messages.FlowID, f Flow) {
	k := keyOf(id)
	s := t.idShard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[k] = f
}

func (t *flowTable) drop(id *messages.FlowID) {
	k := keyOf(id)
	s := t.idShard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, k)
}

func (t *flowTable) byID(id *messages.FlowID) (Flow, bool) {
	k := keyOf(id)
	s := t.idShard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, ok := s.byID[k]
	return f, ok
}

func (t *flowTable) len() int {
	n := 0
	for i := range t.ids {
		s := &t.ids[i]
		s.mu.RLock()
		n += len(s.byID)
		s.mu.RUnlock()
	}
	return n
}
