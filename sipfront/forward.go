package sipfront

import (
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"hereis/sipfront/transport"
)

// magic begins every branch of RFC 3261 (8.1.1.7).
const magic = "z9hG4bK"

// forwarded is a request with one hop less to go (RFC 3261 16.6 steps 1 and 3).
func (s *Server) forwarded(r *request) draft {
	d := draft{method: r.method, vias: r.vias, headers: r.headers, forwarded: true, hops: s.cfg.MaxForwards, body: r.body}
	if r.maxForwards > 0 {
		d.hops = r.maxForwards - 1
	}
	return d
}

// draft is RFC 3261 16.6 steps 2 to 8 for one way to one target.
func (s *Server) draft(f *fork, t *target, w wayOut) draft {
	d := s.draftFor(f.r, f.plan, t, w)
	if f.loop == "" {
		f.loop = s.loopHash(f.r, f.plan)
	}
	var room [64]byte
	d.setVia(w.flow, s.advertised(w.flow), s.appendBranch(room[:0], f.r, f.loop))
	return d
}

// draftFor is draft without our Via.
func (s *Server) draftFor(r *request, p *plan, t *target, w wayOut) draft {
	d := s.forwarded(r)
	d.target, d.routes = t.uri, t.routes
	s.route(&d)
	if recordRouted(r) {
		d.first = s.recordRoute(r, t, w)
	}
	if t.breadth > 0 {
		d.first = append(d.first, header{"Max-Breadth", strconv.Itoa(t.breadth)})
	}
	if w.node && p.accepted() {
		d.first = append(d.first, header{markHeader, mark(s.markKey, s.parts.Cluster.Self(), s.parts.Cluster.NowMS(), r)})
	}
	return d
}

// accepted tells whether this node, or one before it, has decided that the
// request may go where it goes. Where the sender's own Route chose a node nothing
// was decided; and a dialog's token proves itself to the next node, while the
// sender could leave that node's Route out and write any Request-URI.
func (p *plan) accepted() bool {
	return p.way == wayUser || p.way == wayForeign || p.way == wayFlow && p.token.kind == tokenHop
}

// route is RFC 3261 16.6 step 6: a first Route without lr is a strict
// router's, and trades places with the Request-URI. A Request-URI has no
// headers and no method parameter (19.1.1, table 1).
func (s *Server) route(d *draft) {
	if d.target.headers != "" {
		d.target.headers = ""
		d.target = d.target.without(false, "method")
	} else if _, ok := d.target.param("method"); ok {
		d.target = d.target.without(false, "method")
	}
	if len(d.routes) == 0 {
		return
	}
	u, err := routeURI(d.routes[0])
	if err != nil {
		return
	}
	if _, loose := u.param("lr"); !loose {
		routes := append(make([]string, 0, len(d.routes)), d.routes[1:]...)
		d.routes = append(routes, "<"+d.target.text+">")
		d.target = u
	}
}

// recordRouted tells whether we put ourselves on the way of what follows a
// request (RFC 3261 16.6 step 4): where a dialog may begin, and where one is
// refreshed, for a UA that has lost its route set.
func recordRouted(r *request) bool {
	switch r.method {
	case "INVITE", "SUBSCRIBE", "NOTIFY", "REFER":
		return true
	case "UPDATE":
		return r.toTag != ""
	case "REGISTER", "OPTIONS", "MESSAGE", "PUBLISH", "INFO", "BYE", "PRACK", "CANCEL", "ACK":
		return false
	}
	return r.toTag == ""
}

// recordRoute is our Record-Route: one value, or one for each transport if
// the request changes it here, with one token of both flows.
func (s *Server) recordRoute(r *request, t *target, w wayOut) []header {
	in := r.msg.Flow
	if in == nil {
		return nil
	}
	tok := token{kind: tokenDialog, edge: s.parts.Cluster.Self(), caller: hashTag(r.fromTag)}
	tok.sides = []side{s.sideOf(in, s.callerBound(r)), s.sideOf(w.flow, t.via == viaSide && t.side.bound)}
	user := string(tok.seal(s.flowKey, r.callID))
	// With room for what else is of this copy alone.
	hs := append(make([]header, 0, 4), header{"Record-Route", s.recordValue(user, r, w.flow)})
	if w.flow.Transport() != in.Transport() {
		hs = append(hs, header{"Record-Route", s.recordValue(user, r, in)})
	}
	return hs
}

func (s *Server) recordValue(user string, r *request, f transport.Flow) string {
	scheme, transport := "<sip:", ""
	if r.target.scheme == "sips" {
		scheme = "<sips:"
	} else if f.Transport() != "udp" {
		transport = ";transport=" + f.Transport()
	}
	host := s.cfg.RecordRoute
	if host == "" {
		host = s.local.of(s.advertised(f))
	}
	return scheme + user + "@" + host + transport + ";lr>"
}

// sideOf is a flow as a token says it. A UDP flow needs no id: its addresses
// are all there is to it.
func (s *Server) sideOf(f transport.Flow, bound bool) side {
	x := side{transport: f.Transport(), local: f.Local(), remote: f.Remote(), bound: bound}
	if f.Reliable() {
		x.flow = f.ID()
	}
	return x
}

// callerBound tells whether the caller can be reached by the flow alone: the
// topmost Via is not what the socket saw.
func (s *Server) callerBound(r *request) bool {
	if r.direct {
		return false
	}
	v, err := parseVia(r.vias[0])
	f := r.msg.Flow
	return err != nil || f.Transport() == "ws" || f.Transport() == "wss" || !viaIs(v, f.Remote(), f.Reliable())
}

// advertised is our address as the other end of a flow knows it.
func (s *Server) advertised(f transport.Flow) netip.AddrPort {
	best := f.Local()
	found := false
	for _, a := range s.cfg.Addresses {
		if a.Transport != f.Transport() {
			continue
		}
		if a.Addr == f.Local() {
			return a.Addr
		}
		if !found {
			best, found = a.Addr, true
		}
	}
	return best
}

// appendBranch writes the branch of our Via (RFC 3261 16.6 step 8). It is unique,
// and carries the loopHash, which tells a loop from a spiral.
func (s *Server) appendBranch(b []byte, r *request, loop string) []byte {
	b = append(b, magic...)
	begin := len(b)
	b = strconv.AppendUint(b, s.rand(), 36)
	nonce := b[begin:]
	b = append(append(b, '.'), loop...)
	return s.appendBranchMAC(b, nonce, r.callID, first(r.vias))
}

// IsNodeBranch tells whether a branch is written as nodes write theirs: it is a
// transaction.Config's Passable, as only what nodes send is passed on.
func IsNodeBranch(branch string) bool {
	at := len(branch) - 1 - branchTail
	return at > len(magic) && branch[at] == '.' && branch[:len(magic)] == magic
}

// branchTail is how long loopHash and MAC are, together.
const branchTail = 16

// first is the first of a list, empty if there is none: a request of this
// node's own has no Via below.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// branchMAC says that a branch is ours, belongs to a Call-ID, and came from
// where the next Via leads: with it a late 2xx is passed on without a
// transaction, and nothing else is, nor anywhere else.
func (s *Server) branchMAC(nonce, callID, next string) string {
	var room [16]byte
	return string(s.appendBranchMAC(room[:0], []byte(nonce), callID, next))
}

func (s *Server) appendBranchMAC(to, nonce []byte, callID, next string) []byte {
	v, err := parseVia(next)
	if err != nil {
		return s.appendMACTo(to, nonce, callID, "", netip.AddrPort{})
	}
	at, _ := v.source()
	return s.appendMACTo(to, nonce, callID, v.transport, at)
}

// appendMACTo is appendBranchMAC for a Via that has been read; network is empty if
// it could not be.
func (s *Server) appendMACTo(to, nonce []byte, callID, network string, at netip.AddrPort) []byte {
	var room [512]byte
	b := append(append(append(room[:0], "branch\x00"...), nonce...), 0)
	b = append(append(b, callID...), 0)
	if network != "" {
		b = append(append(b, network...), ' ')
		b = at.AppendTo(b)
	}
	return base64.RawURLEncoding.AppendEncode(to, s.flowKey.sum(room[:0], b)[:6])
}

// loopHash is over all that decides where a request goes from here (RFC 5393
// 4.2.1): if it comes back the same, it goes round.
func (s *Server) loopHash(r *request, p *plan) string {
	var room [512]byte
	b := room[:0]
	put := func(v string) { b = append(append(b, v...), 0) }
	put(s.parts.Cluster.Self())
	if p.way == wayUser {
		// The user decides, not how the URI is spelt: or two Contacts that lead
		// back here, told apart by a parameter, would double at every turn.
		put(string(p.aor))
	} else {
		put(r.target.text)
	}
	put(r.callID)
	put(r.fromTag)
	put(r.toTag)
	b = binary.BigEndian.AppendUint32(b, r.cseq)
	for _, v := range r.routes {
		put(v)
	}
	for _, h := range r.headers {
		if h.name == "Proxy-Require" || h.name == "Proxy-Authorization" {
			put(h.value)
		}
	}
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], xxh3.Hash(b))
	var text [8]byte
	return string(base64.RawURLEncoding.AppendEncode(text[:0], sum[:6]))
}

// looped tells whether this node has sent the very same request on before
// (RFC 3261 16.3 step 4).
func (s *Server) looped(r *request, p *plan) bool {
	hash := ""
	for _, v := range r.vias {
		b, ok := s.ownBranch(v)
		if !ok {
			continue
		}
		if hash == "" {
			hash = s.loopHash(r, p)
		}
		if b.loop == hash {
			return true
		}
	}
	return false
}

// branchParts are what a branch of ours consists of.
type branchParts struct{ nonce, loop, mac string }

// ownBranch takes a branch of a Via apart that names this node.
func (s *Server) ownBranch(value string) (parts branchParts, ok bool) {
	if !strings.Contains(value, magic) {
		return parts, false
	}
	v, err := parseVia(value)
	if err != nil {
		return parts, false
	}
	a, err := netip.ParseAddr(v.host)
	if err != nil || !s.isSelf(netip.AddrPortFrom(a.Unmap(), portOr(v.port, v.transport))) {
		return parts, false
	}
	b, _ := param(v.params, "branch")
	nonce, rest, ok := strings.Cut(strings.TrimPrefix(b, magic), ".")
	if !ok || len(rest) != branchTail {
		return parts, false
	}
	return branchParts{nonce, rest[:8], rest[8:]}, true
}
