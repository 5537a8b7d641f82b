package sipfront

import (
	"context"
	"errors"
	"net/netip"
	"slices"

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
		return s.nodeWays(t.edge)
	case viaSide:
		flow, err := s.flowOf(&t.side)
		if err == nil {
			return []wayOut{{flow: flow, node: s.parts.Cluster.IsNode(flow.Remote())}}, nil
		}
		if t.side.bound {
			return nil, err
		}
	}
	u := t.next()
	hop, ok := numericHop(&u)
	if s.serves(&u) && !(ok && s.parts.Cluster.IsNode(hop.Addr)) {
		// A Contact that is another user of ours: the request comes back, as a
		// spiral (RFC 3261 6), and is routed again.
		hop, ok = resolve.Hop{Transport: s.cfg.Addresses[0].Transport, Addr: s.cfg.Addresses[0].Addr}, true
	} else if t.only.IsValid() && !ok && len(t.routes) == 0 && t.side.transport != "" {
		return s.again(&t.side, &u)
	} else if t.only.IsValid() && (!ok || hop.Addr.Addr() != t.only) {
		return nil, errFlowGone
	}
	if !ok {
		return nil, errResolve
	}
	return s.hopWays([]resolve.Hop{hop})
}

// again is the way to the peer of a dialog whose flow is gone, or was another
// node's, and whose Contact is a name: where it was, and, if it had dialled us,
// at the port of its Contact. A name server is not asked: only the address that
// the dialog began with may be called.
func (s *Server) again(x *side, contact *uri) ([]wayOut, error) {
	hops := []resolve.Hop{{Transport: x.transport, Addr: x.remote}}
	if at := netip.AddrPortFrom(x.remote.Addr(), portOr(contact.port, x.transport)); x.transport != "udp" && at != x.remote {
		hops = append(hops, resolve.Hop{Transport: x.transport, Addr: at})
	}
	return s.hopWays(hops)
}

// nodeHop is where another node of ours takes requests: over the first of this
// node's own transports that it serves too.
func (s *Server) nodeHop(node string) (resolve.Hop, bool) {
	for i := range s.cfg.Addresses {
		network := s.cfg.Addresses[i].Transport
		if addr, ok := s.parts.Cluster.SIPAddr(node, network); ok {
			return resolve.Hop{Transport: network, Addr: addr}, true
		}
	}
	return resolve.Hop{}, false
}

// nodeWays is the way to another node; what is too large for UDP goes by TCP,
// if that node serves it.
func (s *Server) nodeWays(node string) ([]wayOut, error) {
	hop, ok := s.nodeHop(node)
	if !ok {
		return nil, errFlowGone
	}
	flow, err := s.parts.Transport.Flow(hop.Transport, hop.Addr)
	if err != nil {
		return nil, err
	}
	w := wayOut{flow: flow, node: true}
	if hop.Transport == "udp" {
		w.large, _ = s.parts.Cluster.SIPAddr(node, "tcp")
	}
	return []wayOut{w}, nil
}

// maxDatagram is the size, in bytes, up to which a request may go over UDP where
// the path MTU is not known (RFC 3261 18.1.1).
const maxDatagram = 1300

// large tells whether copies of a request will be too large for UDP: what is
// added to it on the way out is about as long as this margin.
func large(r *request) bool { return len(r.msg.Raw) > maxDatagram-300 }

// byStream is the way that a request of this size takes instead of w, if that
// is one that was chosen for it and not a flow that it must keep.
func (s *Server) byStream(w wayOut, size int) (wayOut, bool) {
	if size <= maxDatagram || !w.large.IsValid() || w.flow.Reliable() {
		return wayOut{}, false
	}
	flow, err := s.parts.Transport.Flow("tcp", w.large)
	return wayOut{flow: flow, node: w.node}, err == nil
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

// resolve asks for the addresses of a name (RFC 3263). A name that is not ours
// and leads to this node would only come back.
func (s *Server) resolve(ctx context.Context, u uri, large bool) ([]wayOut, error) {
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
		Host: host, Port: u.port, Transport: network, Secure: u.scheme == "sips", Large: large,
	})
	if err != nil {
		return nil, err
	}
	if u.scheme == "sips" && slices.ContainsFunc(hops, func(h resolve.Hop) bool { return !secure(h.Transport) }) {
		return nil, errInsecure
	}
	others := slices.DeleteFunc(slices.Clone(hops), func(h resolve.Hop) bool { return s.isSelf(h.Addr) })
	if len(others) == 0 {
		return nil, errLoop
	}
	return s.hopWays(others)
}

// unicast tells whether an address is one host's. A Contact must not make a
// node shout at a whole network.
func unicast(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (s *Server) hopWays(hops []resolve.Hop) ([]wayOut, error) {
	var ways []wayOut
	err := errWay
	for _, h := range hops {
		if !unicast(h.Addr.Addr()) {
			continue
		}
		flow, e := s.parts.Transport.Flow(h.Transport, h.Addr)
		if e != nil {
			err = e
			continue
		}
		w := wayOut{flow: flow, node: s.parts.Cluster.IsNode(h.Addr)}
		if h.Transport == "udp" {
			w.large = h.Addr
		}
		ways = append(ways, w)
	}
	if len(ways) > 0 {
		err = nil
	}
	return ways, err
}
