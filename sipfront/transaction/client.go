package transaction

import (
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// Client is a client transaction.
type Client struct {
	l     *Layer
	shard *shard
	key   string
	flow  transport.Flow
	f     Responses // nil for the layer's own CANCEL
	timer timerNode

	mu sync.Mutex
	m  clientMachine
	// raw is the request; nil when nothing will be made of it any more.
	raw    []byte
	with   transport.Flow // Outgoing.With
	out    outbox
	reason string // of the CANCEL
	gone   bool   // the user wants to hear no more
}

func newClient(l *Layer, key string, method sip.RequestMethod, flow transport.Flow, f Responses) *Client {
	c := &Client{
		l: l, shard: l.shard([]byte(key)), key: key, flow: flow, f: f,
		m: newClientMachine(method == sip.INVITE, flow.Reliable(), &l.times),
	}
	c.timer.owner = c
	return c
}

// begin sends the request. The transaction is known before that: the answer
// may be faster than the return of Send.
func (c *Client) begin() error {
	c.shard.mu.Lock()
	if _, ok := c.shard.clients[c.key]; ok {
		c.shard.mu.Unlock()
		c.l.active.Add(-1)
		return ErrRequest
	}
	c.shard.clients[c.key] = c
	raw := c.raw // an answer may come, and let go of it, before it has been sent
	c.shard.mu.Unlock()
	c.l.count.clients.Add(1)
	c.mu.Lock()
	c.m.step(evStart, 0, c.l.now())
	c.arm()
	c.mu.Unlock()
	c.l.watch(c)
	err := c.send(raw)
	if err != nil {
		c.Terminate()
	}
	return err
}

// send sends the request for the first time. Without a message that it is to
// leave with it leaves at once, and an error is known at once.
func (c *Client) send(raw []byte) error {
	if c.with == nil {
		return c.flow.Send(raw)
	}
	return transport.SendWith(c.with, c.flow, raw, c)
}

// SendFailed implements transport.Sender.
func (c *Client) SendFailed(error) { c.do(input{ev: evSendError}) }

// Cancel gives an INVITE up (9.1): a CANCEL goes out now, or at the first
// provisional response. If 64*T1 later there is no final response, f gets
// ErrTimeout. reason is the value of the CANCEL's Reason header (RFC 3326), or
// "". Nothing happens after a final response or for another method.
func (c *Client) Cancel(reason string) {
	c.mu.Lock()
	if !c.m.cancel {
		c.reason = reason
	}
	c.execLocked(input{ev: evCancel})
}

// Terminate forgets the transaction; f is not called again, except for a call that is under way.
func (c *Client) Terminate() { c.stop(nil) }

// stop ends the transaction, with a last word to the user if why is not nil.
func (c *Client) stop(why error) {
	c.mu.Lock()
	tell := why != nil && !c.gone && c.f != nil && c.m.state != stateAccepted && c.m.state != stateCompleted
	c.gone = true
	c.m.end(0)
	c.mu.Unlock()
	c.end()
	if tell {
		c.f(nil, why)
	}
}

func (c *Client) do(in input) {
	c.mu.Lock()
	c.execLocked(in)
}

func (c *Client) expire(now time.Duration) {
	for {
		c.mu.Lock()
		ev, ok := c.m.due.due(now)
		if !ok {
			c.arm()
			c.mu.Unlock()
			return
		}
		c.execLocked(input{ev: ev})
	}
}

// execLocked steps the machine with c.mu held and lets the effects happen with
// it free, here or by whoever is at it already.
func (c *Client) execLocked(in input) {
	in.eff = c.m.step(in.ev, in.status, c.l.now())
	in.raw = c.raw
	if c.m.state == stateAccepted || c.m.state == stateCompleted && !c.m.invite {
		c.raw = nil // it is not repeated, nor is an ACK made of it (RFC 3261 17.1.1.3)
	}
	c.arm()
	if in.eff == 0 {
		c.mu.Unlock()
		return
	}
	if c.out.busy {
		c.out.queue = append(c.out.queue, in)
		c.mu.Unlock()
		return
	}
	c.out.busy = true
	c.mu.Unlock()
	c.run(in)
	for {
		c.mu.Lock()
		if len(c.out.queue) == 0 {
			c.out.busy, c.out.queue = false, nil
			c.mu.Unlock()
			return
		}
		next := c.out.queue[0]
		c.out.queue = c.out.queue[1:]
		c.mu.Unlock()
		c.run(next)
	}
}

func (c *Client) arm() {
	if at := c.m.due.next(); at != 0 {
		c.shard.wheel.arm(&c.timer, at)
	}
}

// run lets the effects of one event happen.
func (c *Client) run(in input) {
	var err error
	if in.eff&doSendRequest != 0 {
		err = c.flow.Send(in.raw)
	}
	if in.eff&doSendAck != 0 {
		_, res := in.msg.Model()
		err = c.flow.Send(appendFollower(make([]byte, 0, 512), in.raw, "ACK", res.To(), c.l.cfg.Carry, ""))
	}
	if in.eff&doSendCancel != 0 {
		c.sendCancel(in.raw)
	}
	if in.eff&doEnd != 0 {
		c.end()
	}
	c.tell(in)
	if err != nil {
		c.do(input{ev: evSendError})
	}
}

func (c *Client) tell(in input) {
	if in.eff&doStray != 0 {
		c.l.count.strays.Add(1)
		c.l.user.Stray(in.msg)
		return
	}
	if in.eff&doTimeout != 0 {
		c.l.count.timeouts.Add(1)
	}
	c.mu.Lock()
	silent := c.gone || c.f == nil
	c.mu.Unlock()
	switch {
	case silent:
	case in.eff&doDeliver != 0:
		c.f(in.msg, nil)
	case in.eff&doTimeout != 0:
		c.f(nil, ErrTimeout)
	case in.eff&doSendError != 0:
		c.f(nil, ErrTransport)
	}
}

// sendCancel begins the CANCEL's own transaction on the same flow, with the
// INVITE's branch (9.1). Its answer interests nobody, and the bound on
// transactions does not stop it: it ends more than it begins.
func (c *Client) sendCancel(invite []byte) {
	lines := ""
	c.mu.Lock()
	if c.reason != "" {
		lines = "Reason: " + c.reason + "\r\n"
	}
	c.mu.Unlock()
	x := newClient(c.l, strings.TrimSuffix(c.key, "INVITE")+"CANCEL", sip.CANCEL, c.flow, nil)
	x.raw = appendFollower(make([]byte, 0, 512), invite, "CANCEL", nil, c.l.cfg.Carry, lines)
	c.l.active.Add(1)
	_ = x.begin() // the INVITE's own limit ends it
}

func (c *Client) end() {
	c.shard.mu.Lock()
	was := c.shard.clients[c.key] == c
	if was {
		delete(c.shard.clients, c.key)
	}
	c.shard.mu.Unlock()
	if was {
		c.l.active.Add(-1)
		c.l.unwatch(c)
	}
	c.shard.wheel.disarm(&c.timer)
}
