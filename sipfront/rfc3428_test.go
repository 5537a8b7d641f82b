package sipfront

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
)

// memMailbox keeps messages by the rules of the user grain, in memory.
type memMailbox struct {
	node string
	zone *memCluster
	user *actors.User
	// slow is how long it takes to store.
	slow time.Duration

	mu   sync.Mutex
	recs map[actors.AoR]*messages.Record
	n    uint32
}

func (m *memMailbox) ask(aor actors.AoR, msg proto.Message) (*messages.MessageStored, error) {
	rec := m.recs[aor]
	if rec == nil {
		rec = &messages.Record{Aor: string(aor)}
		m.recs[aor] = rec
	}
	a := m.user.Answer(&actors.Question{Message: msg, Record: rec, NowMS: m.zone.NowMS(), Settled: true, NewStamp: m.stamp})
	if f, failed := a.Reply.(*messages.Failure); failed {
		return nil, actors.FromFailure(f)
	}
	rec.Merge(a.Writes)
	return a.Reply.(*messages.MessageStored), nil
}

func (m *memMailbox) stamp() *messages.Stamp {
	m.n++
	return &messages.Stamp{Ms: m.zone.NowMS(), Counter: m.n, Incarnation: 1}
}

func (m *memMailbox) StoreMessage(_ context.Context, s *messages.StoreMessage) ([]byte, error) {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Stamp, s.Edge = m.stamp(), m.node
	res, err := m.ask(actors.AoR(s.Aor), s)
	if err != nil {
		return nil, err
	}
	return res.Writes.Leases[0].Key, nil
}

func (m *memMailbox) DropMessages(_ context.Context, aor actors.AoR, keys ...[]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.ask(aor, &messages.DropMessages{Aor: string(aor), Keys: keys, Stamp: m.stamp(), Edge: m.node})
	return err
}

func (m *memMailbox) Where(_ context.Context, aor actors.AoR) (*messages.Whereabouts, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &messages.Whereabouts{Record: m.recs[aor].Clone(), NowMs: m.zone.NowMS(), View: []string{m.node, "n9"}}, nil
}

func (m *memMailbox) Mail() map[actors.AoR]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	mail := map[actors.AoR]int{}
	for aor, rec := range m.recs {
		mail[aor] = len(actors.Mail(rec, m.zone.NowMS()))
	}
	return mail
}

const bobAoR = actors.AoR("sip:bob@example.com")

func (m *memMailbox) stored() int { return m.Mail()[bobAoR] }

// withMail is alone at a node that keeps messages.
func withMail(t *testing.T, f func(t *testing.T, m *mesh, n *rig, box *memMailbox), change ...func(*Config)) {
	t.Helper()
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		limits := actors.DefaultLimits()
		limits.MaxMessages = 3
		box := &memMailbox{node: n.zone.self, zone: n.zone, user: actors.New(limits), recs: map[actors.AoR]*messages.Record{}}
		n.srv.parts.Mailbox = box
		n.srv.mail = newMailroom(n.srv)
		t.Cleanup(n.srv.mail.stop)
		f(t, m, n, box)
	}, change...)
}

// text is a MESSAGE of alice to bob.
func text(callID, body string, lines ...string) string {
	msg := invite("MESSAGE", "sip:bob@example.com", callID, lines...)
	return strings.Replace(msg, "Content-Length: 0\n\n", fmt.Sprintf("Content-Length: %d\n\n%s", len(body), body), 1)
}

// bodies are the bodies of the MESSAGEs that a phone has been sent since the
// last call, retransmissions apart.
func (m *mesh) bodies(phone string) string {
	m.pump()
	var list []string
	for i, raw := range m.inbox[phone] {
		if slices.Contains(m.inbox[phone][:i], raw) {
			continue
		}
		_, body, _ := strings.Cut(raw, "\r\n\r\n")
		list = append(list, body)
	}
	m.inbox[phone] = nil
	return strings.Join(list, "|")
}

// 7: who takes a message for somebody and has not delivered it yet says 202; it
// is delivered in order, each when the one before has been taken.
func TestRFC3428_7_AcceptedForLaterAndDeliveredInOrder(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.loc.set(string(bobAoR), "unavailable", t)
		for i := range 3 {
			n.recv(alice, text(fmt.Sprintf("m%d", i), fmt.Sprintf("text %d", i)))
			m.expect(alice, "SIP/2.0 202 Accepted")
		}
		// One more than a user may have: as if nothing were stored.
		n.recv(alice, text("m3", "too many"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		time.Sleep(time.Minute)
		n.loc.forget()
		n.bobAt(here(phone1, 1000))
		n.srv.StateChanged(&messages.StateChanged{Aor: string(bobAoR)})
		time.Sleep(time.Second)
		for i := range 3 {
			if got, want := m.bodies(phone1), fmt.Sprintf("text %d", i); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			if box.stored() != 3-i {
				t.Errorf("%d stored while %d is under way", box.stored(), i)
			}
			n.answer(phone1, "200", "")
			m.pump()
		}
		if box.stored() != 0 || n.srv.Stats().MessagesDelivered != 3 || n.srv.Stats().MessagesRefused != 1 {
			t.Errorf("%d stored, %+v", box.stored(), n.srv.Stats())
		}
		time.Sleep(time.Minute)
		m.expect(phone1, "")
		// The sender hears nothing more.
		m.expect(alice, "")
	})
}

// 7: what a relay says who has stored nothing is what the devices said.
func TestRFC3428_7_OnlyUnreachableIsStored(t *testing.T) {
	for status, stored := range map[string]bool{
		"404": true, "480": true, "503": true, "430": true,
		"486": false, "603": false, "415": false, "403": false, "488": false,
	} {
		withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
			n.bobAt(here(phone1, 1000))
			n.recv(alice, text("s"+status, "hello"))
			m.pump()
			n.answer(phone1, status, "")
			want := "SIP/2.0 " + status + " Whatever"
			if stored {
				want = "SIP/2.0 202 Accepted"
			}
			m.expect(alice, want)
			if got := box.stored() == 1; got != stored {
				t.Errorf("%s: stored %v", status, got)
			}
		})
	}
}

// A device that is silent makes no sender wait for a 408, which a sender would
// not be sent (RFC 4320 4.2); if it answers after all, nothing is delivered twice.
func TestRFC3428_7_SilentDevice(t *testing.T) {
	for _, late := range []bool{false, true} {
		withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
			n.bobAt(here(phone1, 1000))
			n.recv(alice, text("silent", "hello"))
			m.expect(alice, "")
			time.Sleep(8 * time.Second)
			m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 202 Accepted")
			if late {
				n.answer(phone1, "200", "")
			}
			m.pump()
			if got := box.stored() == 1; got == late {
				t.Errorf("late answer %v: stored %v", late, got)
			}
		})
	}
}

// Nothing is kept that nobody waits for, that would go round, or that is too large.
func TestRFC3428_7_NotStored(t *testing.T) {
	for what, msg := range map[string]string{
		"answer by a machine":  text("a", "x", "Auto-Submitted: auto-replied"),
		"disposition":          text("b", "x", "Content-Type: message/imdn+xml"),
		"somebody is typing":   text("c", "x", "Content-Type: application/im-iscomposing+xml;charset=utf-8"),
		"worth nothing later":  text("d", "x", "Expires: 0"),
		"too large":            text("e", strings.Repeat("x", 8193)),
		"a call":               invite("INVITE", "sip:bob@example.com", "f"),
		"within a dialog":      strings.Replace(text("g", "x"), "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=b", 1),
		"nobody's, by a relay": strings.Replace(text("h", "x"), "MESSAGE sip:bob@example.com", "MESSAGE sip:bob@elsewhere.example", 1),
	} {
		withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
			n.loc.set(string(bobAoR), "unavailable", t)
			n.recv(alice, msg)
			if got := m.got(alice); strings.Contains(got, "202") || got == "" || box.stored() != 0 {
				t.Errorf("%s: %s, %d stored", what, got, box.stored())
			}
		})
	}
}

// 7: without the option nothing changes; on a node that is leaving neither.
func TestRFC3428_7_WithoutStore(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("off", "x"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
	})
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.srv.SetDraining(true)
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("drain", "x"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
	})
}

// 4: Expires bounds the life of the message; Date is when it was sent.
func TestRFC3428_4_ExpiresAndDate(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("e1", "short", "Expires: 60"))
		n.recv(alice, text("e2", "dated", "Date: Sat, 13 Nov 2010 23:29:00 GMT"))
		m.expect(alice, "SIP/2.0 202 Accepted\nSIP/2.0 202 Accepted")
		time.Sleep(61 * time.Second)
		if box.stored() != 1 {
			t.Errorf("%d stored after a minute", box.stored())
		}
		n.loc.forget()
		n.bobAt(here(phone1, 1000))
		n.srv.StateChanged(&messages.StateChanged{Aor: string(bobAoR)})
		time.Sleep(time.Second)
		if got := m.bodies(phone1); got != "dated" {
			t.Errorf("got %q", got)
		}
		req := n.lastReq[phone1]
		if strings.Count(req, "Date: ") != 1 || !strings.Contains(req, "Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n") {
			t.Errorf("Date:\n%s", req)
		}
		if !strings.Contains(req, "Max-Forwards: 68\r\n") || strings.Contains(req, markHeader) || strings.Count(req, "Via: ") != 1 {
			t.Errorf("the way that it came is not its way out:\n%s", req)
		}
	})
}

// A repeat that came by another transaction is stored once.
func TestRFC3428_7_ARepeatIsStoredOnce(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("r1", "hello"))
		n.recv(alice, strings.Replace(text("r1", "hello"), "z9hG4bKr1", "z9hG4bKr1-again", 1))
		m.expect(alice, "SIP/2.0 202 Accepted\nSIP/2.0 202 Accepted")
		if box.stored() != 1 {
			t.Errorf("%d stored", box.stored())
		}
	})
}

// A device that refuses a message gets it three times, and then what comes after it.
func TestRFC3428_7_ARefusedMessageIsGivenUp(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("g1", "bad"))
		m.pump()
		n.recv(alice, text("g2", "good"))
		m.pump()
		time.Sleep(time.Minute)
		n.loc.forget()
		n.bobAt(here(phone1, 1000))
		n.srv.StateChanged(&messages.StateChanged{Aor: string(bobAoR)})
		for range 3 {
			time.Sleep(11 * time.Second)
			if got := m.bodies(phone1); got != "bad" {
				t.Fatalf("got %q", got)
			}
			n.answer(phone1, "488", "")
			m.pump()
		}
		if got := m.bodies(phone1); got != "good" {
			t.Errorf("got %q", got)
		}
		if st := n.srv.Stats(); st.MessagesFailed != 1 || box.stored() != 1 {
			t.Errorf("failed %d, stored %d", st.MessagesFailed, box.stored())
		}
		// A device that is not there keeps it for the next time.
		n.answer(phone1, "480", "")
		m.pump()
		time.Sleep(20 * time.Second)
		if got := m.bodies(phone1); got != "" || box.stored() != 1 {
			t.Errorf("got %q, %d stored", got, box.stored())
		}
	})
}

// Messages of one sender keep their order also when two nodes have accepted them.
func TestRFC3428_7_OrderOfASenderOverTwoNodes(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		n.loc.set(string(bobAoR), "unavailable", t)
		n.recv(alice, text("o1", "first"))
		m.pump()
		// The first was accepted by another node, which lives.
		box.mu.Lock()
		box.recs[bobAoR].Leases[0].Edge = "n9"
		elsewhere := box.recs[bobAoR].Leases[0].Key
		box.mu.Unlock()
		time.Sleep(time.Second)
		n.recv(alice, text("o2", "second"))
		m.pump()
		n.loc.forget()
		n.bobAt(here(phone1, 1000))
		n.srv.StateChanged(&messages.StateChanged{Aor: string(bobAoR)})
		time.Sleep(3 * time.Second)
		if got := m.bodies(phone1); got != "" {
			t.Errorf("got %q before the first was delivered", got)
		}
		if err := box.DropMessages(t.Context(), bobAoR, elsewhere); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if got := m.bodies(phone1); got != "second" {
			t.Errorf("got %q", got)
		}
	})
}

// 7: a device that the cluster names late, while a message is being stored that
// the others have left without an answer, takes nothing from that.
func TestRFC3428_7_ALateDeviceWhileAMessageIsBeingStored(t *testing.T) {
	withMail(t, func(t *testing.T, m *mesh, n *rig, box *memMailbox) {
		box.slow = 500 * time.Millisecond
		n.loc.part(string(bobAoR), here(phone1, 1000), t)
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, text("late", "hello"))
		m.pump()
		time.Sleep(1100 * time.Millisecond)
		m.pump() // it is being stored
		n.answer(phone1, "480", "")
		m.pump()
		n.loc.finish(string(bobAoR))
		m.pump()
		m.expect(phone2, "")
		m.expect(alice, "")
		time.Sleep(time.Second)
		m.expect(alice, "SIP/2.0 202 Accepted")
		if box.stored() != 1 {
			t.Errorf("%d stored", box.stored())
		}
	}, func(c *Config) { c.MessageWait = time.Second })
}
