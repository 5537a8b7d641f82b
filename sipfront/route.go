package sipfront

import (
	"net/netip"
	"strings"

	"hereis/actors"
)

// way is what the routing of RFC 3261 16.4 and 16.5 came to.
type way int

const (
	// wayUser: a user of ours; the cluster says where they are.
	wayUser way = iota
	// wayFlow: a token of ours names the flow.
	wayFlow
	// wayHop: the next Route is another node of ours.
	wayHop
	// wayForeign: a domain or peer that is not ours and may be called by some.
	wayForeign
	// wayNode: this node itself is asked.
	wayNode
	// wayDialog: within a subscription that this node serves.
	wayDialog
)

// plan is where a request goes: the outcome of preprocessing, before anybody is asked.
type plan struct {
	way way
	// target and routes are what is left after RFC 3261 16.4.
	target uri
	routes []string
	aor    actors.AoR
	token  *token
	// tokenRoute is the Route value that token came from.
	tokenRoute string
	// next is the token of the first of routes, behind token, if it is one of a dialog.
	next *token
	// room, if any, is for tokens that are opened.
	room []token
	// hop, if not nil, is where a wayForeign is called; toTrunk: it is a trunk.
	hop     *uri
	toTrunk bool
	// marked: a node of ours has accepted the request already.
	marked bool
}

// plan does RFC 3261 16.4 and the first part of 16.5. A token of ours is
// looked at before any domain test.
func (s *Server) plan(r *request) (*plan, error) {
	is := marked(s.markKey, s.parts.Cluster.NowMS(), r)
	if _, has := r.value(markHeader); has && !is {
		s.count.badMarks.Add(1)
	}
	return s.planMarked(r, is)
}

// planMarked is plan for a request whose mark has been looked at.
func (s *Server) planMarked(r *request, is bool) (*plan, error) {
	p := &plan{}
	return p, s.planIn(p, r, is)
}

// planIn is planMarked with room for the plan.
func (s *Server) planIn(p *plan, r *request, is bool) error {
	*p = plan{target: r.target, routes: r.routes, marked: is, room: p.room}
	if err := s.unstrict(p, r); err != nil {
		return err
	}
	s.stripMaddr(p)
	if err := s.popRoutes(p, r); err != nil {
		return err
	}
	if p.token != nil {
		s.passGone(p, r)
		p.way = wayFlow
		return s.mayUse(p, r)
	}
	if len(p.routes) > 0 {
		u, err := routeURI(p.routes[0])
		if err != nil {
			return err
		}
		// A maddr beside our address would lead past it, to anybody.
		_, maddr := u.param("maddr")
		if a, ok := addrPort(&u); ok && !maddr && s.parts.Cluster.IsNode(a) {
			p.way = wayHop
			return nil
		}
		return errForeign
	}
	if done, err := s.planDialog(p, r); done || err != nil {
		return err
	}
	return s.planTarget(p)
}

// planDialog recognises our Contact of a subscription: a request to it is for
// the node that serves that, wherever it has come in.
func (s *Server) planDialog(p *plan, r *request) (bool, error) {
	t, err := FlowToken(p.target.user).open(s.flowKey, r.callID)
	if err != nil || t.kind != tokenSubscription {
		return false, nil
	}
	if t.edge == s.parts.Cluster.Self() {
		p.way = wayDialog
		return true, nil
	}
	hop, ok := numericHop(&p.target)
	if !ok || !s.parts.Cluster.IsNode(hop.Addr) || !s.parts.Cluster.Up(t.edge) {
		// That node is gone, and the subscription with it.
		return false, errNoDialog
	}
	p.way = wayHop
	return true, nil
}

// planTarget decides on a Request-URI that no Route stands before: ours is a
// served domain with no port or a SIP port of ours, or an address of a node of ours.
func (s *Server) planTarget(p *plan) error {
	u := &p.target
	if u.scheme != "tel" {
		served, here := s.serves(u), s.isAddress(u)
		if !served && !here {
			if s.foreign(p) {
				return nil
			}
			return errForeign
		}
		if u.user == "" {
			p.way = wayNode
			return nil
		}
	}
	aor, err := actors.ParseAoR(u.text, s.cfg.Domains)
	if err != nil {
		return err
	}
	p.way, p.aor = wayUser, aor
	return nil
}

// unstrict repairs what a strict router did: our own Record-Route URI came as
// the Request-URI, and the real one stands last in Route.
func (s *Server) unstrict(p *plan, r *request) error {
	if len(p.routes) == 0 {
		return nil
	}
	t, err := FlowToken(p.target.user).open(s.flowKey, r.callID)
	if err != nil || t.kind != tokenDialog {
		return nil
	}
	last := len(p.routes) - 1
	u, err := routeURI(p.routes[last])
	if err != nil {
		return err
	}
	p.token, p.tokenRoute = t, "<"+p.target.text+">"
	p.target, p.routes = u, p.routes[:last]
	return nil
}

// stripMaddr takes a maddr away that names us: it has done its work (RFC 3261 16.4).
func (s *Server) stripMaddr(p *plan) {
	maddr, ok := p.target.param("maddr")
	if !ok {
		return
	}
	m := p.target
	m.host = strings.Trim(lower(maddr), "[]")
	if s.serves(&m) || s.isAddress(&m) {
		p.target = p.target.without(true, "maddr", "transport")
	}
}

// popRoutes takes our own values off the top of Route, up to and with the
// first that has a token: that one says where the request goes from here.
func (s *Server) popRoutes(p *plan, r *request) error {
	for len(p.routes) > 0 {
		u, err := routeURI(p.routes[0])
		if err != nil {
			return err
		}
		t, err := p.open(FlowToken(u.user), s.flowKey, r.callID)
		switch {
		case err == nil && t.kind == tokenSubscription:
			return errToken
		case err == nil && p.token == nil:
			p.token, p.tokenRoute = t, p.routes[0]
		case err == nil && t.kind == tokenDialog && t.equal(p.token):
			// The other transport's half of a Record-Route pair.
		case p.token != nil || !s.isHere(&u):
			if err == nil && t.kind == tokenDialog {
				p.next = t
			}
			return nil
		}
		p.routes = p.routes[1:]
	}
	return nil
}

// passGone goes past nodes of ours that have left the view: in a dialog the
// next Route may be the token of such a node, or this one is (where many nodes
// share the host in Record-Route, any of them gets it), and any node can act on
// a token.
func (s *Server) passGone(p *plan, r *request) {
	live := func(edge string) bool {
		_, ok := s.nodeHop(edge)
		return ok || edge == s.parts.Cluster.Self()
	}
	for p.token.kind == tokenDialog && p.next != nil && !(live(p.token.edge) && live(p.next.edge)) {
		p.token, p.tokenRoute, p.routes, p.next = p.next, p.routes[0], p.routes[1:], nil
		if len(p.routes) > 0 {
			p.next, _ = s.dialogToken(p, p.routes[0], r)
		}
	}
}

// dialogToken opens a Route value that is our Record-Route of this dialog.
func (s *Server) dialogToken(p *plan, route string, r *request) (*token, bool) {
	u, err := routeURI(route)
	if err != nil {
		return nil, false
	}
	t, err := p.open(FlowToken(u.user), s.flowKey, r.callID)
	if err != nil || t.kind != tokenDialog {
		return nil, false
	}
	return t, true
}

// open opens a token in the plan's room, if there is any.
func (p *plan) open(f FlowToken, key *macKey, bind string) (*token, error) {
	if len(p.room) == 0 {
		return f.open(key, bind)
	}
	t, err := f.openIn(&p.room[0], key, bind)
	if err == nil {
		p.room = p.room[1:]
	}
	return t, err
}

// mayUse tells whether this request may use the token that it brought: one
// for the way between nodes is for nodes, and one of a dialog is for its dialog.
func (s *Server) mayUse(p *plan, r *request) error {
	switch {
	case p.token.kind == tokenHop && !p.marked:
		return errToken
	case p.token.kind == tokenDialog && r.toTag == "":
		return errToken
	}
	return nil
}

// equal tells whether two tokens say the same.
func (t *token) equal(o *token) bool {
	if t.kind != o.kind || t.edge != o.edge || t.caller != o.caller || len(t.sides) != len(o.sides) {
		return false
	}
	for i := range t.sides {
		a, b := &t.sides[i], &o.sides[i]
		if a.transport != b.transport || a.local != b.local || a.remote != b.remote || a.bound != b.bound || !a.flow.Same(b.flow) {
			return false
		}
	}
	return true
}

// out is the side by which a request leaves. In a dialog the caller's From tag
// tells the direction, wherever the request comes from.
func (t *token) out(r *request) *side {
	if t.kind == tokenDialog && hashTag(r.fromTag) == t.caller {
		return &t.sides[1]
	}
	return &t.sides[0]
}

// serves tells whether a URI is of a domain of ours, with no port or a SIP port of ours.
func (s *Server) serves(u *uri) bool {
	if u.opaque != "" {
		return false
	}
	_, ok := s.cfg.Domains.Canonical(bracket(u.host))
	return ok && (u.port == 0 || s.ports[u.port] || s.parts.Cluster.IsNodePort(u.port))
}

// isAddress tells whether a URI names a SIP address of a node of ours, port and all.
func (s *Server) isAddress(u *uri) bool {
	a, ok := addrPort(u)
	return ok && (s.isSelf(a) || s.parts.Cluster.IsNode(a))
}

// isHere tells whether a Route is for this node: its own address, or a domain
// that every node serves. Another node's address is a hop.
func (s *Server) isHere(u *uri) bool {
	a, ok := addrPort(u)
	if ok && s.isSelf(a) {
		return true
	}
	if ok && s.parts.Cluster.IsNode(a) {
		return false
	}
	return s.serves(u)
}

func (s *Server) isSelf(a netip.AddrPort) bool {
	for i := range s.cfg.Addresses {
		if s.cfg.Addresses[i].Addr == a {
			return true
		}
	}
	return false
}

// addrPort is where a URI with a numeric host points.
func addrPort(u *uri) (netip.AddrPort, bool) {
	a, ok := u.addr()
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, portOr(u.port, u.transportOr("udp"))), true
}

// portOr is a port, or the default one of a transport (RFC 3261 19.1.2).
func portOr(port uint16, network string) uint16 {
	switch {
	case port != 0:
		return port
	case network == "tls" || network == "wss":
		return 5061
	}
	return 5060
}

// routeURI reads the URI of a Route, Record-Route or Path value.
func routeURI(v string) (uri, error) {
	text, _, ok := splitAddr(v)
	if !ok {
		return uri{}, errMessage
	}
	u, err := parseURI(text)
	if err == nil && u.opaque != "" {
		err = errURI
	}
	return u, err
}
