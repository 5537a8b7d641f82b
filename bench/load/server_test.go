package load

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// server is a registrar and stateless proxy of a hundred lines, for tests of
// the generator: it keeps one contact a user and inserts a Via and a Record-Route.
type server struct {
	conn     *net.UDPConn
	addr     netip.AddrPort
	contacts map[string]string
	received atomic.Uint64
	// drop says which datagrams (counted from 1) are ignored; stall, before which it sleeps.
	drop  func(n uint64) bool
	stall func(n uint64) time.Duration
	// spoil changes a response before it is sent.
	spoil func(string) string
	// refuse is a status for requests that are not REGISTER, 0 for none.
	refuse int
}

// startServer runs s until the test ends.
func startServer(t *testing.T, s *server) *server {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s.conn, s.contacts = conn, map[string]string{}
	s.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

func (s *server) serve() {
	buf := make([]byte, 65536)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		nth := s.received.Add(1)
		if s.stall != nil {
			time.Sleep(s.stall(nth)) // the stall is what the test is about
		}
		if s.drop != nil && s.drop(nth) {
			continue
		}
		var m sipmsg.Message
		raw := string(buf[:n])
		if m.Scan(buf[:n]) != nil {
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
	switch {
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
	s.contacts[user] = uri
	s.answer(m, from, 200, "<"+uri+">;expires=60")
}

func (s *server) answer(m *sipmsg.Message, to netip.AddrPort, status int, contact string) {
	if string(m.Method) == "ACK" {
		return
	}
	var w sipmsg.Builder
	w.Response(m, status, "Reason", "srv", to)
	if contact != "" {
		w.Header("Contact", contact)
	}
	w.End("", "")
	s.write(string(w.Bytes()), to)
}

func (s *server) write(msg string, to netip.AddrPort) {
	if s.spoil != nil {
		msg = s.spoil(msg)
	}
	_, _ = s.conn.WriteToUDPAddrPort([]byte(msg), to) // a closed socket ends the test anyway
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
	head := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKp\r\nRecord-Route: <sip:%s;lr>\r\n", method, contact, s.addr, s.addr)
	_, _ = s.conn.WriteToUDPAddrPort([]byte(head+strings.Join(kept, "\r\n")), to)
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
