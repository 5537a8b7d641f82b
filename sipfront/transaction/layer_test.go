package transaction

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/sipfront/transport"
)

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
					p := &Plain{Branch: fmt.Sprintf("z9hG4bKp%d", len(begun)), Host: "h", Port: 5060, Method: "REGISTER", Reply: r.flow}
					if found, _ := r.Begin(p, nil, time.Now()); found == BeginNew {
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
				key := string(appendClientKey(nil, (&transport.Message{Request: req}).Head()))
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
