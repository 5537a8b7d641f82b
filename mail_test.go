package hereis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hereis/actors"
)

// inbox is a phone that answers every request with 200 and keeps what it got.
type inbox struct {
	*phone
	got chan string // read by the test; 16 deep, more than any test sends
}

// answering makes a phone take requests from now on: its send may not be used any more.
func (p *phone) answering() *inbox {
	in := &inbox{p, make(chan string, 16)}
	buf := make([]byte, 8192)
	_ = p.conn.SetReadDeadline(time.Time{})
	p.t.Cleanup(func() {
		p.conn.Close()
		for range in.got {
		}
	})
	go func() {
		defer close(in.got)
		for {
			n, from, err := p.conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			text := string(buf[:n])
			if strings.HasPrefix(text, "SIP/2.0") {
				continue
			}
			answer := []string{"SIP/2.0 200 OK"}
			for line := range strings.SplitSeq(text, "\r\n") {
				name, _, _ := strings.Cut(line, ":")
				switch name {
				case "Via", "From", "Call-ID", "CSeq":
					answer = append(answer, line)
				case "To":
					answer = append(answer, line+";tag=phone")
				}
			}
			_, _ = p.conn.WriteToUDP([]byte(strings.Join(answer, "\r\n")+"\r\nContent-Length: 0\r\n\r\n"), from)
			in.got <- text
		}
	}()
	return in
}

// texts reads the bodies of n MESSAGEs.
func (in *inbox) texts(n int) (bodies, heads []string) {
	in.t.Helper()
	end := time.After(20 * time.Second)
	for len(bodies) < n {
		select {
		case text := <-in.got:
			head, body, _ := strings.Cut(text, "\r\n\r\n")
			if strings.HasPrefix(head, "MESSAGE ") {
				bodies, heads = append(bodies, body), append(heads, head)
			}
		case <-end:
			in.t.Fatalf("got %q, want %d messages", bodies, n)
		}
	}
	return bodies, heads
}

// message sends a MESSAGE.
func (p *phone) message(n *member, from, to, body string, extra ...string) string {
	p.t.Helper()
	p.cseq++
	lines := append([]string{
		"MESSAGE sip:" + to + "@example.com SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK-m%s-%d;rport", p.addr(), strings.ReplaceAll(p.addr(), ":", "-"), p.cseq),
		fmt.Sprintf("From: <sip:%s@example.com>;tag=m%d", from, p.cseq),
		"To: <sip:" + to + "@example.com>",
		fmt.Sprintf("Call-ID: m%d-%s", p.cseq, p.addr()),
		fmt.Sprintf("CSeq: %d MESSAGE", p.cseq),
		"Max-Forwards: 70", "Content-Type: text/plain",
	}, extra...)
	return p.exchange(n, fmt.Sprintf("%s\r\nContent-Length: %d\r\n\r\n%s", strings.Join(lines, "\r\n"), len(body), body))
}

// RFC 3428 7: a relay may take a message for who is offline, with a 202. It is
// delivered once the user registers, at whatever node, and outlives the owner
// of the user's state.
func TestRFC3428_7_StoredMessagesOutliveTheOwner(t *testing.T) {
	cfgs := configs(t, 4)
	for i := range cfgs {
		cfgs[i].StoreMessages, cfgs[i].Durability = true, "sync"
	}
	nodes := startAll(t, cfgs, nil)
	// The sender's node is not the user's owner, nor is the node where the user comes.
	user, owner := "", 0
	for i := 0; user == ""; i++ {
		u := fmt.Sprintf("u%d", i)
		w, err := nodes[0].Where(t.Context(), aor(u))
		if err != nil {
			t.Fatal(err)
		}
		if w.Owner == "n2" && w.Backup == "n4" {
			user, owner = u, 1
		}
	}
	sender := newPhone(t)
	for i := range 3 {
		if got := sender.message(nodes[0], "alice", user, fmt.Sprintf("text %d", i)); !strings.HasPrefix(got, "SIP/2.0 202 ") {
			t.Fatalf("message %d: %s", i, got)
		}
	}
	if err := nodes[owner].stop(); err != nil {
		t.Fatal(err)
	}
	live := []*member{nodes[0], nodes[2], nodes[3]}
	settled(t, live)
	p := newPhone(t)
	if got := p.register(nodes[2], user, 600); !strings.HasPrefix(got, "SIP/2.0 200 ") {
		t.Fatal(got)
	}
	bodies, heads := p.answering().texts(3)
	if got, want := strings.Join(bodies, ","), "text 0,text 1,text 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, want := range []string{"\r\nDate: ", "\r\nFrom: <sip:alice@example.com>;tag=", "\r\nContent-Type: text/plain"} {
		if !strings.Contains(heads[0], want) {
			t.Errorf("no %q in\n%s", want, heads[0])
		}
	}
	eventually(t, "nothing is stored any more", func() error {
		st := nodes[0].Stats()
		if st["sip_messages_waiting"] != 0 || st["sip_messages_delivered_total"] != 3 {
			return fmt.Errorf("waiting %v, delivered %v", st["sip_messages_waiting"], st["sip_messages_delivered_total"])
		}
		return nil
	})
}

// A node that comes back delivers what it had accepted before.
func TestRFC3428_7_StoredMessagesOutliveTheirNode(t *testing.T) {
	cfgs := configs(t, 2)
	for i := range cfgs {
		cfgs[i].StoreMessages, cfgs[i].Durability = true, "sync"
	}
	nodes := startAll(t, cfgs, nil)
	sender := newPhone(t)
	if got := sender.message(nodes[0], "alice", "bob", "hello"); !strings.HasPrefix(got, "SIP/2.0 202 ") {
		t.Fatal(got)
	}
	if err := nodes[0].stop(); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[1:])
	p := newPhone(t)
	if got := p.register(nodes[1], "bob", 600); !strings.HasPrefix(got, "SIP/2.0 200 ") {
		t.Fatal(got)
	}
	in := p.answering()
	nodes[0] = start(t, cfgs[0], nil)
	if bodies, _ := in.texts(1); bodies[0] != "hello" {
		t.Errorf("got %q", bodies)
	}
}

func aor(user string) actors.AoR { return actors.AoR("sip:" + user + "@example.com") }
