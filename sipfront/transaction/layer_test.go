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

func (f *fakeFlow) ID() *messages.FlowID   { return &messages.FlowID{} }
func (f *fakeFlow) Transport() string      { return "udp" }
func (f *fakeFlow) Reliable() bool         { return f.reliable }
func (f *fakeFlow) Local() netip.AddrPort  { return netip.AddrPort{} }
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
	u.requests[tx] = tx.Message().Request
	u.mu.Unlock()
	u.add("request " + string(tx.Message().Request.Method))
	if u.onBegin != nil {
		u.onBegin(tx)
	}
}
func (u *fakeUser) Cancel(*Server, *transport.Message) { u.add("cancel") }
func (u *fakeUser) Ack(*transport.Message)             { u.add("ack") }
func (u *fakeUser) Stray(m *transport.Message)         { u.add(fmt.Sprint("stray ", m.Response.StatusCode)) }

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

func parse(t *testing.T, text string) *transport.Message {
	t.Helper()
	text = strings.ReplaceAll(strings.TrimLeft(text, "\n"), "\n", "\r\n")
	req, res, err := transport.NewParser(transport.DefaultLimits()).Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &transport.Message{Request: req, Response: res, Raw: []byte(text)}
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

// receive brings a request as if it came on the rig's flow.
func (r *rig) receive(method, branch string) *transport.Message {
	r.t.Helper()
	msg := parse(r.t, requestText(method, branch))
	msg.Flow = r.flow
	r.Receive(msg)
	return msg
}

// ackText is an ACK with the tag of the response.
func (r *rig) receiveAck(branch, tag string) {
	r.t.Helper()
	msg := parse(r.t, strings.Replace(requestText("ACK", branch), "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag="+tag, 1))
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
		r.told.add(fmt.Sprint(res.Response.StatusCode))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// answer brings a response to the rig's client transaction.
func (r *rig) answer(status int, method, branch string) {
	r.t.Helper()
	msg := parse(r.t, fmt.Sprintf(`
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

const branch = "z9hG4bKone"

func TestOverloadIsAnswered503WithoutState(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxTransactions = 1 }, func(r *rig) {
		r.receive("INVITE", branch)
		r.heard("request INVITE")
		r.receive("INVITE", "z9hG4bKtwo")
		first := r.flow.last()
		r.receive("INVITE", "z9hG4bKtwo")
		if second := r.flow.last(); first != second || !strings.Contains(first, "\r\nRetry-After: 5\r\n") {
			t.Errorf("got\n%s\nand\n%s", first, second)
		}
		r.sent("0 503", "0 503")
		_, err := r.Request(parse(t, requestText("OPTIONS", "z9hG4bKthree")).Request, r.flow, nil)
		if !errors.Is(err, ErrOverloaded) {
			t.Errorf("got %v, want ErrOverloaded", err)
		}
		// Its ACK acknowledges nothing that anybody below knows of.
		_, tag, _ := strings.Cut(first, "To: <sip:bob@example.com>;tag=")
		tag, _, _ = strings.Cut(tag, "\r\n")
		r.receiveAck("z9hG4bKtwo", tag)
		r.heard()
		// A CANCEL passes: it ends more than it begins.
		r.receive("CANCEL", branch)
		r.heard("cancel")
		if st := r.Stats(); st.Overloads != 3 || st.Absorbed != 1 {
			t.Errorf("got %+v", st)
		}
	})
}

// New work is shed before what is in progress: the last tenth of both bounds is
// for requests within dialogs.
func TestOverloadShedsNewWorkFirst(t *testing.T) {
	for name, bound := range map[string]func(*Config){
		"transactions": func(c *Config) { c.MaxTransactions = 20 },
		"pending":      func(c *Config) { c.MaxPending = 20 },
	} {
		bubble(t, bound, func(r *rig) {
			fresh, inside := 0, 0
			for i := range 25 {
				r.receive("OPTIONS", fmt.Sprintf("z9hG4bKnew%d", i))
				if len(r.user.take()) == 1 {
					fresh++
				}
			}
			for i := range 5 {
				msg := parse(t, strings.Replace(requestText("BYE", fmt.Sprintf("z9hG4bKbye%d", i)), "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=b", 1))
				msg.Flow = r.flow
				r.Receive(msg)
				if len(r.user.take()) == 1 {
					inside++
				}
			}
			if fresh != 18 || inside != 2 {
				t.Errorf("%s: %d new ones and %d within dialogs were taken, want 18 and 2", name, fresh, inside)
			}
		})
	}
}

// A plain request is new work, and no other's place is taken by its end.
func TestPlainIsShedAsNewWork(t *testing.T) {
	for name, bound := range map[string]func(*Config){
		"transactions": func(c *Config) { c.MaxTransactions = 20 },
		"pending":      func(c *Config) { c.MaxPending = 20 },
	} {
		bubble(t, bound, func(r *rig) {
			var begun []*Plain
			begin := func(n int) {
				for range n {
					if p := r.Begin(fmt.Sprintf("z9hG4bKp%d", len(begun)), "h", 5060, "REGISTER", r.flow); p != nil {
						begun = append(begun, p)
					}
				}
			}
			begin(25)
			if len(begun) != 18 {
				t.Errorf("%s: %d were taken, want 18", name, len(begun))
			}
			for _, p := range begun {
				if err := p.RespondRaw(200, []byte("SIP/2.0 200 OK\r\n\r\n")); err != nil {
					t.Error(err)
				}
			}
			begin(25)
			if len(begun) != 36 {
				t.Errorf("%s: %d more were taken, want 18", name, len(begun)-18)
			}
			for _, p := range begun[18:] {
				_ = p.RespondRaw(200, []byte("SIP/2.0 200 OK\r\n\r\n"))
			}
		})
	}
}

func TestRunEndsEveryTransaction(t *testing.T) {
	var r *rig
	var ctx context.Context
	bubble(t, nil, func(rr *rig) {
		r = rr
		r.begin("INVITE", branch)
		r.receive("MESSAGE", branch)
		ctx = r.tx().Context()
		if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
			t.Error("a MESSAGE's context has no deadline, or has ended")
		}
	})
	if ctx.Err() == nil {
		t.Error("the context lives on")
	}
	r.toldUser(ErrTerminated.Error())
	r.active(0)
}

func TestAnswersAreBoundedByBytes(t *testing.T) {
	bubble(t, func(c *Config) { c.AnswerBytes = 64 << 10 }, func(r *rig) {
		r.user.onBegin = func(tx *Server) {
			if err := r.respond(tx, 200); err != nil {
				t.Error(err)
			}
		}
		for i := range 500 {
			r.receive("REGISTER", fmt.Sprintf("z9hG4bK%d", i))
		}
		st := r.Stats()
		if st.AnswerBytes > 64<<10 || st.AnswersEvicted == 0 || st.Answers == 0 || st.Active != 0 {
			t.Errorf("got %+v", st)
		}
		r.flow.take()
		r.user.take()
		r.receive("REGISTER", "z9hG4bK499")
		r.sent("0 200")
		r.heard()
	})
}

func TestRequestThatCannotBegin(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		noBranch := strings.Replace(requestText("OPTIONS", "x"), ";branch=x", "", 1)
		for name, text := range map[string]string{"ACK": requestText("ACK", branch), "no branch": noBranch} {
			if _, err := r.Request(parse(t, text).Request, r.flow, nil); !errors.Is(err, ErrRequest) {
				t.Errorf("%s: got %v, want ErrRequest", name, err)
			}
		}
		r.flow.breakDown()
		if _, err := r.Request(parse(t, requestText("OPTIONS", branch)).Request, r.flow, nil); !errors.Is(err, ErrTransport) {
			t.Errorf("got %v, want ErrTransport", err)
		}
		r.active(0)
	})
}

// Every goroutine at once: the race detector is the judge, and nothing may be left.
func TestManyAtOnce(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.user.onBegin = func(tx *Server) { _ = r.respond(tx, 200) }
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 40 {
					b := fmt.Sprintf("z9hG4bK%d-%d", g%4, i) // pairs share branches
					r.Receive(withFlow(parse(t, requestText("OPTIONS", b)), r.flow))
					r.Receive(withFlow(parse(t, requestText("INVITE", b)), r.flow))
					r.Receive(withFlow(parse(t, requestText("CANCEL", b)), r.flow))
					c, err := r.Request(parse(t, requestText("INVITE", b+"c")).Request, r.flow, func(*transport.Message, error) {})
					if err == nil {
						c.Cancel("")
					}
				}
			})
		}
		wg.Wait()
		r.wait(70 * time.Second)
		r.active(0)
		if st := r.Stats(); st.Answers != 0 || st.AnswerBytes != 0 {
			t.Errorf("got %+v", st)
		}
	})
}

func withFlow(m *transport.Message, f transport.Flow) *transport.Message {
	m.Flow = f
	return m
}

func TestPendingRequestsAreBounded(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxPending = 1 }, func(r *rig) {
		r.receive("INVITE", branch)
		tx := r.tx()
		if st := r.Stats(); st.Pending != 1 {
			t.Errorf("%d are pending, want 1", st.Pending)
		}
		r.receive("OPTIONS", "z9hG4bKtwo")
		if got := r.flow.last(); !strings.HasPrefix(got, "SIP/2.0 503 ") || !strings.Contains(got, "\r\nRetry-After: 5\r\n") {
			t.Errorf("got %s", got)
		}
		if err := r.respond(tx, 180); err != nil {
			t.Fatal(err)
		}
		if st := r.Stats(); st.Pending != 1 || st.PendingRefused != 1 {
			t.Errorf("ringing: %+v", st)
		}
		// Answered, it lingers as a transaction and is pending no more.
		if err := r.respond(tx, 486); err != nil {
			t.Fatal(err)
		}
		if st := r.Stats(); st.Pending != 0 || st.Active != 1 {
			t.Errorf("answered: %+v", st)
		}
		r.heard("request INVITE")
		r.receive("OPTIONS", "z9hG4bKthree")
		r.heard("request OPTIONS")
		r.wait(time.Minute)
		if st := r.Stats(); st.Pending != 0 || st.Active != 0 {
			t.Errorf("a minute later: %+v", st)
		}
	})
}

// TestRequestRaw_AgreesWithRequest: what is known of a request in bytes leads its
// answers to it as what the parser reads of it does.
func TestRequestRaw_AgreesWithRequest(t *testing.T) {
	for _, sentBy := range []string{"192.0.2.1:5060", "192.0.2.1:5070", "[2001:db8::1]:5060", "[::ffff:192.0.2.1]:5061"} {
		for _, method := range []string{"INVITE", "OPTIONS"} {
			text := strings.Replace(requestText(method, branch), "192.0.2.1:5060", sentBy, 1)
			req := parse(t, text).Request
			raw := appendRequest(nil, req)
			bubble(t, nil, func(r *rig) {
				if _, err := r.RequestRaw(Outgoing{Method: method, Branch: branch, SentBy: netip.MustParseAddrPort(sentBy), Raw: raw}, r.flow, nil); err != nil {
					t.Fatal(err)
				}
				key := string(appendClientKey(nil, req.Via(), method))
				if r.Layer.shard([]byte(key)).clients[key] == nil {
					t.Errorf("%s from %s is not known as %q", method, sentBy, key)
				}
				if _, err := r.Request(req, r.flow, nil); !errors.Is(err, ErrRequest) {
					t.Errorf("the same again: %v, want ErrRequest", err)
				}
			})
		}
	}
}
