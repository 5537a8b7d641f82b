package transaction

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hereis/sipfront/transport"
)

func TestRFC3261_17_2_1_TryingAfter200ms(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		r.receive("INVITE", branch) // before anything was sent
		r.wait(time.Second)
		r.sent("0.2 100")
		want := strings.ReplaceAll(`SIP/2.0 100 Trying
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKone
Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKbelow
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>
Call-ID: call1
CSeq: 7 INVITE
Timestamp: 5
Content-Length: 0

`, "\n", "\r\n")
		if got := r.flow.last(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		r.receive("INVITE", branch)
		r.sent("1 100")
		r.heard("request INVITE")
	})
}

func TestRFC3261_17_2_1_ARepeatGetsTheLastProvisional(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		for _, status := range []int{100, 180, 183} {
			if err := r.respond(r.tx(), status); err != nil {
				t.Fatal(err)
			}
		}
		r.wait(time.Second)
		r.receive("INVITE", branch)
		r.sent("0 100", "0 180", "0 183", "1 183")
	})
}

func TestRFC3261_17_2_1_TimersGandH(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		tx := r.tx()
		ctx := tx.Context()
		if err := r.respond(tx, 404); err != nil {
			t.Fatal(err)
		}
		r.wait(1600 * time.Millisecond)
		r.receive("INVITE", branch)
		r.wait(31 * time.Second)
		r.sent("0 404", "0.5 404", "1.5 404", "1.6 404", "3.5 404", "7.5 404", "11.5 404", "15.5 404", "19.5 404", "23.5 404", "27.5 404", "31.5 404")
		r.active(0)
		if ctx.Err() == nil {
			t.Error("the context outlived the transaction")
		}
		if st := r.Stats(); st.Timeouts != 1 {
			t.Errorf("got %+v", st)
		}
	})
}

func TestRFC3261_17_2_1_AckStopsTimerG(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		if err := r.respond(r.tx(), 404); err != nil {
			t.Fatal(err)
		}
		r.wait(600 * time.Millisecond)
		r.receiveAck(branch, "x")
		r.receiveAck(branch, "x")
		r.receive("INVITE", branch) // confirmed: absorbed
		r.wait(4 * time.Second)
		r.active(1)
		r.wait(1100 * time.Millisecond) // timer I
		r.active(0)
		r.sent("0 404", "0.5 404")
		r.heard("request INVITE")
	})
}

func TestRFC3261_17_2_1_NoTimersGAndIOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.receive("INVITE", branch)
		if err := r.respond(r.tx(), 404); err != nil {
			t.Fatal(err)
		}
		r.wait(5 * time.Second)
		r.sent("0 404")
		r.receiveAck(branch, "x")
		r.active(0)
	})
}

// A late 200 must not displace the 487 that was sent.
func TestRFC3261_17_2_1_OnlyTheFinalThatWasSentIsRepeated(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		tx := r.tx()
		if err := r.respond(tx, 487); err != nil {
			t.Fatal(err)
		}
		for _, status := range []int{200, 180, 486} {
			if err := r.respond(tx, status); !errors.Is(err, ErrFinalSent) {
				t.Errorf("%d: got %v, want ErrFinalSent", status, err)
			}
		}
		r.wait(600 * time.Millisecond)
		r.receive("INVITE", branch)
		r.sent("0 487", "0.5 487", "0.6 487")
	})
}

func TestRFC6026_7_1_Accepted(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		tx := r.tx()
		if err := r.respond(tx, 200); err != nil {
			t.Fatal(err)
		}
		r.receive("INVITE", branch) // absorbed: the 2xx is repeated end to end
		r.wait(time.Second)
		if err := r.respond(tx, 200); err != nil {
			t.Errorf("a further 2xx: %v", err)
		}
		if err := r.respond(tx, 486); !errors.Is(err, ErrFinalSent) {
			t.Errorf("got %v, want ErrFinalSent", err)
		}
		r.receiveAck(branch, "x") // an RFC 2543 client's: to be routed on
		r.wait(30 * time.Second)
		r.active(1)
		r.wait(2 * time.Second) // timer L
		r.active(0)
		if err := r.respond(tx, 200); !errors.Is(err, ErrFinalSent) {
			t.Errorf("after the end: got %v, want ErrFinalSent", err)
		}
		r.sent("0 200", "1 200")
		r.heard("request INVITE", "ack")
	})
}

func TestRFC3261_13_2_2_4_AckFor2xxHasItsOwnBranch(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receiveAck("z9hG4bKack", "bob")
		r.heard("ack")
		r.active(0)
	})
}

func TestRFC3261_17_2_2_NonInvite(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("MESSAGE", branch)
		r.receive("MESSAGE", branch) // trying: absorbed
		tx := r.tx()
		r.wait(time.Second)
		r.sent()
		if err := r.respond(tx, 100); err != nil {
			t.Fatal(err)
		}
		r.receive("MESSAGE", branch)
		r.sent("1 100", "1 100")
		if err := r.respond(tx, 202); err != nil {
			t.Fatal(err)
		}
		if err := r.respond(tx, 500); !errors.Is(err, ErrFinalSent) {
			t.Errorf("a second final: got %v, want ErrFinalSent", err)
		}
		r.active(0) // only the answer's bytes stay
		r.wait(30 * time.Second)
		r.receive("MESSAGE", branch)
		r.sent("1 202", "31 202")
		r.heard("request MESSAGE")
		r.wait(2100 * time.Millisecond) // timer J
		r.receive("MESSAGE", branch)
		r.heard("request MESSAGE")
	})
}

func TestRFC4320_4_1_AnUnansweredNonInviteEndsWithTimerF(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("MESSAGE", branch)
		ctx := r.tx().Context()
		r.wait(33 * time.Second)
		r.active(0)
		if ctx.Err() == nil {
			t.Error("the context lives on")
		}
		r.sent("3.5 100") // no 408 (4.2)
	})
}

func TestRespondRaw(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.user.onBegin = func(tx *Server) {
			raw := AppendResponse(nil, requestOf(tx.Message()), 200, "OK", tx.Tag(), "Expires: 5\r\n")
			if err := tx.RespondRaw(200, raw); err != nil {
				t.Error(err)
			}
		}
		r.receive("REGISTER", branch)
		want := strings.ReplaceAll(`SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKone
Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKbelow
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>;tag=`+r.tx().Tag()+`
Call-ID: call1
CSeq: 7 REGISTER
Expires: 5
Content-Length: 0

`, "\n", "\r\n")
		if got := r.flow.last(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRFC3261_9_2_CancelIsAnsweredAtOnce(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		tx := r.tx()
		r.receive("CANCEL", branch)
		r.sent("0 200")
		if got := r.flow.last(); !strings.Contains(got, "To: <sip:bob@example.com>;tag="+tx.Tag()+"\r\n") || !strings.Contains(got, "CSeq: 7 CANCEL\r\n") {
			t.Errorf("got\n%s", got)
		}
		r.receive("CANCEL", branch)
		r.sent("0 200")
		r.heard("request INVITE", "cancel")
		// The user decides what becomes of the INVITE: here a 200 crosses.
		if err := r.respond(tx, 200); err != nil {
			t.Errorf("a crossing 200: %v", err)
		}
	})
}

func TestRFC3261_9_2_CancelAfterTheFinalHasNoEffect(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("INVITE", branch)
		if err := r.respond(r.tx(), 486); err != nil {
			t.Fatal(err)
		}
		r.receive("CANCEL", branch)
		r.sent("0 486", "0 200")
		r.heard("request INVITE")
	})
}

func TestRFC3261_9_2_CancelThatMatchesNothing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.receive("MESSAGE", branch)
		r.receive("CANCEL", branch) // a MESSAGE is not cancelled
		r.receive("CANCEL", branch)
		r.sent("0 481", "0 481")
		r.heard("request MESSAGE")
	})
}

func TestRFC3261_17_2_3_Matching(t *testing.T) {
	invite := requestText("INVITE", branch)
	old := strings.Replace(invite, ";branch="+branch, ";branch=1", 1)
	bare := strings.Replace(invite, branch, "z9hG4bK", 1)
	sub := func(text, from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("no %q", from)
		}
		return strings.Replace(text, from, to, 1)
	}
	for _, tt := range []struct {
		name, first, second string
		same                bool
	}{
		{"identical", invite, invite, true},
		{"another Call-ID changes nothing", invite, sub(invite, "call1", "call2"), true},
		{"another branch", invite, requestText("INVITE", "z9hG4bKtwo"), false},
		{"branch in other capitals", invite, requestText("INVITE", "z9hG4bKONE"), false},
		{"another sent-by host", invite, sub(invite, "192.0.2.1:5060", "192.0.2.2:5060"), false},
		{"another sent-by port", invite, sub(invite, "192.0.2.1:5060", "192.0.2.1:5062"), false},
		{"sent-by in other capitals", sub(invite, "192.0.2.1:", "A.example:"), sub(invite, "192.0.2.1:", "a.EXAMPLE:"), true},
		{"another method", invite, requestText("OPTIONS", branch), false},
		{"RFC 2543, identical", old, old, true},
		{"RFC 2543, another CSeq", old, sub(old, "CSeq: 7", "CSeq: 8"), false},
		{"RFC 2543, another Call-ID", old, sub(old, "call1", "call2"), false},
		{"RFC 2543, another From tag", old, sub(old, "tag=a", "tag=b"), false},
		{"RFC 2543, another Request-URI", old, sub(old, "sip:bob@", "sip:rob@"), false},
		{"RFC 2543, another Via", old, sub(old, "192.0.2.1:5060", "192.0.2.1:5061"), false},
		{"a bare cookie, identical", bare, bare, true},
		{"a bare cookie, another Call-ID", bare, sub(bare, "call1", "call2"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				r.Receive(withFlow(parse(t, tt.first), r.flow))
				r.Receive(withFlow(parse(t, tt.second), r.flow))
				if got := len(r.user.take()) == 1; got != tt.same {
					t.Errorf("got same = %v, want %v", got, tt.same)
				}
			})
		})
	}
}

func TestRFC3261_17_2_3_RFC2543AckAndCancel(t *testing.T) {
	for _, b := range []string{"1", "z9hG4bK"} {
		bubble(t, nil, func(r *rig) {
			r.receive("INVITE", b)
			tx := r.tx()
			r.receive("CANCEL", b)
			if err := r.respond(tx, 487); err != nil {
				t.Fatal(err)
			}
			r.receiveAck(b, "other")
			r.wait(time.Second)
			r.sent("0 200", "0 487")
			r.heard("request INVITE", "cancel")
		})
	}
}

func TestRFC3261_18_2_2_ResponsesTakeTheReplyFlow(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		other := &fakeFlow{epoch: r.flow.epoch}
		for _, method := range []string{"INVITE", "MESSAGE", "CANCEL"} {
			msg := withFlow(parse(t, requestText(method, branch)), r.flow)
			msg.Reply = other
			r.Receive(msg)
			if method != "CANCEL" {
				if err := r.respond(r.tx(), 180); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.sent()
		if got := fmt.Sprint(other.take()); got != "[0 180 0 180 0 200]" {
			t.Errorf("got %s", got)
		}
		var _ transport.Flow = other
	})
}
