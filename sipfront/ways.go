package sipfront

import (
	"context"
	"errors"
	"net/netip"

	"hereis/sipfront/resolve"
	"hereis/sipfront/transport"
)

// errResolve says that a name server must be asked.
var errResolve = errors.New("name to be resolved")

// next is the URI that a target is called by: the hop that stands in for it,
// its first Route or its own.
func (t *target) next() uri {
	if t.hop != nil {
		return *t.hop
	}
	if len(t.routes) > 0 {
		if u, err := routeURI(t.routes[0]); err == nil {
			return u
		}
	}
	return t.uri
}

// ways finds the flows to a target as far as that can be done at once.
func (s *Server) ways(t *target) ([]wayOut, error) {
	switch t.via {
	case viaNode:
		addr, ok := s.parts.Cluster.SIPAddr(t.edge, "udp")
		if !ok {
			return nil, errFlowGone
		}
		flow, err := s.parts.Transport.Flow("udp", addr)
		if err != nil {
			return nil, err
		}
		return []wayOut{{flow, true}}, nil
	case viaSide:
		flow, err := s.flowOf(&t.side)
		if err == nil {
			return []wayOut{{flow, s.parts.Cluster.IsNode(flow.Remote())}}, nil
		}
		if t.side.bound {
			return nil, err
		}
	}
	u := t.next()
	hop, ok := numericHop(&u)
	if s.serves(&u) {
		// A Contact that is another user of ours: the request comes back, as a
		// spiral (RFC 3261 6), and is routed again.
		hop, ok = resolve.Hop{Transport: s.cfg.Addresses[0].Transport, Addr: s.cfg.Addresses[0].Addr}, true
	}
	if !ok {
		return nil, errResolve
	}
	return s.hopWays([]resolve.Hop{hop})
}

// flowOf is the flow of a side of this node's.
func (s *Server) flowOf(x *side) (transport.Flow, error) {
	if x.flow == nil {
		return s.parts.Transport.Flow(x.transport, x.remote)
	}
	if flow, ok := s.parts.Transport.ByID(x.flow); ok {
		return flow, nil
	}
	if x.flow.GetStream() {
		return nil, errFlowGone
	}
	return s.parts.Transport.Restore(x.flow, x.transport, x.local, x.remote)
}

// numericHop is where a URI leads that names an address (RFC 3263 4.1, 4.2).
func numericHop(u *uri) (resolve.Hop, bool) {
	host := u.host
	if m, ok := u.param("maddr"); ok {
		host = m
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return resolve.Hop{}, false
	}
	network := u.transportOr("udp")
	return resolve.Hop{Transport: network, Addr: netip.AddrPortFrom(a.Unmap(), portOr(u.port, network))}, true
}

// resolve asks for the addresses of a name.
func (s *Server) resolve(ctx context.Context, u uri) ([]wayOut, error) {
	if s.parts.Resolver == nil {
		return nil, errWay
	}
	host := u.host
	if m, ok := u.param("maddr"); ok {
		host = m
	}
	network := ""
	if t, ok := u.param("transport"); ok {
		network = lower(t)
	}
	hops, err := s.parts.Resolver.Resolve(ctx, resolve.Target{
		Host: host, Port: u.port, Transport: network, Secure: u.scheme == "sips",
	})
	if err != nil {
		return nil, err
	}
	return s.hopWays(hops)
}

func (s *Server) hopWays(hops []resolve.Hop) ([]wayOut, error) {
	var ways []wayOut
	err := errWay
	for _, h := range hops {
		flow, e := s.parts.Transport.Flow(h.Transport, h.Addr)
		if e != nil {
			err = e
			continue
		}
		ways = append(ways, wayOut{flow, s.parts.Cluster.IsNode(h.Addr)})
	}
	if len(ways) > 0 {
		err = nil
	}
	return ways, err
}
