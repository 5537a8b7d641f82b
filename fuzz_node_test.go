package hereis_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// FuzzNode: a node lives through whatever is sent to its sockets, and through
// whatever a device answers to what it is asked. text is one message or several,
// apart by a record separator (0x1e): datagrams, and then the bytes of a
// connection. answer is what a device sends for each request that reaches it.
// In both, {n} is a number of this round, {at} the node's address, {me} the
// device's; in an answer {head} is what a response copies from its request.
//
// After each message the node must still answer a ping, and end the connection
// once we have; now and then a user must be served over both transports, no
// panic may have been caught, and what the node holds must be within bounds.
func FuzzNode(f *testing.F) {
	s := newSiege(f)
	texts, answers := siegeTexts(f), siegeAnswers()
	for i, text := range texts {
		f.Add([]byte(text), []byte(answers[i%len(answers)]))
	}
	for _, answer := range answers {
		f.Add([]byte(siegeCall), []byte(answer))
	}
	f.Fuzz(func(t *testing.T, text, answer []byte) { s.round(t, text, answer) })
}

// siegeEvery is how many rounds pass between two looks at the whole node, at least.
const siegeEvery = 50

// siege is a node with little room, a device that is registered there, and a
// user who wants to be served meanwhile.
type siege struct {
	node   *member
	at     netip.AddrPort
	user   *party
	device *net.UDPConn
	peer   *net.UDPConn
	answer atomic.Pointer[[]byte] // set by round, read by the device
	n      int
	// due is told by round that it is time to look; one waits at most. It is
	// closed at the end, and then looked once more.
	due chan struct{}
	// wrong is what a look has found.
	wrong atomic.Pointer[string]
	// What the node held when it was idle.
	heap, goroutines int
}

func newSiege(f *testing.F) *siege {
	cfg := configs(f, 1)[0]
	cfg.SIP = []string{strings.TrimPrefix(cfg.SIP[0], "udp:")}
	cfg.DNS = []string{"127.0.0.1:9"} // nobody: names are not found
	cfg.FollowRedirects, cfg.DialogEvents, cfg.StoreMessages = true, true, true
	cfg.ExpiresMin, cfg.ExpiresDefault, cfg.ExpiresMax = time.Minute, time.Minute, time.Minute
	cfg.MaxFlows, cfg.AnswerBytes, cfg.MaxSubscriptions, cfg.MaxDialogs, cfg.MaxStored = 2000, 1<<20, 200, 200, 200
	cfg.LogLevel = "error"
	s := &siege{node: start(f, cfg, nil), at: netip.MustParseAddrPort(cfg.SIP[0]), due: make(chan struct{}, 1)}
	settled(f, []*member{s.node})
	s.user = newParty(f, s.node)
	var err error
	if s.device, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.device.Close() })
	if s.peer, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.at)); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.peer.Close() })
	nothing := []byte{}
	s.answer.Store(&nothing)
	go s.ring()
	s.user.register()
	s.user.call("first")
	s.heap, s.goroutines = s.holds()
	// A machine that fuzzes is busy, and a question may not be answered in its time.
	s.user.t, s.user.patience = witness{f, s}, 30*time.Second
	over := make(chan struct{})
	go s.looks(over)
	f.Cleanup(func() {
		close(s.due)
		<-over
		if wrong := s.wrong.Load(); wrong != nil {
			f.Error(*wrong)
		}
		if s.user.last != "" {
			f.Logf("the user came again after %s", s.user.last)
		}
	})
	return s
}

// witness is the test of the goroutine that looks: what it finds ends that, and
// the next round fails.
type witness struct {
	testing.TB
	s *siege
}

func (w witness) Helper() {}
func (w witness) Fatal(args ...any) {
	text := fmt.Sprint(args...) + "\n" + w.s.user.last
	for name, n := range w.s.node.Stats() {
		if n != 0 {
			text += fmt.Sprintf("%s %v\n", name, n)
		}
	}
	w.s.wrong.Store(&text)
	runtime.Goexit()
}
func (w witness) Fatalf(format string, args ...any) { w.Fatal(fmt.Sprintf(format, args...)) }

// looks runs beside the rounds, which may not take long: a look is patient with
// a machine that has other things to do.
func (s *siege) looks(over chan struct{}) {
	defer close(over)
	for n := 1; ; n++ {
		_, more := <-s.due
		s.look(s.user.t, n)
		if !more {
			return
		}
	}
}

// ring is the device: it answers each request as the round says, until its socket is closed.
func (s *siege) ring() {
	buf := make([]byte, 65536)
	for {
		n, from, err := s.device.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if bytes.HasPrefix(buf[:n], []byte("SIP/2.0")) || bytes.HasPrefix(buf[:n], []byte("ACK ")) {
			continue
		}
		text := bytes.ReplaceAll(*s.answer.Load(), []byte("{head}"), responseHead(buf[:n]))
		for part := range bytes.SplitSeq(text, []byte{0x1e}) {
			_, _ = s.device.WriteToUDPAddrPort(part[:min(len(part), 60000)], from) // a lost answer is one, too
		}
	}
}

// responseHead are the lines that a response copies from its request (RFC 3261 8.2.6.2).
func responseHead(req []byte) (head []byte) {
	for line := range bytes.SplitSeq(req, []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		switch string(name) {
		case "Via", "Record-Route", "From", "Call-ID", "CSeq":
			head = append(append(head, line...), "\r\n"...)
		case "To":
			head = append(append(head, line...), ";tag=device\r\n"...)
		}
	}
	return head
}

func (s *siege) round(t *testing.T, text, answer []byte) {
	if wrong := s.wrong.Load(); wrong != nil {
		t.Fatal(*wrong)
	}
	s.n++
	fill := func(b []byte) []byte {
		b = bytes.ReplaceAll(b, []byte("{n}"), strconv.AppendInt(nil, int64(s.n), 10))
		b = bytes.ReplaceAll(b, []byte("{at}"), []byte(s.at.String()))
		return bytes.ReplaceAll(b, []byte("{me}"), []byte(s.device.LocalAddr().String()))
	}
	answer = fill(answer)
	s.answer.Store(&answer)
	text = fill(text)
	parts := bytes.Split(text, []byte{0x1e})
	for _, part := range parts[:min(len(parts), 16)] {
		if _, err := s.peer.Write(part[:min(len(part), 60000)]); err != nil {
			t.Fatal(err)
		}
		if !alive(s.peer, s.at) {
			t.Fatalf("no pong after %q", part)
		}
	}
	s.connection(t, bytes.ReplaceAll(text, []byte{0x1e}, nil))
	if s.n%siegeEvery == 0 {
		select {
		case s.due <- struct{}{}:
		default:
		}
	}
}

// connection sends text over a connection of its own and ends its side: the
// node has read it when it ends the other.
func (s *siege) connection(t *testing.T, text []byte) {
	conn, err := net.DialTimeout("tcp", s.at.String(), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_ = conn.(*net.TCPConn).SetLinger(0) // or some thousand rounds a minute use up the ports
	// It may be closed before everything is written.
	if _, err := conn.Write(text); err == nil {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Read(buf); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatalf("the node does not end a connection that we have ended, after %q", text)
			}
			return
		}
	}
}

// look checks that a user is served over both transports, that nothing has
// panicked, and that what the node holds is within bounds.
func (s *siege) look(t testing.TB, n int) {
	s.user.register()
	s.user.call(strconv.Itoa(n))
	optionsByTCP(t, s.node, fmt.Sprintf("look%d", n))
	for name, count := range s.node.Stats() {
		if strings.Contains(name, "panic") && count > 0 {
			t.Fatalf("%s: %v", name, count)
		}
	}
	// A transaction is remembered for half a minute, and a user for one.
	st := s.node.Stats()
	heap, goroutines := s.holds()
	if bound := s.heap + 64<<20 + 32<<10*int(st["transaction_active"]+st["sip_watched"]); heap > bound {
		t.Fatalf("at look %d the heap has %d MiB, %d at the start: %v", n, heap>>20, s.heap>>20, st)
	}
	if goroutines <= s.goroutines+40 {
		return
	}
	eventually(t, "no goroutines are left behind", func() error {
		if _, goroutines := s.holds(); goroutines > s.goroutines+40 {
			return fmt.Errorf("%d goroutines, %d at the start", goroutines, s.goroutines)
		}
		return nil
	})
}

// holds is the live heap, and the goroutines but for those that wait for a
// question and those of connections.
func (s *siege) holds() (heap, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), busyGoroutines(s.node) - int(2*s.node.Stats()["transport_connections"])
}

// siegeHead begins each of our own messages; %s is the method, then the user.
const siegeHead = "%[1]s sip:%[2]s@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bK{n}%[3]s\r\nMax-Forwards: 70\r\n" +
	"From: <sip:mallory@example.com>;tag=m\r\nTo: <sip:%[2]s@example.com>\r\nCall-ID: c{n}\r\nCSeq: 1 %[1]s\r\n"

// siegeMessage is a request to a user of ours, with more lines and a body.
func siegeMessage(method, user, branch, body string, lines ...string) string {
	text := fmt.Sprintf(siegeHead, method, user, branch)
	for _, l := range lines {
		text += l + "\r\n"
	}
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", text, len(body), body)
}

var (
	siegeDevice = siegeMessage("REGISTER", "device", "r", "", "Contact: <sip:device@{me}>;+sip.instance=\"<urn:uuid:0>\";reg-id=1", "Supported: path, outbound, gruu", "Expires: 60")
	siegeInvite = siegeMessage("INVITE", "device", "i", "v=0\r\n", "Contact: <sip:mallory@127.0.0.1:9>", "Content-Type: application/sdp", "Supported: 100rel, timer")
	siegeCall   = strings.Join([]string{
		strings.ReplaceAll(siegeDevice, "From: <sip:mallory@", "From: <sip:device@"), siegeInvite,
		siegeMessage("ACK", "device", "a", ""), siegeMessage("CANCEL", "device", "i", ""), siegeMessage("BYE", "device", "b", "", "Route: <sip:{at};lr>"),
	}, "\x1e")
)

// siegeTexts are RFC 4475's and 5118's messages, and those of each kind that
// Hereis does something with.
func siegeTexts(t testing.TB) (texts []string) {
	t.Helper()
	for _, raw := range hostileCorpus(t, netip.MustParseAddrPort("127.0.0.1:9")) {
		texts = append(texts, strings.NewReplacer("branch=z9hG4bK", "branch=z9hG4bK{n}", "Call-ID: ", "Call-ID: {n}").Replace(string(raw)))
	}
	const pidf = `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:mallory@example.com"><tuple id="t"><status><basic>open</basic></status></tuple></presence>`
	const list = `<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list><entry uri="sip:device@example.com"/><entry uri="sip:a@example.com"/></list></resource-lists>`
	const dialog = `<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="1" state="full" entity="sip:mallory@example.com"><dialog id="d"><state>confirmed</state></dialog></dialog-info>`
	contact := "Contact: <sip:mallory@{me}>"
	for _, event := range []string{"presence", "presence.winfo", "dialog", "reg", "message-summary", "nosuch"} {
		texts = append(texts, siegeMessage("SUBSCRIBE", "mallory", "s", "", contact, "Event: "+event+";id=1", "Expires: 60", "Supported: eventlist"))
	}
	return append(texts, siegeCall,
		siegeMessage("PUBLISH", "mallory", "p", pidf, "Event: presence", "Content-Type: application/pidf+xml", "Expires: 60"),
		siegeMessage("PUBLISH", "mallory", "p", dialog, "Event: dialog", "Content-Type: application/dialog-info+xml", "Expires: 60", "SIP-If-Match: x"),
		siegeMessage("SUBSCRIBE", "rls", "s", list, contact, "Event: presence", "Expires: 60", "Require: recipient-list-subscribe", "Supported: eventlist",
			"Content-Type: application/resource-lists+xml", "Content-Disposition: recipient-list"),
		siegeMessage("MESSAGE", "nobody{n}", "m", "hello", "Content-Type: text/plain"),
		siegeMessage("MESSAGE", "device", "m", "hello", "Content-Type: text/plain", "Proxy-Require: x", "Max-Breadth: 1"),
		siegeMessage("REGISTER", "mallory", "r", "", "Contact: *", "Expires: 0"),
		siegeMessage("REGISTER", "mallory", "r", "", "Contact: <sip:a@{me};transport=tcp>;q=0.5, \"b\" <sip:b@[::1]:9>;expires=60, <tel:+1>", "Path: <sip:{at};lr>", "Supported: path"),
		siegeMessage("INVITE", "mallory", "i", "", contact, "Route: <sip:{at};lr>, <sip:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@{at};lr;ob>", "Record-Route: <sip:x@{at};lr>", "Authorization: Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", response=\"0\""),
		siegeMessage("OPTIONS", "{at}", "o", "", "Accept: application/sdp, */*;q=0.1", "X-Hereis-Mark: n1;1;x"),
		"\r\n\r\n\x1e\x00\x01\x00\x04\x21\x12\xa4\x42transaction1\x80\x22\x00\x00\x1e\r\n")
}

// siegeAnswers are what a device may say.
func siegeAnswers() (answers []string) {
	const end = "Content-Length: 0\r\n\r\n"
	ringing := "SIP/2.0 180 Ringing\r\n{head}Contact: <sip:device@{me}>\r\nRequire: 100rel\r\nRSeq: 1\r\n" + end
	for _, status := range []string{
		"200 OK\r\n{head}Contact: <sip:device@{me}>\r\n", "302 Moved\r\n{head}Contact: <sip:mallory@example.com>;q=0.1, <sip:device2@{me}>\r\n", "486 Busy\r\n{head}",
		"401 Who\r\n{head}WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n", "407 Who\r\n{head}Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n",
		"503 Full\r\n{head}Retry-After: 1\r\n", "603 No\r\n{head}", "430 Gone\r\n{head}", "481 No\r\n{head}", "699 X\r\n{head}",
	} {
		answers = append(answers, ringing+"\x1eSIP/2.0 "+status+end)
	}
	return append(answers, ringing, "")
}
