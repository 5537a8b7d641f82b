package cluster

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/eventstream"
)

const (
	activatorName = "hereis-activator"
	// activateTry is one question to the owner's activator, activateTotal all of them.
	activateTry   = 250 * time.Millisecond
	activateTotal = time.Second
	activatePause = 20 * time.Millisecond
	// evictBatch grains are stopped between pauses of evictPause.
	evictBatch = 100
	evictPause = time.Millisecond

	lookupShards = 64
)

// ownerLookup is proto.actor's IdentityLookup: the grain of an identity is at
// its owner, which activates it only if it agrees that it is the owner. What is
// kept per grain costs the same to add and to remove.
type ownerLookup struct {
	self  string
	owner func(identity string) string
	seed  maphash.Seed
	// addrs is the remote address of each live member by name; replaced, never changed.
	addrs  atomic.Pointer[map[string]string]
	closed atomic.Bool
	shards [lookupShards]lookupShard

	cluster   *pcluster.Cluster
	sub       *eventstream.Subscription
	activator *actor.PID

	// moves wakes the evictor; one slot, as it looks at every grain.
	moves chan struct{}
	done  chan struct{} // closed by Shutdown
	wg    sync.WaitGroup
}

type lookupShard struct {
	mu     sync.Mutex // guards grains; held while one is spawned
	grains map[grainKey]*actor.PID
}

type grainKey struct{ kind, identity string }

var _ pcluster.IdentityLookup = (*ownerLookup)(nil)

func newOwnerLookup(self string, owner func(string) string) *ownerLookup {
	l := &ownerLookup{
		self: self, owner: owner, seed: maphash.MakeSeed(),
		moves: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.addrs.Store(&map[string]string{})
	for i := range l.shards {
		l.shards[i].grains = map[grainKey]*actor.PID{}
	}
	return l
}

func (l *ownerLookup) shard(k grainKey) *lookupShard {
	return &l.shards[maphash.Comparable(l.seed, k)%lookupShards]
}

// Setup implements pcluster.IdentityLookup.
func (l *ownerLookup) Setup(c *pcluster.Cluster, _ []string, _ bool) {
	l.cluster = c
	l.sub = c.ActorSystem.EventStream.Subscribe(func(e any) {
		if t, ok := e.(*pcluster.ActivationTerminating); ok {
			l.terminated(t)
		}
	})
	props := actor.PropsFromFunc(func(ac actor.Context) {
		if req, ok := ac.Message().(*pcluster.ActivationRequest); ok && req.ClusterIdentity != nil {
			pid := l.local(req.ClusterIdentity)
			ac.Respond(&pcluster.ActivationResponse{Pid: pid, Failed: pid == nil})
		}
	})
	if pid, err := c.ActorSystem.Root.SpawnNamed(props, activatorName); err == nil {
		l.activator = pid
	}
	l.wg.Go(l.evictLoop)
}

// terminated forgets a grain that stopped, by itself or because it was told to.
func (l *ownerLookup) terminated(t *pcluster.ActivationTerminating) {
	k := grainKey{t.ClusterIdentity.GetKind(), t.ClusterIdentity.GetIdentity()}
	s := l.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid := s.grains[k]; pid == nil || !pid.Equal(t.Pid) {
		return
	}
	delete(s.grains, k)
	if kind, ok := l.cluster.TryGetClusterKind(k.kind); ok {
		kind.Dec()
	}
}

func (l *ownerLookup) setAddresses(addrs map[string]string) { l.addrs.Store(&addrs) }

// Get implements pcluster.IdentityLookup; nil if no node took the grain in time.
func (l *ownerLookup) Get(ci *pcluster.ClusterIdentity) *actor.PID {
	if _, ok := l.cluster.TryGetClusterKind(ci.GetKind()); !ok {
		return nil // every node has the same kinds: nobody will take it
	}
	for end := time.Now().Add(activateTotal); !l.closed.Load(); {
		if pid := l.try(ci); pid != nil {
			return pid
		}
		if time.Now().Add(activatePause).After(end) {
			return nil
		}
		select {
		case <-l.done:
			return nil
		case <-time.After(activatePause):
		}
	}
	return nil
}

func (l *ownerLookup) try(ci *pcluster.ClusterIdentity) *actor.PID {
	owner := l.owner(ci.GetIdentity())
	if owner == l.self {
		return l.local(ci)
	}
	addr, ok := (*l.addrs.Load())[owner]
	if !ok {
		return nil
	}
	f := l.cluster.ActorSystem.Root.RequestFuture(actor.NewPID(addr, activatorName),
		&pcluster.ActivationRequest{ClusterIdentity: ci}, activateTry)
	res, err := f.Result()
	if err != nil {
		return nil
	}
	if a, ok := res.(*pcluster.ActivationResponse); ok && a.Pid != nil {
		return a.Pid
	}
	return nil
}

// local finds or activates the grain here; nil if this node is not its owner.
func (l *ownerLookup) local(ci *pcluster.ClusterIdentity) *actor.PID {
	if l.closed.Load() || l.owner(ci.GetIdentity()) != l.self {
		return nil
	}
	kind, ok := l.cluster.TryGetClusterKind(ci.GetKind())
	if !ok {
		return nil
	}
	k := grainKey{ci.GetKind(), ci.GetIdentity()}
	s := l.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid := s.grains[k]; pid != nil {
		return pid
	}
	pid := l.cluster.ActorSystem.Root.SpawnPrefix(pcluster.WithClusterIdentity(kind.Props, ci), k.kind+"/"+k.identity)
	kind.Inc()
	s.grains[k] = pid
	return pid
}

// moved says that placement may have changed.
func (l *ownerLookup) moved() {
	select {
	case l.moves <- struct{}{}:
	default:
	}
}

// evictLoop stops, a few at a time, grains that this node does not own any
// more. Placement is another's to keep and may follow the members a little
// later: so it looks again after a second.
func (l *ownerLookup) evictLoop() {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-l.moves:
			again.Reset(time.Second)
		case <-again.C:
		}
		l.evict()
	}
}

func (l *ownerLookup) evict() {
	stopped := 0
	for i := range l.shards {
		for _, pid := range l.strangers(&l.shards[i]) {
			l.cluster.ActorSystem.Root.Poison(pid)
			if stopped++; stopped%evictBatch != 0 {
				continue
			}
			select {
			case <-l.done:
				return
			case <-time.After(evictPause):
			}
		}
	}
}

func (l *ownerLookup) strangers(s *lookupShard) []*actor.PID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pids []*actor.PID
	for k, pid := range s.grains {
		if l.owner(k.identity) != l.self {
			pids = append(pids, pid)
		}
	}
	return pids
}

// RemovePid implements pcluster.IdentityLookup; the cache is proto.actor's own.
func (l *ownerLookup) RemovePid(*pcluster.ClusterIdentity, *actor.PID) {}

// Shutdown implements pcluster.IdentityLookup: it stops every grain and waits
// for them, a second at most. It may be called more than once.
func (l *ownerLookup) Shutdown() {
	if l.closed.Swap(true) {
		return
	}
	close(l.done)
	l.wg.Wait()
	if l.cluster == nil {
		return
	}
	root := l.cluster.ActorSystem.Root
	for i := range l.shards {
		for _, pid := range l.all(&l.shards[i]) {
			root.Poison(pid)
		}
	}
	for end := time.Now().Add(stopTimeout); l.count() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	l.cluster.ActorSystem.EventStream.Unsubscribe(l.sub)
	if l.activator != nil {
		root.Stop(l.activator)
	}
}

func (l *ownerLookup) all(s *lookupShard) []*actor.PID {
	s.mu.Lock()
	defer s.mu.Unlock()
	pids := make([]*actor.PID, 0, len(s.grains))
	for _, pid := range s.grains {
		pids = append(pids, pid)
	}
	return pids
}

func (l *ownerLookup) count() (n int) {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].grains)
		l.shards[i].mu.Unlock()
	}
	return n
}
