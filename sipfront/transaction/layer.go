package transaction

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/zeebo/xxh3"

	"hereis/sipfront/transport"
)

var (
	// ErrOverloaded: the bound on transactions is reached.
	ErrOverloaded = errors.New("too many transactions")
	// ErrTimeout: no final response within timer B or F, or after a CANCEL within 64*T1.
	ErrTimeout = errors.New("no final response in time")
	// ErrTransport: the request could not be sent.
	ErrTransport = errors.New("request could not be sent")
	// ErrTerminated: the layer has ended.
	ErrTerminated = errors.New("transaction layer has ended")
	// ErrFinalSent: a response that RFC 3261 17.2 and RFC 6026 have discarded, because a final went before it.
	ErrFinalSent = errors.New("a final response was sent before")
	// ErrRequest: a request that begins no client transaction: without Via branch or CSeq, or an ACK.
	ErrRequest = errors.New("request cannot begin a transaction")
)

// shardCount spreads the transactions over locks.
const shardCount = 32

// shard holds the transactions whose keys hash to it.
type shard struct {
	wheel wheel

	mu      sync.Mutex
	servers map[string]*Server
	clients map[string]*Client
	answers answers
	// passing are the requests that the user passes on without a transaction.
	passing map[string]*Passing
}

// Layer matches messages to transactions and drives their timers.
type Layer struct {
	cfg    Config
	times  timing
	user   User
	epoch  time.Time
	seed   maphash.Seed
	shards [shardCount]shard
	active atomic.Int64 // transactions of both kinds
	// pending are server transactions without a final answer.
	pending atomic.Int64
	count   counters
	pause   pause

	mu sync.Mutex
	// streams lists the client transactions on each connection, for FlowClosed.
	streams map[transport.Flow]map[*Client]struct{}
}

// New makes a layer; cfg is one that Validate accepts.
func New(cfg Config, user User) *Layer {
	l := &Layer{
		cfg: cfg, user: user, epoch: time.Now(), seed: maphash.MakeSeed(),
		streams: make(map[transport.Flow]map[*Client]struct{}),
		times:   timing{t1: cfg.T1, t2: cfg.T2, t4: cfg.T4, trying: cfg.Trying},
	}
	l.pause.over = make(chan struct{}, 1)
	for i := range l.shards {
		s := &l.shards[i]
		s.wheel.pause = &l.pause
		s.servers = make(map[string]*Server)
		s.clients = make(map[string]*Client)
		s.passing = make(map[string]*Passing)
		s.answers = answers{byHash: make(map[uint64]*answer), limit: cfg.AnswerBytes / shardCount}
	}
	return l
}

// Run drives the timers until ctx ends; then every transaction ends.
func (l *Layer) Run(ctx context.Context) error {
	tick := time.NewTimer(wheelTick)
	defer tick.Stop()
	var due []expirer
	for {
		select {
		case <-ctx.Done():
			l.endAll()
			return nil
		case <-l.pause.over:
			tick.Reset(wheelTick)
			continue
		case <-tick.C:
		}
		now := l.now()
		for i := range l.shards {
			s := &l.shards[i]
			due = s.wheel.advance(now, due[:0])
			for _, o := range due {
				o.expire(now)
			}
			s.mu.Lock()
			s.answers.expire(now)
			s.mu.Unlock()
		}
		clear(due)
		tick.Reset(l.rest())
	}
}

// endAll ends what is left, without a word to the peers.
func (l *Layer) endAll() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		servers := make([]*Server, 0, len(s.servers))
		for _, tx := range s.servers {
			servers = append(servers, tx)
		}
		clients := make([]*Client, 0, len(s.clients))
		for _, c := range s.clients {
			clients = append(clients, c)
		}
		s.mu.Unlock()
		for _, tx := range servers {
			tx.stop()
		}
		for _, c := range clients {
			c.stop(ErrTerminated)
		}
	}
}

// now is the time since the layer was made.
func (l *Layer) now() time.Duration { return time.Since(l.epoch) }

func (l *Layer) shard(key []byte) *shard {
	s, _ := l.place(key)
	return s
}

// place is where a key belongs, and its hash.
func (l *Layer) place(key []byte) (*shard, uint64) {
	hash := maphash.Bytes(l.seed, key)
	return &l.shards[hash%shardCount], hash
}

// Receive takes in one message; it is a transport.Handler.
func (l *Layer) Receive(msg *transport.Message) {
	switch method := msg.Head().Method; method {
	case "":
		l.response(msg)
	case "ACK":
		l.ack(msg)
	case "CANCEL":
		l.cancel(msg)
	default:
		l.request(msg, method)
	}
}

func (l *Layer) request(msg *transport.Message, method string) {
	var buf [256]byte
	key := appendServerKey(buf[:0], msg, method)
	s, hash := l.place(key)
	s.mu.Lock()
	if tx, ok := s.servers[string(key)]; ok {
		s.mu.Unlock()
		l.count.repeats.Add(1)
		tx.do(input{ev: evRequest})
		return
	}
	if a := s.answers.get(hash, key); a != nil {
		s.mu.Unlock()
		l.repeat(a.reply, a.raw)
		return
	}
	if s.answers.gists.pending(hash) {
		s.mu.Unlock()
		l.count.repeats.Add(1)
		return
	}
	if pending := l.pending.Load(); pending >= share(l.cfg.MaxPending) && (pending >= int64(l.cfg.MaxPending) || !msg.Head().InDialog) {
		s.mu.Unlock()
		l.count.pendingRefused.Add(1)
		l.refuse(msg, key)
		return
	}
	if l.active.Load() >= share(l.cfg.MaxTransactions) && !msg.Head().InDialog || l.full() {
		s.mu.Unlock()
		l.count.overloads.Add(1)
		l.refuse(msg, key)
		return
	}
	l.pending.Add(1)
	tx := newServer(l, s, string(key), method, msg)
	s.servers[tx.key] = tx
	s.mu.Unlock()
	l.count.servers.Add(1)
	tx.do(input{ev: evStart})
	l.user.Request(tx)
}

// share is the part of a bound that new work may take: the rest is for what is
// in progress already, which is shed last.
func share(bound int) int64 { return int64(bound - bound/10) }

// full counts a new transaction, unless the bound is reached.
func (l *Layer) full() bool {
	if l.active.Add(1) > int64(l.cfg.MaxTransactions) {
		l.active.Add(-1)
		return true
	}
	return false
}

// refuse answers 503 without state; the tag is the same for every repeat (8.2.7).
func (l *Layer) refuse(msg *transport.Message, key []byte) {
	retry := "Retry-After: " + strconv.Itoa(int(l.cfg.RetryAfter/time.Second)) + "\r\n"
	req, _ := msg.Model()
	_ = reply(msg).Send(AppendResponse(make([]byte, 0, 512), req, 503, "Service Unavailable", l.tag(string(key)), retry))
}

// tag makes the To tag of the layer's own final responses to a request.
func (l *Layer) tag(key string) string {
	var room [32]byte
	return string(AppendTag(room[:0], xxh3.HashStringSeed(key, l.cfg.Seed)))
}

// ack gives an ACK to the transaction of its INVITE, or to the user.
func (l *Layer) ack(msg *transport.Message) {
	var buf [256]byte
	tx := l.server(appendServerKey(buf[:0], msg, "INVITE"))
	switch {
	case tx != nil:
		if tx.do(input{ev: evAck})&doDeliver != 0 {
			l.user.Ack(msg)
		}
	case madeHere(msg.Head().ToTag):
		l.count.absorbed.Add(1)
	default:
		l.user.Ack(msg)
	}
}

func (l *Layer) server(key []byte) *Server {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[string(key)]
}

// cancel is 9.2: a CANCEL is answered at once, as its own transaction.
func (l *Layer) cancel(msg *transport.Message) {
	var buf, own [256]byte
	key := appendServerKey(own[:0], msg, "CANCEL")
	s, hash := l.place(key)
	s.mu.Lock()
	if a := s.answers.get(hash, key); a != nil {
		s.mu.Unlock()
		l.count.repeats.Add(1)
		_ = a.reply.Send(a.raw)
		return
	}
	s.mu.Unlock()
	invite := appendServerKey(buf[:0], msg, "INVITE")
	tx := l.server(invite)
	status, reason := 200, "OK"
	if tx == nil {
		status, reason = 481, "Call/Transaction Does Not Exist"
	}
	// The tag of the INVITE's own answers, as 9.2 wishes.
	req, _ := msg.Model()
	raw := AppendResponse(make([]byte, 0, 512), req, status, reason, l.tag(string(invite)), "")
	l.keep(s, string(key), raw, reply(msg))
	_ = reply(msg).Send(raw)
	if tx != nil && tx.undecided() {
		l.user.Cancel(tx, msg)
	}
}

// keep stores the final answer to a non-INVITE request for timer J (17.2.2).
func (l *Layer) keep(s *shard, key string, raw []byte, flow transport.Flow) {
	if flow.Reliable() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers.add(&answer{key: key, hash: maphash.String(l.seed, key), raw: raw, reply: flow, expires: l.now() + l.times.patience()})
}

func (l *Layer) response(msg *transport.Message) {
	var buf [256]byte
	head := msg.Head()
	key := appendClientKey(buf[:0], head)
	s := l.shard(key)
	s.mu.Lock()
	c := s.clients[string(key)]
	s.mu.Unlock()
	if c == nil {
		l.count.strays.Add(1)
		l.user.Stray(msg)
		return
	}
	c.do(input{ev: evResponse, status: head.Status, msg: msg})
}

// Request begins a client transaction for req, which has its top Via with a
// fresh branch and is serialised here, once. An error means that nothing has
// begun and f is never called: ErrOverloaded, ErrRequest, or ErrTransport if
// the flow did not take the request. f may be called before Request returns.
func (l *Layer) Request(req *sip.Request, flow transport.Flow, f Responses) (*Client, error) {
	via, cseq := req.Via(), req.CSeq()
	if via == nil || cseq == nil || req.Method == sip.ACK {
		return nil, ErrRequest
	}
	if branch, ok := via.Params.Get("branch"); !ok || branch == "" {
		return nil, ErrRequest
	}
	var buf [256]byte
	o := Outgoing{Method: string(req.Method), Raw: appendRequest(make([]byte, 0, 1024), req)}
	head := *(&transport.Message{Request: req}).Head()
	head.CSeqMethod = o.Method
	return l.begin(appendClientKey(buf[:0], &head), &o, flow, f)
}

// Outgoing is a request in bytes, which are the layer's from when it is given it,
// with what its answers are known by: Method, and the Branch and sent-by of its
// top Via. With, which may be nil, is what the message has come by that led to it:
// the request leaves with what else comes of that (transport.SendWith), and if it
// cannot be sent, f may be told so instead of who begins it.
type Outgoing struct {
	Method, Branch string
	SentBy         netip.AddrPort
	Raw            []byte
	With           transport.Flow
}

// RequestRaw is Request for a request that is written already.
func (l *Layer) RequestRaw(o Outgoing, flow transport.Flow, f Responses) (*Client, error) {
	if o.Branch == "" || !o.SentBy.IsValid() || o.Method == string(sip.ACK) {
		return nil, ErrRequest
	}
	var buf [256]byte
	var host [64]byte
	key := appendBranchKey(buf[:0], o.Branch, string(o.SentBy.Addr().AppendTo(host[:0])), int(o.SentBy.Port()), o.Method)
	return l.begin(key, &o, flow, f)
}

func (l *Layer) begin(key []byte, o *Outgoing, flow transport.Flow, f Responses) (*Client, error) {
	if l.full() {
		l.count.overloads.Add(1)
		return nil, ErrOverloaded
	}
	c := newClient(l, string(key), sip.RequestMethod(o.Method), flow, f)
	c.raw, c.with = o.Raw, o.With
	if err := c.begin(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	return c, nil
}

// FlowClosed tells client transactions on a connection that has ended: those
// without a final response get ErrTransport (17.1.4). It is a transport.Config's OnClose.
func (l *Layer) FlowClosed(flow transport.Flow) {
	l.mu.Lock()
	clients := l.streams[flow]
	delete(l.streams, flow)
	l.mu.Unlock()
	for c := range clients {
		c.do(input{ev: evSendError})
	}
}

// watch and unwatch keep streams; datagrams have nothing that could close.
func (l *Layer) watch(c *Client) {
	if !c.flow.Reliable() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[c.flow] == nil {
		l.streams[c.flow] = make(map[*Client]struct{})
	}
	l.streams[c.flow][c] = struct{}{}
}

func (l *Layer) unwatch(c *Client) {
	if !c.flow.Reliable() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams[c.flow], c)
	if len(l.streams[c.flow]) == 0 {
		delete(l.streams, c.flow)
	}
}

// reply is the flow that the responses to msg take.
func reply(msg *transport.Message) transport.Flow {
	if msg.Reply != nil {
		return msg.Reply
	}
	return msg.Flow
}
