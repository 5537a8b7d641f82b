package resolve

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve runs a name server on loopback, UDP and TCP at one port, until the test ends.
func serve(t *testing.T, handle func(network string, q *dns.Msg) *dns.Msg) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l}, {PacketConn: pc}} {
		network := "tcp"
		if s.PacketConn != nil {
			network = "udp"
		}
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			if msg := handle(network, q); msg != nil {
				_ = w.WriteMsg(msg)
			}
		})
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return l.Addr().String()
}

// answer is what a server says of a zone; soa goes with a "no".
func (z *zone) answer(q *dns.Msg, soa string) *dns.Msg {
	msg := new(dns.Msg)
	msg.SetReply(q)
	name := dns.CanonicalName(q.Question[0].Name)
	known := false
	for _, rr := range z.rrs {
		if h := rr.Header(); dns.CanonicalName(h.Name) == name {
			known = true
			if h.Rrtype == q.Question[0].Qtype || h.Rrtype == dns.TypeCNAME {
				msg.Answer = append(msg.Answer, rr)
			}
		}
	}
	if len(msg.Answer) == 0 {
		if !known {
			msg.Rcode = dns.RcodeNameError
		}
		if rr, err := dns.NewRR(soa); err == nil && rr != nil {
			msg.Ns = append(msg.Ns, rr)
		}
	}
	return msg
}

// From the URI to the address, with a real name server: NAPTR, SRV with a
// failing second server, aliases in two steps, and a "no" of a stated length.
func TestRFC3263_4_WithANameServer(t *testing.T) {
	z := newZone(t,
		`example.net. 60 IN NAPTR 50 50 "s" "SIP+D2T" "" _sip._tcp.example.net.`,
		`example.net. 60 IN NAPTR 90 50 "s" "SIP+D2U" "" _sip._udp.example.net.`,
		"_sip._tcp.example.net. 60 IN SRV 0 1 5060 server1.example.net.",
		"_sip._tcp.example.net. 60 IN SRV 1 1 5061 server2.example.net.",
		"server1.example.net. 60 IN A 192.0.2.1", "server1.example.net. 60 IN AAAA 2001:db8::1",
		"server2.example.net. 60 IN CNAME host.example.net.", "host.example.net. 20 IN A 192.0.2.2",
	)
	var asked atomic.Int32
	addr := serve(t, func(_ string, q *dns.Msg) *dns.Msg {
		asked.Add(1)
		return z.answer(q, "example.net. 300 IN SOA ns. admin. 1 2 3 4 15")
	})
	broken := serve(t, func(_ string, q *dns.Msg) *dns.Msg {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	})
	cfg := DefaultConfig()
	cfg.Servers, cfg.Transports, cfg.Hosts = []string{broken, addr}, []string{"udp", "tcp"}, ""
	r := New(cfg)
	for range 3 {
		hops, err := r.Resolve(t.Context(), Target{Host: "Example.NET"})
		want := "[{tcp 192.0.2.1:5060} {tcp [2001:db8::1]:5060} {tcp 192.0.2.2:5061}]"
		if got := fmt.Sprint(hops); got != want || err != nil {
			t.Fatalf("got %s, %v, want %s", got, err, want)
		}
	}
	// NAPTR, SRV, two families of two servers, the alias asked once more in both.
	if n := asked.Load(); n != 8 {
		t.Errorf("%d questions, want 8", n)
	}
	records, err := NewClient([]string{addr}, "", time.Second).Ask(t.Context(), "server2.example.net", dns.TypeA)
	if err != nil || records.TTL != 20*time.Second {
		t.Errorf("alias: %v, %v", records, err)
	}
	records, err = NewClient([]string{addr}, "", time.Second).Ask(t.Context(), "nobody.example.net", dns.TypeA)
	if err != nil || len(records.List) != 0 || records.TTL != 15*time.Second {
		t.Errorf("no: %v, %v", records, err)
	}
}

// An answer that is cut short over UDP is fetched over TCP (RFC 7766 5).
func TestRFC7766_5_TruncatedAnswersByTCP(t *testing.T) {
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("many.example. 60 IN A 192.0.2.%d", i+1))
	}
	z := newZone(t, lines...)
	addr := serve(t, func(network string, q *dns.Msg) *dns.Msg {
		msg := z.answer(q, "")
		if network == "udp" {
			msg.Answer, msg.Truncated = msg.Answer[:1], true
		}
		return msg
	})
	records, err := NewClient([]string{addr}, "", time.Second).Ask(t.Context(), "many.example", dns.TypeA)
	if err != nil || len(records.List) != 60 {
		t.Errorf("%d records, %v", len(records.List), err)
	}
}

// A silent server costs one attempt, not the lookup; an alias that bites its
// own tail ends; an answer to another question is none.
func TestClientSurvivesBadServers(t *testing.T) {
	z := newZone(t, "a.example. 60 IN A 192.0.2.1", "x.example. 60 IN CNAME y.example.", "y.example. 60 IN CNAME x.example.")
	silent := serve(t, func(string, *dns.Msg) *dns.Msg { return nil })
	good := serve(t, func(_ string, q *dns.Msg) *dns.Msg { return z.answer(q, "") })
	lies := serve(t, func(_ string, q *dns.Msg) *dns.Msg {
		msg := z.answer(q, "")
		msg.Question[0].Name = "other.example."
		return msg
	})
	c := NewClient([]string{silent, lies, good}, "", 500*time.Millisecond)
	begin := time.Now()
	records, err := c.Ask(t.Context(), "a.example", dns.TypeA)
	if err != nil || len(records.List) != 1 || time.Since(begin) > 10*time.Second {
		t.Errorf("%v, %v after %v", records, err, time.Since(begin))
	}
	if _, err := NewClient([]string{good}, "", time.Second).Ask(t.Context(), "x.example", dns.TypeA); err == nil {
		t.Error("an endless alias has an answer")
	}
	if _, err := NewClient([]string{silent}, "", 20*time.Millisecond).Ask(t.Context(), "a.example", dns.TypeA); err == nil {
		t.Error("silence is an answer")
	}
}

func TestServersOfResolvConfAndHosts(t *testing.T) {
	z := newZone(t, "a.example. 60 IN A 192.0.2.1")
	addr := serve(t, func(_ string, q *dns.Msg) *dns.Msg { return z.answer(q, "") })
	dir := t.TempDir()
	conf, hostsFile := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts")
	host, _, _ := strings.Cut(addr, ":")
	for file, text := range map[string]string{
		conf: "# none\nnameserver " + host + "\n", hostsFile: "192.0.2.7 Phone.example phone # seven\nbad line\n2001:db8::7 phone\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(NewClient(nil, conf, time.Second).list()); got != "[127.0.0.1:53]" {
		t.Error(got)
	}
	if got := fmt.Sprint(NewClient(nil, filepath.Join(dir, "missing"), time.Second).list()); got != "[127.0.0.1:53]" {
		t.Error(got)
	}
	if got := fmt.Sprint(NewClient([]string{"192.0.2.1", "2001:db8::1", "192.0.2.2:54"}, "", time.Second).list()); got != "[192.0.2.1:53 [2001:db8::1]:53 192.0.2.2:54]" {
		t.Error(got)
	}
	h := &hosts{file: hostsFile}
	if got := fmt.Sprint(h.lookup("phone.example"), h.lookup("phone"), h.lookup("bad")); got != "[192.0.2.7] [192.0.2.7 2001:db8::7] []" {
		t.Error(got)
	}
	cfg := DefaultConfig()
	cfg.Servers, cfg.Hosts = []string{addr}, hostsFile
	hops, err := New(cfg).Resolve(t.Context(), Target{Host: "phone.example"})
	if got := fmt.Sprint(hops); got != "[{udp 192.0.2.7:5060}]" || err != nil {
		t.Error(got, err)
	}
}
