package hereis_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// agent is a user agent on one UDP socket that subscribes, publishes, and
// answers every NOTIFY with 200.
type agent struct {
	t    *testing.T
	conn *net.UDPConn
	// status answers NOTIFYs.
	status string

	mu      sync.Mutex
	answers map[string]chan string // by Call-ID and CSeq
	// notified has the NOTIFYs of each dialog in the order of arrival.
	notified map[string][]notify
	cseq     int
}

// notify is a NOTIFY as it came.
type notify struct {
	cseq        int
	state, body string
	raw         string
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, conn: conn, status: "200 OK", answers: map[string]chan string{}, notified: map[string][]notify{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.read()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return a
}

func (a *agent) addr() string { return a.conn.LocalAddr().String() }

func (a *agent) read() {
	buf := make([]byte, 65536)
	for {
		n, from, err := a.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		msg := string(buf[:n])
		if strings.HasPrefix(msg, "SIP/2.0 ") {
			a.mu.Lock()
			if c := a.answers[headerOf(msg, "Call-ID")+headerOf(msg, "CSeq")]; c != nil && !strings.HasPrefix(msg, "SIP/2.0 1") {
				select {
				case c <- msg:
				default:
				}
			}
			a.mu.Unlock()
			continue
		}
		a.take(msg, from)
	}
}

// take answers a NOTIFY and notes it, repeats apart.
func (a *agent) take(msg string, from netip.AddrPort) {
	head, body, _ := strings.Cut(msg, "\r\n\r\n")
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	b.WriteString("SIP/2.0 " + a.status + "\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		for _, name := range []string{"Via:", "From:", "To:", "Call-ID:", "CSeq:"} {
			if strings.HasPrefix(line, name) {
				b.WriteString(line + "\r\n")
			}
		}
	}
	_, _ = a.conn.WriteToUDPAddrPort([]byte(b.String()+"Content-Length: 0\r\n\r\n"), from)
	id := headerOf(msg, "Call-ID")
	number, _, _ := strings.Cut(headerOf(msg, "CSeq"), " ")
	n := notify{state: headerOf(msg, "Subscription-State"), body: body, raw: msg}
	n.cseq, _ = strconv.Atoi(number)
	for _, have := range a.notified[id] {
		if have.cseq == n.cseq {
			return
		}
	}
	a.notified[id] = append(a.notified[id], n)
}

func (a *agent) notifies(callID string) []notify {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]notify(nil), a.notified[callID]...)
}

func headerOf(msg, name string) string {
	head, _, _ := strings.Cut(msg, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

// ask sends a request, again if need be, and waits for the final answer.
func (a *agent) ask(to *member, method, uri, from, toHeader, callID, body string, lines ...string) string {
	a.t.Helper()
	a.mu.Lock()
	a.cseq++
	cseq := a.cseq
	got := make(chan string, 1)
	key := fmt.Sprintf("%s%d %s", callID, cseq, method)
	a.answers[key] = got
	a.mu.Unlock()
	msg := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s%d\r\nMax-Forwards: 70\r\nFrom: <%s>;tag=w\r\nTo: %s\r\n"+
		"Call-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:w@%s>\r\n", method, uri, a.addr(), callID, cseq, from, toHeader, callID, cseq, method, a.addr())
	for _, l := range lines {
		msg += l + "\r\n"
	}
	msg += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	at, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(to.cfg.SIP[0], "udp:"))
	if err != nil {
		a.t.Fatal(err)
	}
	for range 20 {
		if _, err := a.conn.WriteToUDP([]byte(msg), at); err != nil {
			a.t.Fatal(err)
		}
		select {
		case res := <-got:
			return res
		case <-time.After(500 * time.Millisecond):
		}
	}
	a.t.Fatalf("%s %s: no answer", method, uri)
	return ""
}

// subscribe begins a subscription to alice; its answer must be 200.
func (a *agent) subscribe(to *member, callID string, lines ...string) string {
	a.t.Helper()
	if len(lines) == 0 {
		lines = []string{"Event: presence", "Expires: 600"}
	}
	res := a.ask(to, "SUBSCRIBE", "sip:alice@example.com", "sip:"+callID+"@example.com", "<sip:alice@example.com>", callID, "", lines...)
	if !strings.HasPrefix(res, "SIP/2.0 200") {
		a.t.Fatalf("SUBSCRIBE: %s", res)
	}
	return res
}

// publish publishes a note for alice and returns the entity-tag.
func (a *agent) publish(to *member, note, etag string) string {
	a.t.Helper()
	body := `<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:alice@example.com"><tuple id="t1"><status><basic>open</basic></status><note>` +
		note + `</note></tuple></presence>`
	lines := []string{"Event: presence", "Expires: 600", "Content-Type: application/pidf+xml"}
	if etag != "" {
		lines = append(lines, "SIP-If-Match: "+etag)
	}
	res := a.ask(to, "PUBLISH", "sip:alice@example.com", "sip:alice@example.com", "<sip:alice@example.com>", "publish-"+a.addr(), body, lines...)
	if !strings.HasPrefix(res, "SIP/2.0 200") {
		a.t.Fatalf("PUBLISH: %s", res)
	}
	return headerOf(res, "SIP-ETag")
}

var noteText = regexp.MustCompile(`<[a-z:]*note>([^<]*)</`)

// notes are what the NOTIFYs of a dialog say, in their order.
func (a *agent) notes(callID string) (list []string) {
	for _, n := range a.notifies(callID) {
		note := "-"
		if m := noteText.FindStringSubmatch(n.body); m != nil {
			note = m[1]
		}
		list = append(list, note)
	}
	return list
}

func (a *agent) waitFor(callID, note string) {
	a.t.Helper()
	eventually(a.t, callID+" is told "+note, func() error {
		if notes := a.notes(callID); len(notes) == 0 || notes[len(notes)-1] != note {
			return fmt.Errorf("told %v", notes)
		}
		return nil
	})
}

// A user publishes at one node and is watched from all: each watcher is told
// once, and nodes tell each other once for each node, not for each watcher.
func TestPresenceAcrossNodes(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	device, watchers := newAgent(t), newAgent(t)
	const count = 30
	for i := range count {
		watchers.subscribe(nodes[i%3], fmt.Sprint("w", i))
	}
	for i := range count {
		watchers.waitFor(fmt.Sprint("w", i), "-")
	}
	before := tells(nodes)
	etag := device.publish(nodes[0], "one", "")
	for i := range count {
		watchers.waitFor(fmt.Sprint("w", i), "one")
	}
	if n := tells(nodes) - before; n != 2 {
		t.Errorf("a change was told %v times between 3 nodes, one of them the owner", n)
	}
	device.publish(nodes[1], "two", etag)
	for i := range count {
		id := fmt.Sprint("w", i)
		watchers.waitFor(id, "two")
		if got := strings.Join(watchers.notes(id), " "); got != "- one two" {
			t.Errorf("%s was told %s", id, got)
		}
	}
}

func tells(nodes []*member) (n float64) {
	for _, m := range nodes {
		n += m.Stats()["cluster_tells_total"]
	}
	return n
}

// The owner stops between two changes, and the next one is told all the same.
func TestPresenceGoesOnWithoutItsOwner(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	device, watchers := newAgent(t), newAgent(t)
	w, err := nodes[0].Where(context.Background(), "sip:alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	var others []*member
	var owner *member
	for _, n := range nodes {
		if n.Name() == w.Owner {
			owner = n
		} else {
			others = append(others, n)
		}
	}
	for i := range 10 {
		watchers.subscribe(others[i%2], fmt.Sprint("w", i))
	}
	etag := device.publish(others[0], "one", "")
	for i := range 10 {
		watchers.waitFor(fmt.Sprint("w", i), "one")
	}
	if err := owner.stop(); err != nil {
		t.Fatal(err)
	}
	device.publish(others[1], "two", etag)
	for i := range 10 {
		id := fmt.Sprint("w", i)
		watchers.waitFor(id, "two")
		if got := strings.Join(watchers.notes(id), " "); got != "- one two" && got != "one two" {
			t.Errorf("%s was told %s", id, got)
		}
	}
}

// A node that starts again goes on with its subscriptions from its disk: the
// CSeq goes on above what it was, and what changed meanwhile is told.
func TestPresenceGoesOnAfterARestart(t *testing.T) {
	cfgs := configs(t, 3)
	nodes := startAll(t, cfgs, nil)
	device, watcher := newAgent(t), newAgent(t)
	res := watcher.subscribe(nodes[2], "w")
	etag := device.publish(nodes[0], "one", "")
	watcher.waitFor("w", "one")
	_ = res
	crashed := copyData(t, nodes[2], cfgs[2].Data)
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	before := watcher.notifies("w")
	device.publish(nodes[0], "two", etag)
	cfg := cfgs[2]
	cfg.Data = crashed
	again := start(t, cfg, nil)
	watcher.waitFor("w", "two")
	after := watcher.notifies("w")
	last := after[len(after)-1]
	if last.cseq <= before[0].cseq+200 {
		t.Errorf("CSeq %d after a crash, %d before: no block was jumped", last.cseq, before[0].cseq)
	}
	if got := again.Stats()["sip_subscriptions"]; got != 1 {
		t.Errorf("%v subscriptions after the restart", got)
	}
}

// copyData copies a data folder as a crash would leave it.
func copyData(t *testing.T, m *member, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "crashed")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
