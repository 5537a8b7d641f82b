package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// tcpListener takes connections at one address.
type tcpListener struct {
	t    *Transport
	addr netip.AddrPort
	ln   *net.TCPListener
}

func listenTCP(t *Transport, addr netip.AddrPort) (*tcpListener, error) {
	network := "tcp"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	ln, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	return &tcpListener{t: t, addr: netip.AddrPortFrom(addr.Addr(), port), ln: ln}, nil
}

// accept is the listener's goroutine. No error of one connection, and no lack
// of descriptors, ends it.
func (l *tcpListener) accept(ctx context.Context) error {
	var pause time.Duration
	for {
		conn, err := l.ln.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.t.log.Debug("accept", "local", l.addr, "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		remote := unmap(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
		f := newStreamFlow(l.t, "tcp", unmap(conn.LocalAddr().(*net.TCPAddr).AddrPort()), remote)
		f.conn, f.inbound = conn, true
		if !l.t.conns.add(f, f.serve) {
			l.t.count.connectionsRefused.Add(1)
			_ = conn.Close()
		}
	}
}

// conns are the open connections. It owns their goroutines: none starts after close.
type conns struct {
	limits Streams
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	open     map[*streamFlow]struct{}
	byRemote map[netip.AddrPort]*streamFlow // the latest to each remote
	sources  map[netip.Addr]int             // connections that an address opened
}

func newConns(limits Streams) *conns {
	return &conns{
		limits: limits, open: make(map[*streamFlow]struct{}),
		byRemote: make(map[netip.AddrPort]*streamFlow), sources: make(map[netip.Addr]int),
	}
}

// add admits f and starts its goroutine, unless a limit is reached or all is over.
func (c *conns) add(f *streamFlow, serve func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	source := f.remote.Addr()
	if c.closed || len(c.open) >= c.limits.Connections || f.inbound && c.sources[source] >= c.limits.PerSource {
		return false
	}
	c.open[f] = struct{}{}
	c.byRemote[f.remote] = f
	if f.inbound {
		c.sources[source]++
	}
	c.wg.Go(serve)
	return true
}

// spawn starts a goroutine that belongs to an admitted connection.
func (c *conns) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

func (c *conns) remove(f *streamFlow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[f]; !ok {
		return
	}
	delete(c.open, f)
	if c.byRemote[f.remote] == f {
		delete(c.byRemote, f.remote)
	}
	if source := f.remote.Addr(); f.inbound {
		if c.sources[source]--; c.sources[source] == 0 {
			delete(c.sources, source)
		}
	}
}

func (c *conns) to(remote netip.AddrPort) (*streamFlow, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.byRemote[remote]
	return f, ok
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// close ends every connection and admits no more.
func (c *conns) close() {
	c.mu.Lock()
	c.closed = true
	all := make([]*streamFlow, 0, len(c.open))
	for f := range c.open {
		all = append(all, f)
	}
	c.mu.Unlock()
	for _, f := range all {
		f.close()
	}
}

// dialTCP returns the connection to remote, or a new one that is being opened:
// what is sent meanwhile waits, and is lost if it cannot be opened, which
// OnClose then tells.
func (t *Transport) dialTCP(remote netip.AddrPort) (Flow, error) {
	if f, ok := t.conns.to(remote); ok {
		return f, nil
	}
	f := newStreamFlow(t, "tcp", netip.AddrPort{}, remote)
	if !t.conns.add(f, f.dial) {
		t.count.connectionsRefused.Add(1)
		return nil, fmt.Errorf("%s: %w", remote, ErrFlowClosed)
	}
	return f, nil
}

// dial connects, and then serves.
func (f *streamFlow) dial() {
	conn, err := f.connect()
	if err != nil {
		f.t.count.sendErrors.Add(1)
		f.t.log.Debug("dial", "remote", f.remote, "err", err)
		f.close()
		return
	}
	if !f.connected(conn) {
		_ = conn.Close()
		return
	}
	f.serve()
}

// connect ends with Streams.Dial or with the flow.
func (f *streamFlow) connect() (net.Conn, error) {
	// Not with a request: others wait for this connection too.
	ctx, cancel := context.WithTimeout(context.Background(), f.t.cfg.Streams.Dial)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-f.done:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", f.remote.String())
}
