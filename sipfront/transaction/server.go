package transaction

import (
	"context"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// Server is a server transaction.
type Server struct {
	l     *Layer
	shard *shard
	key   string
	reply transport.Flow
	timer timerNode

	mu sync.Mutex
	m  serverMachine
	// msg is the request; after the final answer only how it came.
	msg  *transport.Message
	last []byte // the response that a repeated request gets
	// decided: a final response was given, or none will be; it is pending no more.
	decided bool
	out     outbox
	// ctx is made when somebody asks for it.
	ctx    context.Context
	cancel context.CancelFunc
	kept   any // what the user keeps here
	// passable: see unpassed.
	passable bool
}

// input is one event of a transaction with what came along.
type input struct {
	ev     event
	status int
	msg    *transport.Message // a client's response
	raw    []byte             // a server's response, a client's request
	with   transport.Flow     // what led to it came by this, if anything did
	eff    effect             // what the machine said to do
}

// outbox lets the effects of a transaction happen one at a time and in order
// without its lock being held: whoever finds it busy leaves its effects to the
// one who is at it. It belongs to the transaction's lock.
type outbox struct {
	busy  bool
	queue []input // bounded by the events that arrive during one send
}

func newServer(l *Layer, s *shard, key, method string, msg *transport.Message) *Server {
	invite := method == "INVITE"
	tx := &Server{l: l, shard: s, key: key, msg: msg, reply: reply(msg), m: newServerMachine(invite, reply(msg).Reliable(), &l.times)}
	tx.timer.owner = tx
	return tx
}

// Message is the request, which nobody may change. After the final answer it
// has only how it came, Flow, Reply and At: the transaction of a call is kept
// for half a minute (RFC 6026), the text of its request need not be.
func (s *Server) Message() *transport.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.msg
}

// Keep has the transaction keep something of its user's, instead of what it kept.
func (s *Server) Keep(v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = v
}

// Kept is what the transaction keeps of its user's, nil if it is nothing.
func (s *Server) Kept() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// Tag is a To tag for the node's own final responses to this request; it is
// the one that the answer to its CANCEL carries.
func (s *Server) Tag() string { return s.l.tag(s.key) }

// Respond serialises res and sends it by RFC 3261 18.2.2. ErrFinalSent if the
// machine discards it: a final went before, and this is not a 2xx after a 2xx.
// Another error is the transport's; the response is kept for repeats all the same.
func (s *Server) Respond(res *sip.Response) error {
	return s.RespondRaw(res.StatusCode, appendResponse(make([]byte, 0, 768), res))
}

// RespondRaw is Respond for a response in bytes, which are the layer's from now on.
func (s *Server) RespondRaw(status int, raw []byte) error {
	return s.RespondWith(nil, status, raw)
}

// RespondWith is RespondRaw for a response that a message which has come by with
// has led to, and leaves with what else that one leads to (transport.SendWith).
func (s *Server) RespondWith(with transport.Flow, status int, raw []byte) error {
	in, err := s.exec(input{ev: evResponse, status: status, raw: raw, with: with})
	if in.eff&doRefuse != 0 {
		return ErrFinalSent
	}
	return err
}

// Context ends with the transaction. For a non-INVITE its deadline is when the
// client stops waiting (timer F).
func (s *Server) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil {
		return s.ctx
	}
	// A request's context has no parent: it begins here.
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.m.state == stateTerminated {
		s.cancel()
	} else if !s.m.invite {
		s.ctx = deadlineContext{s.ctx, s.l.epoch.Add(s.m.due[timerLimit])}
	}
	return s.ctx
}

// deadlineContext tells a deadline that the layer's own timer enforces, and so
// needs none of its own.
type deadlineContext struct {
	context.Context
	at time.Time
}

func (c deadlineContext) Deadline() (time.Time, bool) { return c.at, true }

// undecided tells whether a CANCEL still has something to stop (9.2).
func (s *Server) undecided() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.state == stateProceeding
}

func (s *Server) do(in input) effect {
	in, _ = s.exec(in)
	return in.eff
}

func (s *Server) expire(now time.Duration) {
	for {
		s.mu.Lock()
		ev, ok := s.m.due.due(now)
		if !ok {
			s.arm()
			s.mu.Unlock()
			return
		}
		s.execLocked(input{ev: ev})
	}
}

// exec steps the machine and lets the effects happen, or leaves them to whoever
// is at it. The error is the transport's, if the sending happened here.
func (s *Server) exec(in input) (input, error) {
	s.mu.Lock()
	return s.execLocked(in)
}

// execLocked is exec with s.mu held; it returns with s.mu free.
func (s *Server) execLocked(in input) (input, error) {
	in.eff = s.m.step(in.ev, in.status, s.l.now())
	switch {
	case in.eff&doSend != 0:
		s.last = in.raw
		if in.status >= 200 {
			s.decide()
			s.msg = &transport.Message{Flow: s.msg.Flow, Reply: s.msg.Reply, At: s.msg.At}
		}
		if s.m.state == stateAccepted {
			s.last = nil // a repeated INVITE gets nothing any more (RFC 6026 7.1)
		}
	case in.eff&doTrying != 0:
		req, _ := s.msg.Model()
		s.last = AppendResponse(make([]byte, 0, 512), req, 100, "Trying", "", "")
		in.raw = s.last
	case in.eff&doResend != 0:
		in.raw = s.last
	}
	s.arm()
	if in.eff&(doSend|doResend|doTrying|doEnd|doTimeout) == 0 {
		s.mu.Unlock()
		return in, nil
	}
	if s.out.busy {
		s.out.queue = append(s.out.queue, in)
		s.mu.Unlock()
		return in, nil
	}
	s.out.busy = true
	s.mu.Unlock()
	err := s.run(in)
	for {
		s.mu.Lock()
		if len(s.out.queue) == 0 {
			s.out.busy, s.out.queue = false, nil
			s.mu.Unlock()
			return in, err
		}
		next := s.out.queue[0]
		s.out.queue = s.out.queue[1:]
		s.mu.Unlock()
		_ = s.run(next) // told to nobody: the caller has gone
	}
}

// decide ends the time in which the request is pending; s.mu is held.
func (s *Server) decide() {
	if !s.decided {
		s.decided = true
		s.l.pending.Add(-1)
	}
}

// arm keeps the wheel's appointment in step with the machine; s.mu is held.
func (s *Server) arm() {
	if at := s.m.due.next(); at != 0 {
		s.shard.wheel.arm(&s.timer, at)
	}
}

func (s *Server) run(in input) error {
	if in.eff&doTimeout != 0 {
		s.l.count.timeouts.Add(1)
	}
	if in.eff&doEnd != 0 {
		s.end(in)
	}
	if in.eff&(doSend|doResend|doTrying) == 0 {
		return nil
	}
	if in.with == nil {
		// At once: what is sent next, as the NOTIFY to a SUBSCRIBE, must not overtake it.
		return s.reply.Send(in.raw)
	}
	return transport.SendWith(in.with, s.reply, in.raw, nil)
}

// end takes the transaction out of the layer. What stays of a non-INVITE is its answer.
func (s *Server) end(in input) {
	if in.eff&doSend != 0 && !s.m.invite {
		s.l.keep(s.shard, s.key, in.raw, s.reply)
	}
	s.shard.mu.Lock()
	was := s.shard.servers[s.key] == s
	if was {
		delete(s.shard.servers, s.key)
	}
	s.shard.mu.Unlock()
	if was {
		s.l.active.Add(-1)
		if s.passable {
			s.l.unpassed.end(s.l.now() + s.l.times.patience())
		}
	}
	s.shard.wheel.disarm(&s.timer)
	s.mu.Lock()
	s.decide()
	cancel := s.cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// stop ends the transaction when the layer does.
func (s *Server) stop() {
	s.mu.Lock()
	s.m.end(0)
	s.mu.Unlock()
	s.end(input{})
}
