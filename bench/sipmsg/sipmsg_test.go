package sipmsg

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

const ok200 = `SIP/2.0 200 OK
Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1;rport=5070,
 SIP/2.0/UDP 127.0.0.1:5071;branch=z9hG4bK2
f: "Bob, \"the\" <x>" <sip:bob@example.com>;tag=a
To: <sip:bob@example.com;x=y>;Tag=b
i: abc
CSeq: 7 REGISTER
m: <sip:bob@127.0.0.1:5070>;expires=60, "a,b" <sip:bob@[::1]:5071;transport=tcp>;q=0.5;expires=30
l: 4

bodyrest`

func TestScanResponse(t *testing.T) {
	var m Message
	if err := m.Scan(crlf(ok200)); err != nil {
		t.Fatal(err)
	}
	if m.Status != 200 || string(m.Reason) != "OK" || string(m.Body) != "body" {
		t.Errorf("got %d %q %q", m.Status, m.Reason, m.Body)
	}
	if got := m.Count("Via"); got != 2 {
		t.Errorf("folded Via: got %d values, want 2", got)
	}
	n, method, ok := m.CSeq()
	if n != 7 || string(method) != "REGISTER" || !ok {
		t.Errorf("CSeq: got %d %q %v", n, method, ok)
	}
	var contacts []string
	m.Values("Contact", func(v []byte) { contacts = append(contacts, string(URI(v))) })
	if got, want := strings.Join(contacts, " "), "sip:bob@127.0.0.1:5070 sip:bob@[::1]:5071;transport=tcp"; got != want {
		t.Errorf("contacts: got %q, want %q", got, want)
	}
	if got := string(URI(m.Get("From"))); got != "sip:bob@example.com" {
		t.Errorf("From behind a quoted name: got %q", got)
	}
	if tag, ok := Param(m.Get("To"), "tag"); string(tag) != "b" || !ok {
		t.Errorf("To tag: got %q %v", tag, ok)
	}
	if _, ok := Param(m.Get("To"), "x"); ok {
		t.Error("a URI parameter was taken for a header parameter")
	}
}

func TestScanRejects(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"empty":            {"", ErrUnterminated},
		"no version":       {"OPTIONS sip:a\n\n", ErrStartLine},
		"bad status":       {"SIP/2.0 20 OK\n\n", ErrStartLine},
		"no empty line":    {"SIP/2.0 200 OK\nTo: a\n", ErrUnterminated},
		"no colon":         {"SIP/2.0 200 OK\nTo\n\n", ErrHeaderLine},
		"length too long":  {"SIP/2.0 200 OK\nContent-Length: 5\n\nabc", ErrContentLength},
		"length malformed": {"SIP/2.0 200 OK\nContent-Length: x\n\n", ErrContentLength},
	} {
		var m Message
		if err := m.Scan(crlf(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestBuildAndScanAgree(t *testing.T) {
	var w Builder
	w.Request("INVITE", "sip:bob@example.com")
	w.Header("Via", "SIP/2.0/UDP ", "127.0.0.1:5070", ";rport;branch=z9hG4bK1")
	w.Header("From", "<sip:a@example.com>;tag=1")
	w.Header("To", "<sip:bob@example.com>")
	w.Header("Call-ID", "x")
	w.Int("CSeq", 1, "INVITE")
	w.End("application/sdp", "v=0\r\n")
	var req Message
	if err := req.Scan(w.Bytes()); err != nil {
		t.Fatal(err)
	}
	if string(req.Method) != "INVITE" || string(req.URI) != "sip:bob@example.com" || string(req.Body) != "v=0\r\n" {
		t.Errorf("got %q %q %q", req.Method, req.URI, req.Body)
	}
	var r Builder
	r.Response(&req, 180, "Ringing", "t1", netip.MustParseAddrPort("127.0.0.9:99"))
	r.End("", "")
	var res Message
	if err := res.Scan(r.Bytes()); err != nil {
		t.Fatal(err)
	}
	if got, want := string(res.Get("Via")), "SIP/2.0/UDP 127.0.0.1:5070;rport=99;received=127.0.0.9;branch=z9hG4bK1"; got != want {
		t.Errorf("RFC 3581: got Via %q, want %q", got, want)
	}
	if got, want := string(res.Get("To")), "<sip:bob@example.com>;tag=t1"; got != want {
		t.Errorf("got To %q, want %q", got, want)
	}
}

func TestAddrPort(t *testing.T) {
	for in, want := range map[string]string{
		"sip:127.0.0.1:5080;lr":            "127.0.0.1:5080",
		"sip:a@127.0.0.1":                  "127.0.0.1:5060",
		"sip:tok:en@127.0.0.1:5061;lr;ob":  "127.0.0.1:5061",
		"sip:a@[::1]:5070":                 "[::1]:5070",
		"sip:[::1]":                        "[::1]:5060",
		"sips:a@10.0.0.1:5061?Subject=a:b": "10.0.0.1:5061",
	} {
		got, ok := AddrPort([]byte(in))
		if !ok || got.String() != want {
			t.Errorf("%s: got %v %v, want %s", in, got, ok, want)
		}
	}
	if _, ok := AddrPort([]byte("sip:a@example.com")); ok {
		t.Error("a host name was taken for an address")
	}
}

func FuzzScan(f *testing.F) {
	f.Add(crlf(ok200))
	f.Add(crlf("INVITE sip:a@b SIP/2.0\nVia: a\n b\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var m Message
		if m.Scan(in) != nil {
			return
		}
		m.CSeq()
		for _, h := range m.Headers {
			URI(h.Value)
			Param(h.Value, "tag")
			m.Count(string(h.Name))
		}
		AddrPort(m.URI)
	})
}

func BenchmarkScan(b *testing.B) {
	in := crlf(ok200)
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Scan(in); err != nil {
			b.Fatal(err)
		}
	}
}
