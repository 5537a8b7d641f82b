package hereis_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/messages"
	"hereis/messages/messagestest"
)

// limitTest reaches limits of a real node and sees what the one who reached
// them is answered. The metrics of each limit must have moved then, as its row in
// docs/limits.md says.
type limitTest struct {
	flags string // the limits that it reaches, apart by spaces
	set   func(c *hereis.Config)
	// prepare may be nil.
	prepare func(n *hereis.Node)
	reach   func(r *limitRig)
}

// limitsElsewhere are reached by tests of their packages, where a cluster can be
// made to hold answers back; these look at the counters.
var limitsElsewhere = map[string]string{
	"max-in-flight":  "cluster/liveness_test.go TestRule22_AboveTheCapOfAPeerRequestsAreRefusedAndItRecovers",
	"max-parked":     "cluster/liveness_test.go TestRule22_AboveTheCapOfTheGateWritesAreRefusedAndLookupsAreNot",
	"max-broadcasts": "cluster/peers_test.go TestRule11_AboveTheCapOfBroadcastsQuestionsComeAgain",
	"max-unstored":   "cluster/unstored_test.go TestRule4_OfMoreFailedWritesThanAreRememberedItIsSaid",
	// The second nonce makes the first stale.
	"max-nonces": "sipfront/nonce_test.go TestRFC7616_3_4_5_NoncesAreBounded",
	// A question that hangs is made with a cluster of the test's.
	"max-lookups": "sipfront/rfc3261_test.go TestLookupsAreBounded",
}

// reachedLimits are the limits that some test reaches.
func reachedLimits(t *testing.T) map[string]bool {
	t.Helper()
	reached := map[string]bool{}
	for _, l := range limitTests {
		for flag := range strings.FieldsSeq(l.flags) {
			reached[flag] = true
		}
	}
	for flag, where := range limitsElsewhere {
		file, name, _ := strings.Cut(where, " ")
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "func "+name+"(") {
			t.Errorf("--%s: there is no %s: %v", flag, where, err)
		}
		reached[flag] = true
	}
	return reached
}

var metricName = regexp.MustCompile("`hereis_([a-z_]+(?:\\{[^}]*\\})?)`")

func TestEveryLimitIsReached(t *testing.T) {
	rows := limitRows(t)
	for _, l := range limitTests {
		t.Run(strings.ReplaceAll(l.flags, " ", "+"), func(t *testing.T) {
			for try := 1; ; try++ {
				r := reachLimit(t, l, rows)
				woke := r.node.Stats()["clock_wakes_total"] > 0
				if err := r.node.stop(); err != nil {
					t.Error(err)
				}
				if len(r.wrong) == 0 {
					return
				}
				// A node that the machine did not let run answers 503 for a while.
				if !woke || try == 5 {
					t.Fatal(strings.Join(r.wrong, "\n"))
				}
			}
		})
	}
}

// reachLimit puts a new node through l.
func reachLimit(t *testing.T, l limitTest, rows map[string][]string) *limitRig {
	cfg := configs(t, 1)[0]
	cfg.SIP = []string{strings.TrimPrefix(cfg.SIP[0], "udp:")}
	l.set(&cfg)
	r := &limitRig{T: t, node: start(t, cfg, l.prepare)}
	settled(t, []*member{r.node})
	r.phone = newPhone(t)
	l.reach(r)
	for flag := range strings.FieldsSeq(l.flags) {
		for _, m := range metricName.FindAllStringSubmatch(rows[flag][3], -1) {
			r.soon("--"+flag+" moves hereis_"+m[1], func() bool { return r.node.Stats()[m[1]] > 0 })
		}
	}
	return r
}

// limitRig is a node with little room, and a phone.
type limitRig struct {
	*testing.T
	node  *member
	phone *phone
	wrong []string // what was not as it should be
}

func (r *limitRig) fail(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// soon waits until ok.
func (r *limitRig) soon(what string, ok func() bool) {
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.fail("not so: %s", what)
			return
		}
	}
}

// want checks a final answer; of a 503, that it says when to come again.
func (r *limitRig) want(what, got, status string) {
	if !strings.HasPrefix(got, "SIP/2.0 "+status+" ") {
		r.fail("%s: got %s, want %s", what, got, status)
	}
	if status == "503" && !strings.Contains(got, "\r\nRetry-After: ") {
		r.fail("%s: a 503 without Retry-After: %s", what, got)
	}
}

func (r *limitRig) gauge(name string, want float64) {
	r.soon(fmt.Sprintf("%s is %v", name, want), func() bool { return r.node.Stats()[name] == want })
}

// options asks the node itself.
func (r *limitRig) options(lines ...string) string {
	r.Helper()
	return r.phone.send(r.node, "OPTIONS", "sip:example.com", "caller", lines...)
}

// silent is a device of a user that takes everything and answers nothing.
func (r *limitRig) silent(user string) *phone {
	r.Helper()
	p := newPhone(r.T)
	r.want("REGISTER", p.register(r.node, user, 600), "200")
	return p
}

// hears reads what a device gets until a message of that method comes.
func (p *phone) hears(method string) string {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	buf := make([]byte, 8192)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			p.t.Fatalf("no %s: %v", method, err)
		}
		if strings.HasPrefix(string(buf[:n]), method+" ") {
			return string(buf[:n])
		}
	}
}

// tcp opens a connection from an address of this host.
func (r *limitRig) tcp(from string) net.Conn {
	r.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(r.Context(), "tcp", r.node.cfg.SIP[0])
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	return conn
}

func (r *limitRig) closed(conn net.Conn) {
	r.Helper()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		r.fail("got %d bytes of a connection that should be closed", n)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		r.fail("the connection is not closed")
	}
}

var limitTests = []limitTest{
	{"max-datagram", func(c *hereis.Config) { c.MaxDatagram = 1400 }, nil, func(r *limitRig) {
		r.want("a long datagram", r.options("X: "+strings.Repeat("x", 1500)), "513")
	}},
	{"max-message", func(c *hereis.Config) { c.MaxMessage = 2000 }, nil, func(r *limitRig) {
		c := r.tcp("127.0.0.1")
		msg := strings.Replace(r.phone.text("OPTIONS", "sip:example.com", "caller"), "Content-Length: 0", "Content-Length: 5000", 1)
		if _, err := io.WriteString(c, strings.Replace(msg, "/UDP", "/TCP", 1)); err != nil {
			r.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			r.fail("the connection does not end: %v", err)
		}
		r.want("a long message", string(got), "513")
	}},
	{"max-body", func(c *hereis.Config) { c.MaxBody = 100 }, nil, func(r *limitRig) {
		r.want("a long body", r.phone.message(r.node, "a", "b", strings.Repeat("x", 101)), "513")
	}},
	{"max-headers", func(c *hereis.Config) { c.MaxHeaders = 16 }, nil, func(r *limitRig) {
		r.want("17 headers", r.options(strings.Split(strings.Repeat("X: y,", 10)+"X: y", ",")...), "400")
	}},
	{"max-header-line", func(c *hereis.Config) { c.MaxHeaderLine = 256 }, nil, func(r *limitRig) {
		r.want("a long line", r.options("X: "+strings.Repeat("x", 256)), "400")
	}},
	{"max-params", func(c *hereis.Config) { c.MaxParams = 8 }, nil, func(r *limitRig) {
		r.want("nine parameters", r.options("X: y"+strings.Repeat(";z", 9)), "400")
	}},
	{"source-rate source-burst source-answers", func(c *hereis.Config) { c.SourceRate, c.SourceBurst, c.SourceAnswers = 1, 2, 1 }, nil, func(r *limitRig) {
		r.want("the first", r.options(), "200")
		r.want("the second", r.options(), "200")
		r.want("the third", r.options(), "503")
		for range 20 {
			r.phone.fire(r.node, r.phone.text("OPTIONS", "sip:example.com", "caller"))
		}
	}},
	{"max-sources", func(c *hereis.Config) { c.SourceRate, c.SourceBurst, c.MaxSources = 1, 1, 16 }, nil, func(r *limitRig) {
		for i := range 100 {
			p := newPhoneAt(r.T, fmt.Sprintf("127.0.1.%d", i+1))
			r.want("a source of its own", p.send(r.node, "OPTIONS", "sip:example.com", "caller"), "200")
		}
		if n := r.node.Stats()["transport_sources"]; n > 16 {
			r.fail("%v sources are remembered, 16 may be", n)
		}
	}},
	{"max-connections-per-source", func(c *hereis.Config) { c.MaxConnectionsPerSource = 2 }, nil, func(r *limitRig) {
		r.tcp("127.0.0.1")
		r.tcp("127.0.0.1")
		r.gauge("transport_connections", 2)
		r.closed(r.tcp("127.0.0.1"))
		r.tcp("127.0.0.2")
		r.gauge("transport_connections", 3)
	}},
	{"max-connections", func(c *hereis.Config) { c.MaxConnections = 2 }, nil, func(r *limitRig) {
		r.tcp("127.0.0.1")
		r.tcp("127.0.0.2")
		r.gauge("transport_connections", 2)
		r.closed(r.tcp("127.0.0.3"))
	}},
	{"udp-buffer", func(c *hereis.Config) { c.UDPBuffer = 2048 }, nil, func(r *limitRig) {
		// As many at once as no machine reads meanwhile.
		for range 10 {
			for i := range 2000 {
				r.phone.fire(r.node, r.phone.text("OPTIONS", "sip:example.com", fmt.Sprintf("burst%d", i)))
			}
			if r.node.Stats()["transport_overflowed_total"] > 0 {
				return
			}
		}
	}},
	{"max-users", func(c *hereis.Config) { c.MaxUsers = 64 }, nil, func(r *limitRig) {
		// Each of 64 parts of the table takes one: by the 65th user some part has two.
		refused := false
		for i := 0; i < 65 && !refused; i++ {
			refused = strings.HasPrefix(r.phone.register(r.node, fmt.Sprintf("user%d", i), 600), "SIP/2.0 503")
		}
		if !refused {
			r.fail("of 65 users none was refused, 64 may be")
		}
		r.want("one who is known", r.phone.register(r.node, "user0", 60), "200")
	}},
	{"max-flows", func(c *hereis.Config) { c.MaxFlows = 64 }, nil, func(r *limitRig) {
		for i := range 100 {
			p, user := newPhone(r.T), fmt.Sprintf("flow%d", i)
			r.want("REGISTER", p.send(r.node, "REGISTER", "sip:example.com", user, "Supported: path, outbound",
				fmt.Sprintf("Contact: <sip:%s@%s>;+sip.instance=\"<urn:x:%d>\";reg-id=1", user, p.addr(), i)), "200")
		}
		if n := r.node.Stats()["transport_flows"]; n > 64 {
			r.fail("%v flows, 64 may be", n)
		}
	}},
	{"max-transactions", func(c *hereis.Config) { c.MaxTransactions = 1 }, nil, func(r *limitRig) {
		// Without its ACK, the answer is repeated for half a minute.
		r.want("INVITE", r.phone.send(r.node, "INVITE", "sip:nobody@example.com", "caller"), "404")
		r.want("one more", r.options(), "503")
	}},
	{"max-pending", func(c *hereis.Config) { c.MaxPending = 1 }, nil, func(r *limitRig) {
		r.silent("bob")
		r.phone.fire(r.node, r.phone.text("INVITE", "sip:bob@example.com", "caller"))
		r.gauge("transaction_pending", 1)
		r.want("one more", newPhone(r.T).send(r.node, "OPTIONS", "sip:example.com", "other"), "503")
	}},
	{"answer-bytes", func(c *hereis.Config) { c.AnswerBytes = 100_000 }, nil, func(r *limitRig) {
		for range 300 {
			r.want("OPTIONS", r.options(), "200")
		}
		if n := r.node.Stats()["transaction_answer_bytes"]; n > 100_000 {
			r.fail("%v bytes of answers", n)
		}
	}},
	{"max-branches", func(c *hereis.Config) { c.MaxBranches = 1 }, nil, func(r *limitRig) {
		r.silent("bob")
		r.silent("bob")
		r.phone.fire(r.node, r.phone.text("INVITE", "sip:bob@example.com", "caller"))
		r.gauge("sip_branches_total", 1)
	}},
	{"max-breadth", func(c *hereis.Config) { c.MaxBreadth = 1 }, nil, func(r *limitRig) {
		r.silent("bob")
		r.want("without breadth", r.phone.send(r.node, "INVITE", "sip:bob@example.com", "caller", "Max-Breadth: 0"), "440")
	}},
	{"max-redirects", func(c *hereis.Config) { c.FollowRedirects, c.MaxRedirects = true, 0 }, nil, func(r *limitRig) {
		device := r.silent("bob")
		got := make(chan string, 1)
		go func() { got <- r.phone.send(r.node, "INVITE", "sip:bob@example.com", "caller") }()
		head := string(responseHead([]byte(device.hears("INVITE"))))
		device.fire(r.node, "SIP/2.0 302 Moved\r\n"+head+"Contact: <sip:else@example.com>\r\nContent-Length: 0\r\n\r\n")
		res := <-got
		r.want("INVITE", res, "302")
		if !strings.Contains(res, "<sip:else@example.com>") {
			r.fail("the Contact is not passed on: %s", res)
		}
	}},
	{"max-bindings", func(c *hereis.Config) { c.MaxBindings = 1 }, nil, func(r *limitRig) {
		r.silent("bob")
		r.want("a second device", newPhone(r.T).register(r.node, "bob", 600), "403")
	}},
	{"max-publications", func(c *hereis.Config) { c.MaxPublications = 1 }, nil, func(r *limitRig) {
		r.want("the first", r.publish("<note>x</note>"), "200")
		r.want("the second", r.publish("<note>another</note>"), "403")
	}},
	{"max-publication", func(c *hereis.Config) { c.MaxPublication = 256 }, nil, func(r *limitRig) {
		r.want("a long one", r.publish("<note>"+strings.Repeat("x", 300)+"</note>"), "413")
	}},
	{"max-subscriptions", func(c *hereis.Config) { c.MaxSubscriptions = 1 }, nil, func(r *limitRig) {
		r.want("the first", r.subscribe("s1", "bob"), "200")
		r.want("the second", r.subscribe("s2", "carol"), "503")
	}},
	{"max-watchers", func(c *hereis.Config) { c.MaxWatchers = 1 }, nil, func(r *limitRig) {
		r.want("the first", r.subscribe("s1", "bob"), "200")
		r.want("the second", r.subscribe("s2", "bob"), "403")
		r.want("of another user", r.subscribe("s3", "carol"), "200")
	}},
	{"max-notifies", func(c *hereis.Config) { c.MaxNotifies = 1 }, nil, func(r *limitRig) {
		// The first watcher does not answer: the second is told nothing meanwhile.
		r.want("the first", r.phone.send(r.node, "SUBSCRIBE", "sip:bob@example.com", "w", "Event: presence", "Contact: <sip:w@"+r.phone.addr()+">"), "200")
		r.gauge("sip_notifies_waiting", 1)
		r.want("the second", r.subscribe("s2", "carol"), "200")
		r.gauge("sip_notifies_waiting", 1)
		r.gauge("sip_subscriptions", 2)
	}},
	{"max-list-members", func(c *hereis.Config) { c.MaxListMembers = 1 }, nil, func(r *limitRig) {
		body := `<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list><entry uri="sip:a@example.com"/><entry uri="sip:b@example.com"/></list></resource-lists>`
		r.want("two members", newAgent(r.T).ask(r.node, "SUBSCRIBE", "sip:rls@example.com", "sip:w@example.com", "<sip:rls@example.com>", "list", body,
			"Event: presence", "Require: recipient-list-subscribe", "Supported: eventlist", "Content-Type: application/resource-lists+xml", "Content-Disposition: recipient-list"), "403")
	}},
	{"max-dialogs", func(c *hereis.Config) { c.DialogEvents, c.MaxDialogs = true, 1 }, nil, func(r *limitRig) {
		device := r.silent("bob")
		for range 2 {
			r.phone.fire(r.node, newPhone(r.T).text("INVITE", "sip:bob@example.com", "caller"))
			device.hears("INVITE") // the call goes on
		}
	}},
	{"max-handlers", func(c *hereis.Config) { c.MaxHandlers = 1 }, func(n *hereis.Node) {
		hereis.Handle(n, func(ctx context.Context, q *messagestest.Greet) (*messagestest.Greeting, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}, func(r *limitRig) {
		ask := func(wait time.Duration) error {
			ctx, cancel := context.WithTimeout(r.Context(), wait)
			defer cancel()
			_, err := hereis.Ask[*messagestest.Greeting](ctx, r.node.Node, hereis.ToNode(r.node.Name()), proto.Message(&messagestest.Greet{Name: "x"}))
			return err
		}
		r.soon("one of two is refused", func() bool {
			other := make(chan error, 1)
			go func() { other <- ask(time.Second) }()
			mine, theirs := ask(time.Second), <-other
			return hereis.Code(mine) == messages.FailureCode_FAILURE_CODE_OVERLOADED || hereis.Code(theirs) == messages.FailureCode_FAILURE_CODE_OVERLOADED
		})
	}},
	{"max-writes", func(c *hereis.Config) { c.MaxWrites = 1 }, nil, func(r *limitRig) {
		phones := make([]*phone, 20)
		for i := range phones {
			phones[i] = newPhone(r.T)
		}
		r.soon("one of many at a time is refused", func() bool {
			answers := make(chan string, len(phones))
			for i, p := range phones {
				go func() { answers <- p.register(r.node, fmt.Sprintf("writer%d", i), 600) }()
			}
			refused := false
			for range phones {
				got := <-answers
				if !strings.HasPrefix(got, "SIP/2.0 200 ") {
					r.want("REGISTER", got, "503")
					refused = true
				}
			}
			return refused
		})
		r.soon("what was refused is written", func() bool { return r.node.Stats()["cluster_unstored"] == 0 })
	}},
	{"max-stored", func(c *hereis.Config) { c.StoreMessages, c.MaxStored = true, 1 }, nil, func(r *limitRig) {
		r.want("the first", r.phone.message(r.node, "a", "bob", "x"), "202")
		r.want("of another user", r.phone.message(r.node, "a", "carol", "x"), "404")
	}},
	{"max-stored-per-user", func(c *hereis.Config) { c.StoreMessages, c.MaxStoredPerUser = true, 1 }, nil, func(r *limitRig) {
		r.want("the first", r.phone.message(r.node, "a", "bob", "x"), "202")
		r.want("the second", r.phone.message(r.node, "a", "bob", "x"), "404")
		r.want("of another user", r.phone.message(r.node, "a", "carol", "x"), "202")
	}},
	{"max-stored-bytes", func(c *hereis.Config) { c.StoreMessages, c.MaxStoredBytes = true, 4 }, nil, func(r *limitRig) {
		r.want("a long one", r.phone.message(r.node, "a", "bob", "12345"), "404")
		r.want("a short one", r.phone.message(r.node, "a", "bob", "1234"), "202")
	}},
	{"max-watch-backlog", func(c *hereis.Config) { c.MaxWatchBacklog = 1 }, nil, func(r *limitRig) {
		w := watch(r.T, r.node, hereis.WatchOptions{})
		for _, user := range []string{"u1", "u2", "u3"} {
			r.silent(user)
		}
		r.soon("the watcher is given a list", func() bool { return r.node.Stats()["watch_resyncs_total"] > 0 })
		r.soon("all are in it", func() bool {
			_, _ = w.next(100 * time.Millisecond)
			return w.online[string(aor("u1"))] && w.online[string(aor("u2"))] && w.online[string(aor("u3"))]
		})
	}},
}

func (r *limitRig) subscribe(callID, user string) string {
	return newAgent(r.T).ask(r.node, "SUBSCRIBE", "sip:"+user+"@example.com", "sip:w@example.com", "<sip:"+user+"@example.com>", callID, "", "Event: presence", "Expires: 600")
}

func (r *limitRig) publish(note string) string {
	return newAgent(r.T).ask(r.node, "PUBLISH", "sip:bob@example.com", "sip:bob@example.com", "<sip:bob@example.com>", fmt.Sprintf("publish%d", len(note)),
		`<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@example.com"><tuple id="t"><status><basic>open</basic></status></tuple>`+note+`</presence>`,
		"Event: presence", "Expires: 600", "Content-Type: application/pidf+xml")
}
