package sipfront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transport"
)

// tortured is a node on loopback that serves every domain of RFC 4475 and 5118,
// with a device that answers 200 to all that is passed on to it.
type tortured struct {
	*rig
	tr     *transport.Transport
	device *net.UDPConn
	// passed has what came to the device: its start line, and the whole.
	mu     sync.Mutex
	passed []string
}

// anybody is at one address, whoever they are.
type anybody struct{ contact string }

func (a anybody) LocateThen(_ actors.AoR, _ string, _ int64, _ func(*messages.Located, func()), done func(*messages.Located, error)) {
	done(&messages.Located{Final: true, Targets: []*messages.Target{{
		Contact: a.contact, Q: 1000, Edge: "n1", EdgeLive: true, Transport: "udp", Local: "127.0.0.1:1", Remote: "127.0.0.1:1",
	}}}, nil)
}

func (a anybody) RelocateThen(aor actors.AoR, callID string, deadlineMS int64, done func(*messages.Located, error)) {
	a.LocateThen(aor, callID, deadlineMS, nil, done)
}

func startTortured(t *testing.T) *tortured {
	t.Helper()
	x := &tortured{}
	var err error
	if x.device, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	cfg := transport.DefaultConfig()
	cfg.UDP, cfg.TCP = []netip.AddrPort{loopback}, []netip.AddrPort{loopback}
	// How long one waits for the rest of a message.
	cfg.Streams.Begun = 300 * time.Millisecond
	cfg.OnClose = func(f transport.Flow) { x.layer.FlowClosed(f) }
	var last atomic.Uint64
	x.tr, err = transport.New(cfg, func(m *transport.Message) { x.layer.Receive(m) }, func(stream bool) *messages.FlowID {
		return &messages.FlowID{Incarnation: 7, Counter: last.Add(1), Stream: stream}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.tr.Listen(); err != nil {
		t.Fatal(err)
	}
	domains, err := actors.NewDomains(
		actors.Domain{Name: "example.com", Aliases: []string{"[2001:db8::10]", "[2001:db8::10:5070]", "[2001:db8::192.0.2.1]"}},
		actors.Domain{Name: "example.net", Aliases: []string{"host.example.net"}}, actors.Domain{Name: "example.org", Aliases: []string{"127.0.0.1"}},
		actors.Domain{Name: "company.com"}, actors.Domain{Name: "registrar.example.com"},
		actors.Domain{Name: "chair-dnrc.example.com", Aliases: []string{"services.example.com"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	x.rig = newNodeWith(t, "n1", x.tr.Addrs()[0].String(), func(_ *rig, p *Parts) {
		p.Transport = x.tr
		p.Locator = anybody{"sip:device@" + x.device.LocalAddr().String()}
	}, func(c *Config) {
		c.Domains = domains
		c.Addresses = append(c.Addresses, Address{"tcp", x.tr.TCPAddrs()[0]})
		c.Ports = []uint16{5070, 5080}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := x.tr.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(x.answers)
	t.Cleanup(func() {
		cancel()
		_ = x.device.Close()
		wg.Wait()
	})
	return x
}

// answers is the device.
func (x *tortured) answers() {
	buf := make([]byte, 65536)
	for {
		n, from, err := x.device.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		raw := string(buf[:n])
		start, headers, _, err := splitMessage(raw)
		if err != nil || strings.HasPrefix(start, "ACK ") {
			continue
		}
		x.mu.Lock()
		x.passed = append(x.passed, raw)
		x.mu.Unlock()
		res := "SIP/2.0 200 OK\r\n"
		for _, h := range headers {
			switch h.name {
			case "To":
				if _, tagged := param(addrParams(h.value), "tag"); !tagged {
					h.value += ";tag=device"
				}
				fallthrough
			case "Via", "From", "Call-ID", "CSeq":
				res += h.name + ": " + h.value + "\r\n"
			}
		}
		_, _ = x.device.WriteToUDPAddrPort([]byte(res+"Content-Length: 0\r\n\r\n"), from)
	}
}

// client is a sender: bound where the Via of its message says that answers go.
type client struct {
	t    *testing.T
	conn net.Conn
	// rest is what of a stream has been read and not taken.
	rest []byte
}

// dialFrom connects from an address of loopback that nobody else uses.
func dialFrom(t *testing.T, network string, port int, to netip.AddrPort) *client {
	t.Helper()
	for range 100 {
		ip := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
		var conn net.Conn
		var err error
		if network == "udp" {
			conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: ip, Port: port}, net.UDPAddrFromAddrPort(to))
		} else {
			conn, err = net.DialTCP("tcp4", &net.TCPAddr{IP: ip}, net.TCPAddrFromAddrPort(to))
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return &client{t: t, conn: conn}
	}
	t.Fatal("no free address")
	return nil
}

func (c *client) send(raw []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(raw); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next answer that is not a 100, or why there is none.
func (c *client) next() (string, error) {
	c.t.Helper()
	buf := make([]byte, 65536)
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			c.t.Fatal(err)
		}
		// No answer of the node or the device has a body.
		if head, rest, ok := bytes.Cut(c.rest, []byte("\r\n\r\n")); ok {
			c.rest = rest
			if !bytes.HasPrefix(head, []byte("SIP/2.0 100 ")) {
				return string(head) + "\r\n\r\n", nil
			}
			continue
		}
		n, err := c.conn.Read(buf)
		c.rest = append(c.rest, buf[:n]...)
		if err != nil {
			return "", err
		}
	}
}

// ping is answered 200 by the node itself, after all that was answered before.
func (c *client) ping() {
	via := "SIP/2.0/UDP 127.0.0.1;rport"
	if c.conn.LocalAddr().Network() == "tcp" {
		via = "SIP/2.0/TCP 127.0.0.1;rport"
	}
	c.send([]byte("OPTIONS sip:example.com SIP/2.0\r\nVia: " + via + fmt.Sprintf(";branch=z9hG4bKping%d\r\n", rand.Uint64()) +
		"From: <sip:p@example.com>;tag=1\r\nTo: <sip:example.com>\r\nCall-ID: ping\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"))
}

// torture is what becomes of one message.
type torture struct {
	clause string
	// udp and tcp are the status of the answer; or "taken" and "discarded" for a
	// response, which is never answered; or for tcp "closed" where it waits in
	// vain, and a status with "closed" where the connection ends after it.
	udp, tcp string
	// passed: it goes on to the device.
	passed bool
}

const (
	taken     = "taken"
	discarded = "discarded"
)

// passedOn is a request that is as good as any: it reaches the device, whose 200 comes back.
func passedOn(clause string) torture { return torture{clause, "200", "200", true} }

// answered is one that the node itself answers.
func answered(clause, status string) torture { return torture{clause, status, status, false} }

// lost is one after which nothing can be found on a connection.
func lost(clause, status string) torture {
	return torture{clause, status, status + " closed", false}
}

// Each message of RFC 4475 over both transports. Where its text leaves a choice,
// the comment has the choice.
func TestRFC4475_3_OverUDPAndTCP(t *testing.T) {
	testTorture(t, "transport/testdata/torture", map[string]torture{
		"wsinv":   passedOn("3.1.1.1"),
		"intmeth": passedOn("3.1.1.2"),
		"esc01":   passedOn("3.1.1.3"),
		"escnull": answered("3.1.1.4", "200"),
		"esc02":   answered("3.1.1.5", "501"), // for the node itself, as an endpoint
		"lwsdisp": passedOn("3.1.1.6"),
		"longreq": passedOn("3.1.1.7"),
		// Over UDP what stands behind is noise; on a connection it is a request, and
		// then, because its Content-Length is too short, what is none.
		"dblreq":  {"3.1.1.8", "200", "200 closed", false},
		"semiuri": passedOn("3.1.1.9"), "transports": passedOn("3.1.1.10"), "mpart01": passedOn("3.1.1.11"),
		"unreason": {"3.1.1.12", taken, taken, false}, "noreason": {"3.1.1.13", taken, taken, false},

		"badinv01": lost("3.1.2.1", "400"), // a head that is not understood gives no length to go by
		"clerr":    {"3.1.2.2", "400", "closed", false},
		"ncl":      lost("3.1.2.3", "400"),
		"scalar02": answered("3.1.2.4", "400"),
		"scalarlg": {"3.1.2.5", discarded, discarded, false},
		"quotbal":  answered("3.1.2.6", "400"),  // not: infer the quote
		"ltgtruri": answered("3.1.2.7", "400"),  // not: ignore the brackets
		"lwsruri":  answered("3.1.2.8", "400"),  // not: ignore the LWS
		"lwsstart": answered("3.1.2.9", "400"),  // not: ignore the SPs
		"trws":     answered("3.1.2.10", "400"), // not: ignore the SPs
		"escruri":  answered("3.1.2.11", "400"), // not: ignore the headers
		// "An element shouldn't do that [400] unless the contents of the Date
		// header field were actually important."
		"baddate":    passedOn("3.1.2.12"),
		"regbadct":   answered("3.1.2.13", "400"), // not: infer the brackets
		"badaspec":   answered("3.1.2.14", "400"), // not: ignore the spaces
		"baddn":      answered("3.1.2.15", "400"), // not: infer the quotes
		"badvers":    answered("3.1.2.16", "505"),
		"mismatch01": answered("3.1.2.17", "400"),
		"mismatch02": answered("3.1.2.18", "400"), // 501 is for those who look at the method first: "a 400 is also acceptable"
		"bigcode":    {"3.1.2.19", discarded, discarded, false},

		"badbranch": passedOn("3.2.1"), // by RFC 2543's identifier; not: 400

		"insuf":    answered("3.3.1", "400"),
		"unkscm":   answered("3.3.2", "416"),
		"novelsc":  answered("3.3.3", "416"), // a scheme that is never accepted
		"unksm2":   answered("3.3.4", "400"), // as registrar
		"bext01":   answered("3.3.5", "420"),
		"invut":    passedOn("3.3.6"),        // as proxy
		"regaut01": answered("3.3.7", "200"), // as a registrar that asks for no credentials
		"multi01":  answered("3.3.8", "400"),
		"mcl01":    lost("3.3.9", "400"),
		"bcast":    {"3.3.10", taken, taken, false}, // well-formed; and dropped: "proxies should drop such responses"
		// RFC 3261 16.3 step 3: to OPTIONS, and to nothing else, the element that
		// may not pass it on may answer as if it were for itself.
		"zeromf":   answered("3.3.11", "200"),
		"cparam01": answered("3.3.12", "200"),
		"cparam02": answered("3.3.13", "200"),
		"regescrt": answered("3.3.14", "200"),
		"sdp01":    passedOn("3.3.15"), // as proxy
		// Without Content-Length the rest is the body, which a connection has not (RFC 3261 18.3).
		"inv2543": {"3.4.1", "200", "400 closed", true},
	})
}

// Each message of RFC 5118 over both transports.
func TestRFC5118_4_OverUDPAndTCP(t *testing.T) {
	testTorture(t, "transport/testdata/torture5118", map[string]torture{
		"01-ipv6-good":                   answered("4.1", "200"),
		"02-ipv6-bad":                    answered("4.2", "400"),
		"03-port-ambiguous":              answered("4.3", "200"), // well-formed; it only does not mean what it should
		"04-port-unambiguous":            answered("4.4", "200"),
		"06-via-received-param-no-delim": answered("4.5", "200"),
		// It must be parsed: 405 says that the node as an endpoint has no calls.
		"05-via-received-param-with-delim": answered("4.5", "405"),
		"07-ipv6-in-sdp":                   passedOn("4.6"), "08-mult-ip-in-header": passedOn("4.7"), "09-mult-ip-in-sdp": passedOn("4.8"),
		"10-ipv4-mapped-ipv6": passedOn("4.9"),
		// "An implementation must tolerate both of the above constructs."
		"11-ipv6-bug-abnf-3-colons": passedOn("4.10"), "12-ipv6-correct-abnf-2-colons": passedOn("4.10"),
	})
}

func testTorture(t *testing.T, dir string, rows map[string]torture) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.dat"))
	if err != nil || len(files) != len(rows) {
		t.Fatalf("%d files (%v), %d rows", len(files), err, len(rows))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		row, ok := rows[name]
		if !ok {
			t.Errorf("no row for %s", name)
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if name == "baddn" {
			// The empty line is there in the text, and missing in the archive.
			raw = append(raw, "\r\n"...)
		}
		for network, want := range map[string]string{"udp": row.udp, "tcp": row.tcp} {
			t.Run(row.clause+" "+name+" "+network, func(t *testing.T) { oneTorture(t, network, raw, want, row) })
		}
	}
}

// replyPort is where a datagram's Via sends its answers.
func replyPort(raw []byte) int {
	_, _, value, ok := topVia(string(raw))
	if !ok {
		return 5060
	}
	v, err := parseVia(splitValues(nil, value)[0])
	if err != nil || v.port == 0 {
		return 5060
	}
	return int(v.port)
}

func oneTorture(t *testing.T, network string, raw []byte, want string, row torture) {
	x := startTortured(t)
	to := x.tr.Addrs()[0]
	if network == "tcp" {
		to = x.tr.TCPAddrs()[0]
	}
	c := dialFrom(t, network, replyPort(raw), to)
	c.send(raw)
	status, closes := strings.CutSuffix(want, "closed")
	status = strings.TrimSpace(status)
	switch status {
	case "":
	case taken, discarded:
		// The transport gives a good one to the core, which knows of no request to it.
		for end := time.Now().Add(10 * time.Second); x.srv.Stats().Dropped+x.tr.Stats().Dropped == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it has left no trace")
			}
		}
		if got := x.srv.Stats().Dropped == 1; got != (want == taken) {
			t.Errorf("taken: %v; malformed: %v", got, x.tr.Stats().Malformed)
		}
		if x.srv.Stats().Strays != 0 {
			t.Error("it was passed on")
		}
	default:
		got, err := c.next()
		if err != nil || !strings.HasPrefix(got, "SIP/2.0 "+status+" ") {
			t.Fatalf("got %q (%v), want %s", got, err, status)
		}
		checkTorture(t, x, raw, got)
	}
	passed := row.passed && want == "200"
	if closes {
		_, err := c.next()
		for err == nil { // to what stands between
			_, err = c.next()
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		// Others are served all the same.
		c = dialFrom(t, network, 0, to)
	}
	// What is not answered is not answered later either, nor is anything else sent.
	if network == "udp" && closes {
		t.Fatal("a datagram has no connection")
	}
	c.ping()
	if got, err := c.next(); err != nil || !strings.Contains(got, "Call-ID: ping\r\n") {
		t.Errorf("got %q (%v), want the next request answered", got, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if got := len(x.passed) > 0; got != passed && want != "200 closed" {
		t.Errorf("passed on: %v, want %v", got, passed)
	}
}

// checkTorture looks at what the texts say beside the status.
func checkTorture(t *testing.T, x *tortured, raw []byte, answer string) {
	t.Helper()
	_, headers, _, err := splitMessage(string(raw))
	if err != nil {
		return
	}
	callID, whole := "", ""
	for _, h := range headers {
		if h.name == "Call-ID" {
			whole = h.value
			callID, _, _ = strings.Cut(whole, ".")
		}
	}
	has := func(what, text string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("%s: no %q in\n%s", callID, p, what+text)
			}
		}
	}
	switch callID {
	case "bext01": // each feature of Proxy-Require, for a proxy
		has("", answer, "Unsupported: noProxiesSupportThis, norDoAnyProxiesSupportThis\r\n")
	case "escnull":
		if got := len(values(answer, "Contact")); got != 2 {
			t.Errorf("%d Contacts, want the two that were registered", got)
		}
	case "cparam01": // a parameter of the Contact, not of its URI
		has("", answer, "Contact: <sip:+19725552222@gw1.example.net>;", ";unknownparam")
	case "cparam02":
		has("", answer, "Contact: <sip:+19725552222@gw1.example.net;unknownparam>")
	case "regescrt":
		has("", answer, "Contact: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>")
	case "esc02":
		has("", answer, "Allow: ")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.passed) == 0 || values(x.passed[0], "Call-ID")[0] != whole {
		return
	}
	passed := x.passed[0]
	for _, h := range headers {
		// All but what a proxy must change is passed on as it came.
		switch h.name {
		case "Via", "Max-Forwards", "Route", "Content-Length", "Record-Route":
			continue
		}
		if got := values(passed, h.name); !strings.Contains(strings.Join(got, "\n"), h.value) {
			t.Errorf("%s: %q became %q", callID, h.value, got)
		}
	}
	_, _, before, _ := splitMessage(string(raw))
	if _, _, body, _ := splitMessage(passed); body != before {
		t.Errorf("%s: the body is another", callID)
	}
}
