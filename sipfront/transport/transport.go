package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hereis/messages"
)

// ErrNoListener is returned where no socket of ours can reach an address: an
// unknown transport, or an address family that is not listened to.
var ErrNoListener = errors.New("no listener for this transport and address")

// Transport owns the sockets and the flows.
type Transport struct {
	cfg     Config
	handler Handler
	makeID  func(stream bool) *messages.FlowID
	log     *slog.Logger
	parser  *Parser
	// heads has *head that are free.
	heads sync.Pool
	flows *flowTable
	count counters
	// udp is written by Listen alone, before Run and before any flow exists.
	udp   []*udpListener
	tcp   []*tcpListener
	conns *conns
	// sources is nil if no source is bounded.
	sources *sources
}

// New checks cfg. newFlowID gives the ids of flows; stream tells connections
// from UDP. h is called by the sockets' goroutines and must not wait.
func New(cfg Config, h Handler, newFlowID func(stream bool) *messages.FlowID, log *slog.Logger) (*Transport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	if cfg.Sockets == 0 {
		cfg.Sockets = runtime.GOMAXPROCS(0)
	}
	t := &Transport{cfg: cfg, handler: h, makeID: newFlowID, log: log, parser: NewParser(cfg.Limits)}
	t.conns = newConns(cfg.Streams)
	t.sources = newSources(cfg.Sources, time.Now())
	t.count.malformed = make(map[string]uint64)
	t.flows = newFlowTable(cfg.MaxFlows, func() { t.count.evicted.Add(1) })
	return t, nil
}

// Listen binds every address or none. A port that another process has is an
// error, also where SO_REUSEPORT would let us share it.
func (t *Transport) Listen() error {
	for _, addr := range t.cfg.UDP {
		l, err := listenUDP(t, addr, t.cfg.Sockets)
		if err != nil {
			t.Close()
			return fmt.Errorf("transport: listen udp %s: %w", addr, err)
		}
		t.udp = append(t.udp, l)
	}
	for _, addr := range t.cfg.TCP {
		l, err := listenTCP(t, addr)
		if err != nil {
			t.Close()
			return fmt.Errorf("transport: listen tcp %s: %w", addr, err)
		}
		t.tcp = append(t.tcp, l)
	}
	return nil
}

// Run reads from the sockets until ctx ends, then closes them. It is called
// once, after Listen.
func (t *Transport) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, t.Close)
	defer stop()
	var g errgroup.Group
	for _, l := range t.udp {
		for _, s := range l.sockets {
			g.Go(func() error { return s.read(ctx) })
		}
	}
	for _, l := range t.tcp {
		g.Go(func() error { return l.accept(ctx) })
	}
	err := g.Wait()
	t.Close()
	t.conns.wg.Wait()
	return err
}

// Close gives the ports back; Run does so by itself when its context ends.
func (t *Transport) Close() {
	for _, l := range t.udp {
		l.close()
	}
	for _, l := range t.tcp {
		_ = l.ln.Close() // the only error is that it was closed before
	}
	t.conns.close()
}

// TCPAddrs are the addresses that take connections.
func (t *Transport) TCPAddrs() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(t.tcp))
	for _, l := range t.tcp {
		out = append(out, l.addr)
	}
	return out
}

// Addrs are the UDP addresses listened at, with the ports that the system chose.
func (t *Transport) Addrs() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(t.udp))
	for _, l := range t.udp {
		out = append(out, l.addr)
	}
	return out
}

// Flow returns the flow to remote, without waiting: over "udp" from a socket of
// the same address family; over "tcp", if TCP is listened to, the connection
// that there is or a new one. A remote that has an id keeps it. ErrNoListener if
// we cannot reach it.
func (t *Transport) Flow(transport string, remote netip.AddrPort) (Flow, error) {
	if !remote.IsValid() || remote.Port() == 0 {
		return nil, ErrNoListener
	}
	remote = unmap(remote)
	if transport == "tcp" && len(t.tcp) > 0 {
		return t.dialTCP(remote)
	}
	if transport != "udp" {
		return nil, ErrNoListener
	}
	var best *udpListener
	for _, l := range t.udp {
		// A socket on loopback for loopback, where there is one.
		if l.reaches(remote) && (best == nil || l.addr.Addr().IsLoopback()) {
			best = l
		}
	}
	if best == nil {
		return nil, ErrNoListener
	}
	return best.flow(remote), nil
}

// Restore returns the flow of an id that was given out earlier: by this process,
// or for UDP by an earlier incarnation with the same local address. A flow that
// cannot come back is ErrFlowClosed.
func (t *Transport) Restore(id *messages.FlowID, transport string, local, remote netip.AddrPort) (Flow, error) {
	if f, ok := t.flows.byID(id); ok {
		return f, nil
	}
	if id.GetStream() || transport != "udp" || !remote.IsValid() {
		return nil, ErrFlowClosed
	}
	local, remote = unmap(local), unmap(remote)
	for _, l := range t.udp {
		if l.addr == local && l.reaches(remote) {
			f := &udpFlow{socket: l.socket(remote), remote: remote}
			t.flows.pin(f, func(bool) *messages.FlowID { return id })
			// If the 4-tuple has a newer id already, the old one leads the same way.
			f.id.Store(id)
			return f, nil
		}
	}
	return nil, ErrFlowClosed
}

// ByID finds a flow of this process that has an id and is open.
func (t *Transport) ByID(id *messages.FlowID) (Flow, bool) { return t.flows.byID(id) }

// Open tells whether ByID would find the flow.
func (t *Transport) Open(id *messages.FlowID) bool {
	_, ok := t.flows.byID(id)
	return ok
}

// Pin gives a flow its id, and with it a place in the table, so that ByID finds it.
func (t *Transport) Pin(f Flow) *messages.FlowID { return f.ID() }

// PinTo is Pin that writes the id to room.
func (t *Transport) PinTo(f Flow, room *messages.FlowID) {
	if u, ok := f.(*udpFlow); ok && u.id.Load() == nil {
		id := u.pin()
		room.Incarnation, room.Counter, room.Stream = id.incarnation, id.counter, false
		return
	}
	id := f.ID()
	room.Incarnation, room.Counter, room.Stream = id.Incarnation, id.Counter, id.Stream
}

// Parser is the parser that the sockets use.
func (t *Transport) Parser() *Parser { return t.parser }

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	s := t.count.snapshot()
	s.Flows, s.Connections, s.Sources = t.flows.len(), t.conns.count(), t.sources.len()
	for _, l := range t.udp {
		for _, sock := range l.sockets {
			s.Overflowed += sock.overflowed()
		}
	}
	return s
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
