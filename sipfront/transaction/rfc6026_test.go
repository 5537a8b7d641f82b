package transaction

import (
	"errors"
	"testing"
	"time"
)

// 7.1: an error of the transport is told, and ends nothing: a repeated INVITE
// is recognised, and answered when the way is open again.
func TestRFC6026_7_1_ASendErrorKeepsTheTransaction(t *testing.T) {
	for status, repeats := range map[int]bool{180: true, 200: false, 486: true} {
		bubble(t, nil, func(r *rig) {
			r.receive("INVITE", branch)
			tx := r.tx()
			r.flow.mu.Lock()
			r.flow.fail = errors.New("no route")
			r.flow.mu.Unlock()
			if err := r.respond(tx, status); err == nil || errors.Is(err, ErrFinalSent) {
				t.Errorf("%d: got %v, want the transport's error", status, err)
			}
			r.wait(100 * time.Millisecond)
			r.active(1)
			r.flow.mu.Lock()
			r.flow.fail = nil
			r.flow.mu.Unlock()
			r.receive("INVITE", branch)
			if got := len(r.flow.take()) == 1; got != repeats {
				t.Errorf("%d: a repeat is answered: %v, want %v", status, got, repeats)
			}
			r.heard("request INVITE")
		})
	}
}

// 7.1: Timer L is 64*T1 on every transport.
func TestRFC6026_7_1_TimerLOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.receive("INVITE", branch)
		if err := r.respond(r.tx(), 200); err != nil {
			t.Fatal(err)
		}
		r.wait(31 * time.Second)
		r.receive("INVITE", branch)
		r.active(1)
		r.wait(2 * time.Second)
		r.active(0)
		r.heard("request INVITE")
		r.sent("0 200")
	})
}

// 6: the ACK of an RFC 2543 client, which looks like its INVITE, is for the
// user once a 2xx was sent, each time, and for nobody after another final.
func TestRFC6026_6_TheAckOfAnOldClient(t *testing.T) {
	for status, want := range map[int][]string{200: {"request INVITE", "ack", "ack"}, 486: {"request INVITE"}} {
		bubble(t, nil, func(r *rig) {
			r.receive("INVITE", "1")
			if err := r.respond(r.tx(), status); err != nil {
				t.Fatal(err)
			}
			r.receiveAck("1", "b")
			r.receiveAck("1", "b")
			r.heard(want...)
		})
	}
}

// 7.2: Timer M is 64*T1 on every transport; no ACK is made for a 2xx, and a
// transport that breaks takes nothing away from the user, who has the 2xx.
func TestRFC6026_7_2_TimerMOnAReliableTransport(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.flow.reliable = true
		r.begin("INVITE", branch)
		r.answer(200, "INVITE", branch)
		r.FlowClosed(r.flow)
		r.wait(31 * time.Second)
		r.answer(200, "INVITE", branch)
		r.toldUser("200", "200")
		r.active(1)
		r.wait(2 * time.Second)
		r.active(0)
		r.sent("0 INVITE")
		r.heard()
	})
}
