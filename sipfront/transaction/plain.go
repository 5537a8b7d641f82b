package transaction

import (
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"hereis/sipfront/transport"
)

// Plain is a non-INVITE server transaction over datagrams in its smallest form
// (RFC 3261 17.2.2): a place where repeats find out that the request is being
// seen to, and then its answer. It has no timer, no machine and no 100.
type Plain struct {
	l     *Layer
	shard *shard
	a     answer
}

// Begin begins a transaction for a request with an RFC 3261 branch that is
// answered over reply, a datagram flow. nil: it is a repeat, and if repeated is
// true it has had its answer, if there is one; or there are too many transactions.
// Otherwise the ordinary way, Receive, has the answer to both.
func (l *Layer) Begin(branch, host string, port int, method string, reply transport.Flow) (p *Plain, repeated bool) {
	if l.passable(branch) {
		return nil, false
	}
	var buf [256]byte
	key := appendBranchKey(buf[:0], branch, host, port, method)
	s, hash := l.place(key)
	s.mu.Lock()
	if a := s.answers.get(hash, key); a != nil && s.servers[string(key)] == nil {
		raw := a.raw
		s.mu.Unlock()
		l.repeat(a.reply, raw)
		return nil, true
	}
	defer s.mu.Unlock()
	if s.servers[string(key)] != nil ||
		l.pending.Load() >= share(l.cfg.MaxPending) || l.active.Load() >= share(l.cfg.MaxTransactions) || l.full() {
		return nil, false
	}
	l.pending.Add(1)
	l.count.servers.Add(1)
	p = &Plain{l: l, shard: s, a: answer{key: string(key), hash: hash, reply: reply}}
	s.answers.byHash[hash] = &p.a
	return p, false
}

// repeat answers a repeated request as it was answered, if it was.
func (l *Layer) repeat(reply transport.Flow, raw []byte) {
	l.count.repeats.Add(1)
	if raw != nil {
		_ = transport.SendSoon(reply, raw) // counted by the transport; the client repeats
	}
}

// Withdraw ends it without an answer, as if it had never begun: a repeat is a new request.
func (p *Plain) Withdraw() {
	p.l.active.Add(-1)
	p.l.pending.Add(-1)
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	p.shard.answers.drop(&p.a)
}

// Mark is a number that a request with an RFC 3261 branch is known by, repeats
// included; AppendTag makes its Tag of it.
func (l *Layer) Mark(branch, host string, port int, method string) uint64 {
	var buf [256]byte
	return xxh3.HashSeed(appendBranchKey(buf[:0], branch, host, port, method), l.cfg.Seed)
}

// AppendTag appends the To tag of this node's own final responses to a request.
func AppendTag(b []byte, mark uint64) []byte {
	return strconv.AppendUint(append(b, transport.TagPrefix...), mark, 36)
}

// Tag is a To tag for the node's own final responses to this request.
func (p *Plain) Tag() string { return p.l.tag(p.a.key) }

// RespondRaw sends the final response, which is the layer's from now on, and
// keeps it for repeats. It is called once. An error is the transport's.
func (p *Plain) RespondRaw(_ int, raw []byte) error {
	p.l.active.Add(-1)
	p.l.pending.Add(-1)
	expires := time.Since(p.l.epoch) + p.l.times.patience()
	p.shard.mu.Lock()
	p.a.raw, p.a.expires = raw, expires
	p.shard.answers.queue(&p.a)
	p.shard.mu.Unlock()
	return transport.SendSoon(p.a.reply, raw)
}
