package sipfront

import (
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// race 2: who waits for an answer waits before asking. Here the answer comes
// before the question has returned, and counts.
func TestPeers1_6_2_AnswerFasterThanRequestReturns(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.srv.layer = &hasty{n.srv.layer}
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "hasty"))
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 OK")
	})
}

// hasty answers 200 inside Request.
type hasty struct{ layer }

func (h *hasty) RequestRaw(req transaction.Outgoing, flow transport.Flow, f transaction.Responses) (clientTx, error) {
	f(&transport.Message{Raw: answerTo(req.Raw, "200 OK"), Flow: flow}, nil)
	return h.layer.RequestRaw(req, flow, func(*transport.Message, error) {})
}

// A node that only waits for its device says so before it is given up.
func TestRFC4320_4_1_SlowDeviceAtAnotherEdge(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "slow"))
		for range 60 {
			m.pump()
			time.Sleep(100 * time.Millisecond)
		}
		m.expect(alice, "SIP/2.0 100 Trying")
		n2.answer(bob, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")

		// One that says nothing at all is given up.
		m.dead[addr2] = true
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "dead"))
		m.pump()
		time.Sleep(4100 * time.Millisecond)
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 480 Temporarily Unavailable")
	})
}

// However many goroutines bring events, they happen one at a time and in order.
func TestForkSerialisesItsEvents(t *testing.T) {
	f := &fork{}
	var wg sync.WaitGroup
	sum, order := 0, make([]int, 8)
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				f.do(func() {
					sum++
					if order[g] != i {
						t.Errorf("goroutine %d: event %d came as %d", g, i, order[g])
					}
					order[g]++
					f.do(func() { sum++ })
				})
			}
		})
	}
	wg.Wait()
	done := make(chan struct{})
	f.do(func() { close(done) })
	<-done
	if sum != 16000 {
		t.Errorf("sum %d", sum)
	}
}

// A request has no more branches than it may have.
func TestMaxBranches(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "max"))
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(phone2, "")
		n.answer(phone1, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
	}, func(c *Config) { c.MaxBranches = 1 })
}

// A flow that cannot be written to is a dead flow: the next target is tried.
func TestTransportErrorTriesTheNext(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 500))
		n.net.flow(mustAddr(phone1)).closed = true
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "broken"))
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
	})
}

// A name in a Contact is resolved beside the socket's goroutine; one that
// nobody knows is a target less.
func TestContactNameIsResolved(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"gw.example.net": phone1}
		known := strings.Replace(here(phone1, 1000), "sip:bob@192.0.2.20:5060", "sip:bob@gw.example.net", 1)
		unknown := strings.Replace(here(phone2, 1000), "sip:bob@192.0.2.21:5060", "sip:bob@nowhere.example.net", 1)
		n.bobAt(known, unknown)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "dns"))
		m.expect(phone1, "INVITE sip:bob@gw.example.net SIP/2.0")
		n.answer(phone1, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
	})
}
