package cluster

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// A stream opens, in each direction, with eight bytes: six of magic, the
// version, and a zero. Then come frames: four bytes of length, most significant
// first, and an Envelope. The first is a Hello.
const (
	streamMagic   = "HEREIS"
	streamVersion = 1
	preambleSize  = 8
	frameHead     = 4
	maxHello      = 16 << 10
)

const (
	typeHello = "hereis.Hello"
	typePing  = "hereis.Ping"
	typePong  = "hereis.Pong"
)

var (
	errGarbage       = errors.New("not what a node would send")
	errFrameTooLarge = errors.New("frame over the limit")
	errWrongPeer     = errors.New("another node answered")
	errSelf          = errors.New("the stream leads to this node itself, or to another of its name")
)

// appendFrame appends env with its length. On an error, what is returned
// starts with what dst had.
func appendFrame(dst []byte, env *messages.Envelope, limit int) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	out, err := env.AppendTo(dst)
	if err != nil {
		return dst, err
	}
	n := len(out) - start - frameHead
	if n > limit {
		return out, errFrameTooLarge
	}
	binary.BigEndian.PutUint32(out[start:], uint32(n))
	return out, nil
}

// openDialled says Hello on a connection that this node made to m, and reads
// the answer.
func (s *Streams) openDialled(nc net.Conn, p *streamPeer, m Member) (*streamConn, error) {
	_ = nc.SetDeadline(time.Now().Add(s.cfg.Handshake))
	certName := ""
	if s.tls != nil {
		tc := tls.Client(nc, s.tls)
		if err := tc.Handshake(); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		certName, nc = peerCertName(tc), tc
	}
	if err := s.writeHello(nc); err != nil {
		return nil, err
	}
	br, hello, err := s.readHello(nc, certName)
	if err != nil {
		return nil, err
	}
	if hello.Name != m.Name {
		return nil, fmt.Errorf("%w: %q", errWrongPeer, hello.Name)
	}
	if hello.Incarnation < p.knownIncarnation() {
		return nil, errStale
	}
	return s.newConn(nc, br, hello, true), nil
}

// openAccepted reads the Hello of a connection that came in, decides whether it
// is to be used, and only then answers: who is turned away has sent nothing.
func (s *Streams) openAccepted(nc net.Conn) (*streamPeer, *streamConn, error) {
	_ = nc.SetDeadline(time.Now().Add(s.cfg.Handshake))
	certName := ""
	if s.tls != nil {
		tc := tls.Server(nc, s.tls)
		if err := tc.Handshake(); err != nil {
			return nil, nil, fmt.Errorf("tls: %w", err)
		}
		certName, nc = peerCertName(tc), tc
	}
	br, hello, err := s.readHello(nc, certName)
	if err != nil {
		return nil, nil, err
	}
	if hello.Name == s.cfg.Self.Name {
		return nil, nil, errSelf
	}
	p := s.peerOf(hello.Name)
	if p == nil {
		return nil, nil, errTooMany
	}
	if hello.Incarnation < p.knownIncarnation() {
		return nil, nil, errStale
	}
	c := s.newConn(nc, br, hello, false)
	if err := p.install(c, s.cfg.Self.Name, s.cfg.Handshake); err != nil {
		return nil, nil, err
	}
	if err := s.writeHello(nc); err != nil {
		c.close(err)
		p.leave(c, s.recv)
		return nil, nil, err
	}
	return p, c, nil
}

func (s *Streams) writeHello(nc net.Conn) error {
	env, err := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, s.hello())
	if err != nil {
		return err
	}
	out := append([]byte(streamMagic), streamVersion, 0)
	if out, err = appendFrame(out, env, maxHello); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	_, err = nc.Write(out)
	return err
}

// readHello reads preamble and Hello; certName is the name in the peer's
// certificate, which the Hello must repeat.
func (s *Streams) readHello(nc net.Conn, certName string) (*bufio.Reader, *messages.Hello, error) {
	dr := &deadlineReader{nc: nc, timeout: s.cfg.Timeout, fixed: true}
	br := bufio.NewReaderSize(dr, readBuffer)
	var head [preambleSize + frameHead]byte
	if _, err := io.ReadFull(br, head[:preambleSize]); err != nil {
		return nil, nil, fmt.Errorf("preamble: %w", err)
	}
	if string(head[:len(streamMagic)]) != streamMagic {
		s.stats.garbage.Add(1)
		return nil, nil, fmt.Errorf("%w: no preamble", errGarbage)
	}
	if v := head[len(streamMagic)]; v != streamVersion {
		return nil, nil, fmt.Errorf("stream version %d; this node speaks %d", v, streamVersion)
	}
	if _, err := io.ReadFull(br, head[preambleSize:]); err != nil {
		return nil, nil, fmt.Errorf("hello: %w", err)
	}
	n := binary.BigEndian.Uint32(head[preambleSize:])
	if n > maxHello {
		s.stats.garbage.Add(1)
		return nil, nil, fmt.Errorf("%w: hello of %d bytes", errGarbage, n)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(br, frame); err != nil {
		return nil, nil, fmt.Errorf("hello: %w", err)
	}
	hello, err := openHello(frame)
	if err != nil {
		s.stats.garbage.Add(1)
		return nil, nil, err
	}
	if s.tls != nil && hello.Name != certName {
		return nil, nil, fmt.Errorf("%w: certificate of %q, hello of %q", errWrongPeer, certName, hello.Name)
	}
	dr.fixed = false
	return br, hello, nil
}

func openHello(frame []byte) (*messages.Hello, error) {
	var env messages.Envelope
	if err := proto.Unmarshal(frame, &env); err != nil {
		return nil, fmt.Errorf("%w: hello: %w", errGarbage, err)
	}
	if env.Type != typeHello {
		return nil, fmt.Errorf("%w: %q in place of a hello", errGarbage, env.Type)
	}
	var hello messages.Hello
	if err := proto.Unmarshal(env.Payload, &hello); err != nil {
		return nil, fmt.Errorf("%w: hello: %w", errGarbage, err)
	}
	if hello.Name == "" || len(hello.Name) > maxName || hello.Incarnation == 0 {
		return nil, fmt.Errorf("%w: hello without name and incarnation", errGarbage)
	}
	return &hello, nil
}

// sendPing queues a Ping; it rides on the heartbeat's own write.
func (c *streamConn) sendPing() {
	if c.s.cfg.Clock != nil {
		c.pingMoves.Store(c.s.cfg.Clock.Moves())
	}
	now := c.s.nowMS()
	c.pinged.Store(now)
	c.unheard.CompareAndSwap(0, max(1, int64(time.Since(c.born))))
	c.control(&messages.Ping{SentMs: now}, false)
}

func (c *streamConn) answerPing(env *messages.Envelope) {
	var ping messages.Ping
	if proto.Unmarshal(env.Payload, &ping) == nil {
		c.control(&messages.Pong{SentMs: ping.SentMs, NowMs: c.s.nowMS()}, true)
	}
}

// measure takes round trip and offset from a Pong (rule 9). Both are good to a
// millisecond, which is what node time counts in.
func (c *streamConn) measure(p *streamPeer, env *messages.Envelope) {
	var pong messages.Pong
	if proto.Unmarshal(env.Payload, &pong) != nil {
		return
	}
	c.unheard.Store(0)
	moves, now := c.pingMoves.Load(), c.s.nowMS()
	rtt := now - pong.SentMs
	if pong.SentMs == 0 || pong.SentMs != c.pinged.Swap(0) || rtt < 0 {
		return // not the answer to the last ping
	}
	offset := time.Duration(pong.NowMs-pong.SentMs-rtt/2) * time.Millisecond
	p.rtt.Store(int64(time.Duration(rtt) * time.Millisecond))
	p.offset.Store(int64(offset))
	if c.s.cfg.Clock != nil {
		c.s.cfg.Clock.Observe(p.name, moves, offset, time.Duration(rtt)*time.Millisecond)
	}
}

func (c *streamConn) control(msg proto.Message, now bool) {
	if env, err := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, msg); err == nil {
		c.queue(env, now)
	}
}
