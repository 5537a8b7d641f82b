package transaction

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hereis/sipfront/transport"
)

func TestRFC3261_17_1_1_2_TimersAandB(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		r.wait(33 * time.Second)
		r.sent("0 INVITE", "0.5 INVITE", "1.5 INVITE", "3.5 INVITE", "7.5 INVITE", "15.5 INVITE", "31.5 INVITE")
		r.toldUser(ErrTimeout.Error())
		r.active(0)
	})
}

func TestRFC3261_17_1_1_2_NoTimerAOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.begin("INVITE", branch)
		r.wait(31 * time.Second)
		r.toldUser()
		r.wait(2 * time.Second)
		r.sent("0 INVITE")
		r.toldUser(ErrTimeout.Error())
	})
}

func TestRFC3261_17_1_1_2_ProvisionalStopsAandB(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.begin("INVITE", branch)
		r.wait(time.Second)
		r.answer(100, "INVITE", branch)
		r.answer(180, "INVITE", branch)
		r.wait(2 * time.Minute)
		r.sent("0 INVITE", "0.5 INVITE")
		r.toldUser("100", "180")
		r.active(1)
		c.Terminate()
		r.answer(183, "INVITE", branch)
		r.toldUser()
		r.heard("stray 183")
		r.active(0)
	})
}

func TestRFC3261_17_1_1_3_AckForNon2xx(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		r.answer(486, "INVITE", branch)
		want := strings.ReplaceAll(`ACK sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKone
Route: <sip:p1.example.com;lr>
Route: <sip:p2.example.com;lr>
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>;tag=b486
Call-ID: call1
CSeq: 7 ACK
Max-Forwards: 70
Content-Length: 0

`, "\n", "\r\n")
		if got := r.flow.last(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		r.sent("0 INVITE", "0 ACK")
		r.wait(20 * time.Second)
		r.answer(486, "INVITE", branch) // a repeat: the ACK was lost
		r.answer(180, "INVITE", branch) // late
		r.sent("20 ACK")
		r.toldUser("486")
		r.wait(13 * time.Second) // timer D: 32 s
		r.active(0)
		r.heard()
	})
}

func TestRFC3261_17_1_1_2_TimerDIsZeroOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.begin("INVITE", branch)
		r.answer(404, "INVITE", branch)
		r.sent("0 INVITE", "0 ACK")
		r.toldUser("404")
		r.active(0)
	})
}

func TestRFC3261_17_1_4_TransportError(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		r.flow.breakDown()
		r.wait(time.Second)
		r.toldUser(ErrTransport.Error())
		r.active(0)
	})
}

// A request that had to wait for others to leave with is refused after it began.
func TestRFC3261_17_1_4_TransportErrorOfOneThatWaited(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch).SendFailed(errors.New("no route"))
		r.toldUser(ErrTransport.Error())
		r.active(0)
		answered := r.begin("OPTIONS", branch)
		r.answer(200, "OPTIONS", branch)
		answered.SendFailed(errors.New("no route"))
		r.toldUser("200")
	})
}

func TestRFC3261_17_1_4_ConnectionClosed(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.begin("INVITE", branch)
		r.begin("MESSAGE", "z9hG4bKtwo")
		r.begin("INVITE", "z9hG4bKthree")
		r.answer(200, "INVITE", "z9hG4bKthree") // has its final: hears no more
		r.FlowClosed(&fakeFlow{reliable: true})
		r.toldUser("200")
		r.FlowClosed(r.flow)
		r.toldUser(ErrTransport.Error(), ErrTransport.Error())
		r.active(1) // until timer M
		r.wait(33 * time.Second)
		r.active(0)
		if n := len(r.streams); n != 0 {
			t.Errorf("%d connections are remembered", n)
		}
	})
}

func TestRFC6026_7_2_EachFurther2xxIsPassed(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		r.answer(180, "INVITE", branch)
		r.answer(200, "INVITE", branch)
		r.wait(10 * time.Second)
		r.answer(200, "INVITE", branch)
		r.answer(202, "INVITE", branch)
		r.answer(180, "INVITE", branch) // of another branch below: too late
		r.answer(486, "INVITE", branch) // no ACK either: 7.2 drops it
		r.toldUser("180", "200", "200", "202")
		r.sent("0 INVITE")
		r.wait(23 * time.Second) // timer M: 32 s after the first
		r.active(0)
		r.answer(200, "INVITE", branch)
		r.toldUser()
		r.heard("stray 200")
	})
}

func TestRFC3261_16_7_A2xxAfterAnotherFinalIsForwarded(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		r.answer(486, "INVITE", branch)
		r.answer(200, "INVITE", branch)
		r.toldUser("486")
		r.heard("stray 200")
	})
}

func TestRFC3261_9_1_CancelWaitsForAProvisional(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.begin("INVITE", branch)
		c.Cancel(`SIP;cause=200;text="Call completed elsewhere"`)
		c.Cancel("second")
		r.wait(time.Second)
		r.sent("0 INVITE", "0.5 INVITE")
		r.answer(100, "INVITE", branch)
		want := strings.ReplaceAll(`CANCEL sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKone
Route: <sip:p1.example.com;lr>
Route: <sip:p2.example.com;lr>
From: "Alice" <sip:alice@example.com>;tag=a
To: <sip:bob@example.com>
Call-ID: call1
CSeq: 7 CANCEL
Reason: SIP;cause=200;text="Call completed elsewhere"
Max-Forwards: 70
Content-Length: 0

`, "\n", "\r\n")
		if got := r.flow.last(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		r.answer(180, "INVITE", branch)
		r.wait(600 * time.Millisecond)
		r.sent("1 CANCEL", "1.5 CANCEL") // timer E of the CANCEL
		r.answer(200, "CANCEL", branch)
		r.answer(487, "INVITE", branch)
		r.sent("1.6 ACK")
		r.toldUser("100", "180", "487")
		r.wait(33 * time.Second)
		r.active(0)
		r.heard()
	})
}

func TestRFC3261_9_1_NoFinalWithin64T1OfTheCancel(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.begin("INVITE", branch)
		r.answer(180, "INVITE", branch)
		r.wait(100 * time.Second)
		c.Cancel("")
		r.answer(200, "CANCEL", branch)
		r.wait(31 * time.Second)
		r.toldUser("180")
		r.wait(2 * time.Second)
		r.toldUser(ErrTimeout.Error())
		r.sent("0 INVITE", "100 CANCEL")
		r.active(0)
	})
}

func TestRFC3261_9_1_CancelWithoutAnyResponseEndsByTimerB(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.begin("INVITE", branch)
		r.wait(10 * time.Second)
		c.Cancel("")
		r.wait(23 * time.Second)
		r.toldUser(ErrTimeout.Error())
	})
}

func TestRFC3261_9_1_CancelAfterAFinalDoesNothing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		c := r.begin("INVITE", branch)
		r.answer(200, "INVITE", branch)
		c.Cancel("")
		o := r.begin("OPTIONS", "z9hG4bKo")
		r.answer(100, "OPTIONS", "z9hG4bKo")
		o.Cancel("") // only an INVITE is cancelled
		r.sent("0 INVITE", "0 OPTIONS")
	})
}

func TestRFC3261_17_1_2_2_TimersEandF(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("MESSAGE", branch)
		r.wait(33 * time.Second)
		r.sent("0 MESSAGE", "0.5 MESSAGE", "1.5 MESSAGE", "3.5 MESSAGE", "7.5 MESSAGE", "11.5 MESSAGE",
			"15.5 MESSAGE", "19.5 MESSAGE", "23.5 MESSAGE", "27.5 MESSAGE", "31.5 MESSAGE")
		r.toldUser(ErrTimeout.Error())
		r.active(0)
	})
}

func TestRFC3261_17_1_2_2_InProceedingTimerEIsT2(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("MESSAGE", branch)
		r.wait(600 * time.Millisecond)
		r.answer(100, "MESSAGE", branch)
		r.wait(12 * time.Second)
		// The running timer fires at 1.5 s, then every T2.
		r.sent("0 MESSAGE", "0.5 MESSAGE", "1.5 MESSAGE", "5.5 MESSAGE", "9.5 MESSAGE")
		r.answer(200, "MESSAGE", branch)
		r.answer(200, "MESSAGE", branch)
		r.toldUser("100", "200")
		r.active(1)
		r.wait(5100 * time.Millisecond) // timer K
		r.active(0)
		r.sent()
	})
}

func TestRFC3261_17_1_2_2_NoTimersEAndKOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.begin("MESSAGE", branch)
		r.wait(10 * time.Second)
		r.answer(200, "MESSAGE", branch)
		r.sent("0 MESSAGE")
		r.toldUser("200")
		r.active(0)
	})
}

func TestRFC3261_17_1_3_MatchedByBranchAndMethod(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("MESSAGE", branch)
		r.answer(200, "INFO", branch)
		r.answer(201, "MESSAGE", "z9hG4bKother")
		r.toldUser()
		r.heard("stray 200", "stray 201")
		if _, err := r.Request(parse(t, requestText("MESSAGE", branch)).Request, r.flow, nil); !errors.Is(err, ErrRequest) {
			t.Errorf("a branch twice: got %v, want ErrRequest", err)
		}
	})
}

// 18.1.2: a response whose sent-by is not ours was meant for somebody else; one
// without a port, or by another connection, may be ours.
func TestRFC3261_18_1_2_SentByMustBeOurs(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.begin("INVITE", branch)
		res := func(sentBy string) *transport.Message {
			return withFlow(parse(t, "SIP/2.0 200 OK\nVia: SIP/2.0/UDP "+sentBy+";branch="+branch+
				"\nFrom: <sip:a@example.com>;tag=a\nTo: <sip:bob@example.com>;tag=b\nCall-ID: call1\nCSeq: 7 INVITE\nContent-Length: 0\n\n"), &fakeFlow{reliable: true, epoch: r.flow.epoch})
		}
		for _, other := range []string{"192.0.2.2:5060", "192.0.2.1:5061", "example.com:5060", "[2001:db8::1]:5060"} {
			r.Receive(res(other))
		}
		r.toldUser()
		r.heard("stray 200", "stray 200", "stray 200", "stray 200")
		r.Receive(res("192.0.2.1"))
		r.toldUser("200")
		r.active(1)
	})
}

// A user that acts from within the call must neither deadlock nor be called twice at once.
func TestResponsesMayCallBack(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		var c *Client
		var told []int
		c, err := r.Request(parse(t, requestText("INVITE", branch)).Request, r.flow, func(res *transport.Message, err error) {
			told = append(told, res.Head().Status)
			if res.Head().Status == 180 {
				c.Cancel("")
				r.answer(487, "INVITE", branch)
				told = append(told, 0)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		r.answer(180, "INVITE", branch)
		if len(told) != 3 || told[1] != 0 || told[2] != 487 {
			t.Errorf("got %v, want 180, its end, 487", told)
		}
	})
}
