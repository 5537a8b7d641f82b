package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hereis/messages"
)

const (
	// keepBuffer is the largest write buffer, and scratch frame, kept for reuse.
	keepBuffer = 256 << 10
	// writeChunk is what one write deadline covers.
	writeChunk = 256 << 10
	readBuffer = 32 << 10
	// lingerTime is how long a retired connection is heard out.
	lingerTime = time.Second
)

// streamConn is one connection to one incarnation of a peer.
type streamConn struct {
	s       *Streams
	nc      net.Conn
	br      *bufio.Reader
	hello   *messages.Hello // what the peer said
	dialled bool            // by this node
	born    time.Time
	scratch []byte // frames larger than br's buffer; the reader's

	// wake tells the writer that there is something to write; one slot.
	wake chan struct{}
	// done is closed by close.
	done chan struct{}
	once sync.Once
	err  atomic.Pointer[error]
	// replaced: another connection to the same incarnation is in use, and this
	// one is heard out. retired: this side, moreover, has had its last word.
	replaced, retired atomic.Bool
	pinged            atomic.Int64  // node time of the ping that is on its way
	unheard           atomic.Int64  // when the first ping since the last answer was sent, since born, in ns; 0: all are answered
	pingMoves         atomic.Uint64 // the clock's Moves before it

	// direct is nc if it can be written to without waiting, else nil.
	direct   *quietConn
	writeSet time.Time // when the write deadline was set; for whoever writes
	// listed: it stands in the list of those to be written at the end of a batch; guarded by Streams.company.
	listed bool

	mu    sync.Mutex // guards what follows
	buf   []byte     // frames to be written
	due   bool       // buf has what does not ride, and somebody is to write it
	spare []byte     // the other buffer, while it is not being written
	// writing: somebody writes, the writer or who flushes; again: the writer was
	// woken meanwhile, and is to be woken after it. rest is what flush found no room
	// for, which is the writer's, and writing with it.
	writing, again bool
	rest           []byte
	armed          bool // ride is running
	ride           *time.Timer
	closed         bool // nothing is queued any more
}

func (s *Streams) newConn(nc net.Conn, br *bufio.Reader, hello *messages.Hello, dialled bool) *streamConn {
	c := &streamConn{
		s: s, nc: nc, br: br, hello: hello, dialled: dialled, born: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	c.direct, _ = nc.(*quietConn)
	c.ride = time.AfterFunc(time.Hour, c.wakeWriter)
	c.ride.Stop()
	return c
}

// queue encodes env into the write buffer; false if the connection is over,
// the buffer is full or env is larger than a frame may be.
func (c *streamConn) queue(env *messages.Envelope, now bool) bool {
	c.mu.Lock()
	before := len(c.buf)
	if c.closed || before >= c.s.cfg.QueueBytes {
		c.mu.Unlock()
		return false
	}
	buf, err := appendFrame(c.buf, env, c.s.cfg.MaxFrame)
	if err != nil || (before > 0 && len(buf) > c.s.cfg.QueueBytes) {
		c.buf = buf[:before]
		c.mu.Unlock()
		return false
	}
	c.buf = buf
	first := now && !c.due
	c.due = c.due || now
	c.s.stats.sentFrames.Add(1)
	arm := !now && !c.armed && !c.due
	if arm {
		c.armed = true
		c.ride.Reset(c.s.cfg.RideDelay)
	}
	c.mu.Unlock()
	if first && !c.s.company.take(c) {
		c.wakeWriter()
	}
	return true
}

func (c *streamConn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes all that has been queued, in one go, each time it is woken.
func (c *streamConn) writeLoop() {
	heartbeat := time.NewTicker(c.s.cfg.Heartbeat)
	defer heartbeat.Stop()
	c.sendPing()
	c.wakeWriter()
	for last := false; ; {
		select {
		case <-c.done:
			return
		case <-heartbeat.C:
			c.sendPing()
		case <-c.wake:
		}
		last = c.retired.Load()
		out, ok := c.claim()
		if !ok {
			continue // who writes wakes this after it
		}
		if err := c.write(out); err != nil {
			c.close(fmt.Errorf("write: %w", err))
			return
		}
		c.release(out)
		if last {
			c.closeWrite()
			return
		}
	}
}

func (c *streamConn) write(out []byte) error {
	for len(out) > 0 {
		n := min(len(out), writeChunk)
		if err := c.mayWrite(); err != nil {
			return err
		}
		if _, err := c.nc.Write(out[:n]); err != nil {
			return err
		}
		c.wrote(n)
		out = out[n:]
	}
	return nil
}

// mayWrite sees to the deadline of a write: it is set anew not more often than
// matters, as deadlineReader does.
func (c *streamConn) mayWrite() error {
	now := time.Now()
	if now.Sub(c.writeSet) <= c.s.cfg.Timeout/8 {
		return nil
	}
	c.writeSet = now
	return c.nc.SetWriteDeadline(now.Add(c.s.cfg.Timeout))
}

// wrote counts n bytes that one system call has taken.
func (c *streamConn) wrote(n int) {
	if n > 0 {
		c.s.stats.writes.Add(1)
		c.s.stats.sentBytes.Add(uint64(n))
	}
}

// readLoop delivers until the connection ends, and says why it did.
func (c *streamConn) readLoop(p *streamPeer, recv Receiver) error {
	st := &c.s.stats
	handled := 0 // frames of the batch that has begun, 0: none has
	defer c.s.leave(&handled)
	for {
		if handled == mostTogether || !c.frameAtHand() {
			c.s.leave(&handled)
		}
		frame, err := c.readFrame()
		if err != nil {
			if errors.Is(err, errGarbage) {
				st.garbage.Add(1)
			}
			return err
		}
		env, err := messages.ReadEnvelope(frame)
		if err != nil {
			st.garbage.Add(1)
			return fmt.Errorf("%w: %w", errGarbage, err)
		}
		c.s.enter(&handled)
		st.receivedFrames.Add(1)
		st.receivedBytes.Add(uint64(len(frame)))
		// A Ping that somebody asks as a question, and its answer, are not the stream's own.
		own := env.Kind == messages.EnvelopeKind_ENVELOPE_KIND_EVENT
		switch {
		case own && env.Type == typePing:
			c.answerPing(env)
		case own && env.Type == typePong:
			c.measure(p, env)
		case env.Type == typeHello:
			st.garbage.Add(1)
			return fmt.Errorf("%w: a second hello", errGarbage)
		default:
			// The certificate, or the Hello, says who it is: not the Envelope.
			env.From = p.name
			if env.DeadlineMs != 0 {
				env.DeadlineMs -= time.Duration(p.offset.Load()).Milliseconds()
			}
			p.receive(c, recv, env)
		}
	}
}

// frameAtHand tells whether a whole frame has been read already.
func (c *streamConn) frameAtHand() bool {
	have := c.br.Buffered()
	if have < frameHead {
		return false
	}
	head, err := c.br.Peek(frameHead)
	return err == nil && int64(binary.BigEndian.Uint32(head)) <= int64(have-frameHead)
}

// readFrame returns the next frame; its bytes are good until the next call.
func (c *streamConn) readFrame() ([]byte, error) {
	head, err := c.br.Peek(frameHead)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n > c.s.cfg.MaxFrame {
		return nil, fmt.Errorf("%w: frame of %d bytes", errGarbage, n)
	}
	if _, err := c.br.Discard(frameHead); err != nil {
		return nil, err
	}
	if n <= readBuffer {
		frame, err := c.br.Peek(n)
		if err != nil {
			return nil, err
		}
		_, err = c.br.Discard(n)
		return frame, err
	}
	buf := c.scratch
	if cap(buf) < n {
		// Grown as the bytes come, not as the length claims.
		buf = make([]byte, 0, min(n, keepBuffer))
	}
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), keepBuffer)
		at := len(buf)
		buf = append(buf, make([]byte, step)...)
		if _, err := io.ReadFull(c.br, buf[at:]); err != nil {
			return nil, err
		}
	}
	if cap(buf) <= keepBuffer {
		c.scratch = buf
	}
	return buf, nil
}

// retire takes no more Envelopes, writes what is queued, and hears the other
// side out for a moment.
func (c *streamConn) retire() {
	c.retired.Store(true)
	c.lame()
}

// lame is retire, but leaves it to the other side to end the connection.
func (c *streamConn) lame() {
	c.replaced.Store(true)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	time.AfterFunc(lingerTime, func() { c.close(errSuperseded) })
	c.wakeWriter()
}

func (c *streamConn) closeWrite() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// close ends the connection at once; the first cause is kept.
func (c *streamConn) close(cause error) {
	c.once.Do(func() {
		c.err.Store(&cause)
		c.mu.Lock()
		c.closed = true
		c.ride.Stop()
		c.mu.Unlock()
		close(c.done)
		c.nc.Close()
	})
}

func (c *streamConn) cause() error {
	if e := c.err.Load(); e != nil {
		return *e
	}
	return nil
}

// deadlineReader sets the read deadline anew before a read, though not more
// often than matters: a silent peer is one that sends no ping.
type deadlineReader struct {
	nc      net.Conn
	timeout time.Duration
	fixed   bool // the deadline in force is somebody else's
	set     time.Time
}

func (r *deadlineReader) Read(b []byte) (int, error) {
	if now := time.Now(); !r.fixed && now.Sub(r.set) > r.timeout/8 {
		if err := r.nc.SetReadDeadline(now.Add(r.timeout)); err != nil {
			return 0, err
		}
		r.set = now
	}
	return r.nc.Read(b)
}
