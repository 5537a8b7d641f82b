package hereis_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis"
	"hereis/messages"
)

// callee is a device on one UDP socket whose answers a test gives; caller and
// callee of a call are one of these each.
type callee struct {
	t    *testing.T
	conn *net.UDPConn

	mu sync.Mutex
	// came has what has been received, repeats apart, oldest first.
	came []arrived
}

type arrived struct {
	msg  string
	from netip.AddrPort
}

func newCallee(t *testing.T) *callee {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	c := &callee{t: t, conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.came = append(c.came, arrived{string(buf[:n]), from})
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return c
}

func (c *callee) addr() string { return c.conn.LocalAddr().String() }

func (c *callee) send(to string, lines ...string) {
	c.t.Helper()
	at, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(to, "udp:"))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.WriteToUDP([]byte(strings.Join(lines, "\r\n")+"\r\nContent-Length: 0\r\n\r\n"), at); err != nil {
		c.t.Fatal(err)
	}
}

// await returns the last message that begins and has a CSeq as wanted; what sent
// it is repeated meanwhile.
func (c *callee) await(start, cseq string, send func()) arrived {
	c.t.Helper()
	var found arrived
	var last time.Time
	eventually(c.t, start+" "+cseq, func() error {
		c.mu.Lock()
		for _, a := range c.came {
			if strings.HasPrefix(a.msg, start) && strings.HasSuffix(headerOf(a.msg, "CSeq"), cseq) {
				found = a
			}
		}
		came := len(c.came)
		c.mu.Unlock()
		if found.msg != "" {
			return nil
		}
		if send != nil && time.Since(last) > 500*time.Millisecond {
			last = time.Now()
			send()
		}
		return fmt.Errorf("%d messages", came)
	})
	return found
}

// answer answers a request.
func (c *callee) answer(req arrived, status string) {
	c.t.Helper()
	lines := []string{"SIP/2.0 " + status}
	head, _, _ := strings.Cut(req.msg, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		for _, name := range []string{"Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"} {
			if strings.HasPrefix(line, name) {
				lines = append(lines, line)
			}
		}
		if strings.HasPrefix(line, "To:") {
			if !strings.Contains(line, ";tag=") {
				line += ";tag=callee"
			}
			lines = append(lines, line)
		}
	}
	c.send(req.from.String(), append(lines, "Contact: <sip:bob@"+c.addr()+">")...)
}

// routes are the Record-Routes of a message as the Route lines of its receiver:
// of an answer in reverse.
func routes(msg string) (lines []string) {
	head, _, _ := strings.Cut(msg, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		if v, ok := strings.CutPrefix(line, "Record-Route: "); ok {
			if strings.HasPrefix(msg, "SIP/2.0") {
				lines = append([]string{"Route: " + v}, lines...)
			} else {
				lines = append(lines, "Route: "+v)
			}
		}
	}
	return lines
}

// lamps is a cluster that tells of calls, and a watcher of both sides at its last node.
type lamps struct {
	t       *testing.T
	nodes   []*member
	watcher *agent
	// alice calls bob.
	alice, bob *callee
}

func newLamps(t *testing.T) *lamps {
	t.Helper()
	cfgs := configs(t, 3)
	for i := range cfgs {
		cfgs[i].DialogEvents, cfgs[i].NotifyInterval = true, 20*time.Millisecond
		// Any node gets what comes later in a call.
		cfgs[i].RecordRoute = "example.com"
	}
	l := &lamps{t: t, nodes: startAll(t, cfgs, nil), watcher: newAgent(t), alice: newCallee(t), bob: newCallee(t)}
	l.bob.await("SIP/2.0 200", "1 REGISTER", func() {
		l.bob.send(l.at(1), "REGISTER sip:example.com SIP/2.0", "Via: SIP/2.0/UDP "+l.bob.addr()+";branch=z9hG4bKregister",
			"Max-Forwards: 70", "From: <sip:bob@example.com>;tag=r", "To: <sip:bob@example.com>", "Call-ID: register", "CSeq: 1 REGISTER",
			"Contact: <sip:bob@"+l.bob.addr()+">", "Expires: 600")
	})
	for _, user := range []string{"alice", "bob"} {
		uri := "sip:" + user + "@example.com"
		res := l.watcher.ask(l.nodes[2], "SUBSCRIBE", uri, "sip:lamp@example.com", "<"+uri+">", user, "", "Event: dialog", "Expires: 600")
		if !strings.HasPrefix(res, "SIP/2.0 200") {
			t.Fatalf("SUBSCRIBE: %s", res)
		}
	}
	l.expect("none")
	return l
}

var stateText = regexp.MustCompile(`<state>([a-z]*)</`)

// expect waits until both lamps are as wanted.
func (l *lamps) expect(want string) {
	l.t.Helper()
	for _, user := range []string{"alice", "bob"} {
		eventually(l.t, user+" "+want, func() error {
			got := "unknown"
			if ns := l.watcher.notifies(user); len(ns) > 0 {
				got = "none"
				if m := stateText.FindStringSubmatch(ns[len(ns)-1].body); m != nil {
					got = m[1]
				}
			}
			if got != want {
				return fmt.Errorf("lamp of %s: %s", user, got)
			}
			return nil
		})
	}
}

func (l *lamps) at(node int) string { return l.nodes[node].cfg.SIP[0] }

func (l *lamps) request(method, target, callID, toTag string, cseq int, branch string, routes ...string) []string {
	to := "To: <sip:bob@example.com>"
	if toTag != "" {
		to += ";tag=" + toTag
	}
	return append([]string{
		method + " " + target + " SIP/2.0",
		"Via: SIP/2.0/UDP " + l.alice.addr() + ";branch=z9hG4bK" + callID + branch,
		"Max-Forwards: 70", "From: <sip:alice@example.com>;tag=caller", to,
		"Call-ID: " + callID, fmt.Sprintf("CSeq: %d %s", cseq, method),
		"Contact: <sip:alice@" + l.alice.addr() + ">",
	}, routes...)
}

// ring begins a call at the first node; bob rings.
func (l *lamps) ring(callID string) (invite arrived) {
	l.t.Helper()
	l.alice.mu.Lock()
	l.alice.came = nil
	l.alice.mu.Unlock()
	l.bob.mu.Lock()
	l.bob.came = nil
	l.bob.mu.Unlock()
	invite = l.bob.await("INVITE", "INVITE", func() {
		l.alice.send(l.at(0), l.request("INVITE", "sip:bob@example.com", callID, "", 1, "i")...)
	})
	l.bob.answer(invite, "180 Ringing")
	l.expect("early")
	return invite
}

// call is ring, and bob takes it; it returns the INVITE and its 200.
func (l *lamps) call(callID string) (invite, ok arrived) {
	l.t.Helper()
	invite = l.ring(callID)
	ok = l.alice.await("SIP/2.0 200", "1 INVITE", func() { l.bob.answer(invite, "200 OK") })
	l.alice.send(l.at(0), l.request("ACK", "sip:bob@"+l.bob.addr(), callID, "callee", 1, "a", routes(ok.msg)...)...)
	l.expect("confirmed")
	return invite, ok
}

// TestRFC4235_3_7_1_LampAtAThirdNode: a call enters at one node, for a device at
// another, and the lamps are at a third: early, confirmed, and out with the BYE,
// at whichever node it comes in, from either side.
func TestRFC4235_3_7_1_LampAtAThirdNode(t *testing.T) {
	l := newLamps(t)
	for node := range l.nodes {
		id := fmt.Sprint("caller", node)
		_, ok := l.call(id)
		bye := l.bob.await("BYE", "2 BYE", func() {
			l.alice.send(l.at(node), l.request("BYE", "sip:bob@"+l.bob.addr(), id, "callee", 2, "b", routes(ok.msg)...)...)
		})
		l.expect("confirmed")
		l.bob.answer(bye, "200 OK")
		l.expect("none")

		id = fmt.Sprint("callee", node)
		invite, _ := l.call(id)
		bye = l.alice.await("BYE", "1 BYE", func() {
			lines := []string{
				"BYE sip:alice@" + l.alice.addr() + " SIP/2.0", "Via: SIP/2.0/UDP " + l.bob.addr() + ";branch=z9hG4bK" + id,
				"Max-Forwards: 70", "From: <sip:bob@example.com>;tag=callee", "To: <sip:alice@example.com>;tag=caller",
				"Call-ID: " + id, "CSeq: 1 BYE",
			}
			l.bob.send(l.at(node), append(lines, routes(invite.msg)...)...)
		})
		l.alice.answer(bye, "200 OK")
		l.expect("none")
	}
	for i, n := range l.nodes {
		if got := n.Stats()["sip_dialogs"]; got != 0 {
			t.Errorf("node %d follows %v calls", i, got)
		}
	}
}

// TestRFC3261_9_CancelPutsLampsOut: with the 487 that a CANCEL brings.
func TestRFC3261_9_CancelPutsLampsOut(t *testing.T) {
	l := newLamps(t)
	invite := l.ring("cancelled")
	cancel := l.bob.await("CANCEL", "1 CANCEL", func() {
		l.alice.send(l.at(0), l.request("CANCEL", "sip:bob@example.com", "cancelled", "", 1, "i")...)
	})
	l.bob.answer(cancel, "200 OK")
	l.bob.answer(invite, "487 Request Terminated")
	l.expect("none")
}

// TestRule17_LampGoesOutAtAnotherNodesWord: a node tells the one that follows a
// call that it has ended.
func TestRule17_LampGoesOutAtAnotherNodesWord(t *testing.T) {
	l := newLamps(t)
	l.call("told")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := hereis.Ask[*messages.DialogEndedHeard](ctx, l.nodes[2].Node, hereis.ToNode(l.nodes[0].Name()),
		&messages.DialogEnded{CallId: "told", FromTag: "callee", ToTag: "caller"})
	if err != nil {
		t.Fatal(err)
	}
	l.expect("none")
}

// TestRule17_ByePastADeadNode: the node that followed a call stops,
// and the call ends by the others; what it told is not refreshed, and nothing
// waits for it for ever.
func TestRule17_ByePastADeadNode(t *testing.T) {
	l := newLamps(t)
	_, ok := l.call("orphan")
	if err := l.nodes[0].stop(); err != nil {
		t.Fatal(err)
	}
	bye := l.bob.await("BYE", "2 BYE", func() {
		l.alice.send(l.at(2), l.request("BYE", "sip:bob@"+l.bob.addr(), "orphan", "callee", 2, "b", routes(ok.msg)...)...)
	})
	l.bob.answer(bye, "200 OK")
	l.alice.await("SIP/2.0 200", "2 BYE", nil)
}
