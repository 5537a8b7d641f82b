package sipfront

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transport"
)

type sent struct {
	to      string
	network string
	raw     []byte
}

// memNet is a transport whose flows keep what is sent.
type memNet struct {
	local netip.AddrPort

	mu    sync.Mutex
	flows map[string]*memFlow
	byID  map[string]*memFlow
	next  uint64
	out   []sent
	quiet bool
	// tcp: TCP is served here too.
	tcp bool
}

type memFlow struct {
	n       *memNet
	network string
	remote  netip.AddrPort
	id      *messages.FlowID
	closed  bool
	// tap hears what is sent, for benchmarks.
	tap func([]byte)
}

func (n *memNet) flow(remote netip.AddrPort) *memFlow {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.get("", "udp", remote)
}

func (n *memNet) get(prefix, network string, remote netip.AddrPort) *memFlow {
	f := n.flows[prefix+remote.String()]
	if f == nil {
		f = &memFlow{n: n, network: network, remote: remote}
		n.flows[prefix+remote.String()] = f
	}
	return f
}

// stream is the connection with a peer.
func (n *memNet) stream(remote netip.AddrPort) *memFlow {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.get("tcp ", "tcp", remote)
}

// forget closes the connection with a peer; the next one is another.
func (n *memNet) forget(remote netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.flows["tcp "+remote.String()]
	f.closed = true
	delete(n.flows, "tcp "+remote.String())
}

func (n *memNet) Flow(network string, remote netip.AddrPort) (transport.Flow, error) {
	switch {
	case network == "tcp" && n.tcp:
		return n.stream(remote), nil
	case network != "udp":
		return nil, transport.ErrNoListener
	}
	return n.flow(remote), nil
}

func (n *memNet) Restore(id *messages.FlowID, network string, local, remote netip.AddrPort) (transport.Flow, error) {
	f := n.flow(remote)
	if id.GetStream() || f.closed {
		return nil, transport.ErrFlowClosed
	}
	return f, nil
}

func (n *memNet) ByID(id *messages.FlowID) (transport.Flow, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.byID[fmt.Sprint(id.GetIncarnation(), id.GetCounter())]
	if !ok || f.closed {
		return nil, false
	}
	return f, true
}

func (n *memNet) Pin(f transport.Flow) *messages.FlowID { return f.ID() }

func (n *memNet) PinTo(f transport.Flow, room *messages.FlowID) { proto.Merge(room, f.ID()) }

func (n *memNet) take() []sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.out
	n.out = nil
	return out
}

func (f *memFlow) ID() *messages.FlowID {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.id == nil {
		f.n.next++
		f.id = &messages.FlowID{Incarnation: 7, Counter: f.n.next, Stream: f.network != "udp"}
		f.n.byID[fmt.Sprint(f.id.Incarnation, f.id.Counter)] = f
	}
	return f.id
}
func (f *memFlow) Transport() string      { return f.network }
func (f *memFlow) Reliable() bool         { return f.network != "udp" }
func (f *memFlow) Local() netip.AddrPort  { return f.n.local }
func (f *memFlow) Remote() netip.AddrPort { return f.remote }
func (f *memFlow) Send(b []byte) error {
	if f.tap != nil {
		f.tap(bytes.Clone(b))
		return nil
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.closed {
		return transport.ErrFlowClosed
	}
	if !f.n.quiet {
		f.n.out = append(f.n.out, sent{f.remote.String(), f.network, bytes.Clone(b)})
	}
	return nil
}

// memCluster is a view that a test sets.
type memCluster struct {
	self  string
	start time.Time
	mu    sync.Mutex
	nodes map[string]netip.AddrPort
	// tcp are the nodes that serve TCP at the same address, noUDP those that serve nothing else.
	tcp, noUDP map[string]bool
	// down are the nodes that cannot be spoken to.
	down map[string]bool
}

func (c *memCluster) Up(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.down[node]
}

func (c *memCluster) Self() string { return c.self }
func (c *memCluster) SIPAddr(node, network string) (netip.AddrPort, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.nodes[node]
	switch network {
	case "udp":
		return a, ok && !c.noUDP[node]
	case "tcp":
		return a, ok && c.tcp[node]
	}
	return a, false
}
func (c *memCluster) IsNodePort(uint16) bool { return false }

func (c *memCluster) IsNode(addr netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.nodes {
		if a == addr {
			return true
		}
	}
	return false
}

// NowMS begins on 1 November 2026.
func (c *memCluster) NowMS() int64 { return 1_793_491_200_000 + time.Since(c.start).Milliseconds() }

// memRegistrar keeps bindings as naively as can be: by Contact, one user.
type memRegistrar struct {
	zone *memCluster
	mu   sync.Mutex
	last *messages.Register
	err  error
	list []*messages.Lease
	// atOnce: what can be done at once is. It is answered when later, if that is not
	// nil, calls what it is given; unstored: it could not be stored.
	atOnce   bool
	later    func(done func())
	unstored error
}

func (m *memRegistrar) AtOnce(q *messages.Register, then func(nowMS, expiresMS int64, err error)) bool {
	if !m.atOnce || len(m.list) > 1 || len(q.Contacts) != 1 || len(m.list) == 1 && string(m.list[0].Key) != q.Contacts[0].Uri {
		return false
	}
	// A copy that shares nothing: the strings of q are not kept.
	b, err := proto.Marshal(q)
	if err != nil {
		return false
	}
	own := &messages.Register{}
	if err := proto.Unmarshal(b, own); err != nil {
		return false
	}
	before := m.list
	res, err := m.register(own)
	if err != nil || len(res.Bindings) != 1 {
		m.list = before
		return false
	}
	done := func() { then(res.NowMs, res.Bindings[0].ExpiresMs, m.unstored) }
	if m.later != nil {
		m.later(done)
	} else {
		done()
	}
	return true
}

func (m *memRegistrar) RegisterThen(q *messages.Register, _ int64, done func(*messages.Registered, error)) {
	done(m.register(q))
}

func (m *memRegistrar) register(q *messages.Register) (*messages.Registered, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = q
	if m.err != nil {
		return nil, m.err
	}
	now := m.zone.NowMS()
	if q.Star {
		m.list = nil
	}
	for _, c := range q.Contacts {
		expires := uint32(3600)
		if q.HasExpires {
			expires = q.ExpiresS
		}
		if c.HasExpires {
			expires = c.ExpiresS
		}
		kept := m.list[:0:0]
		for _, l := range m.list {
			if string(l.Key) != c.Uri {
				kept = append(kept, l)
			}
		}
		if m.list = kept; expires == 0 {
			continue
		}
		b := &messages.Binding{Contact: c.Uri, Params: c.Params, Q: c.Q, InstanceId: c.InstanceId, RegId: c.RegId, Path: q.Path}
		m.list = append(m.list, &messages.Lease{Key: []byte(c.Uri), ExpiresMs: now + int64(expires)*1000, Payload: mustMarshal(b)})
	}
	return &messages.Registered{Bindings: m.list, NowMs: now}, nil
}

type locateAnswer struct {
	res *messages.Located
	err error
}

// memLocator gives scripted answers, in turn.
type memLocator struct {
	zone    *memCluster
	mu      sync.Mutex
	answers map[string][]locateAnswer
	asked   int
	// gate holds answers back until it is closed, or the asker's time is over.
	gate chan struct{}
	// parts, by AoR, are said to who takes a part of an answer; the rest is said
	// by finish, unless the asker has forgotten it.
	parts     map[string]*messages.Located
	rest      map[string]func(*messages.Located, error)
	forgotten int
}

// part has a stand-in answer first, with these targets.
func (m *memLocator) part(aor, targets string, t testing.TB) {
	t.Helper()
	res := &messages.Located{}
	if err := protojson.Unmarshal([]byte(`{"targets":[`+targets+`]}`), res); err != nil {
		t.Fatal(err)
	}
	m.parts, m.rest = map[string]*messages.Located{aor: res}, map[string]func(*messages.Located, error){}
}

// finish says the rest of an answer; false: nobody waits for it.
func (m *memLocator) finish(aor string) bool {
	done := m.rest[aor]
	if done == nil {
		return false
	}
	delete(m.rest, aor)
	done(m.Locate(context.Background(), actors.AoR(aor)))
	return true
}

func (m *memLocator) set(aor, arg string, t testing.TB) {
	a := locateAnswer{}
	switch arg {
	case "not-found":
		a.err = actors.ErrNotFound
	case "unavailable":
		a.err = actors.ErrUnavailable
	case "retry":
		a.err = actors.ErrRetry
	default:
		if !json.Valid([]byte(arg)) {
			t.Fatalf("locate %s: not JSON: %s", aor, arg)
		}
		a.res = &messages.Located{}
		if err := protojson.Unmarshal([]byte(arg), a.res); err != nil {
			t.Fatal(err)
		}
	}
	m.answers[aor] = append(m.answers[aor], a)
}

// LocateThen answers at once, or beside the caller if there is a gate.
func (m *memLocator) LocateThen(aor actors.AoR, _ string, deadlineMS int64, part func(*messages.Located, func()), done func(*messages.Located, error)) {
	if res := m.parts[string(aor)]; res != nil && part != nil {
		m.rest[string(aor)] = done
		part(res, func() {
			m.forgotten++
			delete(m.rest, string(aor))
		})
		return
	}
	answer := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(deadlineMS-m.zone.NowMS())*time.Millisecond)
		defer cancel()
		done(m.Locate(ctx, aor))
	}
	if m.gate == nil {
		answer()
		return
	}
	go answer()
}

// RelocateThen is LocateThen without parts.
func (m *memLocator) RelocateThen(aor actors.AoR, callID string, deadlineMS int64, done func(*messages.Located, error)) {
	m.LocateThen(aor, callID, deadlineMS, nil, done)
}

func (m *memLocator) Locate(ctx context.Context, aor actors.AoR) (*messages.Located, error) {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	list := m.answers[string(aor)]
	if len(list) == 0 {
		return nil, actors.ErrNotFound
	}
	if len(list) > 1 {
		m.answers[string(aor)] = list[1:]
	}
	return list[0].res, list[0].err
}
