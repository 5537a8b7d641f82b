package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"hereis/sipfront/credentials"
)

// RFC 7616 3.9.1, the example for GET, and RFC 2617 3.5, by the same code.
func TestRFC7616_3_9_1_Examples(t *testing.T) {
	for _, c := range []struct{ text, password, want string }{
		{`Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5,
 nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
 qop=auth, response="8ca523f5e9506fed4657c9700eebdbec", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`, "Circle of Life", ""},
		{`Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=SHA-256,
 nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
 qop=auth, response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1", opaque="x"`, "Circle of Life", ""},
		{`Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html",
 qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"`, "Circle Of Life", ""},
	} {
		a, ok, err := parseAuthorization(strings.ReplaceAll(c.text, "\n", ""))
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if got := a.expected(a.algorithm.HA1(a.username, a.realm, c.password), &request{asked: asked{method: "GET"}}); got != a.response {
			t.Errorf("%s: got %s, want %s", a.algorithm, got, a.response)
		}
	}
}

// 22.2: a registrar answers 401 and challenges; 22.3 and RFC 8760 2.4: one
// challenge for each algorithm, in the order of preference, of one realm.
func TestRFC8760_2_4_ChallengesInOrderOfPreference(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.recv(alice, registration("alice", "ch", 1))
		expectStatus(t, "REGISTER", m.status(n, alice), "401 Unauthorized")
		got := values(n.lastRes[alice], "WWW-Authenticate")
		if len(got) != 3 {
			t.Fatalf("got %q", got)
		}
		nonce := newUA().challenged(t, n.lastRes[alice]).nonce
		for i, name := range []string{"SHA-256", "SHA-512-256", "MD5"} {
			if want := `Digest realm="example.com", nonce="` + nonce + `", algorithm=` + name + `, qop="auth"`; got[i] != want {
				t.Errorf("got %s, want %s", got[i], want)
			}
		}
		n.srv.digest.order = []credentials.Algorithm{credentials.MD5, credentials.SHA256}
		n.recv(alice, registration("alice", "ch", 2))
		m.status(n, alice)
		if got := values(n.lastRes[alice], "WWW-Authenticate"); len(got) != 2 || !strings.Contains(got[0], "MD5") {
			t.Errorf("MD5 first: got %q", got)
		}
		// A realm of which all users have MD5 alone.
		n.recv(alice, strings.ReplaceAll(registration("dave", "ch", 3), "example.com", "example.org"))
		m.status(n, alice)
		if got := values(n.lastRes[alice], "WWW-Authenticate"); len(got) != 1 || !strings.Contains(got[0], `realm="example.org"`) || !strings.Contains(got[0], "algorithm=MD5") {
			t.Errorf("MD5 only: got %q", got)
		}
		if n.reg.reached() {
			t.Error("the registrar has been asked")
		}
	})
}

// Each algorithm, with auth and auth-int, lets alice in.
func TestRFC8760_2_1_EachAlgorithmIsAccepted(t *testing.T) {
	for _, qop := range []string{"auth", "auth-int"} {
		for _, a := range []credentials.Algorithm{credentials.MD5, credentials.SHA256, credentials.SHA512256} {
			alone(t, func(t *testing.T, m *mesh, n *rig) {
				n.guarded()
				n.recv(alice, registration("alice", "al", 1))
				m.status(n, alice)
				u := newUA().challenged(t, n.lastRes[alice])
				u.algorithm, u.qop = a, qop
				n.recv(alice, registration("alice", "al", 2, u.header("Authorization", "REGISTER", "sip:example.com")))
				expectStatus(t, a.String()+" "+qop, m.status(n, alice), "200 OK")
				if st := n.srv.Stats(); st.DigestChallenges != 1 || st.DigestAccepted != 1 || st.DigestRefused != 0 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// A wrong auth-int body, and algorithms that were not offered, are refused.
func TestRFC8760_2_6_NothingWeakerThanOffered(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded(func(d *digest) { d.order = []credentials.Algorithm{credentials.SHA256} })
		n.recv(alice, registration("alice", "w", 1))
		m.status(n, alice)
		u := newUA().challenged(t, n.lastRes[alice])
		u.algorithm = credentials.MD5
		n.recv(alice, registration("alice", "w", 2, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "MD5 where SHA-256 is asked for", m.status(n, alice), "401 Unauthorized")
		u.algorithm, u.qop, u.body = credentials.SHA256, "auth-int", "not what is sent"
		n.recv(alice, registration("alice", "w", 3, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "another body", m.status(n, alice), "401 Unauthorized")
		u.qop = ""
		plain := u.header("Authorization", "REGISTER", "sip:example.com")
		for i, change := range []string{`qop=auth`, `cnonce="c0"`, "nc=00000003", "algorithm=SHA-256"} {
			broken := strings.Replace(plain, ", "+change, "", 1)
			n.recv(alice, registration("alice", "w", 4+i, broken))
			expectStatus(t, "without "+change, m.status(n, alice), "401 Unauthorized")
		}
	})
}

// 22.1 and 22.4: an unknown user and a wrong password get the same answer,
// which is not stale.
func TestRFC3261_22_1_UnknownUserLooksLikeWrongPassword(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		var answers []string
		for i, c := range []*ua{{user: "alice", password: "guess"}, {user: "nobody", password: "guess"}} {
			c.realm, c.algorithm = "example.com", credentials.SHA256
			callID := fmt.Sprint("same", i)
			n.recv(alice, registration(c.user, callID, 1))
			m.status(n, alice)
			c.challenged(t, n.lastRes[alice])
			n.recv(alice, registration(c.user, callID, 2, c.header("Authorization", "REGISTER", "sip:example.com")))
			expectStatus(t, c.user, m.status(n, alice), "401 Unauthorized")
			text := strings.NewReplacer(c.user, "USER", callID, "CALL").Replace(n.lastRes[alice])
			text = strings.ReplaceAll(text, newUA().challenged(t, n.lastRes[alice]).nonce, "NONCE")
			begin := strings.Index(text, ";tag=")
			begin = strings.Index(text[begin+1:], ";tag=") + begin + 1 // To's, ours
			answers = append(answers, text[:begin]+text[begin+strings.Index(text[begin:], "\r\n"):])
		}
		if answers[0] != answers[1] || strings.Contains(answers[0], "stale") {
			t.Errorf("alice:\n%s\nnobody:\n%s", answers[0], answers[1])
		}
		if st := n.srv.Stats(); st.DigestRefused != 2 || st.DigestUnknown != 1 || n.reg.reached() {
			t.Errorf("%+v", st)
		}
	})
}

// 22.3 and 10.3 step 4: who is right about the password and speaks for another is refused.
func TestRFC3261_22_IdentityMustBeTheCredentials(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.bobAt(here(phone1, 1000))
		n.recv(alice, registration("bob", "id", 1))
		m.status(n, alice)
		u := newUA().challenged(t, n.lastRes[alice])
		n.recv(alice, registration("bob", "id", 2, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "alice registers for bob", m.status(n, alice), "403 Credentials Of Another User")
		forged := func(callID string, lines ...string) string {
			return strings.Replace(invite("INVITE", "sip:bob@example.com", callID, lines...), "From: <sip:alice@", "From: <sip:bob@", 1)
		}
		n.recv(alice, forged("id3"))
		expectStatus(t, "no credentials", m.status(n, alice), "407 Proxy Authentication Required")
		n.recv(alice, forged("id4", u.header("Proxy-Authorization", "INVITE", "sip:bob@example.com")))
		expectStatus(t, "alice calls as bob", m.status(n, alice), "403 Credentials Of Another User")
		// Third-party registration: the credentials are To's user's, whoever From is (10.2).
		third := strings.Replace(registration("alice", "id5", 1, u.header("Authorization", "REGISTER", "sip:example.com")), "From: <sip:alice@", "From: <sip:secretary@", 1)
		n.recv(alice, third)
		expectStatus(t, "a third party with alice's password", m.status(n, alice), "200 OK")
		m.expect(phone1, "")
		if st := n.srv.Stats(); st.DigestIdentity != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// 22.3: a call is challenged with 407; what was for us goes no further, what is
// for others does.
func TestRFC3261_22_3_OurCredentialsAreTakenOff(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "p1"))
		expectStatus(t, "INVITE", m.status(n, alice), "407 Proxy Authentication Required")
		if len(values(n.lastRes[alice], "Proxy-Authenticate")) != 3 || n.loc.asked != 0 {
			t.Errorf("asked %d:\n%s", n.loc.asked, n.lastRes[alice])
		}
		u := newUA().challenged(t, n.lastRes[alice])
		other := `Proxy-Authorization: Digest username="alice", realm="elsewhere, \"and\" far", nonce="n", uri="sip:x", response="00"`
		end := `Authorization: Digest username="alice", realm="bob's phone", nonce="n", uri="sip:x", response="00"`
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "p2", other, u.header("Proxy-Authorization", "INVITE", "sip:bob@example.com"), end))
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		got := n.lastReq[phone1]
		if strings.Contains(got, u.nonce) || !strings.Contains(got, other) || !strings.Contains(got, end) {
			t.Errorf("as bob got it:\n%s", got)
		}
		n.answer(phone1, "200", "Contact: <sip:bob@192.0.2.20>\n")
		m.pump()
		// In the dialog nobody is challenged, and credentials sent all the same go no further.
		bye := strings.Replace(inDialog("BYE", false, "p2"), "Max-Forwards", u.header("Proxy-Authorization", "BYE", "sip:bob@10.0.0.5:5060")+"\nMax-Forwards", 1)
		n.recv(alice, bye)
		m.expect(phone1, "BYE sip:bob@10.0.0.5:5060 SIP/2.0")
		if strings.Contains(n.lastReq[phone1], "Proxy-Authorization") {
			t.Errorf("as bob got it:\n%s", n.lastReq[phone1])
		}
	})
}

// 22.1: ACK and CANCEL are never challenged: they cannot be sent again.
func TestRFC3261_22_1_AckAndCancelAreNotChallenged(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "nc1"))
		m.status(n, alice)
		u := newUA().challenged(t, n.lastRes[alice])
		req := invite("INVITE", "sip:bob@example.com", "nc2", u.header("Proxy-Authorization", "INVITE", "sip:bob@example.com"))
		n.recv(alice, req)
		m.pump()
		n.answer(phone1, "180", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever")
		cancel := strings.ReplaceAll(req, "INVITE sip:", "CANCEL sip:")
		cancel = strings.Replace(cancel, "1 INVITE", "1 CANCEL", 1)
		cancel = strings.Replace(cancel, u.headerLine(req), "", 1)
		n.recv(alice, cancel)
		m.expect(alice, "SIP/2.0 200 OK")
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0\nCANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		n.recv(alice, invite("ACK", "sip:bob@example.com", "nc3"))
		m.expect(phone1, "ACK sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(alice, "")
	})
}

// RFC 7616 3.4.6: credentials made for another target are not for this one.
func TestRFC7616_3_4_6_URIIsTheTarget(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "u"))
		m.status(n, alice)
		u := newUA().challenged(t, n.lastRes[alice])
		for i, c := range []struct {
			uri  string
			good bool
		}{
			{"sip:bob@example.com", true}, {"sip:bob@EXAMPLE.com:5060", true}, {"sip:bob@192.0.2.1", true}, {"sip:192.0.2.1:5060", true},
			{"sip:carol@example.com", false}, {"sip:bob@elsewhere.net", false}, {"sip:elsewhere.net", false}, {"*", false},
		} {
			n.recv(alice, invite("MESSAGE", "sip:bob@example.com", fmt.Sprint("u", i), u.header("Proxy-Authorization", "MESSAGE", c.uri)))
			if c.good {
				m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
				m.expect(alice, "")
			} else {
				expectStatus(t, c.uri, m.status(n, alice), "400 Bad Credentials")
			}
		}
	})
}

// A request that a node has accepted is not challenged at the next.
func TestAcceptedAtOneNodeIsNotChallengedAtTheNext(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.guarded()
		n2.guarded()
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "x1"))
		m.status(n1, alice)
		u := newUA().challenged(t, n1.lastRes[alice])
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "x2", u.header("Proxy-Authorization", "INVITE", "sip:bob@example.com")))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if n2.srv.Stats().DigestChallenges != 0 || strings.Contains(n2.lastReq[bob], "Proxy-Authorization") {
			t.Errorf("challenged, or leaked:\n%s", n2.lastReq[bob])
		}
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		n2.recv(bob, inDialog("INFO", true, "x2"))
		m.expect(alice, "INFO sip:alice@192.0.2.10:5060 SIP/2.0")
	})
}

// Who hides their name shows their password all the same (RFC 3323 4.1.1.3).
func TestRFC3323_4_1_1_3_AnonymousCallersAreUsers(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.bobAt(here(phone1, 1000))
		anonymous := func(callID string, lines ...string) string {
			return strings.Replace(invite("MESSAGE", "sip:bob@example.com", callID, lines...), "sip:alice@example.com", "sip:anonymous@anonymous.invalid", 1)
		}
		n.recv(alice, anonymous("a1"))
		expectStatus(t, "anonymous", m.status(n, alice), "407 Proxy Authentication Required")
		u := newUA().challenged(t, n.lastRes[alice])
		n.recv(alice, anonymous("a2", u.header("Proxy-Authorization", "MESSAGE", "sip:bob@example.com")))
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
		d := &ua{user: "dave", realm: "example.org", password: "dave", nonce: u.nonce, nc: 7}
		n.recv(alice, anonymous("a3", d.header("Proxy-Authorization", "MESSAGE", "sip:bob@example.com")))
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
	})
}

// race 14: one packet of nobody's makes the cluster work. Here it costs one
// answer, and no question.
func TestPeers1_6_14_UnauthenticatedPacketCostsOneAnswer(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.guarded()
		n2.guarded()
		for i := range 100 {
			n1.recv(alice, registration(fmt.Sprint("u", i), fmt.Sprint("flood", i), 1))
			n1.recv(alice, invite("MESSAGE", fmt.Sprintf("sip:u%d@example.com", i), fmt.Sprint("flood", i)))
			n1.recv(alice, strings.Replace(invite("SUBSCRIBE", fmt.Sprintf("sip:u%d@example.com", i), fmt.Sprint("flood", i)), "From: <sip:alice@example.com>", "From: <sip:x@attacker.net>", 1))
		}
		synctest.Wait()
		out := n1.take()
		for _, s := range out {
			if s.to != alice {
				t.Errorf("to %s:\n%s", s.to, s.raw)
			}
		}
		if len(out) != 300 || n1.loc.asked != 0 || n1.reg.reached() || len(n1.srv.digest.nonces.used) != 0 {
			t.Errorf("%d messages, %d lookups, registered %v, %d nonces kept", len(out), n1.loc.asked, n1.reg.reached(), len(n1.srv.digest.nonces.used))
		}
	})
}
