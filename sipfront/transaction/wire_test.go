package transaction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/messages"
	"hereis/sipfront/transport"
)

// endpoint is a transport and a layer on loopback, with its user.
type endpoint struct {
	tr    *transport.Transport
	layer *Layer
	user  *fakeUser
}

func startEndpoint(t *testing.T, user *fakeUser) *endpoint {
	t.Helper()
	e := &endpoint{user: user, layer: New(DefaultConfig(), user)}
	cfg := transport.DefaultConfig()
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	cfg.UDP, cfg.TCP, cfg.OnClose = []netip.AddrPort{loopback}, []netip.AddrPort{loopback}, e.layer.FlowClosed
	var last atomic.Uint64
	tr, err := transport.New(cfg, e.layer.Receive, func(stream bool) *messages.FlowID {
		return &messages.FlowID{Counter: last.Add(1), Stream: stream}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Listen(); err != nil {
		t.Fatal(err)
	}
	e.tr = tr
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- tr.Run(ctx) })
	wg.Go(func() { errs <- e.layer.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Error(err)
		}
	})
	return e
}

// A call, a refused call and a cancelled one between two endpoints over real sockets.
func TestCallsOverTheWire(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			callee := &fakeUser{}
			callee.onBegin = func(tx *Server) {
				req := requestOf(tx.Message())
				_ = tx.Respond(sip.NewResponseFromRequest(req, 180, "Ringing", nil))
				if status := map[string]int{"good": 200, "busy": 486}[req.Recipient.User]; status != 0 {
					_ = tx.Respond(sip.NewResponseFromRequest(req, status, "X", nil))
				}
			}
			a, b := startEndpoint(t, &fakeUser{}), startEndpoint(t, callee)
			to := b.tr.Addrs()[0]
			if network == "tcp" {
				to = b.tr.TCPAddrs()[0]
			}
			flow, err := a.tr.Flow(network, to)
			if err != nil {
				t.Fatal(err)
			}
			for user, want := range map[string]string{"good": "180 200", "busy": "180 486", "slow": "180 487"} {
				got := make(chan string, 4)
				port := a.tr.Addrs()[0].Port()
				text := strings.NewReplacer("sip:bob@", "sip:"+user+"@", "192.0.2.1:5060", fmt.Sprintf("127.0.0.1:%d", port)).
					Replace(requestText("INVITE", "z9hG4bK"+network+user))
				c, err := a.layer.Request(parse(t, text).Request, flow, func(res *transport.Message, err error) {
					if err != nil {
						got <- err.Error()
						return
					}
					got <- fmt.Sprint(res.Head().Status)
				})
				if err != nil {
					t.Fatal(err)
				}
				first := wait(t, got)
				if user == "slow" {
					c.Cancel("")
					go487(t, callee)
				}
				if all := first + " " + wait(t, got); all != want {
					t.Errorf("%s: got %s, want %s", user, all, want)
				}
			}
		})
	}
}

// What a user sends after an answer follows it (as a NOTIFY does, RFC 6665
// 4.2.1.2), also while others' messages are gathered to leave together.
func TestAnswerIsNotOvertaken(t *testing.T) {
	user, started := &fakeUser{}, make(chan *endpoint, 1)
	user.onBegin = func(tx *Server) {
		b := <-started
		b.tr.Together(func() {
			_ = tx.Respond(sip.NewResponseFromRequest(requestOf(tx.Message()), 200, "OK", nil))
			notify := parse(t, requestText("NOTIFY", "z9hG4bKnext")).Request
			if _, err := b.layer.Request(notify, tx.Message().Flow, func(*transport.Message, error) {}); err != nil {
				t.Error(err)
			}
		})
	}
	b := startEndpoint(t, user)
	started <- b
	client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.tr.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	port := client.LocalAddr().(*net.UDPAddr).Port
	text := strings.ReplaceAll(requestText("SUBSCRIBE", "z9hG4bKfirst"), "192.0.2.1:5060", fmt.Sprintf("127.0.0.1:%d", port))
	if _, err := client.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, want := range []string{"SIP/2.0 200", "NOTIFY "} {
		buf := make([]byte, 2048)
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buf[:n]); !strings.HasPrefix(got, want) {
			t.Errorf("got %.20q, want %q", got, want)
		}
	}
}

// go487 waits for the CANCEL and answers the INVITE as a UAS does.
func go487(t *testing.T, u *fakeUser) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		u.mu.Lock()
		cancelled := len(u.log) > 0 && u.log[len(u.log)-1] == "cancel"
		tx := u.txs[len(u.txs)-1]
		u.mu.Unlock()
		if cancelled {
			if err := tx.Respond(sip.NewResponseFromRequest(requestOf(tx.Message()), 487, "Request Terminated", nil)); err != nil {
				t.Error(err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("no CANCEL came")
		}
	}
}

func wait(t *testing.T, c chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("no response")
		return ""
	}
}

// nullFlow takes everything.
type nullFlow struct{ *fakeFlow }

func (nullFlow) Send([]byte) error { return nil }

func BenchmarkRegisterTransaction(b *testing.B) {
	user := &rawUser{}
	l := New(DefaultConfig(), user)
	parser := transport.NewParser(transport.DefaultLimits())
	text := strings.ReplaceAll(requestText("REGISTER", "z9hG4bKxxxxxxxx"), "\n", "\r\n")
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		raw := []byte(strings.Replace(text, "xxxxxxxx", fmt.Sprintf("%08d", i), 1))
		req, _, err := parser.Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		l.Receive(&transport.Message{Request: req, Raw: raw, Flow: nullFlow{&fakeFlow{}}})
	}
}

// rawUser answers 200 in bytes.
type rawUser struct{ fakeUser }

func (u *rawUser) Request(tx *Server) {
	_ = tx.RespondRaw(200, AppendResponse(make([]byte, 0, 512), requestOf(tx.Message()), 200, "OK", "tag", ""))
}
