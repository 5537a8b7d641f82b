package transport

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"pgregory.net/rapid"
)

// plainCall are the messages of a call as they come to a proxy.
var plainCall = []string{`INVITE sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKa;rport
Max-Forwards: 70
From: "Alice A" <sip:alice@example.com;user=phone>;tag=1
To: Bob <sips:bob@example.com:5061>
Call-ID: c1@192.0.2.1
CSeq: 1 INVITE
Contact: <sip:alice@192.0.2.1:5070;transport=udp>;expires=60
Content-Type: application/sdp
X-Any: <thing>; "of,any
Content-Length: 5

v=0
`, `SIP/2.0 180 Ringing
Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKb
Via: SIP/2.0/TLS example.com:5061;received=192.0.2.1;branch=z9hG4bKa;rport=5070
Record-Route: <sip:tok-en_1@192.0.2.9;lr>, <sip:192.0.2.9:5060;transport=tcp;lr>
From: <sip:alice@example.com>;tag=1
To: <sip:bob@example.com>;tag
Call-ID: c1
CSeq: 1 INVITE
Retry-After: 5
Content-Length: 0

`, `BYE sip:bob@192.0.2.20:5062 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKc
Route: <sip:token@192.0.2.9;lr>,<sip:192.0.2.10;lr>
From: <sip:alice@example.com>;tag=1
To: <sip:bob@example.com>;tag=2
Call-ID: c1
CSeq: 2 BYE
Content-Length: 0

`}

func crlfs(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestScan_ACallIsPlain(t *testing.T) {
	p := NewParser(DefaultLimits())
	for _, raw := range plainCall {
		raw = crlfs(raw)
		if p.plain([]byte(raw)) == nil {
			t.Errorf("not plain:\n%s", raw)
		}
		agree(t, p, raw)
	}
}

// TestScan_TakesNothingUnusual: each of these is left to the parser, whatever it thinks of it.
func TestScan_TakesNothingUnusual(t *testing.T) {
	p := NewParser(DefaultLimits())
	for _, change := range [][2]string{
		{"INVITE sip", "CANCEL sip"}, {"CSeq: 1 INVITE", "CSeq: 1 BYE"}, {"Via: SIP/2.0/UDP 192.0.2.1:5070", "v: SIP/2.0/UDP 192.0.2.1:5070"},
		{"branch=z9hG4bKa", "branch=old"}, {"branch=z9hG4bKa", "branch=z9hG4bK"}, {"From:", "FROM:"}, {"Max-Forwards: 70", "Max-Forwards: 256"},
		{"To: Bob", "To: B\\ob"}, {"\nCall-ID: c1@192.0.2.1", ""}, {"Call-ID:", "Call-ID: a b"}, {";tag=1", ";tag=1;tag=2"}, {"Content-Length: 5", "Content-Length: 3"},
		{"\nContent-Length: 5", ""}, {"X-Any: ", " folded: "}, {"X-Any: ", "Path: "}, {"X-Any: ", "expires: "}, {"X-Any: ", "x y: "}, {"X-Any", "l"},
		{"bob@example.com SIP/2.0", "bob@example.com?a=b SIP/2.0"}, {"sip:bob@", "tel:bob@"}, {"bob@example.com SIP", "bob@exam\rple.com SIP"},
		{"X-Any", "Content-Type"}, {"Alice A", "Alice\nA"}, {"INVITE sip:bob@example.com SIP/2.0", "INVITE  sip:bob@example.com SIP/2.0"},
		{"<sip:alice@192.0.2.1:5070;transport=udp>;expires=60", "*"}, {":5070;branch", ":0;branch"}, {"alice@example.com;user", "al@ice@example.com;user"},
	} {
		raw := strings.Replace(plainCall[0], change[0], change[1], 1)
		if raw == plainCall[0] {
			t.Fatalf("nothing to change: %q", change)
		}
		raw = strings.ReplaceAll(crlfs(raw), "\r\r\n", "\r\n")
		if p.plain([]byte(raw)) != nil {
			t.Errorf("%q is taken for plain", change)
		}
	}
}

// TestScan_Limits: what is beyond a limit is for the parser to refuse.
func TestScan_Limits(t *testing.T) {
	raw := crlfs(plainCall[1])
	for name, change := range map[string]func(*Limits){
		"parameters":  func(l *Limits) { l.Params = 2 },
		"header line": func(l *Limits) { l.HeaderLine = 40 },
		"headers":     func(l *Limits) { l.Headers = 9 },
	} {
		l := DefaultLimits()
		change(&l)
		p := NewParser(l)
		if p.plain([]byte(raw)) != nil {
			t.Errorf("%s: beyond the limit and plain", name)
		}
		if _, _, err := p.Parse([]byte(raw)); err == nil {
			t.Errorf("%s: within the limit", name)
		}
	}
	l := DefaultLimits()
	l.Body = 3
	if NewParser(l).plain([]byte(crlfs(plainCall[0]))) != nil {
		t.Error("a body beyond the limit is plain")
	}
}

// agree holds what is taken for plain to the parser's reading of it.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, p *Parser, raw string) {
	t.Helper()
	m := p.plain([]byte(raw))
	if m == nil {
		return
	}
	req, res, err := p.Parse([]byte(raw))
	if err != nil {
		t.Fatalf("the parser refuses %q: %v", raw, err)
	}
	if got, want := *m.Head(), *(&Message{Request: req, Response: res}).Head(); got != want {
		t.Fatalf("of %q\ngot  %+v\nwant %+v", raw, got, want)
	}
	var body []byte
	if req != nil {
		body = req.Body()
	} else {
		body = res.Body()
	}
	if !strings.HasSuffix(raw, "\r\n\r\n"+string(body)) {
		t.Fatalf("of %q\nthe body is %q", raw, body)
	}
}

// TestScan_AgreesWithParser makes up messages that are plain, or nearly so.
func TestScan_AgreesWithParser(t *testing.T) {
	p := NewParser(DefaultLimits())
	plain := 0
	rapid.Check(t, func(t *rapid.T) {
		raw := crlfs(rapid.SampledFrom(plainCall).Draw(t, "message"))
		if rapid.Bool().Draw(t, "request") {
			raw = plainRequest(t)
		}
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(raw)).Draw(t, "at")
			end := min(len(raw), at+rapid.IntRange(0, 3).Draw(t, "cut"))
			raw = raw[:at] + rapid.SampledFrom([]string{"", " ", "\r\n", ";", ",", "<", ">", "\"", ":", "@", "=", "a", "\t", "1", "\n"}).Draw(t, "put") + raw[end:]
		}
		if p.plain([]byte(raw)) != nil {
			plain++
		}
		agree(t, p, raw)
	})
	if plain == 0 {
		t.Error("none was plain")
	}
}

// TestScan_RepliesGoWhereTheParserSends: with and without rport and port.
func TestScan_RepliesGoWhereTheParserSends(t *testing.T) {
	for _, via := range []string{"192.0.2.1:5070;branch=z9hG4bKa;rport", "192.0.2.1:5071;branch=z9hG4bKa", "h.example.com;branch=z9hG4bKa"} {
		var came []*Message
		s := batchNode(t, "127.0.0.1:0", func(m *Message) { came = append(came, m) })
		raw := crlfs(strings.Replace(plainCall[0], "192.0.2.1:5070;branch=z9hG4bKa;rport", via, 1))
		from := netip.MustParseAddrPort("127.0.0.1:5999")
		for _, raw := range []string{raw, strings.Replace(raw, "Via:", "v:", 1)} {
			f := &udpFlow{socket: s, remote: from}
			s.l.t.receive(&Message{Flow: f, Reply: f, Raw: []byte(raw)})
		}
		if len(came) != 2 || came[0].Request != nil || came[1].Request == nil {
			t.Fatalf("%s: %d came, want a plain one and another", via, len(came))
		}
		if got, want := came[0].Reply.Remote(), came[1].Reply.Remote(); got != want {
			t.Errorf("%s: answered at %v, want %v", via, got, want)
		}
		req, _ := came[0].Model()
		if got, want := req.Via().Value(), came[1].Request.Via().Value(); got != want {
			t.Errorf("the model has %s, want %s", got, want)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, raw := range plainCall {
		f.Add(crlfs(raw))
	}
	files, err := filepath.Glob("testdata/torture/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(raw))
	}
	p := NewParser(DefaultLimits())
	f.Fuzz(func(t *testing.T, raw string) {
		agree(t, p, strings.TrimLeft(raw, "\r\n"))
	})
}

// requestOf is a request as sipgo's types have it.
func requestOf(m *Message) *sip.Request {
	req, _ := m.Model()
	return req
}
