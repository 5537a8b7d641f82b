package sipfront

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transport"
)

const (
	// mailDelay is how long after a user came online the first message is sent:
	// by then the device has the answer to its REGISTER.
	mailDelay = 300 * time.Millisecond
	// mailScan is how often the node looks for messages that nobody spoke of: after
	// its start it begins with mailFirst, and doubles that. mailRetry is how often
	// one is tried whose user has not been heard of.
	mailScan  = time.Minute
	mailFirst = 4 * time.Second
	mailRetry = 5 * time.Minute
	// mailTries is how often a message is offered that a device refuses, mailPause
	// how long it rests in between.
	mailTries = 3
	mailPause = 5 * time.Second
	// mailBusy is when it is tried again after a 503.
	mailBusy = 30 * time.Second
	// mailTurn and mailTurns bound how long a message waits for an older one of
	// the same sender that another node has.
	mailTurn  = time.Second
	mailTurns = 10
)

// mailroom delivers the messages that this node keeps: those of one user in
// their order, one at a time.
type mailroom struct {
	s *Server
	// waiting is how many messages this node keeps, as of the last scan and what it
	// knows to have changed since.
	waiting atomic.Int64

	mu sync.Mutex
	// boxes are the users for whom messages are kept here.
	boxes   map[actors.AoR]*box
	stopped bool
}

// box is the delivery to one user. It is guarded by mailroom.mu.
type box struct {
	aor actors.AoR
	// busy: a delivery is under way; woken: the user came online meanwhile.
	busy, woken bool
	timer       *time.Timer
	tried       time.Time
	// refused counts refusals by key, turns how often an older message elsewhere
	// has been waited for.
	refused map[string]int
	turns   int
}

func newMailroom(s *Server) *mailroom { return &mailroom{s: s, boxes: make(map[actors.AoR]*box)} }

// full tells whether this node keeps as many messages as it may.
func (m *mailroom) full() bool { return m.waiting.Load() >= int64(m.s.cfg.MaxStoredMessages) }

// run looks for messages from time to time: those of this node's disk at its
// start, those that other nodes give back in the seconds after it (a node that
// was killed before its disk had them), and those whose user came online without
// this node hearing of it.
func (m *mailroom) run(ctx context.Context) {
	defer m.stop()
	for pause := mailFirst; ; pause = min(2*pause, mailScan) {
		m.scan()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (m *mailroom) scan() {
	// What is stored meanwhile may be listed or not, and counts.
	total, before := 0, m.waiting.Load()
	mail := m.s.parts.Mailbox.Mail()
	for aor, n := range mail {
		total += n
		m.mu.Lock()
		b := m.boxes[aor]
		due := b == nil || !b.busy && b.timer == nil && time.Since(b.tried) > mailRetry
		m.mu.Unlock()
		if due {
			// Not all at once.
			m.wake(aor, mailDelay+time.Duration(m.s.rand()%uint64(10*time.Second)))
		}
	}
	m.waiting.Add(int64(total) - before)
	m.mu.Lock()
	defer m.mu.Unlock()
	for aor, b := range m.boxes {
		if mail[aor] == 0 && !b.busy && b.timer == nil {
			delete(m.boxes, aor)
		}
	}
}

func (m *mailroom) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	for _, b := range m.boxes {
		if b.timer != nil {
			b.timer.Stop()
		}
	}
}

// added notes a message that has just been stored.
func (m *mailroom) added(aor actors.AoR) {
	m.waiting.Add(1)
	m.wake(aor, mailDelay)
}

// changed tells that something about a user has changed, most likely a device
// that came: messages that are kept here are tried. It is false if there are none.
func (m *mailroom) changed(aor actors.AoR) (kept bool) {
	m.mu.Lock()
	_, kept = m.boxes[aor]
	m.mu.Unlock()
	if kept {
		m.wake(aor, mailDelay)
	}
	return kept
}

// lost tells that any number of changes may have been missed.
func (m *mailroom) lost() {
	m.mu.Lock()
	aors := slices.Collect(maps.Keys(m.boxes))
	m.mu.Unlock()
	for _, aor := range aors {
		m.wake(aor, mailDelay+time.Duration(m.s.rand()%uint64(2*time.Second)))
	}
}

// wake begins a delivery after a time, or notes that one that is under way is
// not the last.
func (m *mailroom) wake(aor actors.AoR, after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return
	}
	b := m.boxes[aor]
	if b == nil {
		b = &box{aor: aor, refused: make(map[string]int)}
		m.boxes[aor] = b
	}
	if b.busy {
		b.woken = true
		return
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer = time.AfterFunc(after, func() { m.begin(b) })
}

func (m *mailroom) begin(b *box) {
	m.mu.Lock()
	if m.stopped || b.busy {
		m.mu.Unlock()
		return
	}
	b.busy, b.woken, b.timer, b.tried = true, false, nil, time.Now()
	m.mu.Unlock()
	m.next(b)
}

// next takes the user's oldest message.
func (m *mailroom) next(b *box) {
	if !m.s.ask(context.Background(), func(ctx context.Context) { m.look(ctx, b) }) {
		m.rest(b, mailPause)
	}
}

// rest ends a delivery; the next begins after a time, 0: when woken.
func (m *mailroom) rest(b *box, after time.Duration) {
	m.mu.Lock()
	b.busy = false
	if b.woken && after == 0 {
		after = mailDelay
	}
	m.mu.Unlock()
	if after > 0 {
		m.wake(b.aor, after)
	}
}

func (m *mailroom) look(ctx context.Context, b *box) {
	w, err := m.s.parts.Mailbox.Where(ctx, b.aor)
	if err != nil {
		m.rest(b, mailPause)
		return
	}
	mail := actors.Mail(w.GetRecord(), w.GetNowMs())
	own := own(mail, m.s.parts.Cluster.Self())
	switch {
	case own == nil:
		m.mu.Lock()
		b.busy = false
		if !b.woken && m.boxes[b.aor] == b {
			delete(m.boxes, b.aor)
		}
		again := b.woken
		m.mu.Unlock()
		if again {
			m.wake(b.aor, mailDelay)
		}
	case b.turns < mailTurns && m.behind(own, mail, w.GetView()):
		b.turns++
		m.rest(b, mailTurn)
	default:
		b.turns = 0
		m.send(b, own)
	}
}

func own(mail []*messages.Lease, self string) *messages.Lease {
	for _, l := range mail {
		if l.GetEdge() == self {
			return l
		}
	}
	return nil
}

// behind tells whether a live node has an older message of the same sender.
func (m *mailroom) behind(l *messages.Lease, mail []*messages.Lease, view []string) bool {
	sender := senderOf(l)
	for _, o := range mail {
		if o == l {
			return false
		}
		for _, name := range view {
			if name == o.GetEdge() && senderOf(o) == sender {
				return true
			}
		}
	}
	return false
}

func senderOf(l *messages.Lease) string {
	var stored messages.StoredMessage
	if proto.Unmarshal(l.GetPayload(), &stored) != nil {
		return ""
	}
	return stored.Sender
}

// send offers a message to the user's devices, as any other request.
func (m *mailroom) send(b *box, l *messages.Lease) {
	s := m.s
	r, p, err := s.letter(b.aor, l)
	if err != nil || r.maxForwards == 0 {
		s.log.Debug("stored message not usable", "aor", string(b.aor), "err", err)
		m.failed(b, l)
		return
	}
	tx := &letterTx{}
	tx.ctx, tx.cancel = context.WithCancel(context.Background())
	tx.over = func(status int) {
		tx.cancel()
		m.answered(b, l, status)
	}
	r.msg = tx.Message()
	f := s.newFork(tx, r, p)
	f.letter = true
	f.locate()
}

// answered says what has become of it. It is called within the fork's do.
func (m *mailroom) answered(b *box, l *messages.Lease, status int) {
	switch {
	case status < 300:
		m.s.count.messagesDelivered.Add(1)
		m.done(b, l)
	case status == 503:
		m.rest(b, mailBusy)
	case storable(status):
		m.rest(b, 0)
	default:
		m.mu.Lock()
		b.refused[string(l.Key)]++
		tries := b.refused[string(l.Key)]
		m.mu.Unlock()
		if tries < mailTries {
			m.rest(b, time.Duration(tries)*mailPause)
			return
		}
		m.failed(b, l)
	}
}

func (m *mailroom) failed(b *box, l *messages.Lease) {
	m.s.count.messagesFailed.Add(1)
	m.done(b, l)
}

// done ends a message and goes on with the next.
func (m *mailroom) done(b *box, l *messages.Lease) {
	ok := m.s.ask(context.Background(), func(ctx context.Context) {
		if err := m.s.parts.Mailbox.DropMessages(ctx, b.aor, l.Key); err != nil {
			// It will be delivered again: better twice than not at all.
			m.s.log.Debug("stored message not ended", "aor", string(b.aor), "err", err)
			m.rest(b, mailPause)
			return
		}
		m.waiting.Add(-1)
		m.mu.Lock()
		delete(b.refused, string(l.Key))
		m.mu.Unlock()
		m.next(b)
	})
	if !ok {
		m.rest(b, mailPause)
	}
}

// drop ends a message that a device has taken while it was being stored.
func (m *mailroom) drop(aor actors.AoR, key []byte) {
	if key == nil {
		return
	}
	m.s.ask(context.Background(), func(ctx context.Context) {
		if err := m.s.parts.Mailbox.DropMessages(ctx, aor, key); err != nil {
			m.s.log.Debug("stored message not ended", "aor", string(aor), "err", err)
		}
	})
}

// letterTx stands where a request that came from somebody has its server
// transaction.
type letterTx struct {
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	over   func(status int)
}

func (t *letterTx) Message() *transport.Message { return &transport.Message{} }

func (t *letterTx) Context() context.Context { return t.ctx }

func (t *letterTx) Tag() string { return "" }

// Keep and Kept are for what may be cancelled.
func (t *letterTx) Keep(any)  {}
func (t *letterTx) Kept() any { return nil }

// RespondWith is RespondRaw, as nothing is sent.
func (t *letterTx) RespondWith(_ transport.Flow, status int, raw []byte) error {
	return t.RespondRaw(status, raw)
}

// RespondRaw takes the final answer.
func (t *letterTx) RespondRaw(status int, _ []byte) error {
	if status >= 200 {
		t.once.Do(func() { t.over(status) })
	}
	return nil
}
