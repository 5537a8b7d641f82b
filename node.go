package hereis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/cluster/store"
	"hereis/messages"
	"hereis/sipfront"
	"hereis/sipfront/credentials"
	"hereis/sipfront/event"
	"hereis/sipfront/resolve"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// Node is one member of a cluster: registrar, proxy, and its share of the
// users' state. Make it with New, then call Run, or Close if it is not to run.
type Node struct {
	cfg     Config
	log     *slog.Logger
	domains *actors.Domains

	store     *store.Store
	clock     *cluster.Clock
	peers     *peers
	streams   *cluster.Streams
	gossip    *cluster.Gossip
	actors    *cluster.Actors
	cluster   *cluster.Node
	client    *actors.Client
	transport *transport.Transport
	layer     *transaction.Layer
	sip       *sipfront.Server
	// users is nil if everybody may register.
	users *credentials.File
	// authorizer decides who may watch whom; lists are the resource lists, nil if there are none.
	authorizer *authorizer
	lists      *followed[event.Lists]
	self       cluster.Member
	feeds      feeds
	latency    *latencies
	duty       duty
}

// New checks cfg, opens the data folder and takes every port, so that whatever
// is wrong is said before the node is part of a cluster. Nothing runs yet.
func New(cfg Config, log *slog.Logger) (_ *Node, err error) {
	cfg.Derive()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: log, latency: newLatencies(), feeds: feeds{byPattern: make(map[string]*feed)}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.domains, err = cfg.domains(); err != nil {
		return nil, err
	}
	if err := n.openUsers(); err != nil {
		return nil, err
	}
	if err := n.openSIP(); err != nil {
		return nil, err
	}
	if err := n.openStore(); err != nil {
		return nil, err
	}
	keys, err := cfg.keys()
	if err != nil {
		return nil, err
	}
	if err := n.openCluster(keys); err != nil {
		return nil, err
	}
	if err := n.openFront(keys); err != nil {
		return nil, err
	}
	return n, nil
}

// openSIP takes the SIP ports. What the sockets bring goes to the layer, which
// is there before they are read.
func (n *Node) openSIP() error {
	tc := n.cfg.transport()
	for _, s := range n.cfg.SIP {
		transports, at, err := ParseSIPListen(s)
		if err != nil {
			return fmt.Errorf("sip: %w", err)
		}
		for _, transport := range transports {
			switch transport {
			case "udp":
				tc.UDP = append(tc.UDP, at)
			case "tcp":
				tc.TCP = append(tc.TCP, at)
			}
		}
	}
	tc.Sources.Exempt = func(from netip.AddrPort) bool { return n.peers.IsNode(from) }
	tc.Plain = func(m *transport.Message) bool { return n.sip.Plain(m) }
	tc.Company = togetherBetween{n}
	tc.OnClose = func(f transport.Flow) {
		n.layer.FlowClosed(f)
		n.sip.FlowClosed(f.ID())
		n.cluster.EndFlow(f.ID())
	}
	var err error
	n.transport, err = transport.New(tc,
		func(m *transport.Message) { n.layer.Receive(m) },
		func(stream bool) *messages.FlowID { return n.cluster.NewFlowID(stream) },
		n.log)
	if err != nil {
		return err
	}
	return n.transport.Listen()
}

// openStore opens the data folder and begins an incarnation.
func (n *Node) openStore() error {
	var err error
	n.store, err = store.Open(store.Config{
		Dir: n.cfg.Data, Name: n.cfg.Name, Level: store.Level(n.cfg.Durability), Queue: n.cfg.MaxWrites,
		JournalSize: int64(n.cfg.JournalSize),
		// Answers that waited for the disk leave together.
		Together: n.transport.Together,
	}, n.log)
	if err != nil {
		return err
	}
	profile := cluster.Profile(n.cfg.Profile)
	n.clock = cluster.NewClock(cluster.ClockConfig{
		OnWake: func(time.Duration) { n.cluster.Woke() },
		// Twice the probe timeout: a busy host delays a ticker by one, and no
		// member is suspected for it.
		Gap: 2 * profile.ProbeTimeout(),
	}, n.log)
	state, err := n.store.Start(n.clock.NowMS(), 0)
	if err != nil {
		return err
	}
	n.self = cluster.Member{
		Name: state.Name, Incarnation: state.Incarnation, Version: Version(),
		Region: n.cfg.Region, Zone: n.cfg.Zone,
	}
	return nil
}

// openCluster takes the ports between nodes and makes this node's share of the cluster.
func (n *Node) openCluster(keys *cluster.Keys) error {
	hello := &messages.Hello{
		Name: n.self.Name, Incarnation: n.self.Incarnation, Version: n.self.Version,
		Sip: n.sipAddrs(), Admin: n.cfg.Admin,
	}
	n.peers = newPeers(hello)
	n.peers.nowMS = n.clock.NowMS
	var err error
	n.streams, err = cluster.NewStreams(cluster.StreamConfig{
		Self: hello, Listen: n.cfg.ClusterStream, Keys: keys, Clock: n.clock,
	}, n.peers, n.log)
	if err != nil {
		return err
	}
	n.peers.silent = n.streams.Silent
	if err := n.streams.Listen(); err != nil {
		return fmt.Errorf("cluster-stream: %w", err)
	}
	limits := n.cfg.limits()
	if n.users != nil {
		limits.Known = n.users.Has
	}
	if err := limits.Validate(); err != nil {
		return err
	}
	cc := n.cfg.cluster()
	cc.Name, cc.Incarnation = n.self.Name, n.self.Incarnation
	n.cluster, err = cluster.New(cc, cluster.Parts{
		Network: n.streams, Store: n.store, Grains: grains{actors.New(limits)},
		Flows: flows{n.transport}, Clock: n.clock, Log: n.log, Rand: rand.Uint64,
		Observe: n.latency.ask,
	})
	if err != nil {
		return err
	}
	n.peers.next = n.cluster
	n.peers.onUp = func(name string) { n.sip.PeerBack(name) }
	n.hearStates()
	n.client = actors.NewClient(n.cluster)
	if err := n.cluster.Load(); err != nil {
		return err
	}
	if err := n.openActors(keys); err != nil {
		return err
	}
	return n.openGossip(keys)
}

// openActors makes proto.actor's side, on which users are grains of kind "user".
func (n *Node) openActors(keys *cluster.Keys) error {
	if n.cfg.ClusterRemote == noRemote {
		return nil
	}
	ac := cluster.ActorConfig{
		Self: n.self, Listen: n.cfg.ClusterRemote, Keys: keys, Owner: n.cluster.Owner,
	}
	ac.Self.Remote = n.advertised(n.cfg.ClusterRemote)
	ac.Kinds = append(ac.Kinds, actors.NewUserKind(asker{n.cluster}))
	var err error
	if n.actors, err = cluster.NewActors(ac, n.log); err != nil {
		return fmt.Errorf("cluster-remote: %w", err)
	}
	return nil
}

func (n *Node) openGossip(keys *cluster.Keys) error {
	n.self.Stream = n.advertised(n.streams.Addr())
	if n.actors != nil {
		n.self.Remote = n.advertised(n.cfg.ClusterRemote)
	}
	n.self.Gossip = n.advertised(n.cfg.Cluster)
	var err error
	n.gossip, err = cluster.NewGossip(cluster.GossipConfig{
		Self: n.self, Bind: n.cfg.Cluster, Join: n.cfg.Join, Keys: keys,
		Profile: cluster.Profile(n.cfg.Profile), Store: n.store, NowMS: n.clock.NowMS, OnAway: n.cluster.Away,
	}, n.membersChanged, n.log)
	if err != nil {
		return err
	}
	if err := n.gossip.Listen(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// openFront makes the SIP front end above the sockets and the cluster.
func (n *Node) openFront(keys *cluster.Keys) error {
	rc := n.cfg.resolve()
	for _, a := range n.sipAddresses() {
		if !slices.Contains(rc.Transports, a.Transport) {
			rc.Transports = append(rc.Transports, a.Transport)
		}
	}
	if err := n.openWatching(); err != nil {
		return err
	}
	sc, err := n.cfg.front()
	if err != nil {
		return err
	}
	sc.Domains = n.domains
	sc.Addresses = n.sipAddresses()
	parts := sipfront.Parts{
		Registrar: n.client, Locator: n.client, Cluster: n.peers,
		Transport: n.transport, Resolver: resolve.New(rc),
		Keys: sipfront.Keys{FlowToken: keys.Flow, Mark: keys.NodeMark, Nonce: keys.Nonce},
		Rand: rand.Uint64, Log: n.log, Observe: n.latency.request,
		Presentities: n.client, Subscriptions: n.store, Owner: n.cluster.Owner, Round: n.cluster.Round,
		Authorizer: n.authorizer, List: n.list, EndDialog: n.endDialog,
	}
	if n.users != nil {
		parts.Credentials = n.users
	}
	if n.cfg.StoreMessages {
		parts.Mailbox = mailbox{n.client, n.cluster}
	}
	n.sip, err = sipfront.New(sc, parts)
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	n.layer = transaction.New(n.cfg.transaction(), n.sip)
	n.sip.Use(n.layer)
	return n.sip.LoadSubscriptions()
}

// Run serves until ctx ends, then leaves the cluster and stops every part in
// reverse order, each within a share of StopTimeout. It returns nil after a
// clean stop. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	parts := []part{
		{name: "clock", run: n.clock.Run},
		{name: "clock-settled", run: n.watchClock},
		{name: "cluster", run: n.cluster.Run},
		{name: "streams", run: n.streams.Run},
		{name: "gossip", run: n.runGossip, before: n.gossip.Leave},
		{name: "transactions", run: n.layer.Run},
		{name: "sip", run: n.sip.Run},
		{name: "transport", run: n.transport.Run},
		// A member that dies meanwhile must be found dead, and what it was to hold
		// be handed to another: so the drain has most of the time.
		{name: "drain", run: untilDone, before: n.drainToStop, patience: 2 * n.cfg.StopTimeout / 3},
	}
	if n.users != nil {
		parts = append(parts, part{name: "users", run: n.watchUsers})
	}
	if n.authorizer.rules != nil {
		parts = append(parts, part{name: "presence rules", run: n.authorizer.rules.run})
	}
	if n.lists != nil {
		parts = append(parts, part{name: "lists", run: n.lists.run})
	}
	if n.actors != nil {
		parts = slices.Insert(parts, 4, part{name: "actors", run: n.actors.Run})
	}
	err := runParts(ctx, parts, n.cfg.StopTimeout/3, n.log)
	return errors.Join(err, n.Close())
}

// ErrStartAgain is in Run's error when the peers remember a higher incarnation
// of this node's name than its own, as after the loss of its disk with a clock
// that is behind. The next New has one above it: the node can be started again
// at once.
var ErrStartAgain = errors.New("the node can be started again at once")

// runGossip puts the incarnation that peers remember on disk if it is above
// this node's, so that the next start is above it. A running node cannot change
// its own: its stamps and flows carry it.
func (n *Node) runGossip(ctx context.Context) error {
	err := n.gossip.Run(ctx)
	var known cluster.IncarnationError
	if !errors.As(err, &known) {
		return err
	}
	if _, failed := n.store.Start(n.clock.NowMS(), known.Known); failed != nil {
		return errors.Join(err, failed)
	}
	return fmt.Errorf("%w: %w", ErrStartAgain, err)
}

// Close gives back what New took. Run calls it; so does who never ran the node.
func (n *Node) Close() error {
	var errs []error
	n.feeds.stop()
	if n.transport != nil {
		n.transport.Close()
	}
	if n.streams != nil {
		errs = append(errs, n.streams.Close())
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

func (n *Node) membersChanged(members []cluster.Member) {
	n.peers.keepOnly(members)
	n.streams.SetMembers(members)
	n.cluster.MembersChanged(members)
	if n.actors != nil {
		n.actors.SetMembers(members)
	}
}

// asker is the door through which proto.actor's user grain reaches the gate.
type asker struct{ node *cluster.Node }

func (a asker) AskThen(aor string, msg proto.Message, done func(proto.Message, error)) {
	a.node.AskAsync(aor, msg, 0, done)
}
