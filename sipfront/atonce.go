package sipfront

import (
	"fmt"
	"strings"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// Nearly every REGISTER tells of a device that it is where it was, or that it is
// there. Such a one is answered without any memory of its own but the answer's, if
// the registrar can do its part at once.

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
	x.room.pinned.Reset()
	s.parts.Transport.PinTo(f, &x.room.pinned)
	q.Flow = &x.room.pinned
	q.AgeMs = age(r, now)
	c.FlowBound = !x.direct() && flowBound(r, c, f)
	return q, nil
}

// atOnce answers a REGISTER that the registrar needs nobody for, and ends then what
// began with enterRegister. False: it is one like others.
func (s *Server) atOnce(x *plain, q *messages.Register, began time.Time) bool {
	q.Stamp = &x.room.stamp
	x.began = began
	if x.then == nil {
		x.then = func(nowMS, expiresMS int64, err error) { s.registeredAtOnce(x, nowMS, expiresMS, err) }
	}
	return s.parts.Registrar.AtOnce(q, x.then)
}

// registeredAtOnce answers what atOnce took in.
func (s *Server) registeredAtOnce(x *plain, nowMS, expiresMS int64, err error) {
	now := time.Now()
	s.pace.leave(x.began, now)
	if err != nil {
		s.refuse(&x.own, &x.req, fmt.Errorf("%w: %w", actors.ErrDisk, err))
	} else {
		s.answering(&x.req.asked, 200)
		gist := transaction.Gist{At: nowMS, Value: uint32(secondsLeft(nowMS, expiresMS))}
		_ = s.answered(&x.req.asked, 200, x.own.RespondGist(gist, s.oneBinding(x, gist), now))
	}
	s.release(&x.req)
	s.end()
}

// answerAgain sends the answer to a REGISTER that repeats one of those once more.
func (s *Server) answerAgain(x *plain, m *transport.Message, gist transaction.Gist) {
	x.take(m)
	x.mark = x.own.Mark()
	_ = transport.SendSoonCopy(m.Flow, s.oneBinding(x, gist)) // counted there; the client repeats
	m.Spent = true
}

// giveAway leaves a question and its memory to those who may keep it.
func (x *plain) giveAway(q *messages.Register) {
	q.Stamp = nil
	// The lease keeps the Call-ID; it must not keep the text of the request with it.
	q.CallId = strings.Clone(q.CallId)
	x.room = nil
}

// oneBinding is the 200 with the one binding that there is, as registered has it.
// Of its gist At is when the binding was kept, in ms of node time, and Value how
// many seconds it had left. The memory is x's.
func (s *Server) oneBinding(x *plain, gist transaction.Gist) []byte {
	r := &x.req
	var tag [32]byte
	b := appendAnswerTo(x.room.answer[:0], r, 200, "OK", textOf(transaction.AppendTag(tag[:0], x.mark)))
	b = append(appendContact(append(b, "Contact: "...), x.contact, int64(gist.Value)), "\r\n"...)
	b = appendHeader(b, "Supported", s.supported(r))
	b = appendHeader(b, "Date", s.date.at(gist.At))
	x.room.answer = s.endAnswer(b, 200)
	return x.room.answer
}
