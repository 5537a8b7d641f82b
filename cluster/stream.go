package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// ErrInsecure refuses node traffic off loopback when there is no shared secret.
var ErrInsecure = errors.New("without a secret, nodes talk on loopback only")

// StreamConfig says how a node talks to the others. The zero value of every
// number is replaced by its default.
type StreamConfig struct {
	// Self is what this node says of itself when a stream opens; Protocol and
	// NowMs are filled in.
	Self *messages.Hello
	// Listen is the ip:port to accept streams on; port 0 takes a free one.
	Listen string
	// Keys give mutual TLS; nil or insecure ones: plain TCP, on loopback only.
	Keys *Keys
	// Clock gives the node time and is fed with the offsets of peers; nil:
	// the wall clock is the node time and offsets are not kept.
	Clock *Clock

	// MaxFrame is the largest Envelope taken or sent, in bytes (default 4 MiB).
	MaxFrame int
	// QueueBytes bounds what waits for one peer (default 8 MiB).
	QueueBytes int
	// RideDelay is the longest that a rider waits for company (default 10 ms).
	RideDelay time.Duration
	// Heartbeat is the time between pings (default 500 ms).
	Heartbeat time.Duration
	// Timeout ends a stream that is silent, or takes nothing, for so long (default 4 s).
	Timeout time.Duration
	// Handshake bounds dialling and the first words (default 3 s).
	Handshake time.Duration
	// RedialMin and RedialMax bound the back-off between dials (default 50 ms, 5 s).
	RedialMin, RedialMax time.Duration
}

func (c StreamConfig) withDefaults() StreamConfig {
	c.MaxFrame = orDefault(c.MaxFrame, 4<<20)
	c.QueueBytes = orDefault(c.QueueBytes, 8<<20)
	c.RideDelay = orDefault(c.RideDelay, 10*time.Millisecond)
	c.Heartbeat = orDefault(c.Heartbeat, 500*time.Millisecond)
	c.Timeout = orDefault(c.Timeout, 4*time.Second)
	c.Handshake = orDefault(c.Handshake, 3*time.Second)
	c.RedialMin = orDefault(c.RedialMin, 50*time.Millisecond)
	c.RedialMax = orDefault(c.RedialMax, 5*time.Second)
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Streams is the Network of a running node: one framed TCP connection per pair
// of nodes, used in both directions.
type Streams struct {
	cfg  StreamConfig
	recv Receiver
	log  *slog.Logger
	tls  *tls.Config // nil: plain
	ln   net.Listener

	// peers is replaced, never changed, so that Send reads it without a lock.
	peers atomic.Pointer[map[string]*streamPeer]
	// changed is kicked by SetMembers and read by Run; one slot is enough.
	changed chan struct{}
	// handshakes counts accepted connections that have not said Hello yet.
	handshakes atomic.Int32
	stats      streamCounters
	company    company

	mu sync.Mutex // guards the replacement of peers
}

var _ Network = (*Streams)(nil)

// maxHandshakes bounds accepted connections that have not said who they are,
// maxStrangers those of names that are not members.
const (
	maxHandshakes = 128
	maxStrangers  = 64
)

// NewStreams checks cfg. It does no IO: Listen and Run do.
func NewStreams(cfg StreamConfig, recv Receiver, log *slog.Logger) (*Streams, error) {
	if cfg.Self.GetName() == "" {
		return nil, errors.New("stream: Self.Name is empty")
	}
	s := &Streams{cfg: cfg.withDefaults(), recv: recv, log: log, changed: make(chan struct{}, 1)}
	s.peers.Store(&map[string]*streamPeer{})
	if s.cfg.Keys == nil || !s.cfg.Keys.Secure {
		if err := loopbackOnly(cfg.Listen); err != nil {
			return nil, fmt.Errorf("stream: Listen %s: %w", cfg.Listen, err)
		}
		return s, nil
	}
	var err error
	if s.tls, err = s.cfg.Keys.NodeTLS(cfg.Self.Name, "hereis"); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return s, nil
}

func loopbackOnly(addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	if !ap.Addr().Unmap().IsLoopback() {
		return ErrInsecure
	}
	return nil
}

// Listen takes the port, so that Addr is known before Run. Run calls it if it
// has not been called.
func (s *Streams) Listen() error {
	if s.ln != nil {
		return nil
	}
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	s.ln = ln
	return nil
}

// Addr is the ip:port listened on, after Listen.
func (s *Streams) Addr() string { return s.ln.Addr().String() }

// Close gives the port back if Run is never called.
func (s *Streams) Close() error {
	if s.ln == nil {
		return nil
	}
	if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run accepts and dials until ctx ends, then closes every stream and waits for
// all that it started.
func (s *Streams) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.ln.Close()
	defer cancel()

	accepting := make(chan error, 1) // the accept loop's one result
	wg.Go(func() { accepting <- s.accept(ctx, &wg) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-accepting:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("stream: accept: %w", err)
		case <-s.changed:
			s.keepDialling(ctx, &wg)
		}
	}
}

func (s *Streams) accept(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		nc, err := s.ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return ctx.Err()
		}
		var ne net.Error
		switch {
		case errors.As(err, &ne) && !errors.Is(err, net.ErrClosed):
			// Out of descriptors and the like pass; an accept loop that ends does not come back.
			s.log.Warn("accept a node stream", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case err != nil:
			return err
		case s.handshakes.Add(1) > maxHandshakes:
			s.handshakes.Add(-1)
			s.stats.refused.Add(1)
			nc.Close()
			continue
		}
		wg.Go(func() { s.serveAccepted(ctx, nc) })
	}
}

// keepDialling starts a dialler for each member that has none.
func (s *Streams) keepDialling(ctx context.Context, wg *sync.WaitGroup) {
	for _, p := range *s.peers.Load() {
		if p.claimDialler() {
			wg.Go(func() { s.dialLoop(ctx, p) })
		}
	}
}

// SetMembers names the nodes to keep a stream to: every live member but this
// node. A member that is no longer listed is not dialled any more, and its
// stream is closed; that of a failed one is kept for as long as it works.
func (s *Streams) SetMembers(members []Member) {
	s.mu.Lock()
	next := maps.Clone(*s.peers.Load())
	listed := make(map[string]bool, len(members))
	for _, m := range members {
		if m.Name == s.cfg.Self.Name {
			continue
		}
		listed[m.Name] = true
		p := next[m.Name]
		if p == nil {
			p = newStreamPeer(m.Name)
			next[m.Name] = p
		}
		p.setMember(m)
	}
	var gone []*streamPeer
	for name, p := range next {
		if !listed[name] && p.forget() {
			gone = append(gone, p)
			delete(next, name)
		}
	}
	s.peers.Store(&next)
	s.mu.Unlock()

	for _, p := range gone {
		if c := p.conn.Load(); c != nil {
			c.close(errNotMember)
		}
		if s.cfg.Clock != nil {
			s.cfg.Clock.Forget(p.name)
		}
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// peerOf finds or makes the peer of a name that said Hello; nil if there are
// too many strangers.
func (s *Streams) peerOf(name string) *streamPeer {
	if p := (*s.peers.Load())[name]; p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := *s.peers.Load()
	if p := now[name]; p != nil {
		return p
	}
	strangers := 0
	next := make(map[string]*streamPeer, len(now)+1)
	for n, p := range now {
		if p.stranger() {
			if p.conn.Load() == nil {
				continue // gone again: make room
			}
			strangers++
		}
		next[n] = p
	}
	if strangers >= maxStrangers {
		return nil
	}
	p := newStreamPeer(name)
	next[name] = p
	s.peers.Store(&next)
	return p
}

// Send implements Network.
func (s *Streams) Send(to string, env *messages.Envelope) bool { return s.send(to, env, true) }

// Ride implements Network.
func (s *Streams) Ride(to string, env *messages.Envelope) bool { return s.send(to, env, false) }

func (s *Streams) send(to string, env *messages.Envelope, now bool) bool {
	p := (*s.peers.Load())[to]
	if p == nil {
		s.stats.dropped.Add(1)
		return false
	}
	if c := p.conn.Load(); c != nil && c.queue(env, now) {
		return true
	}
	p.dropped.Add(1)
	s.stats.dropped.Add(1)
	return false
}

// silentAfter is how long a peer may leave a ping without an answer, beyond two
// round trips, before it counts as silent.
const silentAfter = time.Second

// Silent tells whether a peer with a stream has not answered what it was sent
// for a second and two round trips. The stream may still be good, or the peer
// stand still; or what is sent to it is lost, and the stream not yet given up.
func (s *Streams) Silent(name string) bool {
	p := (*s.peers.Load())[name]
	if p == nil {
		return false
	}
	c := p.conn.Load()
	if c == nil {
		return false
	}
	since := time.Duration(c.unheard.Load())
	return since != 0 && time.Since(c.born)-since > silentAfter+2*time.Duration(p.rtt.Load())
}

func (s *Streams) nowMS() int64 {
	if s.cfg.Clock != nil {
		return s.cfg.Clock.NowMS()
	}
	return time.Now().UnixMilli()
}

func (s *Streams) hello() *messages.Hello {
	h := proto.CloneOf(s.cfg.Self)
	h.Protocol = streamVersion
	h.NowMs = s.nowMS()
	return h
}

type streamCounters struct {
	sentFrames, sentBytes, writes, receivedFrames, receivedBytes atomic.Uint64
	dropped, refused, garbage, panics, opened                    atomic.Uint64
}

// StreamStats counts since start.
type StreamStats struct {
	// Writes is the number of system calls that carried SentFrames.
	SentFrames, SentBytes, Writes, ReceivedFrames, ReceivedBytes uint64
	// Dropped Envelopes found no connection or a full queue. Refused
	// connections were turned away before or at Hello. Garbage and Panics
	// each ended a stream. Opened counts streams that came into use.
	Dropped, Refused, Garbage, Panics, Opened uint64
	Peers                                     []PeerStats
}

// PeerStats is the state of the stream to one peer.
type PeerStats struct {
	Name        string
	Incarnation uint64
	Up          bool
	// Dropped Envelopes for this peer, since start.
	Dropped uint64
	// RTT is the last round trip, Offset the peer's node time minus ours; both
	// 0 before the first Pong.
	RTT, Offset time.Duration
}

// Stats reads all counters.
func (s *Streams) Stats() StreamStats {
	st := StreamStats{
		SentFrames: s.stats.sentFrames.Load(), SentBytes: s.stats.sentBytes.Load(), Writes: s.stats.writes.Load(),
		ReceivedFrames: s.stats.receivedFrames.Load(), ReceivedBytes: s.stats.receivedBytes.Load(),
		Dropped: s.stats.dropped.Load(), Refused: s.stats.refused.Load(),
		Garbage: s.stats.garbage.Load(), Panics: s.stats.panics.Load(), Opened: s.stats.opened.Load(),
	}
	for name, p := range *s.peers.Load() {
		ps := PeerStats{Name: name, Dropped: p.dropped.Load(), RTT: time.Duration(p.rtt.Load()), Offset: time.Duration(p.offset.Load())}
		if c := p.conn.Load(); c != nil {
			ps.Up, ps.Incarnation = true, c.hello.Incarnation
		}
		st.Peers = append(st.Peers, ps)
	}
	return st
}
