package sipfront

import (
	"strings"
	"time"

	"hereis/messages"
)

// Nearly every REGISTER tells of a device that it is where it was. Such a one is
// answered without any memory of its own but the answer's, if the registrar can
// do its part at once.

// readPlain is readRegister of a plain request. The question shares its memory.
func (s *Server) readPlain(x *plain, p *plan, now time.Time) (*messages.Register, error) {
	r, q, c := &x.req, &x.room.question, &x.room.contact
	aor, err := s.aorOf(x.to, p)
	if err != nil {
		return nil, err
	}
	if err := s.admitRegister(r, aor); err != nil {
		return nil, err
	}
	q.Reset()
	c.Reset()
	c.Uri, c.Q, c.ExpiresS, c.HasExpires = x.contact, 1000, x.contactExpires, x.contactHas
	x.room.contacts[0] = c
	q.Aor, q.CallId, q.Cseq, q.Edge, q.UserAgent = string(aor), r.callID, r.cseq, s.parts.Cluster.Self(), x.userAgent
	q.ExpiresS, q.HasExpires, q.Contacts = x.expires, x.hasExpires, x.room.contacts[:]
	f := r.msg.Flow
	x.room.remote = f.Remote().AppendTo(x.room.remote[:0])
	q.Transport, q.Local, q.Remote = f.Transport(), s.local.of(f.Local()), textOf(x.room.remote)
	q.Flow = s.parts.Transport.Pin(f)
	q.AgeMs = age(r, now)
	c.FlowBound = !x.direct() && flowBound(r, c, f)
	return q, nil
}

// renew answers a REGISTER that the registrar needs nobody for; it ends what
// began with enterRegister then. False: it is one like others.
func (s *Server) renew(tx answerTx, x *plain, q *messages.Register, began time.Time) bool {
	q.Stamp = &x.room.stamp
	nowMS, expiresMS, ok := s.parts.Registrar.Renew(q)
	if !ok {
		return false
	}
	s.pace.leave(began, began)
	s.end()
	s.send(tx, &x.req, 200, s.renewed(x, secondsLeft(nowMS, expiresMS), nowMS, tx.Tag()))
	s.release(&x.req)
	return true
}

// giveAway leaves a question and its memory to those who may keep it.
func (x *plain) giveAway(q *messages.Register) {
	q.Stamp = nil
	// The lease keeps the Call-ID; it must not keep the text of the request with it.
	q.CallId = strings.Clone(q.CallId)
	x.room = nil
}

// renewed is the 200 with the one binding that there is, as registered has it.
func (s *Server) renewed(x *plain, left, nowMS int64, tag string) []byte {
	r := &x.req
	supported := s.supported(r)
	n := answerSize(r) + len(x.contact) + len(supported) + 100 + len(s.cfg.ServerHeader)
	b := appendAnswerTo(make([]byte, 0, n), r, 200, "OK", tag)
	b = append(appendContact(append(b, "Contact: "...), x.contact, left), "\r\n"...)
	b = appendHeader(b, "Supported", supported)
	b = appendHeader(b, "Date", s.date.at(nowMS))
	return s.endAnswer(b, 200)
}
