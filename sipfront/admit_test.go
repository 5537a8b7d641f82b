package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"hereis/sipfront/credentials"
)

const (
	gateway = "198.51.100.7:5060"
	partner = "198.51.100.99:5080"
)

func mustTrunk(t testing.TB, s string) Trunk {
	t.Helper()
	x, err := ParseTrunk(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustRelay(t testing.TB, s string) Relay {
	t.Helper()
	x, err := ParseRelay(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// guardedWith runs a test at one node with digest, a trunk and relays.
func guardedWith(t *testing.T, f func(t *testing.T, m *mesh, n *rig)) {
	t.Helper()
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.srv.parts.Resolver = names{"partner.net": partner}
		n.bobAt(here(phone1, 1000))
		f(t, m, n)
	}, func(c *Config) {
		c.Trunks = []Trunk{mustTrunk(t, "198.51.100.7"), mustTrunk(t, "203.0.113.0/28"), mustTrunk(t, "198.51.100.20:5070")}
		c.Relays = []Relay{mustRelay(t, "partner.net"), mustRelay(t, "pbx.example.net=198.51.100.50:5099")}
	})
}

// from is a request of somebody elsewhere.
func from(caller, method, target, callID string, lines ...string) string {
	return strings.Replace(invite(method, target, callID, lines...), "From: <sip:alice@example.com>", "From: <"+caller+">", 1)
}

// authenticated is alice's request with credentials, to be sent from her phone.
func authenticated(t *testing.T, m *mesh, n *rig, method, target, callID string, lines ...string) string {
	t.Helper()
	n.recv(alice, invite(method, target, callID+"-c", lines...))
	expectStatus(t, target+" without credentials", m.status(n, alice), "407 Proxy Authentication Required")
	u := newUA().challenged(t, n.lastRes[alice])
	return invite(method, target, callID, append(lines, u.header("Proxy-Authorization", method, target))...)
}

// A trunk calls users of ours without credentials; nobody else from elsewhere does.
func TestTrunkCallsOurUsers(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		for i, c := range []struct {
			source string
			good   bool
		}{
			{gateway, true}, {"198.51.100.7:1024", true}, {"203.0.113.1:5060", true}, {"203.0.113.15:9", true}, {"198.51.100.20:5070", true},
			{"203.0.113.16:5060", false}, {"198.51.100.20:5060", false}, {"198.51.100.8:5060", false},
		} {
			n.recv(c.source, from("sip:+1555@pstn.net", "MESSAGE", "sip:bob@example.com", fmt.Sprint("t", i)))
			if c.good {
				m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
				n.answer(phone1, "200", "")
				m.pump()
				continue
			}
			expectStatus(t, c.source, m.status(n, c.source), "403 Caller Not Allowed")
			m.expect(phone1, "")
		}
		if st := n.srv.Stats(); st.TrunkRequests != 5 || st.CallersRefused != 3 {
			t.Errorf("%+v", st)
		}
	})
}

// Users with credentials, and trunks, call foreign domains of the list, by
// their name or at the given address; users call trunks. Nobody calls anything else.
func TestForeignTargetsAreThoseOfTheLists(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		for i, c := range []struct{ target, at string }{
			{"sip:carol@partner.net", partner}, {"sip:carol@Partner.NET", partner},
			{"sip:desk@pbx.example.net", "198.51.100.50:5099"}, {"sip:desk@pbx.example.net:5061", "198.51.100.50:5099"},
			{"sip:+1555@198.51.100.7", gateway}, {"sip:+1555@203.0.113.3:5090", "203.0.113.3:5090"}, {"sip:+1555@198.51.100.20:5070", "198.51.100.20:5070"},
		} {
			n.recv(alice, authenticated(t, m, n, "MESSAGE", c.target, fmt.Sprint("f", i)))
			m.expect(c.at, "MESSAGE "+c.target+" SIP/2.0")
			if strings.Contains(n.lastReq[c.at], "Proxy-Authorization") || strings.Contains(n.lastReq[c.at], markHeader) {
				t.Errorf("as %s got it:\n%s", c.at, n.lastReq[c.at])
			}
			n.answer(c.at, "200", "")
			m.pump()
		}
		for i, target := range []string{
			"sip:x@attacker.net", "sip:x@sub.partner.net", "sip:x@198.51.100.8", "sip:x@198.51.100.20:5060", "sip:x@notpartner.net",
			"sip:x@partner.net;maddr=192.0.2.66", "sip:x@198.51.100.7;maddr=192.0.2.66", "sip:x@partner.net;MADDR=partner.net",
		} {
			n.recv(alice, invite("MESSAGE", target, fmt.Sprint("g", i)))
			expectStatus(t, target, m.status(n, alice), "403 Domain Not Served")
		}
		n.recv(gateway, from("sip:+1555@pstn.net", "MESSAGE", "sip:carol@partner.net", "h1"))
		m.expect(partner, "MESSAGE sip:carol@partner.net SIP/2.0")
		n.recv(gateway, from("sip:+1555@pstn.net", "MESSAGE", "sip:+1666@203.0.113.3", "h2"))
		expectStatus(t, "trunk to trunk", m.status(n, gateway), "403 Domain Not Served")
	})
}

// In a call with a foreign domain both sides reach each other along the recorded route.
func TestCallToAForeignDomain(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		n.recv(alice, authenticated(t, m, n, "INVITE", "sip:carol@partner.net", "fc"))
		m.expect(partner, "INVITE sip:carol@partner.net SIP/2.0")
		n.answer(partner, "200", "Contact: <sip:carol@"+partner+">\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		n.recv(alice, inDialog("ACK", false, "fc"))
		m.expect(partner, "ACK sip:bob@10.0.0.5:5060 SIP/2.0")
		n.recv(partner, strings.ReplaceAll(inDialog("BYE", true, "fc"), "tag=bob", "tag="+partner))
		m.expect(alice, "BYE sip:alice@192.0.2.10:5060 SIP/2.0")
	})
}

// No open relay: what a client writes into a request opens no way anywhere.
func TestNoOpenRelay(t *testing.T) {
	const evil = "192.0.2.66:5060"
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		hop := token{kind: tokenHop, edge: "n1", sides: []side{{transport: "udp", remote: netip.MustParseAddrPort(evil)}}}
		dialog := token{kind: tokenDialog, edge: "n1", sides: []side{{transport: "udp", remote: netip.MustParseAddrPort(evil)}, {transport: "udp", remote: netip.MustParseAddrPort(evil)}}}
		guess := []byte("not the key of the cluster")
		r := &request{asked: asked{method: "MESSAGE", callID: "evil", cseq: 1}, fromTag: "a1"}
		route := func(t FlowToken, key string) string { return "Route: <sip:" + string(t) + "@192.0.2.1;lr" + key + ">" }
		toTag := func(s string) string {
			return strings.Replace(s, "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=x", 1)
		}
		for name, req := range map[string]string{
			"a foreign Request-URI":             invite("MESSAGE", "sip:x@192.0.2.66", "evil"),
			"a foreign Route":                   invite("MESSAGE", "sip:bob@example.com", "evil", "Route: <sip:192.0.2.66;lr>"),
			"ours, then a foreign Route":        invite("MESSAGE", "sip:bob@example.com", "evil", "Route: <sip:192.0.2.1;lr>", "Route: <sip:192.0.2.66;lr>"),
			"a strict foreign Route":            invite("MESSAGE", "sip:192.0.2.1", "evil", "Route: <sip:x@192.0.2.66>"),
			"maddr at a relay":                  invite("MESSAGE", "sip:x@partner.net;maddr=192.0.2.66", "evil"),
			"maddr at a trunk":                  invite("MESSAGE", "sip:x@198.51.100.7;maddr=192.0.2.66", "evil"),
			"a made-up hop token":               invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(hop.seal(newMACKey(guess), ""), ";ob")),
			"a hop token without a mark":        invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(hop.seal(newMACKey(testKeys().FlowToken), ""), ";ob")),
			"a hop token and a made-up mark":    invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(hop.seal(newMACKey(testKeys().FlowToken), ""), ";ob"), markHeader+": "+mark(newMACKey(guess), "n1", n.zone.NowMS(), r)),
			"a made-up dialog token":            toTag(invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(dialog.seal(newMACKey(guess), "evil"), ""))),
			"another dialog's token":            toTag(invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(dialog.seal(newMACKey(testKeys().FlowToken), "other"), ""))),
			"a dialog's token outside of it":    invite("MESSAGE", "sip:x@192.0.2.66", "evil", route(dialog.seal(newMACKey(testKeys().FlowToken), "evil"), "")),
			"a made-up mark":                    invite("MESSAGE", "sip:carol@partner.net", "evil", markHeader+": "+mark(newMACKey(guess), "n1", n.zone.NowMS(), r)),
			"another request's mark":            invite("MESSAGE", "sip:carol@partner.net", "evil2", markHeader+": "+mark(newMACKey(testKeys().Mark), "n1", n.zone.NowMS(), r)),
			"a Record-Route of its own":         invite("MESSAGE", "sip:x@192.0.2.66", "evil", "Record-Route: <sip:192.0.2.66;lr>"),
			"a To tag":                          toTag(invite("MESSAGE", "sip:bob@example.com", "evil")),
			"a Via of a trunk":                  strings.Replace(invite("MESSAGE", "sip:bob@example.com", "evil"), "192.0.2.10:5060", gateway, 1),
			"a From of a trunk":                 from("sip:x@198.51.100.7", "MESSAGE", "sip:bob@example.com", "evil"),
			"no credentials, a relay":           invite("MESSAGE", "sip:carol@partner.net", "evil"),
			"no credentials, From elsewhere":    from("sip:x@partner.net", "MESSAGE", "sip:carol@partner.net", "evil"),
			"credentials of another realm only": invite("MESSAGE", "sip:carol@partner.net", "evil", `Proxy-Authorization: Digest username="alice", realm="partner.net", nonce="n", uri="sip:carol@partner.net", response="00"`),
		} {
			for _, method := range []string{"MESSAGE", "INVITE", "OPTIONS", "ACK"} {
				if method == "ACK" && (name == "a To tag" || name == "a Via of a trunk" || name == "a From of a trunk") {
					// An ACK to a user of ours has no answer, and so no challenge.
					continue
				}
				n.recv(alice, strings.ReplaceAll(strings.ReplaceAll(req, "MESSAGE", method), "branch=z9hG4bK", "branch=z9hG4bK"+method+fmt.Sprint(len(name))))
				m.pump()
				for to, got := range m.inbox {
					if to != alice {
						t.Errorf("%s, %s: to %s:\n%s", name, method, to, got)
					}
				}
				clear(m.inbox)
				line, _, _ := strings.Cut(n.lastRes[alice], "\r\n")
				if method != "ACK" && !strings.HasPrefix(line, "SIP/2.0 403") && !strings.HasPrefix(line, "SIP/2.0 407") {
					t.Errorf("%s, %s: %s", name, method, line)
				}
				delete(n.lastRes, alice)
			}
		}
	})
}

// race 13: trust by source address skips digest. A trunk is let in by its
// address, but never to register, and no node's address is one: what a node
// passes on for a client that named it in its Route is challenged, also where
// trunks and nodes share a network.
func TestPeers1_6_13_TrunksRegisterNobodyAndCoverNoNodes(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		for _, n := range []*rig{n1, n2} {
			n.guarded()
			n.srv.cfg.Trunks = []Trunk{mustTrunk(t, "192.0.2.0/29")}
			n.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		}
		n1.recv("192.0.2.7:5060", registration("alice", "tr", 1))
		expectStatus(t, "REGISTER from a trunk", m.status(n1, "192.0.2.7:5060"), "401 Unauthorized")
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "via", "Route: <sip:192.0.2.2;lr>"))
		expectStatus(t, "through the other node", m.status(n1, alice), "407 Proxy Authentication Required")
		u := newUA().challenged(t, n1.lastRes[alice])
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "via2", "Route: <sip:192.0.2.2;lr>", u.header("Proxy-Authorization", "MESSAGE", "sip:bob@example.com")))
		m.expect(bob, "MESSAGE sip:bob@10.0.0.5:5060 SIP/2.0")
		n1.recv(addr2, invite("MESSAGE", "sip:bob@example.com", "forged"))
		m.expect(bob, "")
		// A node that is seen by another address than its own is known by its Via.
		n2.recv("192.0.2.6:40000", strings.Replace(invite("MESSAGE", "sip:bob@example.com", "nat"), "192.0.2.10:5060", addr1+";rport", 1))
		m.expect(bob, "")
	})
}

// Without a users file nobody is authenticated: users are called by everybody,
// foreign domains by trunks alone.
func TestWithoutCredentialsOnlyTrunksCallForeignDomains(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.digest = nil
		n.recv(alice, invite("MESSAGE", "sip:carol@partner.net", "o1"))
		expectStatus(t, "anybody", m.status(n, alice), "403 Domain Not Served")
		n.recv(gateway, from("sip:+1555@pstn.net", "MESSAGE", "sip:carol@partner.net", "o2"))
		m.expect(partner, "MESSAGE sip:carol@partner.net SIP/2.0")
		n.recv(alice, from("sip:x@elsewhere.net", "MESSAGE", "sip:bob@example.com", "o3"))
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
	})
}

// A device takes a call by a 3xx only where it could have been made to.
func TestRedirectGoesWhereACallMay(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.cfg.Recurse = true
		for i, c := range []struct {
			contact, at string
			byTrunk     bool
		}{
			{"sip:carol@partner.net", partner, false}, {"sip:desk@pbx.example.net", "198.51.100.50:5099", false},
			{"sip:+1900@198.51.100.7", gateway, false}, {"sip:+1900@203.0.113.3", "", true},
			{"sip:x@192.0.2.66", "", false}, {"sip:x@partner.net;maddr=192.0.2.66", "", false},
		} {
			callID := fmt.Sprint("rd", i)
			caller, req := alice, ""
			if c.byTrunk {
				caller, req = gateway, from("sip:+1555@pstn.net", "MESSAGE", "sip:bob@example.com", callID)
			} else {
				req = authenticated(t, m, n, "MESSAGE", "sip:bob@example.com", callID)
			}
			n.recv(caller, req)
			m.pump()
			clear(m.inbox)
			n.answer(phone1, "302", "Contact: <"+c.contact+">\n")
			m.pump()
			if c.at == "" {
				if got := m.got(caller); got != "SIP/2.0 302 Whatever" {
					t.Errorf("%s: %s got %q", c.contact, caller, got)
				}
			} else if got := m.got(c.at); got != "MESSAGE "+c.contact+" SIP/2.0" {
				t.Errorf("%s: %s got %q", c.contact, c.at, got)
			} else {
				n.answer(c.at, "200", "")
				m.pump()
			}
			for to := range m.inbox {
				if to != caller && len(m.inbox[to]) > 0 {
					t.Errorf("%s: to %s:\n%s", c.contact, to, m.inbox[to])
				}
			}
			clear(m.inbox)
		}
	})
}

func TestParseTrunkAndRelay(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32 0", "192.0.2.1:5070": "192.0.2.1/32 5070", "192.0.2.77/24": "192.0.2.0/24 0",
		"2001:db8::1": "2001:db8::1/128 0", "[2001:db8::1]:5060": "2001:db8::1/128 5060", "[2001:db8::1]": "2001:db8::1/128 0", "2001:db8::/32": "2001:db8::/32 0",
		"::ffff:192.0.2.1": "192.0.2.1/32 0",
		"0.0.0.0/0":        "", "::/0": "", "example.com": "", "": "", "192.0.2.1:port": "", "192.0.2.0/33": "",
	} {
		x, err := ParseTrunk(s)
		if got := fmt.Sprint(x.Prefix, " ", x.Port); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: got %s %v, want %s", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"Example.NET": "{example.net  0}", "example.net=10.0.0.1:5070": "{example.net 10.0.0.1 5070}", "a.b.=gw.example": "{a.b gw.example 0}",
		"a=[::1]:5060": "{a ::1 5060}", "": "", "a b": "", "a:5060": "", "a=": "", "a=b:0": "", "sip:a": "", "*": "",
	} {
		x, err := ParseRelay(s)
		if got := fmt.Sprint(x); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: got %s %v, want %s", s, got, err, want)
		}
	}
}

func TestParseAuthorization(t *testing.T) {
	const all = `username="u", realm="r", nonce="n", uri="sip:a", response="00"`
	for _, c := range []struct {
		value string
		ok    bool
		err   error
		check func(a authorization) bool
	}{
		{"Digest " + all, true, nil, func(a authorization) bool { return a.usable && a.algorithm == credentials.MD5 }},
		{"dIGEST\t" + strings.ReplaceAll(all, ", ", " ,,\t"), true, nil, func(a authorization) bool { return a.nonce == "n" }},
		{`Digest USERNAME = "a, \"b\" \\", realm="r=\",", nonce="n", uri="sip:a,b;c=d", response="00"`, true, nil,
			func(a authorization) bool {
				return a.username == `a, "b" \` && a.realm == `r=",` && a.uri == "sip:a,b;c=d"
			}},
		{"Digest " + all + `, qop="AUTH", nc="00000001", algorithm="sha-256"`, true, nil,
			func(a authorization) bool {
				return a.qop == "auth" && a.nc == "00000001" && a.algorithm == credentials.SHA256 && a.usable
			}},
		{"Digest " + all + ", algorithm=MD5-sess", true, nil, func(a authorization) bool { return !a.usable }},
		{"Digest " + all + ", userhash=true", true, nil, func(a authorization) bool { return !a.usable }},
		{"Digest " + all + ", x-unknown=\"y\", userhash=false", true, nil, func(a authorization) bool { return a.usable }},
		{"Basic YTpi", false, nil, nil},
		{"", false, nil, nil},
		{"Digest", true, errAuthorization, nil},
		{"Digest " + all[:len(all)-1], true, errAuthorization, nil},
		{"Digest " + all + `, realm="r2"`, true, errAuthorization, nil},
		{"Digest " + all + `, nonsense`, true, errAuthorization, nil},
		{"Digest " + all + `, a="b"c`, true, errAuthorization, nil},
		{"Digest " + all + `, a=b"c"`, true, errAuthorization, nil},
		{"Digest " + all + `, a="b\`, true, errAuthorization, nil},
		{"Digest " + strings.Replace(all, `, uri="sip:a"`, "", 1), true, errAuthorization, nil},
	} {
		a, ok, err := parseAuthorization(c.value)
		if ok != c.ok || err != c.err || c.check != nil && !c.check(a) {
			t.Errorf("%s: got %+v %v %v", c.value, a, ok, err)
		}
	}
}
