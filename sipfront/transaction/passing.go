package transaction

import (
	"sync"
	"time"

	"hereis/sipfront/transport"
)

// Passing is a request that its user passes on without a transaction, as the
// last of several proxies that are one (RFC 3261 16.11): the one before has the
// transactions, and repeats what is lost on the way between the two. What is left
// is to do what that one relies on: to say that the request has arrived if the
// device is slow, and to repeat an INVITE from then on. So it is kept only until
// the device has said anything.
type Passing struct {
	l     *Layer
	shard *shard
	key   string
	timer timerNode
	// flow and raw are what is repeated; raw is nil for other methods than INVITE.
	flow transport.Flow
	raw  []byte
	// answer sends an answer of the user's own, 100 or 408, to who has sent the request.
	answer func(status int)

	mu   sync.Mutex
	due  deadlines
	wait time.Duration
	// over: nothing is left to do.
	over bool
}

// passTrying is when an INVITE is answered 100 whose device has not said anything.
// It leaves the node before it four fifths of the time that it waits for a word.
const passTrying = 100 * time.Millisecond

// Passed is what Pass found.
type Passed int

const (
	// PassNew: the request is to be passed on.
	PassNew Passed = iota
	// PassRepeat: it is being repeated from here, and has been answered 100 again.
	PassRepeat
	// PassFull: there are too many transactions.
	PassFull
)

// Pass begins to look after a request that is passed on. key is unique for it
// and the same for its repeats. answer is called by the layer's goroutines, or by
// Pass for a repeat, and must not wait.
func (l *Layer) Pass(key string, invite bool, raw []byte, flow transport.Flow, answer func(status int)) Passed {
	s := l.shard([]byte(key))
	s.mu.Lock()
	if p := s.passing[key]; p != nil {
		s.mu.Unlock()
		l.count.repeats.Add(1)
		if p.raw == nil {
			return PassNew // the sender repeats it until there is an answer
		}
		p.answer(100)
		return PassRepeat
	}
	if l.active.Load() >= share(l.cfg.MaxTransactions) || l.full() {
		s.mu.Unlock()
		return PassFull
	}
	p := &Passing{l: l, shard: s, key: key, flow: flow, answer: answer}
	now := l.now()
	if invite {
		p.raw, p.wait = raw, l.times.t1
		p.due.set(timerLinger, now+passTrying)
		p.due.set(timerRetransmit, now+p.wait)
		p.due.set(timerLimit, now+l.times.patience())
	} else {
		p.due.set(timerLinger, now+l.times.late())
	}
	p.timer.owner = p
	s.passing[key] = p
	s.mu.Unlock()
	l.count.passed.Add(1)
	// A late answer to an earlier copy of the request may end it before this.
	p.mu.Lock()
	if !p.over {
		s.wheel.arm(&p.timer, p.due.next())
	}
	p.mu.Unlock()
	return PassNew
}

// PassAnswered takes in that the device has answered the request of a key.
func (l *Layer) PassAnswered(key string, status int) {
	s := l.shard([]byte(key))
	s.mu.Lock()
	p := s.passing[key]
	if p == nil || p.raw == nil && status < 200 {
		s.mu.Unlock()
		return
	}
	delete(s.passing, key)
	s.mu.Unlock()
	p.end()
}

// Knows tells whether a request with an RFC 3261 branch, or the INVITE that an
// ACK or CANCEL belongs to, has a transaction here, or an answer kept for repeats.
func (l *Layer) Knows(branch, host string, port int, method string) bool {
	if method == "ACK" || method == "CANCEL" {
		method = "INVITE"
	}
	var buf [256]byte
	key := appendBranchKey(buf[:0], branch, host, port, method)
	s, hash := l.place(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, gist := s.answers.gists.find(hash)
	return s.servers[string(key)] != nil || s.answers.get(hash, key) != nil || gist != nil
}

// expire lets pass what is due.
func (p *Passing) expire(now time.Duration) {
	for {
		p.mu.Lock()
		ev, ok := p.due.due(now)
		if !ok {
			if at := p.due.next(); at != 0 && !p.over {
				p.shard.wheel.arm(&p.timer, at)
			}
			p.mu.Unlock()
			return
		}
		repeat, answer := p.step(ev, now)
		p.mu.Unlock()
		if repeat {
			_ = p.flow.Send(p.raw) // counted by the transport; it is sent again
		}
		if answer != 0 {
			p.answer(answer)
		}
		if answer == 408 || answer == 100 && p.raw == nil {
			p.forget()
		}
	}
}

// step is what a timer means. mu is held.
func (p *Passing) step(ev event, now time.Duration) (repeat bool, answer int) {
	switch {
	case p.over:
	case ev == evRetransmit:
		// 17.1.1.2: timer A.
		p.wait *= 2
		p.due.set(timerRetransmit, now+p.wait)
		return true, 0
	case ev == evLimit:
		p.l.count.timeouts.Add(1)
		return false, 408
	case ev == evLinger:
		return false, 100
	}
	return false, 0
}

// forget takes p out of the table.
func (p *Passing) forget() {
	p.shard.mu.Lock()
	if p.shard.passing[p.key] == p {
		delete(p.shard.passing, p.key)
	}
	p.shard.mu.Unlock()
	p.end()
}

// end stops the timers, once.
func (p *Passing) end() {
	p.mu.Lock()
	was := p.over
	p.over = true
	p.due.stopAll()
	p.mu.Unlock()
	if !was {
		p.l.active.Add(-1)
		p.shard.wheel.disarm(&p.timer)
	}
}
