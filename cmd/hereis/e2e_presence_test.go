package main_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// told is what a watcher has been told in one subscription, in order.
type told struct {
	notes, states []string
	last          string
	cseq          uint32
	backwards     bool
}

// watcher is a device that subscribes and notes what it is told.
type watcher struct {
	*device
	mu   sync.Mutex
	told map[string]*told // by Call-ID
}

var noteText = regexp.MustCompile(`<note>([^<]*)</note>`)

func newWatcher(t *testing.T) *watcher {
	t.Helper()
	w := &watcher{told: map[string]*told{}}
	w.device = newDeviceHearing(t, "127.0.0.1", "watcher", "watcher", w.hear)
	return w
}

// hear notes a NOTIFY; a repeat counts once.
func (w *watcher) hear(m *sipmsg.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := string(m.Get("Call-ID"))
	s := w.told[id]
	if s == nil {
		s = &told{}
		w.told[id] = s
	}
	n, _, _ := m.CSeq()
	switch {
	case n == s.cseq:
		return
	case n < s.cseq:
		s.backwards = true
	}
	note := "-"
	if f := noteText.FindSubmatch(m.Body); f != nil {
		note = string(f[1])
	}
	s.cseq, s.last = n, string(m.Body)
	s.notes, s.states = append(s.notes, note), append(s.states, string(m.Get("Subscription-State")))
}

// of is what has been told in a subscription.
func (w *watcher) of(callID string) told {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.told[callID]; s != nil {
		return *s
	}
	return told{}
}

// subscribe subscribes to a user at a node.
func (w *watcher) subscribe(n *node, user, callID string) {
	w.t.Helper()
	if m := w.trySubscribe(n, user, callID); m.Status != 200 {
		w.t.Fatalf("SUBSCRIBE at %s: %d", n.name, m.Status)
	}
}

// trySubscribe is subscribe that may be refused.
func (w *watcher) trySubscribe(n *node, user, callID string) *sipmsg.Message {
	w.t.Helper()
	w.cseq++
	var b sipmsg.Builder
	b.Request("SUBSCRIBE", "sip:"+user+"@localhost")
	w.request(&b, "SUBSCRIBE", user, callID)
	b.Header("Contact", "<sip:watcher@"+w.addr+">")
	b.Header("Event", "presence")
	b.Int("Expires", 600, "")
	b.End("", "")
	return w.ask(n, &b)
}

// publish publishes a note for a user at a node, and returns status and entity-tag.
func (w *watcher) publish(n *node, user, note, etag string) (status int, next string) {
	w.t.Helper()
	w.cseq++
	var b sipmsg.Builder
	b.Request("PUBLISH", "sip:"+user+"@localhost")
	w.request(&b, "PUBLISH", user, "publish-"+user)
	b.Header("Event", "presence")
	b.Int("Expires", 600, "")
	if etag != "" {
		b.Header("SIP-If-Match", etag)
	}
	b.End("application/pidf+xml", `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:`+user+`@localhost"><tuple id="t"><status><basic>open</basic></status><note>`+
		note+`</note></tuple></presence>`)
	m := w.ask(n, &b)
	return m.Status, string(m.Get("SIP-ETag"))
}

func (w *watcher) request(b *sipmsg.Builder, method, user, callID string) {
	b.Header("Via", "SIP/2.0/UDP ", w.addr, ";rport;branch=z9hG4bK", method, fmt.Sprint(w.cseq))
	b.Int("Max-Forwards", 70, "")
	b.Header("From", "<sip:watcher@localhost>;tag=w")
	b.Header("To", "<sip:"+user+"@localhost>")
	b.Header("Call-ID", callID)
	b.Int("CSeq", uint64(w.cseq), method)
}

// testPresence: foreign clients publish at one node and watch at another.
func testPresence(t *testing.T, nodes []*node) {
	t.Run("SIPp", func(t *testing.T) {
		s := newSIPp(t, "p0", "p1", "p2", "p3", "p4")
		before := metric(t, nodes[1], "hereis_sip_notifies_total")
		watching, problems := s.begin("subscribe", nodes[1].sip, 50)
		within(t, 20*time.Second, "five watchers are told closed", func() error {
			if n := metric(t, nodes[1], "hereis_sip_notifies_total") - before; n < 5 {
				return fmt.Errorf("%v NOTIFYs", n)
			}
			return nil
		})
		s.all("publish", nodes[0].sip, 50)
		if code := watching.ended(60 * time.Second); code != 0 {
			t.Errorf("subscribe: exit %d\n%s\n%s", code, summaryOf(watching.output()), problems())
		}
	})
	t.Run("Baresip", func(t *testing.T) {
		w := newWatcher(t)
		w.subscribe(nodes[1], "bareview", "view")
		phone := baresipWatching(t, "bareview", "none", nodes[0].sip, "udp", "friend")
		within(t, 20*time.Second, "what baresip publishes is told at another node", func() error {
			if last := w.of("view").last; !strings.Contains(last, "<basic>open</basic>") || !strings.Contains(last, "<contact>sip:bareview@localhost</contact>") {
				return errors.New(last)
			}
			return nil
		})
		within(t, 20*time.Second, "baresip watches", func() error {
			if n := metric(t, nodes[0], "hereis_sip_subscriptions"); n < 1 {
				return errors.New("nobody watches")
			}
			return nil
		})
		if status, _ := w.publish(nodes[2], "friend", "hello", ""); status != 200 {
			t.Fatalf("PUBLISH: %d", status)
		}
		within(t, 20*time.Second, "baresip is told", func() error {
			if !regexp.MustCompile(`friend@localhost>? changed status from .* to .*Online`).MatchString(phone.output()) {
				return errors.New("baresip does not speak of a friend who is online")
			}
			return nil
		})
	})
}

// metric reads one series of a node's metrics, 0 if it is not there.
func metric(t *testing.T, n *node, name string) (v float64) {
	t.Helper()
	text, err := getText("http://" + n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return v
}

// testOwnerKilledBetweenChanges: 200 watchers over three nodes; the owner of the
// user is killed -9 between two changes. Whoever watches at another node is told
// of the next change, once; nobody ever of the older one after it. Those whose
// own node was killed are told when it is back.
func testOwnerKilledBetweenChanges(t *testing.T, bin string) {
	const count = 200
	nodes := startCluster(t, bin, 3)
	w := newWatcher(t)
	id := func(i int) string { return fmt.Sprint("w", i) }
	for i := range count {
		w.subscribe(nodes[i%3], "watched", id(i))
	}
	owner, others := -1, []*node{}
	var where whereabouts
	if err := nodes[0].get("/v1/where/watched", &where); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		if n.name == where.Owner {
			owner = i
		} else {
			others = append(others, n)
		}
	}
	if owner < 0 {
		t.Fatalf("no owner: %+v", where)
	}
	status, etag := w.publish(others[0], "watched", "one", "")
	if status != 200 {
		t.Fatalf("PUBLISH: %d", status)
	}
	all := func(note string, which func(i int) bool) {
		t.Helper()
		within(t, 40*time.Second, "all are told "+note, func() error {
			for i := range count {
				if notes := w.of(id(i)).notes; which(i) && (len(notes) == 0 || notes[len(notes)-1] != note) {
					return fmt.Errorf("watcher %d at %s was told %v", i, nodes[i%3].name, notes)
				}
			}
			return nil
		})
	}
	all("one", func(int) bool { return true })
	nodes[owner].kill()
	within(t, 20*time.Second, "the next change is published", func() error {
		if status, _ = w.publish(others[1], "watched", "two", etag); status != 200 {
			return fmt.Errorf("PUBLISH: %d", status)
		}
		return nil
	})
	all("two", func(i int) bool { return i%3 != owner })
	nodes[owner].start()
	all("two", func(int) bool { return true })
	for i := range count {
		s := w.of(id(i))
		notes := strings.Join(s.notes, " ")
		once := notes == "- one two" || notes == "one two"
		again := i%3 == owner && regexp.MustCompile(`^(- )?one( one)*( two)+$`).MatchString(notes)
		if s.backwards || !once && !again {
			t.Errorf("watcher %d (owner's node: %v) was told %s; CSeq went back: %v", i, i%3 == owner, notes, s.backwards)
		}
	}
}
