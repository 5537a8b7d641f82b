package load

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// server is a registrar and stateless proxy of a hundred lines, for tests of
// the generator: it keeps one contact a user and inserts a Via and a Record-Route.
type server struct {
	tcp      bool
	line     line
	via      string
	addr     netip.AddrPort
	stop     func()
	contacts map[string]string
	// sources are the addresses that anything came from.
	sources  map[netip.Addr]bool
	received atomic.Uint64
	// drop says which datagrams (counted from 1) are ignored; stall, before which it sleeps.
	drop  func(n uint64) bool
	stall func(n uint64) time.Duration
	// spoil changes a response before it is sent.
	spoil func(string) string
	// pace is how many REGISTERs are told to come again in a second.
	pace int
	// password challenges whoever registers or asks.
	password, algorithm string
	watchers            map[string]watcher // by presentity
	published           map[string]bool
	// dumb leaves NOTIFYs out.
	dumb bool
	// refuse is a status for requests that are not REGISTER, 0 for none.
	refuse int
}

// startServer runs s until the test ends.
func startServer(t *testing.T, s *server) *server {
	t.Helper()
	var err error
	s.via = "SIP/2.0/UDP "
	if s.tcp {
		s.via = "SIP/2.0/TCP "
		s.line, err = newTCPLine(netip.MustParseAddr("127.0.0.1"))
	} else {
		s.line, err = newUDPLine(netip.MustParseAddr("127.0.0.1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.sources = map[netip.Addr]bool{}
	s.contacts, s.watchers, s.published = map[string]string{}, map[string]watcher{}, map[string]bool{}
	s.addr = s.line.local()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.serve(stop)
	}()
	s.stop = sync.OnceFunc(func() { close(stop); <-done; s.line.Close() })
	t.Cleanup(s.stop)
	return s
}

func (s *server) serve(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		b, from, err := s.line.read(time.Now().Add(20 * time.Millisecond))
		if err != nil || len(b) < 5 {
			continue
		}
		nth := s.received.Add(1)
		s.sources[from.Addr()] = true
		if s.stall != nil {
			time.Sleep(s.stall(nth)) // the stall is what the test is about
		}
		if s.drop != nil && s.drop(nth) {
			continue
		}
		var m sipmsg.Message
		raw := string(b)
		if m.Scan(b) != nil {
			continue
		}
		if m.Status != 0 {
			s.backward(raw, &m)
		} else {
			s.request(raw, &m, from)
		}
	}
}

func (s *server) request(raw string, m *sipmsg.Message, from netip.AddrPort) {
	user, _, _ := strings.Cut(strings.TrimPrefix(string(m.URI), "sip:"), "@")
	switch method := string(m.Method); {
	case s.password != "" && m.Get("Route") == nil && method != "ACK" && !s.authorized(m):
		s.challenge(m, from)
	case method == "SUBSCRIBE":
		s.subscribe(m, from)
	case method == "PUBLISH":
		s.publish(m, from)
	case string(m.Method) == "REGISTER":
		s.register(m, from)
	case s.refuse != 0:
		s.answer(m, from, s.refuse, "")
	case m.Get("Route") != nil:
		s.forward(raw, string(m.URI))
	case s.contacts[user] != "":
		s.forward(raw, s.contacts[user])
	case string(m.Method) != "ACK":
		s.answer(m, from, 404, "")
	}
}

func (s *server) register(m *sipmsg.Message, from netip.AddrPort) {
	aor := string(sipmsg.URI(m.Get("To")))
	user, _, _ := strings.Cut(strings.TrimPrefix(aor, "sip:"), "@")
	uri := string(sipmsg.URI(m.Get("Contact")))
	if s.pace > 0 {
		s.pace--
		s.answer(m, from, 503, "", "Retry-After: 1\r\n")
		return
	}
	if string(m.Get("Expires")) == "0" {
		delete(s.contacts, user)
		s.answer(m, from, 200, "")
		return
	}
	s.contacts[user] = uri
	s.answer(m, from, 200, "<"+uri+">;expires=60")
}

func (s *server) answer(m *sipmsg.Message, to netip.AddrPort, status int, contact string, more ...string) {
	if string(m.Method) == "ACK" {
		return
	}
	var w sipmsg.Builder
	w.Response(m, status, "Reason", "srv", to)
	if contact != "" {
		w.Header("Contact", contact)
	}
	w.Raw(strings.Join(more, ""))
	w.End("", "")
	s.write(string(w.Bytes()), to)
}

func (s *server) challenge(m *sipmsg.Message, from netip.AddrPort) {
	status, name := 407, "Proxy-Authenticate"
	if string(m.Method) == "REGISTER" {
		status, name = 401, "WWW-Authenticate"
	}
	s.answer(m, from, status, "", name+`: Digest realm="localhost", nonce="n", algorithm=FOO`+"\r\n"+
		name+`: Digest realm="localhost", nonce="n", algorithm=`+s.algorithm+`, qop="auth,auth-int", opaque="o"`+"\r\n")
}

// authorized computes what it expects anew, from the user of From.
func (s *server) authorized(m *sipmsg.Message) bool {
	got := string(m.Get("Authorization")) + string(m.Get("Proxy-Authorization"))
	user, _, _ := strings.Cut(strings.TrimPrefix(string(sipmsg.URI(m.Get("From"))), "sip:"), "@")
	hash := algorithms[s.algorithm]
	want := hash(hash(user+":localhost:"+s.password) + ":n:00000001:62656e6368:auth:" + hash(string(m.Method)+":"+string(m.URI)))
	return strings.Contains(got, `response="`+want+`"`) && strings.Contains(got, `username="`+user+`"`)
}

// watcher is a subscription.
type watcher struct {
	contact, from, to, callID string
	cseq                      int
}

func (s *server) subscribe(m *sipmsg.Message, from netip.AddrPort) {
	aor := string(m.URI)
	s.answer(m, from, 200, "<sip:"+s.addr.String()+">", "Expires: 60\r\n")
	s.watchers[aor] = watcher{string(sipmsg.URI(m.Get("Contact"))), string(m.Get("From")), string(m.Get("To")) + ";tag=srv", string(m.Get("Call-ID")), 0}
	s.notify(aor, "")
}

func (s *server) publish(m *sipmsg.Message, from netip.AddrPort) {
	aor, etag := string(m.URI), string(m.Get("SIP-If-Match"))
	if string(m.Get("Expires")) == "0" {
		if !s.published[etag] {
			s.answer(m, from, 412, "")
			return
		}
		delete(s.published, etag)
		s.answer(m, from, 200, "", "SIP-ETag: gone\r\nExpires: 0\r\n")
		s.notify(aor, "")
		return
	}
	etag = fmt.Sprint("e", s.received.Load())
	s.published[etag] = true
	if s.dumb {
		s.answer(m, from, 200, "", "SIP-ETag: "+etag+"\r\nExpires: 60\r\n")
		return
	}
	s.notify(aor, string(m.Body)) // before the answer, as may happen
	s.answer(m, from, 200, "", "SIP-ETag: "+etag+"\r\nExpires: 60\r\n")
}

func (s *server) notify(aor, body string) {
	sub, ok := s.watchers[aor]
	if !ok {
		return
	}
	sub.cseq++
	s.watchers[aor] = sub
	var w sipmsg.Builder
	w.Request("NOTIFY", sub.contact)
	w.Header("Via", s.via, s.addr.String(), ";branch=z9hG4bKn", fmt.Sprint(s.received.Load(), ".", sub.cseq))
	w.Header("From", sub.to)
	w.Header("To", sub.from)
	w.Header("Call-ID", sub.callID)
	w.Int("CSeq", uint64(sub.cseq), "NOTIFY")
	w.Header("Event", "presence")
	w.Header("Subscription-State", "active;expires=60")
	w.End(pidfType, body)
	if to, ok := sipmsg.AddrPort([]byte(sub.contact)); ok {
		s.write(string(w.Bytes()), to)
	}
}

func (s *server) write(msg string, to netip.AddrPort) {
	if s.spoil != nil {
		msg = s.spoil(msg)
	}
	s.line.write([]byte(msg), to)
}

// forward sends a request to a contact, without its own Route and with a Via and Record-Route of its own.
func (s *server) forward(raw, contact string) {
	method, _, _ := strings.Cut(raw, " ")
	_, rest, _ := strings.Cut(raw, "\r\n")
	var kept []string
	for line := range strings.SplitSeq(rest, "\r\n") {
		if !strings.HasPrefix(line, "Route:") {
			kept = append(kept, line)
		}
	}
	to, ok := sipmsg.AddrPort([]byte(contact))
	if !ok {
		return
	}
	head := fmt.Sprintf("%s %s SIP/2.0\r\nVia: %s%s;branch=z9hG4bKp\r\nRecord-Route: <sip:%s;lr>\r\n", method, contact, s.via, s.addr, s.addr)
	s.line.write([]byte(head+strings.Join(kept, "\r\n")), to)
}

// backward takes its own Via from a response and sends it to the next.
func (s *server) backward(raw string, m *sipmsg.Message) {
	if m.Count("Via") != 2 {
		return
	}
	i := strings.Index(raw, "Via:")
	end := i + strings.Index(raw[i:], "\r\n") + 2
	raw = raw[:i] + raw[end:]
	var next sipmsg.Message
	if next.Scan([]byte(raw)) != nil {
		return
	}
	s.write(raw, replyTo(&next, viaAddr(&next)))
}

// viaAddr is the sent-by address of the top Via.
func viaAddr(m *sipmsg.Message) netip.AddrPort {
	_, sentBy, _ := strings.Cut(string(firstValue(m.Get("Via"))), " ")
	sentBy, _, _ = strings.Cut(sentBy, ";")
	return netip.MustParseAddrPort(sentBy)
}
