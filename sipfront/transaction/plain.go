package transaction

import (
	"hash/maphash"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"hereis/sipfront/transport"
)

// Plain is a non-INVITE server transaction over datagrams in its smallest form
// (RFC 3261 17.2.2): a place where repeats find out that the request is being
// seen to, and then its answer, or what it is written from again. It has no timer,
// no machine and no 100. Whoever begins one sets the first part, which may not
// change until there is an answer.
type Plain struct {
	// Branch, Host and Port are of the top Via; the branch has the cookie of RFC 3261.
	Branch, Host string
	Port         int
	Method       string
	// Reply is what it is answered over, a datagram flow. It may be set, and set
	// anew, until there is an answer, and is not held beyond that.
	Reply transport.Flow

	l          *Layer
	shard      *shard
	hash, text uint64
	mark       uint64
	// place is that of its gist, begun when that was made.
	place uint32
	begun time.Duration
}

// Begun is what Begin found.
type Begun int

const (
	// BeginOrdinary: Receive has the answer, as there are too many transactions, or
	// one of the full kind.
	BeginOrdinary Begun = iota
	// BeginNew: the request has a transaction now.
	BeginNew
	// BeginRepeat: it is a repeat, and has had its answer, if there is one.
	BeginRepeat
	// BeginAgain: it is a repeat, and its answer is to be written again from the Gist.
	BeginAgain
)

// gistSlack is how much later than a request its answer may be and yet be kept
// long enough, without another turn in the queue.
const gistSlack = 100 * time.Millisecond

// Begin begins a transaction for a request of that text.
func (l *Layer) Begin(p *Plain, text []byte, now time.Time) (Begun, Gist) {
	var buf [256]byte
	key := p.appendKey(buf[:0])
	s, hash := l.place(key)
	p.l, p.shard, p.hash, p.text, p.mark = l, s, hash, maphash.Bytes(l.seed, text), xxh3.HashSeed(key, l.cfg.Seed)
	s.mu.Lock()
	if s.servers[string(key)] != nil {
		s.mu.Unlock()
		return BeginOrdinary, Gist{}
	}
	if a := s.answers.get(hash, key); a != nil {
		s.mu.Unlock()
		l.repeat(a.reply, a.raw)
		return BeginRepeat, Gist{}
	}
	if _, e := s.answers.gists.find(hash); e != nil && (e.value == gistPending || e.text == p.text) {
		pending, gist := e.value == gistPending, Gist{e.at, e.value}
		s.mu.Unlock()
		l.count.repeats.Add(1)
		if pending {
			return BeginRepeat, gist
		}
		return BeginAgain, gist
	}
	defer s.mu.Unlock()
	if l.pending.Load() >= share(l.cfg.MaxPending) || l.active.Load() >= share(l.cfg.MaxTransactions) || l.full() {
		return BeginOrdinary, Gist{}
	}
	l.pending.Add(1)
	l.count.servers.Add(1)
	p.begun = now.Sub(l.epoch)
	p.place = s.answers.addGist(p.entry(p.begun, Gist{Value: gistPending}))
	return BeginNew, Gist{}
}

func (p *Plain) appendKey(b []byte) []byte {
	return appendBranchKey(b, p.Branch, p.Host, p.Port, p.Method)
}

// entry is what is kept of it from a time on.
func (p *Plain) entry(from time.Duration, g Gist) gistEntry {
	return gistEntry{hash: p.hash, text: p.text, at: g.At, value: g.Value, expires: gistTime(from + p.l.times.patience() + gistSlack)}
}

// repeat answers a repeated request as it was answered.
func (l *Layer) repeat(reply transport.Flow, raw []byte) {
	l.count.repeats.Add(1)
	_ = transport.SendSoon(reply, raw) // counted by the transport; the client repeats
}

// Withdraw ends it without an answer, as if it had never begun: a repeat is a new request.
func (p *Plain) Withdraw() {
	p.end()
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	p.forget()
}

// end ends the time in which it is pending.
func (p *Plain) end() {
	p.l.active.Add(-1)
	p.l.pending.Add(-1)
}

// forget takes its gist out. The shard is locked.
func (p *Plain) forget() {
	if g := &p.shard.answers.gists; g.holds(p.place, p.hash) {
		g.drop(p.place)
	}
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

// Mark is that of the request.
func (p *Plain) Mark() uint64 { return p.mark }

// Tag is a To tag for the node's own final responses to this request.
func (p *Plain) Tag() string {
	var room [32]byte
	return string(AppendTag(room[:0], p.mark))
}

// RespondRaw sends the final response, which is the layer's from now on, and
// keeps it for repeats. It or RespondGist is called once. An error is the transport's.
func (p *Plain) RespondRaw(_ int, raw []byte) error {
	p.end()
	var buf [256]byte
	a := &answer{key: string(p.appendKey(buf[:0])), hash: p.hash, raw: raw, reply: transport.Lasting(p.Reply), expires: p.l.now() + p.l.times.patience()}
	p.shard.mu.Lock()
	p.forget()
	p.shard.answers.add(a)
	p.shard.mu.Unlock()
	return transport.SendSoon(a.reply, raw)
}

// RespondGist sends the final response, which is the caller's again when it
// returns, and keeps for repeats what it can be written from again.
func (p *Plain) RespondGist(g Gist, raw []byte, now time.Time) error {
	p.end()
	s, at := p.shard, now.Sub(p.l.epoch)
	s.mu.Lock()
	if held := s.answers.gists.holds(p.place, p.hash); held && at-p.begun <= gistSlack {
		e := s.answers.gists.entry(p.place)
		e.at, e.value = g.At, g.Value
	} else {
		s.answers.addGist(p.entry(at, g))
	}
	s.mu.Unlock()
	return transport.SendSoonCopy(p.Reply, raw)
}
