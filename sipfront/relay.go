package sipfront

import (
	"context"
	"strings"

	"hereis/messages"
	"hereis/sipfront/transport"
)

// ack passes an ACK for a 2xx on, statelessly (RFC 3261 16.11): it has no
// answer, and a repeated 2xx brings a new one.
func (s *Server) ack(msg *transport.Message) {
	if !s.passAck(msg) {
		s.relayAck(msg)
	}
}

// relayAck is ack for every ACK.
func (s *Server) relayAck(msg *transport.Message) {
	r, err := parseRequest(msg)
	if err != nil || s.validate(r) != nil || r.maxForwards == 0 || r.maxBreadth == 0 {
		s.count.dropped.Add(1)
		return
	}
	p, err := s.plan(r)
	if err != nil || p.way == wayNode || p.way == wayForeign || s.looped(r, p) {
		// Towards a foreign target an ACK without a route of ours belongs to no call of ours.
		s.count.dropped.Add(1)
		return
	}
	if p.way != wayHop {
		r = s.withoutOurs(r)
	}
	f := &fork{s: s, r: r, plan: p}
	if p.way == wayUser {
		// The UA ignored our Record-Route: its peer is one of the user's devices.
		s.locate(p.aor, r.callID, nil, func(res *messages.Located, err error) {
			if err != nil {
				s.count.dropped.Add(1)
				return
			}
			devices, _ := s.devices(res, r)
			for _, d := range devices {
				d[0].breadth = f.breadth()
				s.pass(f, d[0])
			}
		})
		return
	}
	t, err := s.planned(r, p)
	if err != nil {
		s.count.dropped.Add(1)
		return
	}
	t.breadth = f.breadth()
	s.pass(f, t)
}

// pass sends one copy by the first way there is, and forgets it.
func (s *Server) pass(f *fork, t *target) {
	ways, err := s.ways(t)
	if err == errResolve {
		u := t.next()
		s.ask(context.Background(), func(ctx context.Context) {
			if ways, err := s.resolve(ctx, u, large(f.r)); err == nil {
				s.passBy(f, t, ways)
			}
		})
		return
	}
	if err != nil {
		s.count.dropped.Add(1)
		return
	}
	s.passBy(f, t, ways)
}

func (s *Server) passBy(f *fork, t *target, ways []wayOut) {
	for i, w := range ways {
		d := s.draft(f, t, w)
		if stream, ok := s.byStream(w, d.size()); ok {
			w = stream
			d = s.draft(f, t, w)
		}
		send := w.flow.Send
		if i == len(ways)-1 {
			// No other way needs to know that this one fails.
			send = func(b []byte) error { return transport.SendWith(f.r.msg.Flow, w.flow, b, nil) }
		}
		if send(d.bytes()) == nil {
			s.count.acks.Add(1)
			return
		}
	}
	s.count.dropped.Add(1)
}

// stray passes a 2xx of an INVITE on whose transaction is over: the caller
// must know of it, to end the call (RFC 3261 16.7 step 9, RFC 6026 7.1). It
// goes where the second Via says, if the first is proof that we sent the
// INVITE; all else is dropped.
func (s *Server) stray(msg *transport.Message) {
	if s.plain != nil && s.passBack(msg, true) {
		return
	}
	r, next, err := readReply(msg.Text())
	if err != nil || r.status < 200 || r.status > 299 || next == "" || !s.ours(msg, next) {
		s.count.dropped.Add(1)
		return
	}
	v, err := parseVia(next)
	if err != nil {
		s.count.dropped.Add(1)
		return
	}
	to, ok := v.source()
	if !ok {
		s.count.dropped.Add(1)
		return
	}
	flow, err := s.parts.Transport.Flow(v.transport, to)
	if err != nil || flow.Send(r.raw) != nil {
		s.count.dropped.Add(1)
		return
	}
	s.count.strays.Add(1)
}

// late passes a 2xx on beside the transaction of its request.
func (s *Server) late(request *transport.Message, r reply) {
	flow := request.Reply
	if flow == nil {
		flow = request.Flow
	}
	if flow == nil || flow.Send(r.raw) != nil {
		s.count.dropped.Add(1)
		return
	}
	s.count.strays.Add(1)
}

// ours tells whether a response answers an INVITE that this node sent, and got
// from where the second Via leads.
func (s *Server) ours(msg *transport.Message, next string) bool {
	_, headers, _, err := splitMessage(msg.Text())
	if err != nil {
		return false
	}
	var top, callID string
	invite := false
	for _, h := range headers {
		switch h.name {
		case "Via":
			if vs := splitValues(nil, h.value); top == "" && len(vs) > 0 {
				top = vs[0]
			}
		case "Call-ID":
			callID = h.value
		case "CSeq":
			invite = strings.HasSuffix(h.value, " INVITE")
		}
	}
	b, ok := s.ownBranch(top)
	return ok && invite && b.mac == s.branchMAC(b.nonce, callID, next)
}
