package sipfront

import (
	"net/netip"
	"sort"

	"hereis/messages"
)

// target is one place to try: what is written into the request, and how it
// gets there.
type target struct {
	// key tells targets apart over a second question to the cluster.
	key    targetKey
	uri    uri
	routes []string
	q      uint32
	// hop, if not nil, is called in the place of the first Route or uri.
	hop *uri
	// side is the flow to leave by, if via is viaSide.
	side side
	via  viaKind
	// edge is the node that the request goes to, for viaNode.
	edge string
	// only, if valid, is the one host that the URI may name: the peer of a
	// dialog. Its token is no leave to call anybody else.
	only netip.Addr
	// breadth is the Max-Breadth that goes along, 0 for none (RFC 5393 5.3.3).
	breadth int
}

// targetKey is what a target is known by: how it came to be one, and what the
// cluster knows a binding by.
type targetKey struct {
	way                   string
	edge, remote, contact string
}

// How a target came to be one.
const (
	wayPlanned    = "planned"
	wayAround     = "around"
	wayDirect     = "direct"
	wayRedirected = "redirected"
)

// viaKind is how a target is reached.
type viaKind int

const (
	// viaSide: by a flow of this node; if that is gone and nothing binds it, by the URI.
	viaSide viaKind = iota
	// viaURI: the first Route or the Request-URI is called (RFC 3263).
	viaURI
	// viaNode: another node of ours is the next SIP hop.
	viaNode
)

// device is one UA instance: its flows are alternatives, tried in turn (RFC 5626 5.3).
type device []*target

// proxy passes a request on, statefully (RFC 3261 16).
func (s *Server) proxy(tx serverTx, r *request, p *plan) {
	err := s.mayForward(r, p)
	if err == nil {
		err = s.admit(r, p)
	}
	if err != nil {
		s.refuse(tx, r, err)
		return
	}
	if p.way != wayHop {
		r = s.withoutOurs(r)
	}
	f := s.newFork(tx, r, p)
	if s.mayStore(r, p) {
		f.store = true
		f.waitToKeep()
	}
	f.call = s.dialogs.begin(r, p)
	f.leaving = s.dialogs.leave(r, p)
	if f.invite {
		// A caller that waits for nothing repeats nothing.
		f.trying()
		tx.Keep(f)
	}
	if p.way == wayUser {
		f.locate()
		return
	}
	t, err := s.planned(r, p)
	f.do(func() {
		if err != nil {
			f.finish(status(err, s.cfg.RetryAfter))
			return
		}
		d := device{t}
		if around := s.around(r, p); around != nil {
			d = append(d, around)
		}
		f.add([]device{d})
		f.next()
	})
}

// mayForward is the part of RFC 3261 16.3 that concerns proxies alone.
func (s *Server) mayForward(r *request, p *plan) error {
	if r.maxForwards == 0 {
		return errHops
	}
	if tags := r.values("Proxy-Require"); len(tags) > 0 {
		var bad badExtensionError
		for i, t := range tags {
			if i > 0 {
				bad.tags += ", "
			}
			bad.tags += t
		}
		return bad
	}
	if s.looped(r, p) {
		return errLoop
	}
	if r.maxBreadth == 0 {
		s.count.breadthExceeded.Add(1)
		return errBreadth
	}
	return nil
}

// planned is the one target of a request that nobody needs to be asked about.
func (s *Server) planned(r *request, p *plan) (*target, error) {
	t := &target{}
	if err := s.plannedIn(t, r, p); err != nil {
		return nil, err
	}
	return t, nil
}

// plannedIn is planned with room for the target.
func (s *Server) plannedIn(t *target, r *request, p *plan) error {
	*t = target{key: targetKey{way: wayPlanned}, uri: p.target, routes: p.routes, q: 1000, hop: p.hop}
	if p.way == wayHop || p.way == wayForeign {
		t.via = viaURI
		if next := t.next(); p.target.scheme == "sips" && !secure(next.transportOr("udp")) {
			return errInsecure
		}
		return nil
	}
	out := p.token.out(r)
	if p.target.scheme == "sips" && out.transport != "" && !secure(out.transport) {
		return errInsecure
	}
	t.side = *out
	if p.token.kind == tokenDialog {
		t.only = out.remote.Addr()
	}
	if p.token.edge == s.parts.Cluster.Self() {
		if out.transport == "" {
			t.via = viaURI
		}
		return nil
	}
	if _, ok := s.nodeHop(p.token.edge); ok {
		t.via, t.edge = viaNode, p.token.edge
		t.routes = append([]string{p.tokenRoute}, p.routes...)
		return nil
	}
	if out.bound {
		return errFlowGone
	}
	t.via = viaURI
	return nil
}

// around is the way of an in-dialog request past the next node of ours, for
// when that does not answer: by the node after it, or straight to a peer that
// can be called without it.
func (s *Server) around(r *request, p *plan) *target {
	if p.token == nil || p.token.kind != tokenDialog {
		return nil
	}
	silent, routes := p.token, p.routes
	if len(routes) > 0 {
		if next := p.next; next != nil && next.edge != silent.edge {
			if silent.edge != s.parts.Cluster.Self() {
				// This node stands in for the silent one.
				t, err := s.planned(r, &plan{way: wayFlow, target: p.target, token: next, tokenRoute: routes[0], routes: routes[1:]})
				if err != nil {
					return nil
				}
				t.key.way = wayAround
				return t
			}
			silent, routes = next, routes[1:]
		} else if silent.edge == s.parts.Cluster.Self() {
			return nil
		}
	} else if silent.edge == s.parts.Cluster.Self() {
		return nil
	}
	out := silent.out(r)
	if out.bound {
		return nil
	}
	return &target{key: targetKey{way: wayAround}, uri: p.target, routes: routes, q: 1000, via: viaURI, side: *out, only: out.remote.Addr()}
}

// devices turns what the cluster located into devices, best q first. Two
// flows of one instance are one device. insecure: there are others, that a
// sips URI must not be carried to.
func (s *Server) devices(located *messages.Located, r *request) (list []device, insecure bool) {
	byInstance := map[string]int{}
	for _, m := range located.GetTargets() {
		t, err := s.located(m, r.target.scheme == "sips")
		if err != nil {
			insecure = insecure || err == errInsecure
			s.log.Debug("target not usable", "call_id", r.callID, "err", err)
			continue
		}
		if id := m.GetInstanceId(); id != "" && m.GetRegId() != 0 {
			if i, ok := byInstance[id]; ok {
				list[i] = append(list[i], t)
				continue
			}
			byInstance[id] = len(list)
		}
		list = append(list, s.alternatives(t, m))
	}
	sortByQ(list)
	return list, insecure
}

// alternatives are a target and, where only the edge's place is in between, its
// Contact itself: an edge that has died, or that cannot be reached from here
// while others can, does not make a device unreachable that anybody can call.
// The Contact comes first if the edge is known to be out of reach, which shows
// before it is declared failed.
func (s *Server) alternatives(t *target, m *messages.Target) device {
	if t.via != viaNode || m.GetFlowBound() {
		return device{t}
	}
	direct := *t
	direct.key.way, direct.via, direct.edge, direct.routes = wayDirect, viaURI, "", m.GetPath()
	if !s.parts.Cluster.Up(t.edge) {
		return device{&direct, t}
	}
	return device{t, &direct}
}

func sortByQ(list []device) {
	sort.SliceStable(list, func(i, j int) bool { return list[i][0].q > list[j][0].q })
}

// secure tells whether a transport keeps the promise of a sips URI (RFC 3261
// 26.2.2, RFC 5630 3.1.3).
func secure(network string) bool { return network == "tls" || network == "wss" }

// mayCarry tells whether a binding may be used for a sips URI, its own or the
// caller's: by a flow with TLS, also on the way to its edge, or by a sips Contact.
func (s *Server) mayCarry(m *messages.Target, contact *uri) bool {
	if _, tls := s.parts.Cluster.SIPAddr(m.GetEdge(), "tls"); !tls && m.GetEdge() != s.parts.Cluster.Self() && m.GetEdgeLive() {
		return false
	}
	if m.GetFlowBound() {
		return secure(m.GetTransport())
	}
	return contact.scheme == "sips"
}

// located says how a target is reached from this node: by its flow if that is
// here, through the edge that holds it, or, where nothing binds it, by its
// Contact from the edge, or from here while the edge is away.
func (s *Server) located(m *messages.Target, sips bool) (*target, error) {
	u, err := parseURI(m.GetContact())
	if err != nil {
		return nil, err
	}
	if (sips || u.scheme == "sips") && !s.mayCarry(m, &u) {
		return nil, errInsecure
	}
	t := &target{
		key: targetKey{edge: m.GetEdge(), remote: m.GetRemote(), contact: m.GetContact()},
		uri: u, routes: m.GetPath(), q: m.GetQ(),
	}
	t.side = side{flow: m.GetFlow(), transport: m.GetTransport(), bound: m.GetFlowBound()}
	t.side.local, _ = netip.ParseAddrPort(m.GetLocal())
	t.side.remote, _ = netip.ParseAddrPort(m.GetRemote())
	self := s.parts.Cluster.Self()
	switch {
	case m.GetEdge() == self && m.GetFlowBound():
		return t, nil
	case m.GetEdge() == self:
		t.via = viaURI
		return t, nil
	case !m.GetEdgeLive() && m.GetFlowBound():
		return nil, errFlowGone
	case !m.GetEdgeLive():
		t.via = viaURI
		return t, nil
	}
	hop, ok := s.nodeHop(m.GetEdge())
	if !ok {
		if m.GetFlowBound() {
			return nil, errFlowGone
		}
		t.via = viaURI
		return t, nil
	}
	tok := token{kind: tokenHop, edge: m.GetEdge(), sides: []side{t.side}}
	if !m.GetFlowBound() {
		tok.sides[0] = side{}
	}
	t.via, t.edge = viaNode, m.GetEdge()
	params := ";lr;ob;" + passParam
	if hop.Transport != "udp" {
		params = ";transport=" + hop.Transport + ";lr;ob"
	}
	route := "<sip:" + string(tok.seal(s.flowKey, "")) + "@" + hop.Addr.String() + params + ">"
	t.routes = append([]string{route}, m.GetPath()...)
	return t, nil
}
