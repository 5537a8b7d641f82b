package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hereis/messages"
)

var (
	errNotMember  = errors.New("not a member any more")
	errSuperseded = errors.New("superseded by another connection")
	errStale      = errors.New("incarnation is older than the member's")
	errTooMany    = errors.New("too many connections of unknown nodes")
)

// peer is one other node: at most one connection in use, and whoever dials it.
type streamPeer struct {
	name string
	// conn is the connection in use; nil: none.
	conn        atomic.Pointer[streamConn]
	dropped     atomic.Uint64
	rtt, offset atomic.Int64 // nanoseconds
	// kick wakes the dialler: the member changed or the connection is gone. One slot.
	kick chan struct{}

	mu       sync.Mutex // guards what follows
	member   Member
	isMember bool
	dialling bool

	// deliver makes calls to the Receiver one at a time and in order; it is
	// held while the Receiver runs and never while mu is taken by others.
	deliver sync.Mutex
	up      *streamConn // PeerUp was said for it; guarded by deliver
}

func newStreamPeer(name string) *streamPeer {
	return &streamPeer{name: name, kick: make(chan struct{}, 1)}
}

func (p *streamPeer) setMember(m Member) {
	p.mu.Lock()
	p.member, p.isMember = m, true
	p.mu.Unlock()
	p.wake()
}

// forget takes the peer off the members; false if it never was one.
func (p *streamPeer) forget() bool {
	p.mu.Lock()
	was := p.isMember
	p.isMember = false
	p.mu.Unlock()
	p.wake()
	return was
}

func (p *streamPeer) stranger() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.isMember
}

func (p *streamPeer) claimDialler() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isMember || p.dialling {
		return false
	}
	p.dialling = true
	return true
}

// target is the member to dial, if it is to be dialled at all; when it is not
// a member any more the dialler gives up its claim.
func (p *streamPeer) target() (m Member, dial, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isMember {
		p.dialling = false
		return Member{}, false, false
	}
	return p.member, p.member.FailedMS == 0 && p.conn.Load() == nil, true
}

func (p *streamPeer) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// knownIncarnation is that of the member, 0 for a stranger.
func (p *streamPeer) knownIncarnation() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isMember {
		return 0
	}
	return p.member.Incarnation
}

// install puts c in use unless the connection that is in use is to be kept.
// Of two connections to the same incarnation the one dialled by the smaller
// name survives, on both sides; of two by the same dialler, the newer. One that
// is older than the time a handshake may take does not stand in the way of a
// peer that dials: it dials only when it has none.
func (p *streamPeer) install(c *streamConn, self string, handshake time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.conn.Load()
	if old != nil {
		switch have, got := old.hello.Incarnation, c.hello.Incarnation; {
		case got < have:
			return errStale
		case got > have:
			old.close(errSuperseded)
		case !c.dialled && time.Since(old.born) > handshake:
			old.close(errSuperseded)
		case old.dialled != c.dialled && old.dialled == (self < p.name):
			return errSuperseded
		case c.dialled:
			old.retire() // the peer has c already: it answered
		default:
			old.lame() // the peer has not yet heard that c is in use
		}
	}
	p.conn.Store(c)
	return nil
}

// announce says PeerUp for c, unless c takes the place of a connection to the
// same incarnation that is being retired.
func (p *streamPeer) announce(c *streamConn, recv Receiver) {
	p.deliver.Lock()
	defer p.deliver.Unlock()
	if p.conn.Load() != c {
		return
	}
	if p.up != nil && p.up.hello.Incarnation == c.hello.Incarnation && p.up.replaced.Load() {
		p.up = c
		return
	}
	if p.up != nil {
		p.up = nil
		recv.PeerDown(p.name)
	}
	p.up = c
	recv.PeerUp(c.hello)
}

// leave takes c out of use and says PeerDown if nothing took its place.
func (p *streamPeer) leave(c *streamConn, recv Receiver) {
	p.mu.Lock()
	p.conn.CompareAndSwap(c, nil)
	p.mu.Unlock()
	p.deliver.Lock()
	defer p.deliver.Unlock()
	if p.up != nil && p.conn.Load() == nil {
		p.up = nil
		recv.PeerDown(p.name)
	}
}

// receive hands env over; an Envelope of an incarnation that is not the one
// announced is dropped.
func (p *streamPeer) receive(c *streamConn, recv Receiver, env *messages.Envelope) {
	p.deliver.Lock()
	defer p.deliver.Unlock()
	if p.up == nil || p.up.hello.Incarnation != c.hello.Incarnation {
		return
	}
	recv.Receive(p.name, env)
}

// dialLoop keeps a stream to p while it is a live member.
func (s *Streams) dialLoop(ctx context.Context, p *streamPeer) {
	backoff := s.cfg.RedialMin
	// The larger name gives the smaller one, whose connection would survive, a head start.
	wait := time.Duration(0)
	if s.cfg.Self.Name > p.name {
		wait = 200 * time.Millisecond
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for due := wait == 0; ; {
		m, dial, keep := p.target()
		if !keep {
			return
		}
		if dial && due {
			due = false
			start := time.Now()
			err := s.dial(ctx, p, m)
			if time.Since(start) > s.cfg.Timeout {
				backoff = s.cfg.RedialMin // it was up for a while
			}
			if err != nil && ctx.Err() == nil {
				s.log.Debug("dial a node", "node", p.name, "addr", m.Stream, "err", err)
			}
			timer.Reset(backoff/2 + rand.N(backoff))
			backoff = min(2*backoff, s.cfg.RedialMax)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			if _, dial, _ := p.target(); !dial {
				backoff = s.cfg.RedialMin
			}
		case <-timer.C:
			due = true
		}
	}
}

// dial opens a stream to m and serves it until it ends.
func (s *Streams) dial(ctx context.Context, p *streamPeer, m Member) error {
	if s.tls == nil {
		if err := loopbackOnly(m.Stream); err != nil {
			return err
		}
	}
	d := net.Dialer{Timeout: s.cfg.Handshake}
	nc, err := d.DialContext(ctx, "tcp", m.Stream)
	if err != nil {
		return err
	}
	nc = quiet(nc)
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	c, err := s.openDialled(nc, p, m)
	stop()
	if err != nil {
		nc.Close()
		return err
	}
	switch err := p.install(c, s.cfg.Self.Name, s.cfg.Handshake); {
	case errors.Is(err, errSuperseded):
		// The other side may have sent on it already: hear it out.
		c.lame()
	case err != nil:
		nc.Close()
		return err
	}
	s.serve(ctx, p, c)
	return nil
}

// serveAccepted answers a connection that came in and serves it.
func (s *Streams) serveAccepted(ctx context.Context, nc net.Conn) {
	nc = quiet(nc)
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	p, c, err := s.openAccepted(nc)
	stop()
	s.handshakes.Add(-1)
	if err != nil {
		s.stats.refused.Add(1)
		s.log.Debug("node stream refused", "addr", nc.RemoteAddr(), "err", err)
		nc.Close()
		return
	}
	s.serve(ctx, p, c)
}

// serve runs an installed connection until it ends. A panic in the Receiver
// ends this stream and nothing else.
func (s *Streams) serve(ctx context.Context, p *streamPeer, c *streamConn) {
	s.stats.opened.Add(1)
	stop := context.AfterFunc(ctx, c.retire)
	defer stop()
	defer p.wake()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.recovering(p, func() { p.leave(c, s.recv) })
	defer c.close(nil)
	wg.Go(c.writeLoop)
	s.recovering(p, func() {
		p.announce(c, s.recv)
		err := c.readLoop(p, s.recv)
		if cause := c.cause(); cause != nil {
			err = cause
		}
		s.log.Debug("node stream ended", "node", p.name, "err", err)
	})
}

func (s *Streams) recovering(p *streamPeer, f func()) {
	defer func() {
		if r := recover(); r != nil {
			s.stats.panics.Add(1)
			s.log.Error("panic while receiving from a node", "node", p.name,
				"err", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f()
}
