package sipfront

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hereis/messages"
)

// What is taken as a Contact goes out again as one, and means the same.
func FuzzContact(f *testing.F) {
	for _, s := range []string{
		"*", "<sip:a@h>", "sip:a@h;expires=5", `"x;y=\"z\"" <sip:a@[::1]:5061;transport=tcp?x=1>;q=0.7;+sip.instance="<urn:x>";reg-id=1`,
		`<sip:a@h>;x="a;b=c,d"`, "<sip:a@h>;q=1.001", "<sip:a@h>;expires=99999999999999999999", "<sip:a@h>;;;", "a <b", `"`, "sip:a@h , sip:b@h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, _, err := parseContacts(splitValues(nil, s))
		if err != nil {
			return
		}
		for _, c := range list {
			if c.Q > 1000 || c.RegId > 1<<31-1 {
				t.Fatalf("%q: %v", s, c)
			}
			if strings.ContainsAny(c.Uri, "\r\n<>") {
				t.Fatalf("%q: URI %q", s, c.Uri)
			}
			b := &messages.Binding{Contact: c.Uri, Params: c.Params, Q: c.Q, InstanceId: c.InstanceId, RegId: c.RegId}
			if strings.ContainsAny(c.InstanceId, "\"\\<>\r\n") || strings.Contains(strings.Join(c.Params, ";"), "\"") {
				continue // quoting is kept, but not to be read back naively
			}
			again, err := parseContact(contactValue(b, 60))
			if err != nil || again.Uri != c.Uri || again.Q != c.Q || again.InstanceId != c.InstanceId || again.RegId != c.RegId || again.ExpiresS != 60 {
				t.Fatalf("%q: %v: %v, %v", s, contactValue(b, 60), again, err)
			}
		}
	})
}

// Nobody but the key's holder makes a token, and nothing that is read panics.
func FuzzFlowToken(f *testing.F) {
	key := newMACKey(testKeys().FlowToken)
	for _, tok := range sampleTokens() {
		f.Add(string(tok.seal(key, "call")))
	}
	f.Add("alice")
	f.Add(strings.Repeat("A", 60))
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := FlowToken(s).open(key, "call")
		if err == nil && string(tok.seal(key, "call")) != s {
			t.Fatalf("%q opens as %+v, which seals otherwise", s, tok)
		}
		if b := []byte(s); len(b) >= 2 {
			if tok, err := (&token{}).parse(b); err == nil {
				_ = tok.seal(key, "call")
			}
		}
	})
}

// A request of any bytes is read or refused, and what is read can be written.
func FuzzRequest(f *testing.F) {
	f.Add("INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nRoute: <sip:x;lr>, <sip:y>\r\n\r\n")
	f.Add("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx,SIP/2.0/UDP i\r\n folded\r\n\r\nbody")
	f.Fuzz(func(t *testing.T, s string) {
		_, _, _ = readReply(s)
		start, headers, body, err := splitMessage(s)
		if err != nil {
			return
		}
		for _, h := range headers {
			for _, v := range splitValues(nil, h.value) {
				_, _ = parseVia(v)
				_, _ = routeURI(v)
				_ = stampVia(v, netip.MustParseAddrPort("192.0.2.1:1"))
			}
		}
		d := draft{method: "X", target: uri{text: "sip:x"}, headers: headers, body: body}
		if strings.ContainsAny(start, "\r\n") {
			t.Fatalf("start line %q", start)
		}
		_ = d.bytes()
	})
}

func sampleTokens() []*token {
	a := side{transport: "udp", local: netip.MustParseAddrPort("192.0.2.1:5060"), remote: netip.MustParseAddrPort("203.0.113.9:40000"), bound: true}
	b := side{transport: "wss", flow: &messages.FlowID{Incarnation: 1 << 62, Counter: 300, Stream: true}, remote: netip.MustParseAddrPort("[2001:db8::1]:443")}
	return []*token{
		{kind: tokenHop, edge: "n1", sides: []side{a}},
		{kind: tokenHop, edge: "", sides: []side{{}}},
		{kind: tokenDialog, edge: "node-with-a-long-name", caller: 7, sides: []side{a, b}},
	}
}

func TestFlowTokenRoundTrip(t *testing.T) {
	key := newMACKey(testKeys().FlowToken)
	addr := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		if rapid.Bool().Draw(t, "none") {
			return netip.AddrPort{}
		}
		var ip netip.Addr
		if rapid.Bool().Draw(t, "v4") {
			ip = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip4")))
		} else {
			ip = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip6"))).Unmap()
		}
		return netip.AddrPortFrom(ip, rapid.Uint16().Draw(t, "port"))
	})
	oneSide := rapid.Custom(func(t *rapid.T) side {
		s := side{transport: rapid.SampledFrom(transports[:]).Draw(t, "transport"), bound: rapid.Bool().Draw(t, "bound"),
			local: addr.Draw(t, "local"), remote: addr.Draw(t, "remote")}
		if rapid.Bool().Draw(t, "flow") {
			s.flow = &messages.FlowID{Incarnation: rapid.Uint64().Draw(t, "inc"), Counter: rapid.Uint64().Draw(t, "n"), Stream: rapid.Bool().Draw(t, "stream")}
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		tok := &token{kind: tokenHop, edge: rapid.StringN(0, 60, 255).Draw(t, "edge"), sides: []side{oneSide.Draw(t, "side")}}
		if rapid.Bool().Draw(t, "dialog") {
			tok.kind, tok.caller = tokenDialog, rapid.Uint32().Draw(t, "caller")
			tok.sides = append(tok.sides, oneSide.Draw(t, "other"))
		}
		sealed := tok.seal(key, "call")
		got, err := sealed.open(key, "call")
		if err != nil || !got.equal(tok) {
			t.Fatalf("%+v came back as %+v, %v", tok, got, err)
		}
		if _, err := parseURI("sip:" + string(sealed) + "@h;lr"); err != nil {
			t.Fatalf("%s is no user part", sealed)
		}
		if _, err := sealed.open(key, "another call"); (err == nil) != (tok.kind == tokenHop) {
			t.Fatalf("for another Call-ID: %v", err)
		}
		if _, err := sealed.open(newMACKey([]byte("another key of the same length!!")), "call"); err == nil {
			t.Fatal("opened with another key")
		}
		b := []byte(sealed)
		i := rapid.IntRange(0, len(b)-2).Draw(t, "at")
		b[i] ^= 1
		if _, err := FlowToken(b).open(key, "call"); err == nil {
			t.Fatalf("tampered at %d, and opened", i)
		}
	})
}

func TestFlowTokenIsSmall(t *testing.T) {
	one := side{transport: "udp", local: netip.MustParseAddrPort("192.0.2.1:5060"), remote: netip.MustParseAddrPort("203.0.113.9:40000"), bound: true}
	tok := token{kind: tokenDialog, edge: "node-1", sides: []side{one, one}}
	if n := len(tok.seal(newMACKey(testKeys().FlowToken), "")); n > 80 {
		t.Errorf("a Record-Route token has %d characters", n)
	}
}

// Whatever the credentials, nothing panics, and what is read has what a digest needs.
func FuzzAuthorization(f *testing.F) {
	f.Add(`Digest username="u", realm="r", nonce="n", uri="sip:a", response="00", qop=auth, nc=00000001, cnonce="c", algorithm=SHA-256`)
	f.Add(`Digest username="a, \"b", realm="", nonce="n",uri="x" , response=0`)
	f.Fuzz(func(t *testing.T, v string) {
		a, ok, err := parseAuthorization(v)
		if !ok || err != nil {
			return
		}
		if again, ok, err := parseAuthorization(strings.Replace(v, "Digest ", "digest\t", 1)); strings.HasPrefix(v, "Digest ") && (!ok || err != nil || again != a) {
			t.Errorf("%q: %+v, then %+v", v, a, again)
		}
		if got := a.expected("ha1", &request{asked: asked{method: "INVITE"}}); len(got) != 2*a.algorithm.Size() {
			t.Errorf("%q: response %q", v, got)
		}
	})
}
