package transaction

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"hereis/messages"
	"hereis/sipfront/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeFlow logs what is sent as "seconds start-line".
type fakeFlow struct {
	reliable bool
	epoch    time.Time

	mu   sync.Mutex
	fail error
	log  []string
	raw  []string
}

func (f *fakeFlow) ID() *messages.FlowID { return &messages.FlowID{} }

func (f *fakeFlow) Transport() string { return "udp" }

func (f *fakeFlow) Reliable() bool { return f.reliable }

func (f *fakeFlow) Local() netip.AddrPort { return netip.AddrPort{} }

func (f *fakeFlow) Remote() netip.AddrPort { return netip.AddrPort{} }

func (f *fakeFlow) Send(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	line, _, _ := strings.Cut(string(b), "\r\n")
	line = strings.TrimSuffix(strings.TrimPrefix(line, "SIP/2.0 "), " SIP/2.0")
	word, _, _ := strings.Cut(line, " ")
	f.log = append(f.log, fmt.Sprintf("%v %s", time.Since(f.epoch).Seconds(), word))
	f.raw = append(f.raw, string(b))
	return nil
}

func (f *fakeFlow) breakDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = errors.New("no route")
}

// take returns what was sent since the last call.
func (f *fakeFlow) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

func (f *fakeFlow) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.raw[len(f.raw)-1]
}

// fakeUser logs what the layer tells it.
type fakeUser struct {
	// requests are what the transactions began with, which they forget.
	requests map[*Server]*sip.Request
	mu       sync.Mutex
	txs      []*Server
	log      []string
	onBegin  func(*Server)
}

func (u *fakeUser) add(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = append(u.log, s)
}

func (u *fakeUser) Request(tx *Server) {
	u.mu.Lock()
	u.txs = append(u.txs, tx)
	if u.requests == nil {
		u.requests = map[*Server]*sip.Request{}
	}
	u.requests[tx] = requestOf(tx.Message())
	u.mu.Unlock()
	u.add("request " + tx.Message().Head().Method)
	if u.onBegin != nil {
		u.onBegin(tx)
	}
}

func (u *fakeUser) Cancel(*Server, *transport.Message) { u.add("cancel") }

func (u *fakeUser) Ack(*transport.Message) { u.add("ack") }

func (u *fakeUser) Stray(m *transport.Message) { u.add(fmt.Sprint("stray ", m.Head().Status)) }

func (u *fakeUser) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	log := u.log
	u.log = nil
	return log
}

// rig is a layer inside a bubble with one flow.
type rig struct {
	*Layer
	t    *testing.T
	flow *fakeFlow
	user *fakeUser
	told told
}

// told is what the client transactions told their user: status or error.
type told struct {
	mu  sync.Mutex
	log []string
}

func (l *told) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, s)
}

func (l *told) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.log
	l.log = nil
	return log
}

func bubble(t *testing.T, change func(*Config), f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		if change != nil {
			change(&cfg)
		}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, flow: &fakeFlow{epoch: time.Now()}, user: &fakeUser{}}
		r.Layer = New(cfg, r.user)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		f(r)
		cancel()
		<-done
	})
}

// wait lets the bubble's time pass.
func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) sent(want ...string) {
	r.t.Helper()
	if got := r.flow.take(); !slices.Equal(got, want) {
		r.t.Errorf("sent %q, want %q", got, want)
	}
}

func (r *rig) heard(want ...string) {
	r.t.Helper()
	if got := r.user.take(); !slices.Equal(got, want) {
		r.t.Errorf("user heard %q, want %q", got, want)
	}
}

func (r *rig) toldUser(want ...string) {
	r.t.Helper()
	if got := r.told.take(); !slices.Equal(got, want) {
		r.t.Errorf("client told %q, want %q", got, want)
	}
}

func (r *rig) active(want int) {
	r.t.Helper()
	if got := r.Stats().Active; got != want {
		r.t.Errorf("got %d transactions, want %d", got, want)
	}
}

// receive brings a request as if it came on the rig's flow.
func (r *rig) receive(method, branch string) *transport.Message {
	r.t.Helper()
	msg := arrived(r.t, requestText(method, branch))
	msg.Flow = r.flow
	r.Receive(msg)
	return msg
}

// ackText is an ACK with the tag of the response.
func (r *rig) receiveAck(branch, tag string) {
	r.t.Helper()
	msg := arrived(r.t, strings.Replace(requestText("ACK", branch), "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag="+tag, 1))
	msg.Flow = r.flow
	r.Receive(msg)
}

func (r *rig) tx() *Server {
	r.user.mu.Lock()
	defer r.user.mu.Unlock()
	return r.user.txs[len(r.user.txs)-1]
}

func (r *rig) respond(tx *Server, status int) error {
	r.user.mu.Lock()
	req := r.user.requests[tx]
	r.user.mu.Unlock()
	res := sip.NewResponseFromRequest(req, status, "X", nil)
	return tx.Respond(res)
}

// begin starts a client transaction.
func (r *rig) begin(method, branch string) *Client {
	r.t.Helper()
	c, err := r.Request(parse(r.t, requestText(method, branch)).Request, r.flow, func(res *transport.Message, err error) {
		if err != nil {
			r.told.add(err.Error())
			return
		}
		r.told.add(fmt.Sprint(res.Head().Status))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// answer brings a response to the rig's client transaction.
func (r *rig) answer(status int, method, branch string) {
	r.t.Helper()
	msg := arrived(r.t, fmt.Sprintf(`
SIP/2.0 %d X
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=%s
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>;tag=b%d
Call-ID: call1
CSeq: 7 %s
Content-Length: 0

`, status, branch, status, method))
	msg.Flow = r.flow
	r.Receive(msg)
	synctest.Wait()
}

func parse(t *testing.T, text string) *transport.Message {
	t.Helper()
	text = strings.ReplaceAll(strings.TrimLeft(text, "\n"), "\n", "\r\n")
	req, res, err := transport.NewParser(transport.DefaultLimits()).Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &transport.Message{Request: req, Response: res, Raw: []byte(text)}
}

// arrived is parse for a message as the sockets hand it on: if it is plain, it is
// not parsed.
func arrived(t *testing.T, text string) *transport.Message {
	t.Helper()
	text = strings.ReplaceAll(strings.TrimLeft(text, "\n"), "\n", "\r\n")
	msg, err := transport.NewParser(transport.DefaultLimits()).Message([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return msg
}

// requestOf is a request as sipgo's types have it.
func requestOf(m *transport.Message) *sip.Request {
	req, _ := m.Model()
	return req
}

func requestText(method, branch string) string {
	return method + ` sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=` + branch + `
Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKbelow
Route: <sip:p1.example.com;lr>
Route: <sip:p2.example.com;lr>
Max-Forwards: 69
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>
Call-ID: call1
CSeq: 7 ` + method + `
Timestamp: 5
Content-Length: 0

`
}

const branch = "z9hG4bKone"

func withFlow(m *transport.Message, f transport.Flow) *transport.Message {
	m.Flow = f
	return m
}
