package hereis

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
	"hereis/sipfront/transport"
)

// grains lets the cluster's gate ask the logic of the user grain. Question and
// Answer stand in both packages, field for field, as neither may import the
// other; that the conversions below compile is what holds them equal.
type grains struct{ user *actors.User }

func (g grains) Answer(q *cluster.Question) *cluster.Answer {
	return (*cluster.Answer)(g.user.Answer((*actors.Question)(q)))
}

func (g grains) Renews(r *messages.Register, rec *messages.Record, nowMS int64) (expiresMS int64, ok bool) {
	return g.user.Renews(r, rec, nowMS)
}

func (g grains) Begins(r *messages.Register, lease *messages.Lease, room []byte, nowMS int64) ([]byte, bool) {
	return g.user.Begins(r, lease, room, nowMS)
}

func (g grains) Changed(before, after *messages.Record, nowMS int64) bool {
	return g.user.Changed(before, after, nowMS)
}

func (g grains) Shown(rec *messages.Record) *messages.Record { return g.user.Shown(rec) }

func (g grains) Tell(before, after *messages.Record, nowMS int64) (*messages.StateChanged, []string) {
	return g.user.Tell(before, after, nowMS)
}

func (g grains) Remind(before, after *messages.Record, nowMS int64) (*messages.StateChanged, []string) {
	return g.user.Remind(before, after, nowMS)
}

// mailbox keeps messages as leases of this node.
type mailbox struct {
	*actors.Client
	cluster *cluster.Node
}

// Mail implements sipfront.Mailbox.
func (m mailbox) Mail() map[actors.AoR]int {
	mail := make(map[actors.AoR]int)
	for aor, n := range m.cluster.Own(messages.LeaseKind_LEASE_KIND_MESSAGE) {
		mail[actors.AoR(aor)] = n
	}
	return mail
}

// flows tells the cluster what the front end knows of this edge's flows.
type flows struct{ transport *transport.Transport }

func (f flows) Open(flow *messages.FlowID) bool { return f.transport.Open(flow) }

// Superseded: there is nothing to stop for a UDP flow, whose keep-alives are the device's own.
func (f flows) Superseded(*messages.Lease) {}

// hearStates brings what owners tell of watched users, and what nodes ask each
// other of watchers and calls, to the front end.
func (n *Node) hearStates() {
	n.cluster.HandleEvent(messages.TypeName(&messages.StateChanged{}), func(_ string, msg proto.Message) {
		if m, ok := msg.(*messages.StateChanged); ok {
			n.sip.StateChanged(m)
		}
	})
	n.cluster.HandleEvent(messages.TypeName(&messages.StateLost{}), func(string, proto.Message) { n.sip.StateLost() })
	Handle(n, func(_ context.Context, m *messages.DialogEnded) (*messages.DialogEndedHeard, error) {
		n.sip.DialogEnded(m)
		return &messages.DialogEndedHeard{}, nil
	})
	Handle(n, func(_ context.Context, m *messages.Watchers) (*messages.WatchersHere, error) {
		return n.sip.WatchersHere(m), nil
	})
}

// endDialog tells a node of a dialog that has ended at this one.
func (n *Node) endDialog(ctx context.Context, node string, m *messages.DialogEnded) error {
	_, err := Ask[*messages.DialogEndedHeard](ctx, n, ToNode(node), m)
	return err
}

// peers remembers what other nodes said of themselves when their stream opened:
// where they serve SIP, and their admin address. It is the front end's view of
// the cluster.
type peers struct {
	self  string
	nowMS func() int64
	next  cluster.Receiver
	// onUp is told after next that a stream is usable; nil: nobody.
	onUp func(node string)
	// silent tells that a node with a stream does not answer; nil: none is.
	silent func(node string) bool

	mu     sync.Mutex
	hellos map[string]*messages.Hello
	// down are the nodes whose stream was up and is not.
	down map[string]bool
	// sip has the SIP addresses of all nodes heard of, replaced as a whole.
	sip atomic.Pointer[peerAddrs]
}

type peerAddrs struct {
	byNode map[string]map[string]netip.AddrPort // node, transport
	all    map[netip.AddrPort]bool
	ports  map[uint16]bool
	down   map[string]bool
}

func newPeers(own *messages.Hello) *peers {
	p := &peers{self: own.Name, hellos: map[string]*messages.Hello{own.Name: own}, down: map[string]bool{}}
	p.publish()
	return p
}

// Receive, PeerUp and PeerDown stand between the streams and the cluster node.
func (p *peers) Receive(from string, env *messages.Envelope) { p.next.Receive(from, env) }

func (p *peers) PeerUp(hello *messages.Hello) {
	p.mu.Lock()
	p.hellos[hello.Name] = hello
	delete(p.down, hello.Name)
	p.publish()
	p.mu.Unlock()
	p.next.PeerUp(hello)
	if p.onUp != nil {
		p.onUp(hello.Name)
	}
}

// PeerDown keeps the addresses: a node whose stream is down for a moment is a
// node of ours still.
func (p *peers) PeerDown(name string) {
	p.mu.Lock()
	p.down[name] = true
	p.publish()
	p.mu.Unlock()
	p.next.PeerDown(name)
}

// keepOnly forgets nodes that are no members any more.
func (p *peers) keepOnly(members []cluster.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.hellos {
		if name != p.self && !slices.ContainsFunc(members, func(m cluster.Member) bool { return m.Name == name }) {
			delete(p.hellos, name)
			delete(p.down, name)
		}
	}
	p.publish()
}

func (p *peers) publish() {
	addrs := &peerAddrs{byNode: map[string]map[string]netip.AddrPort{}, all: map[netip.AddrPort]bool{}, ports: map[uint16]bool{}}
	for name, h := range p.hellos {
		addrs.byNode[name] = map[string]netip.AddrPort{}
		for _, s := range h.Sip {
			network, at, _ := strings.Cut(s, ":")
			addr, err := netip.ParseAddrPort(at)
			if err != nil {
				continue
			}
			if _, have := addrs.byNode[name][network]; !have {
				addrs.byNode[name][network] = addr
			}
			addrs.all[addr], addrs.ports[addr.Port()] = true, true
		}
	}
	addrs.down = maps.Clone(p.down)
	p.sip.Store(addrs)
}

// hello returns what a node said of itself, or nil.
func (p *peers) hello(node string) *messages.Hello {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hellos[node]
}

// Self is the name of this node.
func (p *peers) Self() string { return p.self }

// NowMS is the node time.
func (p *peers) NowMS() int64 { return p.nowMS() }

// SIPAddr is where a node serves a transport.
func (p *peers) SIPAddr(node, network string) (netip.AddrPort, bool) {
	at, ok := p.sip.Load().byNode[node][network]
	return at, ok
}

// Up tells whether the stream to a node is not known to be down, and what is
// sent to it is answered.
func (p *peers) Up(node string) bool {
	return !p.sip.Load().down[node] && (p.silent == nil || !p.silent(node))
}

// IsNode tells whether addr is exactly a SIP address of one of our nodes.
func (p *peers) IsNode(addr netip.AddrPort) bool { return p.sip.Load().all[addr] }

// IsNodePort tells whether one of our nodes serves SIP at a port.
func (p *peers) IsNodePort(port uint16) bool { return p.sip.Load().ports[port] }

// togetherBetween lets what requests that were read at once are asked of other
// nodes leave together.
type togetherBetween struct{ n *Node }

func (t togetherBetween) Begin() { t.n.streams.Begin() }
func (t togetherBetween) End()   { t.n.streams.End() }
