package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// shards is the number of locks that the table of a node is divided under.
const shards = 64

// Core is everything that decides in this package, driven by events with the
// node time: Receive, Members, Ask, Keep, EndFlow, Tick. It starts no
// goroutine, has no clock and does no IO but through Parts, so that a
// simulation runs what a node runs. Its methods may be called from any
// goroutine.
//
// Locks are taken in this order: viewMu, a shard's, a peer's. Continuations
// and calls of Flows are made with none held (Flows.Open apart).
type Core struct {
	cfg   Config
	parts Parts
	stats Stats
	hlc   hlc
	self  Member
	off   rules

	// view, settled and short are written with viewMu held and read without.
	view    atomic.Pointer[view]
	settled atomic.Bool
	short   atomic.Pointer[shortcut]
	// goneMS is when the last of those in away went, 0 for none; written with viewMu held.
	goneMS atomic.Int64

	viewMu sync.Mutex
	// heard: the membership has spoken; until then nothing is settled.
	heard     bool
	members   []Member
	peers     map[string]*neighbor
	lastState map[string]memberState
	away      map[string]int64
	flapping  map[string]*flaps
	settling  settling
	scan      scan

	shards   [shards]shard
	flows    flowIndex
	asks     askTable
	watches  watchTable
	digests  digestState
	unstored unstored
	// tally is of the present view, nil while this node is alone: replaced with
	// digests.mu held. tallyUntil is up to which node time changes are in it.
	tally      atomic.Pointer[tally]
	tallyUntil atomic.Int64
	// changes counts the changes that could be seen; it is raised with the lock
	// of the user's shard held.
	changes atomic.Uint64
	// stirring is what wakes the ticks of a node at which nothing happens.
	stirring stirring
	// streams says of nodes by name, in whatever life, whether there is a stream
	// to them; relays counts what went by a third node, to take turns; ticked is
	// about the node time: of the last Tick, or of what has happened since.
	streams sync.Map // string: bool
	relays  atomic.Uint64
	ticked  atomic.Int64

	broadcasts atomic.Int64
	handlers   map[string]Handler
	// hearers take events of other types, by full name; they do not change once the node runs.
	hearers map[string][]Hearer
	// deaf are the nodes that could not be told of a change (tell.go).
	deaf deafTable
	// debug: the life of a question and of a change is logged.
	debug bool
	// start runs a handler elsewhere; false: too many run already.
	start func(Handler, *request) bool
}

// neighbor is another live member in one incarnation.
type neighbor struct {
	name        string
	incarnation uint64

	// inflight are the requests sent there and not answered (rule 22).
	inflight atomic.Int64
	// meanRTT is the mean round trip in microseconds, 0 while not measured.
	meanRTT atomic.Int64
	// seenRound and seenDigest are the last that it said; an acknowledgement
	// of an earlier round does not count.
	seenRound, seenDigest atomic.Uint64
	// handover counts the records that it must acknowledge before it is told
	// "done" (rule 14).
	handover atomic.Int64
	// wants is its last Report; compared and answered: its sums have been
	// compared, it has been told "done". Guarded by Core.viewMu.
	wants              *messages.Report
	compared, answered bool

	// down: its stream is known to be gone. aloneMS is since when there has been
	// no stream to it, 0 while there is one.
	down    atomic.Bool
	aloneMS atomic.Int64

	// unstored: it has said that its disk has not taken all that it holds.
	unstored atomic.Bool

	bulk bulkQueue
}

func (p *neighbor) roundTrip() float64 { return float64(p.meanRTT.Load()) / 1000 }

// shard is a part of the table: the records of the AoRs that hash to it.
type shard struct {
	mu sync.Mutex
	table
	// due has, by second of node time, the hashes of the AoRs to look at then (expiry.go).
	due    map[int64][]uint64
	dueSec int64
	// retries has, by slot of retrySlotMS, the entries whose pushes may be due (repair.go).
	retries   map[int64][]*entry
	retrySlot int64
	// young has, by second of their last change, the hashes of AoRs that the tally has yet to count (tally.go).
	young map[int64][]uint64
	// matured is up to which second they have been counted.
	matured  int64
	accepted accepted
	// waits are the replies that wait for copies, in order of their time (gate.go).
	waits []*wait
	// pulls are the records being completed (pull.go).
	pulls map[string]*pull
	// asked is the question that is being answered (gate.go).
	asked asked
	// skimmed is a record at rest that is looked at.
	skimmed messages.RecordRoom
	// pushed is the record that is being sent by itself (repair.go).
	pushed pushOfOne
	// renewing and beginning are the records that are being written in place; old is
	// what was in the cell before, or the begin of what will be (atonce.go).
	renewing  messages.RecordRoom
	beginning beginning
	old       []byte
}

// extra is what an entry needs only for a time.
type extra struct {
	// targets have not acknowledged the record (rule 10); there are rarely more
	// than room has place for.
	targets []target
	room    [2]target
	// retrySlot is the slot of the shard's retries that the entry stands in, 0 for none.
	retrySlot int64
	// former: this node holds the record for others until they have it.
	former bool
	// completeRound is the round in which the record was completed by asking (rule 11).
	completeRound uint64
}

// NewCore checks and allocates.
func NewCore(cfg Config, p Parts) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if p.Network == nil || p.Store == nil || p.Grains == nil || p.Flows == nil || p.Log == nil || p.Rand == nil {
		return nil, fmt.Errorf("cluster: Parts of %s are not complete", cfg.Name)
	}
	c := &Core{
		cfg: cfg, parts: p,
		hlc:       hlc{incarnation: cfg.Incarnation},
		self:      Member{Name: cfg.Name, Incarnation: cfg.Incarnation, Region: cfg.Region, Zone: cfg.Zone},
		peers:     make(map[string]*neighbor),
		lastState: make(map[string]memberState),
		away:      make(map[string]int64),
		flapping:  make(map[string]*flaps),
		handlers:  make(map[string]Handler),
		hearers:   make(map[string][]Hearer),
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.due = make(map[int64][]uint64)
		s.retries = make(map[int64][]*entry)
		s.pulls = make(map[string]*pull)
		c.prepare(s)
	}
	c.stirring.rouse = make(chan struct{}, 1)
	c.debug = p.Log.Enabled(context.Background(), slog.LevelDebug)
	c.flows.aors = make(map[flowKey]*flowAoRs)
	c.asks.open = make(map[uint64]*ask)
	c.asks.slots = make(map[int64][]*ask)
	c.watches.init()
	v := newView(1, c.self, nil, func(string) bool { return false }, c.peerOf)
	c.view.Store(v)
	c.scan.base = v
	return c, nil
}

// NewStamp makes a stamp above every one that this node knows (rule 2).
func (c *Core) NewStamp(now int64) *messages.Stamp { return c.hlc.next(now) }

// RaiseClock makes all later stamps be above ms (rule 1). What is further ahead than
// clocks may lie apart is not believed: stamps of that time would be refused
// everywhere (rule 9).
func (c *Core) RaiseClock(now, ms int64) {
	if ms <= now+messages.SkewBoundMS {
		c.hlc.raise(ms)
	}
}

// shard is the one of an AoR.
func (c *Core) shard(aor string) *shard {
	return &c.shards[shardOf(aor)]
}

// shardOf is the index of an AoR's shard: the top 6 bits of its hash.
func shardOf(aor string) int { return int(xxh3.HashString(aor) >> 58) }

// peerOf finds or makes the peer of a member. viewMu is held.
func (c *Core) peerOf(m Member) *neighbor {
	p := c.peers[m.Name]
	if p == nil || p.incarnation != m.Incarnation {
		p = &neighbor{name: m.Name, incarnation: m.Incarnation}
		up, known := c.streams.Load(m.Name)
		p.down.Store(known && up == false)
		if up != true {
			p.aloneMS.Store(c.ticked.Load())
		}
		c.peers[m.Name] = p
	}
	return p
}

// Tick lets pass what is due at now. It is called about every 10 ms, unless pause
// says that there is time.
func (c *Core) Tick(now int64) {
	c.stirring.ticks.Add(1)
	c.stirring.asleep.Store(false)
	c.stirring.stirred.Store(false)
	c.ticked.Store(now)
	c.tickView(now)
	c.tickScan(now)
	c.tickAsks(now)
	c.timeTally(now)
	for i := range c.shards {
		c.tickShard(now, &c.shards[i])
	}
	c.tickDigests(now)
	c.tickBulk(now)
	c.tickWatches(now)
	c.tickDeaf()
	c.tickUnstored(now)
}

// tickShard is Tick for one shard.
func (c *Core) tickShard(now int64, s *shard) {
	var after effects
	s.mu.Lock()
	c.expire(now, s, &after)
	c.retry(now, s)
	c.expireWaits(now, s, &after)
	c.expirePulls(now, s, &after)
	s.accepted.expire(now)
	c.mature(s)
	s.pack()
	s.mu.Unlock()
	after.run()
}

// Stats are the counters; they go on counting.
func (c *Core) Stats() *Stats { return &c.stats }

// Stop answers every open question with ErrStopped and ends every Follow.
func (c *Core) Stop() {
	c.stopAsks()
	c.stopWatches()
}

// effects are what must happen after a lock is given back, in order.
type effects []effect

// effect is a call of do, or of reply with msg where rq is not nil.
type effect struct {
	do  func()
	rq  *request
	msg proto.Message
}

func (e *effects) add(f func()) { *e = append(*e, effect{do: f}) }

// reply answers a request.
func (e *effects) reply(rq *request, msg proto.Message) { *e = append(*e, effect{rq: rq, msg: msg}) }

func (e *effects) run() {
	for _, f := range *e {
		if f.rq != nil {
			f.rq.reply(f.msg)
		} else {
			f.do()
		}
	}
}

// Receive takes in what a peer sent. from is the name that the stream was
// opened with.
func (c *Core) Receive(now int64, from string, env *messages.Envelope) {
	c.see(now)
	defer c.stir()
	switch env.Kind {
	case messages.EnvelopeKind_ENVELOPE_KIND_REQUEST:
		c.receiveRequest(now, from, env)
	case messages.EnvelopeKind_ENVELOPE_KIND_REPLY:
		c.receiveReply(now, from, env)
	case messages.EnvelopeKind_ENVELOPE_KIND_EVENT:
		c.receiveEvent(now, from, env)
	default:
		c.stats.BadMessages.Add(1)
	}
}

// receiveEvent is the table of what nodes tell each other.
func (c *Core) receiveEvent(now int64, from string, env *messages.Envelope) {
	msg, err := env.Open()
	if err != nil {
		c.stats.BadMessages.Add(1)
		c.parts.Log.Debug("message not read", "node", from, "err", err)
		return
	}
	switch m := msg.(type) {
	case *messages.Push:
		c.onPush(now, from, m)
	case *messages.Ack:
		c.onAck(now, from, m)
	case *messages.Report:
		c.onReport(now, from, m)
	case *messages.Reported:
		c.onReported(now, from, m)
	case *messages.Pull:
		c.onPull(from, m)
	case *messages.Pulled:
		c.onPulled(now, from, m)
	case *messages.Digests:
		c.onDigests(now, from, m)
	case *messages.Differs:
		c.onDiffers(now, from, m)
	case *messages.UserEvent:
		c.onUserEvent(now, from, m)
	case *messages.Relay:
		c.onRelay(now, from, m)
	default:
		c.deliver(from, m)
	}
}

// event sends msg to a peer at once; ride lets it wait for company.
func (c *Core) event(p *neighbor, msg proto.Message) bool {
	return c.send(p, msg, c.parts.Network.Send)
}

func (c *Core) ride(p *neighbor, msg proto.Message) bool { return c.send(p, msg, c.parts.Network.Ride) }

func (c *Core) send(p *neighbor, msg proto.Message, by func(string, *messages.Envelope) bool) bool {
	env, err := messages.WrapParcel(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, msg)
	if err != nil {
		c.stats.SendDrops.Add(1)
		return false
	}
	defer env.Free()
	if !by(p.name, &env.Envelope) && !c.relay(p.name, &env.Envelope) {
		c.stats.SendDrops.Add(1)
		return false
	}
	return true
}

// PeerUp is told when a stream to a member is usable: what was lost is sent again.
func (c *Core) PeerUp(now int64, hello *messages.Hello) {
	c.see(now)
	defer c.stir()
	c.streams.Store(hello.GetName(), true)
	c.viewMu.Lock()
	v := c.view.Load()
	c.settling.waitMS = 0
	c.askReports(now, v)
	// It may be out of the view for now, and comes back as it is.
	p := c.peers[hello.GetName()]
	c.viewMu.Unlock()
	c.hearAgain(hello.GetName())
	if p != nil && p.incarnation == hello.GetIncarnation() {
		p.down.Store(false)
		p.aloneMS.Store(0)
		c.hurry(p)
		p.bulk.revive()
	}
}

// PeerDown is told when a stream is gone: what was asked there is asked
// elsewhere, and no reply waits for a copy there any more.
func (c *Core) PeerDown(now int64, name string) {
	c.see(now)
	defer c.stir()
	c.streams.Store(name, false)
	c.viewMu.Lock()
	p := c.peers[name]
	c.viewMu.Unlock()
	if p != nil {
		p.down.Store(true)
		p.aloneMS.Store(now)
		for i := range c.shards {
			c.giveUpCopies(&c.shards[i], p)
		}
	}
	c.hurryAsks(now, name)
}

// fail makes a Failure.
func fail(code messages.FailureCode, detail string) *messages.Failure {
	f := &messages.Failure{Code: code, Detail: detail}
	if code == messages.FailureCode_FAILURE_CODE_RETRY || code == messages.FailureCode_FAILURE_CODE_OVERLOADED {
		f.RetryAfterS = 1
	}
	return f
}

// asFailure is the Failure that an answer of an unexpected type stands for.
func asFailure(reply proto.Message) *messages.Failure {
	if f, ok := reply.(*messages.Failure); ok {
		return f
	}
	return fail(messages.FailureCode_FAILURE_CODE_INTERNAL, "unexpected answer "+messages.TypeName(reply))
}

// Tables counts what this node holds; it looks at every record.
func (c *Core) Tables(now int64) Tables {
	var t Tables
	var room messages.RecordRoom
	v := c.view.Load()
	c.walk(func(_ *shard, g glance) { c.countRecord(now, v, g.extra(), g.read(&room), &t) })
	return t
}

func (c *Core) countRecord(now int64, v *view, x *extra, rec *messages.Record, t *Tables) {
	t.AoRs++
	owner, backup := v.place(rec.Aor)
	switch {
	case owner == v.self:
		t.Owned++
	case backup == v.self:
		t.Backup++
	case x != nil && x.former:
		t.Former++
	default:
		t.Edge++
	}
	for _, l := range rec.Leases {
		t.Leases++
		if l.Edge == c.cfg.Name {
			t.Own++
		}
		if rec.Alive(l, now) {
			t.Live++
		}
	}
	if x != nil && len(x.targets) > 0 {
		t.Unacknowledged++
	}
}

// Record is what this node has of an AoR, nil for nothing; not to be changed.
func (c *Core) Record(aor string) *messages.Record {
	s := c.shard(aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entry(aor); e != nil {
		return e.rec
	}
	return nil
}

// Own counts this edge's live leases of a kind, by AoR. It looks at every record.
func (c *Core) Own(now int64, kind messages.LeaseKind) map[string]int {
	own := make(map[string]int)
	var room messages.RecordRoom
	c.walk(func(_ *shard, g glance) {
		rec, n := g.read(&room), 0
		for _, l := range rec.Leases {
			if l.Kind == kind && l.Edge == c.cfg.Name && rec.Alive(l, now) {
				n++
			}
		}
		if n > 0 {
			own[strings.Clone(rec.Aor)] = n
		}
	})
	return own
}
