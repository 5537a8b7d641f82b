package main_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// interrupted is a client whose node is killed -9 while it waits for the answer
// to its request. It does what RFC 3261 8.1.3.1 and RFC 3263 4.3 say: a next
// hop that is gone is no answer, and the request goes to another, in a new
// transaction, with the Call-ID, CSeq and From tag that it had.
type interrupted struct {
	*device
	method, to string
	lines      []string
	body       string
	// answer is the final one; by is the node that gave it.
	answer *sipmsg.Message
	by     *node
	tries  int

	mu    sync.Mutex
	notes []heardNote // of NOTIFYs, in order
	known string      // the tag of the one dialog that it knows; empty: not yet
}

// heardNote is a NOTIFY: the tags of its dialog, and the note of its document.
type heardNote struct{ dialog, note string }

func newInterrupted(t *testing.T, name, method, to, body string, lines ...string) *interrupted {
	t.Helper()
	c := &interrupted{method: method, to: to, lines: lines, body: body}
	c.device = newDeviceRefusing(t, "127.0.0.1", name, name, func(m *sipmsg.Message) {
		if string(m.Method) != "NOTIFY" {
			return
		}
		from, _ := sipmsg.Param(m.Get("From"), "tag")
		note := ""
		if f := noteText.FindSubmatch(m.Body); f != nil {
			note = string(f[1])
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.notes = append(c.notes, heardNote{string(from), note})
	}, func(m *sipmsg.Message) bool {
		from, _ := sipmsg.Param(m.Get("From"), "tag")
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.known != "" && c.known != string(from)
	})
	c.cseq = 1
	return c
}

// request is the client's request as its next try sends it.
func (c *interrupted) request() *sipmsg.Builder {
	c.tries++
	w := new(sipmsg.Builder)
	to := "sip:" + c.to + "@localhost"
	w.Request(c.method, to)
	w.Header("Via", "SIP/2.0/UDP ", c.addr, ";rport;branch=z9hG4bK", c.name, fmt.Sprint(c.tries))
	w.Int("Max-Forwards", 70, "")
	w.Header("From", "<sip:", c.user, "@localhost>;tag=f", c.name)
	w.Header("To", "<", to, ">")
	w.Header("Call-ID", c.callID(c.method))
	w.Int("CSeq", uint64(c.cseq), c.method)
	for _, line := range c.lines {
		name, value, _ := strings.Cut(line, ": ")
		w.Header(name, value)
	}
	mediaType := ""
	if c.body != "" {
		mediaType = "text/plain"
		if c.method == "PUBLISH" {
			mediaType = "application/pidf+xml"
		}
	}
	w.End(mediaType, c.body)
	return w
}

// begin sends the request to a node that will not live to answer, or just so.
func (c *interrupted) begin(n *node) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDPAddrPort(c.request().Bytes(), netip.MustParseAddrPort(n.sip)); err != nil {
		c.t.Fatal(err)
	}
}

// finish takes what the dead node still answered, or asks another one: again
// when it is told to come again (503), as a new request.
func (c *interrupted) finish(dead, other *node) {
	c.t.Helper()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known = c.dialog()
	}()
	c.by = dead
	for c.answer == nil {
		select {
		case m := <-c.answers:
			if m.Status >= 200 && m.Status != 503 {
				c.answer = m
			}
			continue
		default:
		}
		break
	}
	if c.answer != nil {
		return
	}
	c.by = other
	within(c.t, 30*time.Second, c.method+" at another node", func() error {
		m := c.askWithin(other, c.request(), 32*time.Second) // Timer F
		if m == nil {
			return fmt.Errorf("no answer")
		}
		if m.Status == 503 {
			c.cseq++
			return fmt.Errorf("503")
		}
		c.answer = m
		return nil
	})
	if c.answer.Status/100 != 2 {
		c.t.Errorf("%s of %s at %s: %d", c.method, c.name, other.name, c.answer.Status)
	}
}

// dialog is the tag that the answer gave the client's dialog.
func (c *interrupted) dialog() string {
	tag, _ := sipmsg.Param(c.answer.Get("To"), "tag")
	return string(tag)
}

// told is the notes that the dialog of the answer was told.
func (c *interrupted) told() (notes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.notes {
		if n.dialog == c.dialog() {
			notes = append(notes, n.note)
		}
	}
	return notes
}

// testKilledInTheMiddle: a SUBSCRIBE, a PUBLISH, a MESSAGE to a device and one to
// a user who is offline are under way at a node that is killed -9 before it
// answers, or as it answers. In some rounds the other nodes stand still, so that
// it surely waits for them; in the others the kill falls at any moment of its
// work. The clients go on at another node. What any node has answered 2xx
// holds, also after the killed one is back, and nothing is left over.
func testKilledInTheMiddle(t *testing.T, bin string) {
	nodes := startCluster(t, bin, 3, "--store-messages", "--durability", "sync")
	observer := newWatcher(t) // publishes what others watch
	for round, delay := range []time.Duration{-1, 0, time.Millisecond, -1, 3 * time.Millisecond, 10 * time.Millisecond} {
		t.Run(fmt.Sprintf("%d", round), func(t *testing.T) { killInTheMiddle(t, bin, nodes, observer, round, delay) })
	}
}

// killInTheMiddle is one round; delay is from the requests to the kill, -1 for
// a node that waits for others.
func killInTheMiddle(t *testing.T, bin string, nodes []*node, observer *watcher, round int, delay time.Duration) {
	dies, other, third := nodes[0], nodes[1], nodes[2]
	name := func(what string) string { return fmt.Sprintf("%s%d", what, round) }
	status, etag := observer.publish(third, name("seen"), "one", "")
	if status != 200 {
		t.Fatalf("PUBLISH: %d", status)
	}
	here := newInbox(t, name("here"))
	here.register(third, 3600)
	subscribe := newInterrupted(t, name("sub"), "SUBSCRIBE", name("seen"), "", "Event: presence", "Expires: 600", "Contact: <sip:sub@127.0.0.1>")
	subscribe.lines[2] = "Contact: <sip:" + subscribe.user + "@" + subscribe.addr + ">"
	publish := newInterrupted(t, name("pub"), "PUBLISH", name("pub"), pidfNote(name("pub"), "one"), "Event: presence", "Expires: 600")
	online := newInterrupted(t, name("on"), "MESSAGE", name("here"), "hello")
	offline := newInterrupted(t, name("off"), "MESSAGE", name("away"), "are you there?")
	clients := []*interrupted{subscribe, publish, online, offline}

	if delay < 0 {
		signal(t, syscall.SIGSTOP, other, third)
	}
	for _, c := range clients {
		c.begin(dies)
	}
	if delay < 0 { // each has been read, and asks the owner or the other side
		within(t, 10*time.Second, "the requests are under way", func() error {
			if got := dies.metric("hereis_transaction_active"); got < float64(len(clients)) {
				return fmt.Errorf("%v transactions", got)
			}
			return nil
		})
	} else {
		time.Sleep(delay) // where in its work the node dies is the subject
	}
	dies.kill()
	if delay < 0 {
		signal(t, syscall.SIGCONT, other, third)
	}
	for _, c := range clients {
		c.finish(dies, other)
		t.Logf("%s: %d by %s at try %d, CSeq %d", c.method, c.answer.Status, c.by.name, c.tries, c.cseq)
	}
	dies.start()
	waitMembers(t, nodes)

	t.Run("PUBLISH", func(t *testing.T) {
		// One publication, which its entity-tag still names, at any node.
		within(t, 20*time.Second, "one publication", func() error { return leases(third, name("pub"), "publication", 1) })
		publish.t, publish.lines = t, append(publish.lines, "SIP-If-Match: "+string(publish.answer.Get("SIP-ETag")))
		publish.body, publish.cseq = pidfNote(name("pub"), "two"), publish.cseq+1
		if m := publish.ask(third, publish.request()); m.Status != 200 {
			t.Errorf("the next PUBLISH: %d", m.Status)
		}
		within(t, 20*time.Second, "one publication", func() error { return leases(other, name("pub"), "publication", 1) })
	})
	t.Run("SUBSCRIBE", func(t *testing.T) {
		if status, _ := observer.publish(third, name("seen"), "two", etag); status != 200 {
			t.Fatalf("PUBLISH: %d", status)
		}
		within(t, 40*time.Second, "the watcher is told, in the dialog that it knows", func() error {
			if got := subscribe.told(); len(got) == 0 || got[len(got)-1] != "two" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		// What the killed node may have kept of a subscription that it did not
		// answer ends with the watcher's 481.
		within(t, 40*time.Second, "one node has a watcher", func() error { return leases(third, name("seen"), "subscription", 1) })
	})
	t.Run("MESSAGE", func(t *testing.T) {
		if got := here.of(online.callID("MESSAGE")); got < 1 || got > 2 {
			t.Errorf("the device got the message %d times", got)
		}
		away := newInbox(t, name("away"))
		away.register(third, 3600)
		within(t, 90*time.Second, "the stored message is delivered", func() error {
			if got := away.of(offline.callID("MESSAGE")); got < 1 {
				return fmt.Errorf("%d times", got)
			}
			return nil
		})
		within(t, 90*time.Second, "nothing is stored any more", func() error {
			for _, n := range nodes {
				if got := n.metric("hereis_sip_messages_waiting"); got != 0 {
					return fmt.Errorf("%v at %s", got, n.name)
				}
			}
			return leases(other, name("away"), "message", 0)
		})
		if got := away.of(offline.callID("MESSAGE")); got > 2 {
			t.Errorf("the stored message came %d times", got)
		}
	})
}

func pidfNote(user, note string) string {
	return `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:` + user + `@localhost"><tuple id="t"><status><basic>open</basic></status><note>` + note + `</note></tuple></presence>`
}

func signal(t *testing.T, s syscall.Signal, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
}

// leases expects a number of live leases of a kind.
func leases(n *node, user, kind string, want int) error {
	var w whereabouts
	if err := n.get("/v1/where/"+user, &w); err != nil {
		if want == 0 {
			return nil // nothing is known of them: 404
		}
		return err
	}
	got := 0
	for _, l := range w.Leases {
		if l.State == "live" && l.Kind == kind {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("%d live leases of kind %s, want %d: %+v", got, kind, want, w.Leases)
	}
	return nil
}

// inbox is a device that counts the MESSAGEs it is sent, by Call-ID; a repeat
// in one transaction counts once.
type inbox struct {
	*device
	mu   sync.Mutex
	came map[string]map[string]bool // the branches of each Call-ID
}

func newInbox(t *testing.T, user string) *inbox {
	t.Helper()
	b := &inbox{came: map[string]map[string]bool{}}
	b.device = newDeviceHearing(t, "127.0.0.1", user, user, func(m *sipmsg.Message) {
		if string(m.Method) != "MESSAGE" {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		id := string(m.Get("Call-ID"))
		if b.came[id] == nil {
			b.came[id] = map[string]bool{}
		}
		branch, _ := sipmsg.Param(m.Get("Via"), "branch")
		b.came[id][string(branch)] = true
	})
	return b
}

func (b *inbox) of(callID string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.came[callID])
}
