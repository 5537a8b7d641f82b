package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

var (
	// ErrNameTaken ends a node whose name another live node has.
	ErrNameTaken = errors.New("another live node has this name")
	// ErrMeta refuses a node whose metadata does not fit gossip.
	ErrMeta = errors.New("metadata of this node is larger than gossip carries")
)

// IncarnationError ends a node that started with an incarnation that is not
// above what peers remember for its name: its disk is new and its clock behind.
type IncarnationError struct {
	// Known is what the next start must be above.
	Known uint64
}

func (e IncarnationError) Error() string {
	return fmt.Sprintf("peers remember incarnation %d of this node's name, which is above its own", e.Known)
}

// Profile is how quickly failures are looked for.
type Profile string

const (
	// ProfileLAN finds a killed node in 2 to 3 seconds.
	ProfileLAN Profile = "lan"
	// ProfileWAN is for round trips of up to a second.
	ProfileWAN Profile = "wan"
)

// ProbeTimeout is the time after which a member that does not answer is
// suspected; also the gap that rule 16 speaks of.
func (p Profile) ProbeTimeout() time.Duration {
	if p == ProfileWAN {
		return time.Second
	}
	return 250 * time.Millisecond
}

// MemberStore remembers members across restarts (rule 19).
type MemberStore interface {
	LoadMembers() ([]*messages.RememberedMember, error)
	SaveMember(m *messages.RememberedMember) error
	DropMember(name string) error
}

// GossipConfig says how a node finds and watches the others.
type GossipConfig struct {
	// Self is what is told of this node; Self.Gossip is the ip:port that
	// others are to use, or empty for the one that is bound.
	Self Member
	// Bind is the ip:port to listen on, UDP and TCP; port 0 takes a free one.
	Bind string
	// Join lists host:port of other nodes; a name stands for all its
	// addresses, and is looked up again each time. Without a port, Port is
	// meant (default 7060).
	Join []string
	Port int
	// Keys encrypt; nil or insecure ones: in the clear, on loopback only.
	Keys *Keys
	// Profile is ProfileLAN if empty.
	Profile Profile
	// Store may be nil: nothing is remembered across restarts.
	Store MemberStore
	// OnAway is told who left or was forgotten and is not back, before onChange
	// is told of the list without them; nil: nobody is. It may not block.
	OnAway func([]Away)
	// NowMS is the node time; nil: the wall clock.
	NowMS func() int64
}

// Gossip is the membership: SWIM by memberlist, with stable names, restarts
// and memory on top (rules 18, 19). It tells onChange of every change, with the
// whole list: this node, live members (suspected ones too) and remembered ones
// that failed. onChange runs on Run's goroutine and under no lock.
type Gossip struct {
	cfg      GossipConfig
	onChange func([]Member)
	log      *slog.Logger
	ml       *memberlist.Memberlist
	self     netip.AddrPort // as others dial it
	reach    *reach

	// kick tells Run that something changed; one slot, as Run looks at everything.
	kick chan struct{}

	mu    sync.Mutex // guards roster and what follows; never held while memberlist is called
	ros   *roster
	meta  *messages.MemberMeta
	fatal error
	left  bool
	ended bool // memberlist is shut down
}

const (
	joinMin = 250 * time.Millisecond
	joinMax = 30 * time.Second
	// joinTick is how often it is looked whom to dial.
	joinTick = 200 * time.Millisecond
	// joinFirst bounds how long the first report waits for the first attempt to join.
	joinFirst = 3 * time.Second
	// joinAtOnce bounds dials that run at the same time.
	joinAtOnce = 4
)

// NewGossip checks cfg. It does no IO but to load the remembered members:
// Listen and Run do.
func NewGossip(cfg GossipConfig, onChange func([]Member), log *slog.Logger) (*Gossip, error) {
	if err := CheckName(cfg.Self.Name); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if cfg.Self.Incarnation == 0 {
		return nil, errors.New("gossip: Self.Incarnation is 0")
	}
	cfg.Port = orDefault(cfg.Port, 7060)
	cfg.Profile = orDefault(cfg.Profile, ProfileLAN)
	if cfg.Profile != ProfileLAN && cfg.Profile != ProfileWAN {
		return nil, fmt.Errorf("gossip: unknown Profile %q", cfg.Profile)
	}
	if cfg.NowMS == nil {
		cfg.NowMS = func() int64 { return time.Now().UnixMilli() }
	}
	if cfg.Keys == nil || !cfg.Keys.Secure {
		if err := loopbackOnly(cfg.Bind); err != nil {
			return nil, fmt.Errorf("gossip: Bind %s: %w", cfg.Bind, err)
		}
	}
	g := &Gossip{cfg: cfg, onChange: onChange, log: log, kick: make(chan struct{}, 1), meta: metaOf(cfg.Self), reach: newReach(log)}
	largest := proto.CloneOf(g.meta)
	largest.Draining = true
	if n := proto.Size(largest); n > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: %w: %d bytes of %d", ErrMeta, n, memberlist.MetaMaxSize)
	}
	g.ros = newRoster(cfg.Self)
	if cfg.Store != nil {
		remembered, err := cfg.Store.LoadMembers()
		if err != nil {
			return nil, fmt.Errorf("gossip: remembered members: %w", err)
		}
		g.ros.remember(remembered, cfg.NowMS())
	}
	return g, nil
}

func metaOf(m Member) *messages.MemberMeta {
	return &messages.MemberMeta{
		Name: m.Name, Incarnation: m.Incarnation, Stream: m.Stream, Remote: m.Remote,
		Region: m.Region, Zone: m.Zone, Version: m.Version, Draining: m.Draining,
	}
}

// Listen takes the port, so that Addr is known before Run. Run calls it if it
// has not been called.
func (g *Gossip) Listen() error {
	if g.ml != nil {
		return nil
	}
	cfg, err := g.memberlistConfig()
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	ml, err := memberlist.Create(cfg)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	g.ml = ml
	n := ml.LocalNode()
	addr, _ := netip.AddrFromSlice(n.Addr)
	g.self = netip.AddrPortFrom(addr.Unmap(), n.Port)
	return nil
}

// Addr is the ip:port that others use, after Listen.
func (g *Gossip) Addr() string { return g.self.String() }

// Run joins, watches and reports until ctx ends. It returns ErrNameTaken if
// another live node has this node's name, and IncarnationError if peers
// remember a higher incarnation of it. It does not leave: see Leave. A probe that
// memberlist has under way when Run returns ends by itself, a probe interval
// later: nothing can call it off.
func (g *Gossip) Run(ctx context.Context) error {
	if err := g.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		g.mu.Lock()
		g.ended = true
		g.mu.Unlock()
		_ = g.ml.Shutdown()
		wg.Wait()
	}()
	tried := make(chan struct{}) // closed by joinLoop after its first round
	wg.Go(func() { g.joinLoop(ctx, tried) })
	// A node that has not tried to join cannot tell whether it is alone, and
	// must not be believed so: it would say that nobody is known.
	first := time.NewTimer(joinFirst)
	defer first.Stop()
	select {
	case <-tried:
	case <-first.C:
	case <-ctx.Done():
		return nil
	}

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last []Member
	var lastAway []Away
	for {
		list, change, err := g.refresh(&wg)
		if err != nil {
			return err
		}
		if list != nil && g.cfg.OnAway != nil && !slices.Equal(change.away, lastAway) {
			lastAway = change.away
			g.cfg.OnAway(slices.Clone(change.away))
		}
		if list != nil && !slices.Equal(list, last) {
			last = list
			g.onChange(slices.Clone(list))
		}
		if g.cfg.Store != nil {
			g.store(change) // last: nobody waits for a disk to hear who is there
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.kick:
		case <-tick.C:
		}
	}
}

// refresh brings the roster up to date and starts the probes that it asks for.
// The list is nil after Leave.
func (g *Gossip) refresh(wg *sync.WaitGroup) ([]Member, rosterChange, error) {
	g.mu.Lock()
	if g.fatal != nil || g.left {
		defer g.mu.Unlock()
		return nil, rosterChange{}, g.fatal
	}
	out := g.ros.refresh(g.cfg.NowMS(), time.Now())
	me := g.cfg.Self
	me.Draining = g.meta.Draining
	g.mu.Unlock()
	me.Gossip = g.Addr()

	if out.taken {
		return nil, out, fmt.Errorf("%w: %q, at %s", ErrNameTaken, g.cfg.Self.Name, out.rival)
	}
	for _, p := range out.probes {
		wg.Go(func() { g.probe(p) })
	}
	return append([]Member{me}, out.members...), out, nil
}

func (g *Gossip) store(out rosterChange) {
	for _, m := range out.save {
		if err := g.cfg.Store.SaveMember(m); err != nil {
			g.log.Warn("a member could not be remembered", "node", m.Name, "err", err)
		}
	}
	for _, name := range out.drop {
		if err := g.cfg.Store.DropMember(name); err != nil {
			g.log.Warn("a member could not be forgotten", "node", name, "err", err)
		}
	}
}

// probe asks an incarnation whether it lives, twice.
func (g *Gossip) probe(p rosterProbe) {
	addr := net.UDPAddrFromAddrPort(p.addr)
	_, err := g.ml.Ping(p.node, addr)
	if err != nil {
		_, err = g.ml.Ping(p.node, addr)
	}
	g.mu.Lock()
	g.ros.probed(p.node, err == nil, time.Now())
	g.mu.Unlock()
	g.wake()
}

func (g *Gossip) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// SetDraining tells all members that this node holds nothing new, or that it
// does again. It waits until this has been sent, at most two seconds. After
// Run its error is ErrStopped.
func (g *Gossip) SetDraining(draining bool) error {
	g.mu.Lock()
	next := proto.CloneOf(g.meta)
	next.Draining = draining
	g.meta = next
	ended := g.ended
	g.mu.Unlock()
	g.wake()
	switch {
	case ended:
		return ErrStopped
	case g.ml == nil:
		return nil
	}
	if err := g.ml.UpdateNode(2 * time.Second); err != nil {
		return fmt.Errorf("gossip: draining: %w", err)
	}
	return nil
}

// Close gives the port back if Run is never called.
func (g *Gossip) Close() error {
	if g.ml == nil {
		return nil
	}
	return g.ml.Shutdown()
}

// GossipStats is how well a node finds the others.
type GossipStats struct {
	// Unreachable counts addresses of the join list through which this node
	// cannot join, for some seconds at least, and which no live member has.
	Unreachable int
	// Strangers counts messages of nodes that have another secret, or none.
	Strangers uint64
}

// Stats may be asked for at any time after Listen.
func (g *Gossip) Stats() GossipStats {
	g.mu.Lock()
	live := g.ros.liveAddrs()
	g.mu.Unlock()
	live[g.self.String()] = true
	var s GossipStats
	s.Unreachable, s.Strangers = g.reach.numbers(live, time.Now())
	return s
}

// ErrAlone is the trouble of a node that was told of others and is with none.
var ErrAlone = errors.New("this node is alone: it cannot join")

// Trouble is ErrAlone, with where and why, if that has lasted for some seconds.
func (g *Gossip) Trouble() error {
	g.mu.Lock()
	live := g.ros.liveAddrs()
	g.mu.Unlock()
	live[g.self.String()] = true
	if len(live) > 1 {
		return nil
	}
	return g.reach.trouble(time.Now())
}

// Leave tells all members that this node goes for good, so that nobody
// remembers it as failed. Run goes on until its context ends.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	g.left = true
	ended := g.ended
	g.mu.Unlock()
	if g.ml == nil || ended {
		return nil
	}
	g.tell(&messages.GossipState{Departed: []*messages.MemberMark{
		{Name: g.cfg.Self.Name, Incarnation: g.cfg.Self.Incarnation, LeftMs: g.cfg.NowMS()},
	}})
	timeout := 2 * time.Second
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(end), time.Millisecond))
	}
	// A time-out is no error: when the others leave too, nobody is there to hear it.
	if err := g.ml.Leave(timeout); err != nil {
		g.log.Debug("leaving was not confirmed", "err", err)
	}
	return nil
}

// Forget drops a failed member at every node that can be reached, now or
// later: it is not dialled any more, and its absence does not count (rule 15).
// It reports whether a failed member of that name was remembered here.
func (g *Gossip) Forget(name string) bool {
	g.mu.Lock()
	mark := g.ros.forget(name, g.cfg.NowMS())
	g.mu.Unlock()
	if mark == nil {
		return false
	}
	g.wake()
	g.tell(&messages.GossipState{Departed: []*messages.MemberMark{mark}})
	return true
}

// tell sends st to every live member over TCP, at once.
func (g *Gossip) tell(st *messages.GossipState) {
	b, err := proto.Marshal(st)
	if err != nil || g.ml == nil {
		return
	}
	var nodes []*memberlist.Node
	g.mu.Lock()
	for name, s := range g.ros.alive {
		if s.member.Incarnation != g.cfg.Self.Incarnation || s.member.Name != g.cfg.Self.Name {
			nodes = append(nodes, &memberlist.Node{Name: name, Addr: s.addr.Addr().AsSlice(), Port: s.addr.Port()})
		}
	}
	g.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { _ = g.ml.SendReliable(n, b) })
	}
	wg.Wait()
}

// Remembered lists the members that failed and have not come back.
func (g *Gossip) Remembered() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ros.failed()
}
