package sipfront

import "context"

// Questions to the cluster, and name lookups, are bounded in number (MaxLookups).
// Those that wait do so in goroutines that are used again.

// begin takes one of the places of questions to the cluster, which end gives
// back; false: there is none.
func (s *Server) begin() bool {
	select {
	case s.lookups <- struct{}{}:
		s.wg.Add(1)
		return true
	default:
		s.count.overloaded.Add(1)
		return false
	}
}

func (s *Server) end() { <-s.lookups; s.wg.Done() }

// ask runs f beside the socket's goroutine, within the limit on questions. ctx
// ends with the transaction or at the deadline; false means that there are too many.
func (s *Server) ask(ctx context.Context, f func(ctx context.Context)) bool {
	if !s.begin() {
		return false
	}
	q := question{ctx, f}
	select {
	case s.idle <- q:
	default:
		s.workers.Go(func() { s.work(q) })
	}
	return true
}

// maxIdle is how many goroutines wait for questions.
const maxIdle = 64

// question is one call of ask.
type question struct {
	ctx context.Context
	f   func(ctx context.Context)
}

// work answers a question, and while the server runs waits for more of them: a
// goroutine that has been through one has the stack for the next, which to
// grow anew would cost a tenth of a REGISTER.
func (s *Server) work(q question) {
	for {
		s.answerQuestion(q)
		if !s.running.Load() {
			return
		}
		if s.idling.Add(1) > maxIdle {
			s.idling.Add(-1)
			return
		}
		select {
		case q = <-s.idle:
			s.idling.Add(-1)
		case <-s.stop:
			return
		}
	}
}

func (s *Server) answerQuestion(q question) {
	defer s.end()
	ctx, cancel := context.WithTimeout(q.ctx, s.cfg.LookupTimeout)
	defer cancel()
	q.f(ctx)
}
