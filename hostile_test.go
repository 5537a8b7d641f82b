package hereis_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// A node under fire by UDP and TCP: RFC 4475's messages, valid ones with
// something broken in them, and hundreds of connections that never finish a
// message. Meanwhile a user registers and is called: nothing of theirs fails,
// the node lives, and nothing of the attack stays.
func TestHostileMessagesHurtNobody(t *testing.T) {
	const seed = 4475
	cfg := configs(t, 1)[0]
	cfg.SIP = []string{strings.TrimPrefix(cfg.SIP[0], "udp:")}
	node := start(t, cfg, nil)
	settled(t, []*member{node})
	at := netip.MustParseAddrPort(cfg.SIP[0])
	user := newParty(t, node)
	user.register()
	user.call("before")
	before := busyGoroutines(node)

	corpus := hostileCorpus(t, at)
	loris := slowLoris(t, at, 300)
	var attack sync.WaitGroup
	for i := range 2 {
		attack.Go(func() { fireUDP(t, at, corpus, rand.New(rand.NewPCG(seed, uint64(i))), 5000) })
		attack.Go(func() { fireTCP(t, at, corpus, rand.New(rand.NewPCG(seed, uint64(10+i))), 400) })
	}
	over := make(chan struct{})
	go func() { attack.Wait(); close(over) }()
	calls := 0
	for done := false; !done; calls++ {
		select {
		case <-over:
			done = true
		default:
		}
		if calls%5 == 0 {
			user.register()
		}
		user.call(strconv.Itoa(calls))
	}
	t.Logf("%d calls under fire", calls)
	for _, c := range loris {
		c.Close()
	}
	// Loops of the runtime and of the stores come and go: a handful.
	eventually(t, "nothing of the attack stays", func() error {
		if n := busyGoroutines(node); n > before+10 {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
	user.register()
	user.call("after")
}

// Bytes that are not UTF-8 are refused where they would be kept: a node that is
// the owner of the user itself would have them on its disk, which takes no such
// record, and say 503 to everybody.
func TestRFC3261_25_1_BytesThatAreNoTextStopNobody(t *testing.T) {
	const bad = "\xff\x86\xc7"
	cfg := configs(t, 1)[0]
	cfg.SIP, cfg.Durability, cfg.StoreMessages = []string{strings.TrimPrefix(cfg.SIP[0], "udp:")}, "sync", true
	node := start(t, cfg, nil)
	settled(t, []*member{node})
	conn, err := net.Dial("udp", cfg.SIP[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	ask := func(method, callID, body string, lines ...string) string {
		t.Helper()
		n++
		head := fmt.Sprintf("%s sip:%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKtext%d\r\nMax-Forwards: 70\r\n"+
			"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\nCall-ID: %s%d\r\nCSeq: %d %s\r\n",
			method, map[bool]string{true: "example.com", false: "alice@example.com"}[method == "REGISTER"], conn.LocalAddr(), n, callID, n, n, method)
		if _, err := conn.Write([]byte(head + strings.Join(append(lines, fmt.Sprint("Content-Length: ", len(body)), "", body), "\r\n"))); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for buf := make([]byte, 65536); ; {
			got, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%s %d is not answered: %v", method, n, err)
			}
			if text := string(buf[:got]); strings.HasPrefix(text, "SIP/2.0 ") && (strings.Contains(text, fmt.Sprintf("branch=z9hG4bKtext%d\r", n)) ||
				strings.Contains(text, fmt.Sprintf("branch=z9hG4bKtext%d;", n))) {
				return text[8:11]
			}
		}
	}
	contact := "Contact: <sip:alice@127.0.0.1:9>"
	event := []string{"Event: presence", "Expires: 600", contact}
	publish := []string{"Event: presence", "Expires: 600", "Content-Type: application/pidf+xml"}
	const state = `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:alice@example.com"><tuple id="a"><status><basic>open</basic></status></tuple></presence>`
	// What is published is good but for its Call-ID.
	if got := ask("PUBLISH", "good", state, publish...); got != "200" {
		t.Fatalf("a good PUBLISH gets %s", got)
	}
	for name, c := range map[string]struct {
		method, callID, want string
		lines                []string
		body                 string
	}{
		"Call-ID":             {"REGISTER", bad, "400", []string{contact}, ""},
		"Contact":             {"REGISTER", "c", "400", []string{"Contact: <sip:" + bad + "@127.0.0.1:9>"}, ""},
		"Contact parameter":   {"REGISTER", "c", "400", []string{contact + ";x=\"" + bad + "\""}, ""},
		"Path":                {"REGISTER", "c", "400", []string{contact, "Supported: path", "Path: <sip:" + bad + "@127.0.0.1;lr>"}, ""},
		"User-Agent":          {"REGISTER", "c", "200", []string{contact, "User-Agent: M" + bad + "ller"}, ""},
		"subscriber's target": {"SUBSCRIBE", "c", "400", []string{"Event: presence", "Contact: <sip:" + bad + "@127.0.0.1:9>"}, ""},
		"subscriber's call":   {"SUBSCRIBE", bad, "400", event, ""},
		"event id":            {"SUBSCRIBE", "c", "400", []string{"Event: presence;id=" + bad, contact}, ""},
		"publisher's call":    {"PUBLISH", bad, "400", publish, state},
	} {
		if got := ask(c.method, c.callID, c.body, c.lines...); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if got := ask("REGISTER", "good", "", contact); got != "200" {
			t.Fatalf("after %s: a good REGISTER gets %s", name, got)
		}
		if err := node.Healthy(); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
}

// busyGoroutines are those of this process without the ones that have answered
// questions to the cluster and wait for more.
func busyGoroutines(n *member) int {
	return runtime.NumGoroutine() - int(n.Stats()["sip_idle_workers"])
}

// hostileCorpus is RFC 4475's and 5118's messages, and valid ones to this node.
func hostileCorpus(t testing.TB, at netip.AddrPort) (corpus [][]byte) {
	t.Helper()
	files, err := filepath.Glob("sipfront/transport/testdata/torture*/*.dat")
	if err != nil || len(files) < 40 {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		corpus = append(corpus, raw)
	}
	for i, method := range []string{"REGISTER", "INVITE", "ACK", "CANCEL", "BYE", "MESSAGE", "SUBSCRIBE", "OPTIONS", "NOSUCH"} {
		target := "sip:nobody@example.com"
		if method == "REGISTER" {
			target = "sip:example.com"
		}
		corpus = append(corpus, fmt.Appendf(nil, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bKh%d\r\nMax-Forwards: 70\r\n"+
			"Route: <sip:%s;lr>\r\nFrom: \"A\" <sip:mallory@example.com>;tag=m\r\nTo: <sip:mallory@example.com>\r\nCall-ID: hostile-%d\r\nCSeq: %d %s\r\n"+
			"Contact: <sip:mallory@127.0.0.1:9>;q=0.5;expires=600\r\nExpires: 3600\r\nSupported: path\r\nPath: <sip:127.0.0.1:9;lr>\r\nContent-Length: 4\r\n\r\nbody",
			method, target, i, at, i, i+1, method))
	}
	return append(corpus, []byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP "+at.String()+";branch=z9hG4bKx\r\nVia: SIP/2.0/UDP 127.0.0.1:9\r\n"+
		"From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>;tag=2\r\nCall-ID: r\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"))
}

// mutate breaks a message in one to three ways.
func mutate(r *rand.Rand, raw []byte) []byte {
	b := bytes.Clone(raw)
	for range 1 + r.IntN(3) {
		if len(b) < 8 {
			return b
		}
		at := r.IntN(len(b))
		lines := bytes.Split(b, []byte("\r\n"))
		switch r.IntN(8) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b = b[:at]
		case 2:
			line := lines[r.IntN(len(lines))]
			b = bytes.Replace(b, line, bytes.Join([][]byte{line, line, line}, []byte("\r\n")), 1)
		case 3:
			b = bytes.Replace(b, []byte(";"), []byte(";"+strings.Repeat("x=\"y;\";", 1+r.IntN(500))), 1)
		case 4:
			b = append(b[:at:at], append([]byte{0, 0xff, 0, '\r'}, b[at:]...)...)
		case 5:
			b = bytes.Replace(b, []byte("Content-Length: "), []byte("Content-Length: "+strconv.Itoa(r.IntN(1<<30))), 1)
		case 6:
			line := lines[r.IntN(len(lines))]
			b = bytes.Replace(b, line, bytes.ReplaceAll(line, []byte(":"), []byte("<>\"@,")), 1)
		case 7:
			to := r.IntN(len(b))
			b = append(b, b[min(at, to):max(at, to)]...)
		}
	}
	return b
}

// fireUDP sends n messages; now and then it waits until the node shows that it
// is still reading, so that they are read and not lost.
func fireUDP(t *testing.T, at netip.AddrPort, corpus [][]byte, r *rand.Rand, n int) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	for i := range n {
		b := corpus[r.IntN(len(corpus))]
		if i >= len(corpus) {
			b = mutate(r, b)
		}
		// Too large for a datagram, or refused by ICMP: the next will do.
		_, _ = conn.Write(b[:min(len(b), 60000)])
		if i%50 == 49 && !alive(conn, at) {
			t.Errorf("no pong after %d messages", i)
			return
		}
	}
}

// alive asks for a pong (RFC 5626 4.4.1), past whatever else comes back.
func alive(conn *net.UDPConn, at netip.AddrPort) bool {
	buf := make([]byte, 65536)
	for range 20 {
		_, _ = conn.Write([]byte("\r\n\r\n"))
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			if n == 2 {
				return true
			}
		}
	}
	return false
}

// fireTCP opens a connection for each few messages, and closes it anyhow.
func fireTCP(t *testing.T, at netip.AddrPort, corpus [][]byte, r *rand.Rand, n int) {
	for range n {
		conn, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
		if err != nil {
			t.Errorf("the node takes no connection: %v", err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		for range 1 + r.IntN(4) {
			b := mutate(r, corpus[r.IntN(len(corpus))])
			if _, err := conn.Write(b); err != nil {
				break
			}
		}
		if r.IntN(2) == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	}
}

// slowLoris opens connections that have begun a message and never end it.
func slowLoris(t *testing.T, at netip.AddrPort, n int) (conns []net.Conn) {
	t.Helper()
	for i := range n {
		conn, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		head := "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK"
		if _, err := conn.Write([]byte(head[:1+i%len(head)])); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

// party is a user who registers, calls themself through the node, and answers.
type party struct {
	t     testing.TB
	node  *member
	at    netip.AddrPort // the node's, by UDP and TCP
	conn  *net.UDPConn
	cseq  int
	buf   []byte
	size  int     // of the answer in buf
	route string  // of the call that is up, as its caller
	wakes float64 // of the node, when it last served this user
	// patience is how long this user comes again after a 503, whatever its
	// reason; last is the latest of these.
	patience time.Duration
	last     string
}

func newParty(t testing.TB, node *member) *party {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &party{t: t, node: node, at: netip.MustParseAddrPort(node.cfg.SIP[0]), conn: conn, buf: make([]byte, 65536)}
}

func (p *party) register() {
	p.t.Helper()
	if status := p.ask("REGISTER", "sip:example.com", "reg", ""); status != 200 {
		p.t.Fatalf("REGISTER: %d", status)
	}
}

// call is INVITE, ACK and BYE, each through the node and back.
func (p *party) call(id string) {
	p.t.Helper()
	if status := p.ask("INVITE", "sip:user@example.com", "call-"+id, ""); status != 200 {
		p.t.Fatalf("INVITE %s: %d", id, status)
	}
	contact := "sip:user@" + p.conn.LocalAddr().String()
	p.write(p.request("ACK", contact, "call-"+id, ";tag=up"))
	if status := p.ask("BYE", contact, "call-"+id, ";tag=up"); status != 200 {
		p.t.Fatalf("BYE %s: %d", id, status)
	}
	p.route = ""
}

func (p *party) request(method, target, callID, toTag string) []byte {
	at := p.conn.LocalAddr().String()
	if method != "ACK" {
		p.cseq++
	}
	return fmt.Appendf(nil, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKuser%s%d\r\nMax-Forwards: 70\r\n%sFrom: <sip:user@example.com>;tag=u\r\n"+
		"To: <sip:user@example.com>%s\r\nCall-ID: %s-%s\r\nCSeq: %d %s\r\nContact: <sip:user@%s>\r\nContent-Length: 0\r\n\r\n",
		method, target, at, method, p.cseq, p.route, toTag, callID, at, p.cseq, method, at)
}

func (p *party) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, p.at); err != nil {
		p.t.Fatal(err)
	}
}

// ask is answered what a patient phone is: again if the answer is 503 because
// the machine did not let the node run for a while (CONSISTENCY rule 16), which
// is no attacker's doing.
func (p *party) ask(method, target, callID, toTag string) int {
	p.t.Helper()
	for began := time.Now(); ; {
		status := p.once(method, target, callID, toTag)
		wakes := p.node.Stats()["clock_wakes_total"]
		if ready := p.node.Ready() == nil; status != 503 || ready && wakes == p.wakes && time.Since(began) >= p.patience {
			p.wakes = wakes
			return status
		}
		p.last = string(p.buf[:p.size])
		eventually(p.t, "the node is ready again", p.node.Ready)
		p.wakes = wakes
	}
}

// once sends a request until its final answer comes, and answers what comes meanwhile.
func (p *party) once(method, target, callID, toTag string) int {
	p.t.Helper()
	req := p.request(method, target, callID, toTag)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		p.write(req)
		for again := time.Now().Add(500 * time.Millisecond); ; {
			_ = p.conn.SetReadDeadline(again)
			n, from, err := p.conn.ReadFromUDPAddrPort(p.buf)
			if err != nil {
				break
			}
			m := new(sipmsg.Message)
			if m.Scan(p.buf[:n]) != nil {
				p.t.Fatalf("the node sent %q", p.buf[:n])
			}
			if seq, of, ok := m.CSeq(); m.Status >= 200 && ok && int(seq) == p.cseq && string(of) == method {
				p.size = n
				m.Lines("Record-Route", func(v []byte) { p.route = "Route: " + string(v) + "\r\n" })
				return m.Status
			}
			p.answer(m, from)
		}
	}
	p.t.Fatalf("%s: no answer", method)
	return 0
}

// answer is the other half of the phone: it takes every call.
func (p *party) answer(m *sipmsg.Message, to netip.AddrPort) {
	if m.Status != 0 || string(m.Method) == "ACK" {
		return
	}
	var w sipmsg.Builder
	w.Response(m, 200, "OK", "up", to)
	w.Copy(m, "Record-Route")
	w.Header("Contact", "<sip:user@", p.conn.LocalAddr().String(), ">")
	w.End("", "")
	p.write(w.Bytes())
}
