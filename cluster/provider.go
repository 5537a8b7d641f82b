package cluster

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	pcluster "github.com/asynkron/protoactor-go/cluster"
)

// memberProvider is proto.actor's ClusterProvider: it is told who is there.
type memberProvider struct {
	self   Member
	lookup *ownerLookup
	// started is closed when proto.actor is ready for members.
	started chan struct{}

	mu      sync.Mutex // guards what follows, and serialises updates of the topology
	cluster *pcluster.Cluster
	members []Member
	live    map[string]uint64 // incarnation of each live member, by name
	epochs  map[string]int    // how often a name has come
	stopped bool
}

var _ pcluster.ClusterProvider = (*memberProvider)(nil)

func newMemberProvider(self Member, lookup *ownerLookup) *memberProvider {
	return &memberProvider{
		self: self, lookup: lookup, started: make(chan struct{}),
		live: map[string]uint64{}, epochs: map[string]int{},
	}
}

// StartMember implements pcluster.ClusterProvider.
func (p *memberProvider) StartMember(c *pcluster.Cluster) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cluster = c
	p.push()
	close(p.started)
	return nil
}

// StartClient implements pcluster.ClusterProvider; every node is a member.
func (p *memberProvider) StartClient(*pcluster.Cluster) error {
	return errors.New("a node is never a client")
}

// Shutdown implements pcluster.ClusterProvider.
func (p *memberProvider) Shutdown(bool) error { return nil }

func (p *memberProvider) ready() bool {
	select {
	case <-p.started:
		return true
	default:
		return false
	}
}

func (p *memberProvider) setMembers(members []Member) {
	p.mu.Lock()
	p.members = append([]Member(nil), members...)
	p.push()
	p.mu.Unlock()
	p.lookup.moved()
}

// stop takes everybody out of the topology, which closes the connections.
func (p *memberProvider) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.cluster != nil {
		p.cluster.MemberList.UpdateClusterTopology(nil)
	}
}

// push hands the members to proto.actor. It never lets a member back in that it
// has seen leaving, by id; so an id is name, incarnation, and how often that
// name has come. The caller holds mu.
func (p *memberProvider) push() {
	if p.cluster == nil || p.stopped {
		return
	}
	self := p.self
	self.Remote = p.cluster.ActorSystem.Address()
	kinds := p.cluster.GetClusterKinds()
	addrs := map[string]string{self.Name: self.Remote}
	live := map[string]uint64{}
	list := pcluster.Members{p.memberOf(self, 0, kinds)}
	for _, m := range p.members {
		if m.Name == self.Name || m.FailedMS != 0 || m.Remote == "" {
			continue
		}
		if p.live[m.Name] != m.Incarnation {
			p.epochs[m.Name]++
		}
		pm := p.memberOf(m, p.epochs[m.Name], kinds)
		if pm == nil {
			continue
		}
		live[m.Name] = m.Incarnation
		addrs[m.Name] = m.Remote
		list = append(list, pm)
	}
	p.live = live
	p.lookup.setAddresses(addrs)
	p.cluster.MemberList.UpdateClusterTopology(list)
}

func (p *memberProvider) memberOf(m Member, epoch int, kinds []string) *pcluster.Member {
	host, portText, err := net.SplitHostPort(m.Remote)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseInt(portText, 10, 32)
	if err != nil {
		return nil
	}
	return &pcluster.Member{
		Id:   fmt.Sprintf("%s~%d~%d", m.Name, m.Incarnation, epoch),
		Host: host, Port: int32(port), Kinds: kinds,
	}
}
