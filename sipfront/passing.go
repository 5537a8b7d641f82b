package sipfront

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// A request that another node of ours sends to a device of this one has been
// decided on there, and that node has its transactions. Over datagrams this one
// need not have them a second time: it passes the request on by the one flow that
// its token names, and the answers back by their Vias, statelessly (RFC 3261
// 16.11), and sees to it that the other hears from it in time (transaction.Passing).
// What it sends is what the ordinary way would send, which is left all that is in
// any way unusual: another transport, a flow that is gone, a request that has a
// transaction here.

const (
	// passParam is a parameter of the Route to a device's edge. It says that the
	// node that wrote it carries its mark into ACK and CANCEL, as is needed for
	// passing them on without a transaction that they belong to.
	passParam = "pass"
	// passedLoop stands in the Via of what is passed on so, where others have their
	// loopHash: what came here from a node has been through its check for loops.
	passedLoop = "~passed~"
)

// passes takes in a datagram that is to be passed on without a transaction.
func (s *Server) passes(m *transport.Message) bool {
	if m.Flow.Reliable() || len(m.Raw) < 64 {
		return false
	}
	if bytes.HasPrefix(m.Raw, []byte("SIP/2.0 ")) {
		return bytes.Contains(m.Raw[:min(len(m.Raw), 512)], []byte(passedLoop)) && s.passBack(m, false)
	}
	return s.parts.Cluster.IsNode(m.Flow.Remote()) && s.passRequest(m)
}

// passRequest passes a request of another node on to a device of this one.
func (s *Server) passRequest(m *transport.Message) bool {
	x := s.passage()
	defer s.leave(x)
	r, p := &x.req, &x.plan
	if !x.read(m) || s.validate(r) != nil || r.target.scheme != "sip" || r.method == "BYE" && s.dialogs != nil || !s.passable(x) {
		return false
	}
	is := marked(s.markKey, s.parts.Cluster.NowMS(), r)
	if _, has := r.value(markHeader); has && !is {
		return false
	}
	if s.planIn(p, r, is) != nil || p.way != wayFlow || p.token.edge != s.parts.Cluster.Self() || len(p.routes) > 0 ||
		p.token.kind == tokenHop && !strings.Contains(p.tokenRoute, ";"+passParam+">") {
		return false
	}
	w, ok := s.passDraft(x, s.withoutOurs(r))
	if !ok {
		return false
	}
	return s.passOn(m, x, w)
}

// passOn sends a request on that has been read and written.
func (s *Server) passOn(m *transport.Message, x *passage, w wayOut) bool {
	method, in := x.req.method, m.Flow
	if method == "ACK" || method == "CANCEL" {
		x.out = x.draft.append(x.out[:0])
		if transport.SendCopyWith(in, w.flow, x.out) != nil {
			return false // the ordinary way has the answer
		}
		m.Spent = true
		if method == "ACK" {
			s.count.acks.Add(1)
		}
		s.count.passed.Add(1)
		return true
	}
	raw := x.draft.append(make([]byte, 0, x.size+passedRoom))
	key := string(x.key)
	switch s.plain.Pass(key, method == "INVITE", raw, w.flow, func(status int) { s.passAnswer(in, raw, status) }) {
	case transaction.PassFull:
		return false
	case transaction.PassRepeat:
		return true
	}
	if transport.SendWith(in, w.flow, raw, nil) != nil {
		s.plain.PassAnswered(key, 430)
		return false // the ordinary way has the answer
	}
	s.count.passed.Add(1)
	return true
}

// passedRoom is what a request that is passed on is longer by than it was, with a
// mark and a Route less but a Via and a Record-Route more.
const passedRoom = 192

// passAck is ack for one within a dialog that has one way to go: it is read in one
// pass and written as the ordinary way would; false: that is left to it.
func (s *Server) passAck(m *transport.Message) bool {
	x := s.passage()
	defer s.leave(x)
	r := &x.req
	if m.Flow == nil || !x.read(m) || s.validate(r) != nil || r.target.scheme != "sip" {
		return false
	}
	if _, has := r.value(markHeader); has {
		return false
	}
	r.vias[0] = stampVia(r.vias[0], m.Flow.Remote())
	for _, v := range r.vias {
		if _, ours := s.ownBranch(v); ours {
			return false // the ordinary way looks for loops
		}
	}
	if s.planIn(&x.plan, r, false) != nil || x.plan.way != wayFlow {
		return false
	}
	r = s.withoutOurs(r)
	w, ok := s.passWay(x, r)
	if !ok {
		return false
	}
	b := appendSentBy(x.via[:0], s.advertised(w.flow))
	x.via = s.appendBranch(append(b, ";branch="...), r, s.loopHash(r, &x.plan))
	x.draft.via = textOf(x.via)
	if !x.fits(w) {
		return false
	}
	x.out = x.draft.append(x.out[:0])
	if transport.SendCopyWith(m.Flow, w.flow, x.out) != nil {
		return false
	}
	s.count.acks.Add(1)
	return true
}

// passDraft makes what a request is passed on as, if there is exactly one way.
func (s *Server) passDraft(x *passage, r *request) (wayOut, bool) {
	w, ok := s.passWay(x, r)
	if !ok || w.node || x.target.via == viaNode {
		return wayOut{}, false
	}
	// RFC 3261 16.11: the branch is the same for every repeat, and for the ACK and
	// the CANCEL that belong to an INVITE.
	b := append(appendSentBy(x.via[:0], s.advertised(w.flow)), ";branch="+magic...)
	b = append(append(append(b, x.key...), '.'), passedLoop...)
	x.nonce = append(append(x.nonce[:0], passedLoop...), x.key...)
	x.via = s.appendMACTo(b, x.nonce, r.callID, "udp", x.source)
	x.draft.via = textOf(x.via)
	return w, x.fits(w)
}

// passWay finds the one way of a request, if it is one of datagrams, and makes
// what is sent by it, without our Via.
func (s *Server) passWay(x *passage, r *request) (wayOut, bool) {
	if s.plannedIn(&x.target, r, &x.plan) != nil {
		return wayOut{}, false
	}
	w, ok := s.onlyWay(&x.target)
	if !ok || w.flow.Reliable() {
		return wayOut{}, false
	}
	x.target.breadth = s.breadth(r)
	x.draft = s.draftFor(r, &x.plan, &x.target, w)
	return w, true
}

// onlyWay is ways, where there is one.
func (s *Server) onlyWay(t *target) (wayOut, bool) {
	if t.via == viaSide {
		if flow, err := s.flowOf(&t.side); err == nil {
			return wayOut{flow: flow, node: s.parts.Cluster.IsNode(flow.Remote())}, true
		}
	}
	ways, err := s.ways(t)
	if err != nil || len(ways) != 1 {
		return wayOut{}, false
	}
	return ways[0], true
}

// fits tells whether what is sent need not go by a stream.
func (x *passage) fits(w wayOut) bool {
	return !w.large.IsValid() || x.draft.size() <= maxDatagram
}

// appendSentBy begins a Via of ours.
func appendSentBy(b []byte, at netip.AddrPort) []byte {
	return at.AppendTo(append(b, "SIP/2.0/UDP "...))
}

// passable names a request by its top Via, which must be true and that of a
// request without a transaction here.
func (s *Server) passable(x *passage) bool {
	r := &x.req
	v, err := parseVia(r.vias[0])
	if err != nil || v.transport != "udp" || !viaIs(v, r.msg.Flow.Remote(), false) {
		return false
	}
	branch := ""
	simple := true
	eachParam(v.params, func(name, value, _ string) bool {
		switch {
		case strings.EqualFold(name, "branch"):
			branch = value
		case strings.EqualFold(name, "received"), strings.EqualFold(name, "rport"), strings.EqualFold(name, "maddr"):
			simple = false
		}
		return simple
	})
	if !simple || !IsNodeBranch(branch) {
		return false
	}
	for _, below := range r.vias[1:] {
		if _, ours := s.ownBranch(below); ours {
			return false // the ordinary way looks for loops
		}
	}
	if s.plain.Knows(branch, v.host, int(v.port), r.method) {
		return false
	}
	x.source, _ = v.source()
	r.direct = true
	b := append(append(append(x.nonce[:0], branch...), ' '), v.host...)
	b = strconv.AppendUint(append(b, ' '), uint64(v.port), 10)
	x.nonce, x.key = b, strconv.AppendUint(x.key[:0], xxh3.Hash(b), 36)
	return true
}

// passAnswer answers for this node what a request that came by a flow was passed
// on as; so its top Via is ours.
func (s *Server) passAnswer(in transport.Flow, raw []byte, status int) {
	r, err := parseRequest(&transport.Message{Raw: raw})
	if err != nil || len(r.vias) < 2 {
		return
	}
	r.vias = r.vias[1:]
	a := answer{status: 100, reason: "Trying"}
	if status != 100 {
		a = answer{status: 408, reason: "Request Timeout"}
	}
	s.count.answered(a.status)
	tag := transport.TagPrefix + strconv.FormatUint(xxh3.HashString(r.vias[0]), 36)
	_ = in.Send(s.answerBytes(r, a, tag)) // counted by the transport; the node repeats the request
}

// passBack passes an answer back whose top Via was written for that; false: it
// was not. A 100 is of one hop (RFC 3261 16.7 step 2, 8.2.6.1).
//
// any: it has been left by a pass over plain answers alone.
func (s *Server) passBack(m *transport.Message, any bool) bool {
	x := s.passage()
	defer s.leave(x)
	r := &x.res
	if text := textOf(m.Raw); !r.read(text) && !(any && r.readAny(text)) {
		return false
	}
	b, ok := s.ownBranch(r.top)
	if !ok || b.loop != passedLoop || r.next == "" {
		return false
	}
	v, err := parseVia(r.next)
	if err != nil || v.transport != "udp" {
		return false
	}
	to, ok := v.source()
	x.nonce = append(append(x.nonce[:0], passedLoop...), b.nonce...)
	x.via = s.appendMACTo(x.via[:0], x.nonce, r.callID, v.transport, to)
	if string(x.via) != b.mac || !ok {
		return false
	}
	if r.method != "CANCEL" {
		s.plain.PassAnswered(b.nonce, r.status)
	}
	if r.status == 100 {
		return true
	}
	m.Spent = true
	flow, err := s.parts.Transport.Flow(v.transport, to)
	if x.out = r.append(x.out[:0]); err != nil || transport.SendCopyWith(m.Flow, flow, x.out) != nil {
		s.count.dropped.Add(1)
		return true
	}
	s.count.passed.Add(1)
	return true
}
