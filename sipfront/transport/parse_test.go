package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// request builds a REGISTER; each line replaces the default of its name, or is added.
func request(lines ...string) string {
	order := []string{"Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards"}
	values := map[string]string{
		"Via": " SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "From": " <sip:a@example.com>;tag=1",
		"To": " <sip:a@example.com>", "Call-ID": " c1", "CSeq": " 1 REGISTER", "Max-Forwards": " 70",
	}
	var extra []string
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		if _, ok := values[name]; ok {
			values[name] = value
		} else {
			extra = append(extra, l)
		}
	}
	var b strings.Builder
	b.WriteString("REGISTER sip:example.com SIP/2.0\r\n")
	for _, n := range order {
		if values[n] != "-" {
			b.WriteString(n + ":" + values[n] + "\r\n")
		}
	}
	for _, l := range extra {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}

func mustParse(t *testing.T, raw string) *sip.Request {
	t.Helper()
	req, _, err := NewParser(DefaultLimits()).Parse([]byte(raw))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return req
}

// The inputs that sipgo's own reader gets wrong.
func TestParseHeaders(t *testing.T) {
	for _, tt := range []struct{ name, line, header, want string }{
		{"space before semicolon", "Via: SIP/2.0/UDP h:5070 ;branch=z9hG4bK1", "via", "SIP/2.0/UDP h:5070;branch=z9hG4bK1"},
		{"LWS in the protocol", "Via: SIP / 2.0 / UDP h : 5070", "via", "SIP/2.0/UDP h:5070"},
		{"IPv6 sent-by", "Via: SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bK1", "via", "SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bK1"},
		{"first Via without parameters", "Via: SIP/2.0/UDP h, SIP/2.0/TCP q;branch=1", "via", "SIP/2.0/UDP h | SIP/2.0/TCP q;branch=1"},
		{"first Via IPv6 without parameters", "Via: SIP/2.0/UDP [2001:db8::1] , SIP/2.0/TCP q", "via", "SIP/2.0/UDP [2001:db8::1] | SIP/2.0/TCP q"},
		{"quoted Via parameter", `Via: SIP/2.0/UDP h;foo="a;b,c";branch=z9hG4bK1`, "via", `SIP/2.0/UDP h;foo="a;b,c";branch=z9hG4bK1`},
		{"quoted Via parameter with space", `Via: SIP/2.0/UDP h;foo="a \"b";branch=z9hG4bK1`, "via", `SIP/2.0/UDP h;foo="a \"b";branch=z9hG4bK1`},
		{"parameter names", "Via: SIP/2.0/UDP h;Branch=z9hG4bKA;RPORT", "via", "SIP/2.0/UDP h;branch=z9hG4bKA;rport"},
		{"tag in capitals", "From: <sip:a@h>;TAG=X", "from", "<sip:a@h>;tag=X"},
		{"LWS around equals", "From: <sip:a@h> ; tag = X", "from", "<sip:a@h>;tag=X"},
		{"no brackets", "From: sip:a@h;tag=X", "from", "<sip:a@h>;tag=X"},
		{"unquoted display name", "From: A Bee <sip:a@h>;tag=X", "from", `"A Bee" <sip:a@h>;tag=X`},
		{"comma in quotes", `To: "B, A" <sip:a@h>`, "to", `"B, A" <sip:a@h>`},
		{"list of Contacts without brackets", "Contact: <sip:a@x>, sip:b@y", "contact", "<sip:a@x> | <sip:b@y>"},
		{"comma in a URI", "Contact: <sip:a,b@x>;q=0.5,<sip:c@y>", "contact", "<sip:a,b@x>;q=0.5 | <sip:c@y>"},
		{"quoted semicolons", `Contact: <sip:a@x>;pub-gruu="sip:a@x;gr=1";Expires=5`, "contact", `<sip:a@x>;pub-gruu="sip:a@x;gr=1";expires=5`},
		{"instance", `Contact: <sip:a@x>;+sip.instance="<urn:uuid:1>";reg-id=1`, "contact", `<sip:a@x>;+sip.instance="<urn:uuid:1>";reg-id=1`},
		{"star", "Contact: *", "contact", "*"},
		{"valueless parameter before headers", "Contact: <sip:a@h;lr?x=1>", "contact", "<sip:a@h;lr?x=1>"},
		{"URI parameter names", "Route: <sip:h;LR;Transport=TCP>", "route", "<sip:h;lr;transport=TCP>"},
		{"list of Routes", "Route: <sip:a;lr>,<sip:b;lr>", "route", "<sip:a;lr> | <sip:b;lr>"},
		{"folded", "Subject: one\r\n\ttwo\r\n   three ", "subject", "one two three"},
		{"folded Contact", "Contact: <sip:a@x>\r\n ;q=1", "contact", "<sip:a@x>;q=1"},
		{"compact", "k: path\r\nx: 90\r\no: presence", "supported", "path"},
		{"compact capital", "M: <sip:a@x>", "contact", "<sip:a@x>"},
		{"space before colon", "SUBJECT  : hi", "subject", "hi"},
		{"Path list", "Path: <sip:a;lr>, <sip:b;lr>", "path", "<sip:a;lr> | <sip:b;lr>"},
		{"comma in a header that is no list", "Authorization: Digest a=\"1\", b=2", "authorization", "Digest a=\"1\", b=2"},
		{"tel", "Contact: <tel:+1-201-555-0123;phone-context=x>", "contact", "<tel:+1-201-555-0123;phone-context=x>"},
		{"urn", "Contact: <urn:service:sos.fire>", "contact", "<urn:service:sos.fire>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := request(tt.line)
			var got []string
			for _, h := range mustParse(t, raw).GetHeaders(tt.header) {
				got = append(got, h.Value())
			}
			if got := strings.Join(got, " | "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			checkStable(t, []byte(raw))
		})
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("x", 4096)
	for _, tt := range []struct{ name, raw, reason string }{
		{"no From", request("From:-"), "no From"},
		{"no To", request("To:-"), "no To"},
		{"no Call-ID", request("Call-ID:-"), "no Call-ID"},
		{"no CSeq", request("CSeq:-"), "no CSeq"},
		{"no Via", request("Via:-"), "no Via"},
		{"two From", request("f: <sip:b@h>"), "second From"},
		{"two Expires", request("Expires: 1", "expires: 2"), "second Expires"},
		{"two equal Content-Length", request("l: 0", "Content-Length: 0"), "second Content-Length"},
		{"CSeq of another method", request("CSeq: 1 INVITE"), "CSeq method"},
		{"CSeq in small letters", request("CSeq: 1 register"), "CSeq method"},
		{"CSeq of 2**31", request("CSeq: 2147483648 REGISTER"), "CSeq"},
		{"signed CSeq", request("CSeq: +1 REGISTER"), "CSeq"},
		{"Max-Forwards 256", request("Max-Forwards: 256"), "Max-Forwards"},
		{"Max-Forwards garbage", request("Max-Forwards: ten"), "Max-Forwards"},
		{"Content-Length too long", request("Content-Length: 1"), "Content-Length"},
		{"Content-Length negative", request("Content-Length: -1"), "Content-Length"},
		{"Content-Length huge", request("Content-Length: 99999999999"), "Content-Length"},
		{"empty URI", request("Contact: <sip:>"), "Contact"},
		{"no user before @", request("Contact: <sip:@h>"), "Contact"},
		{"space in URI", request("Contact: <sip:a b@h>"), "Contact"},
		{"port too high", request("Contact: <sip:a@h:99999>"), "Contact"},
		{"port negative", request("Contact: <sip:a@h:-5>"), "Contact"},
		{"two @", request("Contact: <sip:a@@h>"), "Contact"},
		{"parameter twice", request("From: <sip:a@h>;tag=1;TAG=2"), "From"},
		{"two values of From", request("From: <sip:a@h>;tag=1, <sip:b@h>"), "From"},
		{"open quote", request(`To: "a <sip:a@h>`), "To"},
		{"backslash in a bare display name", request(`To: a\ <sip:a@h>`), "To"},
		{"open bracket in a list", request("Contact: <sip:a@h, <sip:b@h>"), "Contact"},
		{"open quote in a list", request(`Contact: "a <sip:a@h>`), "list of Contact"},
		{"empty list item", request("Route: <sip:a;lr>,,<sip:b;lr>"), "list of Route"},
		{"Call-ID with space", request("Call-ID: a b"), "Call-ID"},
		{"header without colon", request("Nonsense"), "header without colon"},
		{"header name", request("No nsense: 1"), "header name"},
		{"lone LF", request("Subject: a\nInjected: b"), "lone CR or LF"},
		{"lone CR", request("Subject: a\rb"), "lone CR or LF"},
		{"long line", request("Subject: " + long), "header line too long"},
		{"long folded line", request("Subject: " + long[:2500] + "\r\n " + long[:2500]), "header line too long"},
		{"many parameters", request("Contact: <sip:a@h>" + strings.Repeat(";", 65)), "too many parameters"},
		{"many headers", request(strings.Repeat("X: 1\r\n", 130) + "Y: 1"), "too many headers"},
		{"many values on a line", request("Route: " + strings.Repeat("<sip:a>,", 130) + "<sip:a>"), "too many headers"},
		{"Via protocol", request("Via: HTTP/1.1/TCP h"), "Via"},
		{"Via without host", request("Via: SIP/2.0/UDP ;branch=1"), "Via"},
		{"Via IPv6 without brackets", request("Via: SIP/2.0/UDP 2001:db8::1;branch=1"), "Via"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := NewParser(DefaultLimits()).Parse([]byte(tt.raw))
			var bad *Malformed
			if !errors.As(err, &bad) || bad.Reason != tt.reason {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
		})
	}
}

func TestRFC3261_18_3_Body(t *testing.T) {
	for _, tt := range []struct{ name, raw, want string }{
		{"without Content-Length the rest", request() + "body", "body"},
		{"a shorter one cuts", strings.Replace(request("l: 2"), "l:", "Content-Length:", 1) + "body", "bo"},
		{"zero cuts all", request("l: 0") + "body", ""},
		{"bytes are not looked at", request("l: 6") + "\r\n\x00,\r\n", "\r\n\x00,\r\n"},
		{"leading CRLF", "\r\n\r\n" + request() + "x", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := mustParse(t, tt.raw)
			if got := string(req.Body()); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := int(*req.ContentLength()); got != len(tt.want) {
				t.Errorf("got Content-Length %d, want %d", got, len(tt.want))
			}
		})
	}
}

// 18.3: a datagram that ends before its body is an error: 400 for a request,
// nothing for a response.
func TestRFC3261_18_3_ADatagramThatEndsTooSoon(t *testing.T) {
	raw := request("l: 100") + "body"
	if m, answer := receiveRaw(t, []byte(raw)); m != nil || !strings.HasPrefix(answer, "SIP/2.0 400 ") {
		t.Errorf("got %v %q, want 400", m, answer)
	}
	res := "SIP/2.0 200 OK" + raw[strings.Index(raw, "\r\n"):]
	if m, answer := receiveRaw(t, []byte(res)); m != nil || answer != "" {
		t.Errorf("got %v %q, want silence", m, answer)
	}
	if m, _ := receiveRaw(t, []byte(strings.Replace(res, "100", "4", 1))); m == nil {
		t.Error("the whole response is refused")
	}
}

func TestRFC3261_7_3_1_MethodIsCaseSensitive(t *testing.T) {
	raw := strings.Replace(request("CSeq: 1 register"), "REGISTER sip", "register sip", 1)
	if got := mustParse(t, raw).Method; got != "register" {
		t.Errorf("got %q, want it as it came", got)
	}
}

func TestRFC3261_8_2_6_RefusalCopiesWhatItCan(t *testing.T) {
	raw := strings.Replace(request("Via: SIP/2.0/UDP a.example;branch=z9hG4bK1;rport, SIP/2.0/TCP b", "CSeq: 5 INVITE", "i: dup"), "CSeq: 5 INVITE", "cseq:  5 INVITE", 1)
	_, got := receiveRaw(t, []byte(raw))
	want := strings.ReplaceAll(`SIP/2.0 400 Bad Request
Via: SIP/2.0/UDP a.example;branch=z9hG4bK1;rport=40000;received=192.0.2.200
Via: SIP/2.0/TCP b
From: <sip:a@example.com>;tag=1
To: <sip:a@example.com>;tag=hereis-refused
Call-ID: c1
CSeq: 5 INVITE
Content-Length: 0

`, "\n", "\r\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRefusalIsNeverForAckOrResponse(t *testing.T) {
	for _, raw := range []string{
		strings.Replace(request("CSeq: 1 BYE"), "REGISTER", "ACK", 1),
		strings.Replace(request("CSeq: x"), "REGISTER sip:example.com SIP/2.0", "SIP/2.0 200 OK", 1),
		"garbage\r\n\r\n", "\r\n\r\n\r\n", "\x00\x01", "INVITE", "INVITE sip:a SIP/2.0\r\n\r\n",
	} {
		if m, answer := receiveRaw(t, []byte(raw)); m != nil || answer != "" {
			t.Errorf("%q: got %v %q, want silence", raw, m, answer)
		}
	}
}

func TestRFC3261_21_5_7_TooLong(t *testing.T) {
	_, answer := receiveRaw(t, []byte(request("l: 9000")+strings.Repeat("x", 9000)))
	if !strings.HasPrefix(answer, "SIP/2.0 513 ") || !strings.Contains(answer, "Call-ID: c1\r\n") {
		t.Errorf("got %q, want 513", answer)
	}
}

// One datagram must not cost more than its bytes: parameters are compared
// pairwise. It is measured against one of the same size without parameters,
// in turn, and the quickest of each counts, so that a busy machine is no matter.
func TestParseCostIsBounded(t *testing.T) {
	var dear, cheap strings.Builder
	for i := 0; dear.Len() < 7000; i++ {
		dear.WriteString("Contact: <sip:a@h>")
		for j := range 64 {
			fmt.Fprintf(&dear, ";%x", j)
		}
		dear.WriteString("\r\n")
	}
	for cheap.Len() < dear.Len() {
		cheap.WriteString("Contact: <sip:a@" + strings.Repeat("h", 100) + ">\r\n")
	}
	p := NewParser(DefaultLimits())
	parse := func(lines string) time.Duration {
		raw := []byte(request(strings.TrimSuffix(lines, "\r\n")))
		start := time.Now()
		if _, _, err := p.Parse(raw); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	most, least := time.Hour, time.Hour
	for range 50 {
		most, least = min(most, parse(dear.String())), min(least, parse(cheap.String()))
	}
	t.Logf("%v for parameters, %v without", most, least)
	if most > 60*least {
		t.Errorf("%v for a datagram of %d bytes with parameters, %v without", most, dear.Len(), least)
	}
}

func FuzzGuard(f *testing.F) {
	f.Add([]byte(request()))
	f.Add([]byte(request("Contact: \"a\" <sip:a:b@[2001:db8::1]:5;x=1?h=2>;q=1, *", "Via: SIP / 2.0 / UDP [::1] : 1 ; a = \"b c\"")))
	f.Add([]byte("SIP/2.0 200 OK\r\nv: SIP/2.0/UDP h\r\nf: a <tel:1>;tag=1\r\nt: sip:b\r\ni: 1\r\nCSeq: 1 X\r\nRecord-Route:\r\n <sip:a;lr>\r\n\r\nbody"))
	files, _ := filepath.Glob("testdata/torture*/*.dat")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	tr := idleTransport(f, func(*Message) {})
	f.Fuzz(func(t *testing.T, raw []byte) {
		flow := &recordFlow{remote: netip.MustParseAddrPort("192.0.2.200:40000")}
		tr.receive(&Message{Raw: raw, Flow: flow, Reply: flow})
		checkStable(t, raw)
	})
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{"sip:a:b@h:1;x;y=1?z=1&z=2", "tel:+1;a=b", "soap.beep://h:1", "sips:[::1]", "sip:h;a?b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var u, again sip.Uri
		if ParseURI(s, &u) != nil {
			return
		}
		if err := ParseURI(u.String(), &again); err != nil || again.String() != u.String() {
			t.Fatalf("%q became %q, then %q (%v)", s, u.String(), again.String(), err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(request("Contact: <sip:a@192.0.2.1:5060;transport=udp>;expires=3600", "User-Agent: x", "Expires: 3600", "Content-Length: 0"))
	p := NewParser(DefaultLimits())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
