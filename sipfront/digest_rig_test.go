package sipfront

import (
	"fmt"
	"strings"
	"testing"

	"hereis/sipfront/credentials"
)

// testUsers are alice with every algorithm, dave with MD5 alone in another domain.
func testUsers(t testing.TB) *credentials.Set {
	t.Helper()
	line := func(user, realm, password string, as ...credentials.Algorithm) string {
		l := user + "@" + realm
		for _, a := range as {
			l += " " + a.String() + "=" + a.HA1(user, realm, password)
		}
		return l + "\n"
	}
	all := []credentials.Algorithm{credentials.MD5, credentials.SHA256, credentials.SHA512256}
	s, err := credentials.Parse(strings.NewReader(line("alice", "example.com", "wonder", all...) +
		line("bob", "example.com", "builder", all...) + line("dave", "example.org", "dave", credentials.MD5)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// guarded switches digest on at a node that a test has made.
func (r *rig) guarded(change ...func(*digest)) *rig {
	r.t.Helper()
	r.srv.digest = &digest{
		users: testUsers(r.t), order: r.cfg.Digest, count: &r.srv.count,
		nonces: newNonces([]byte("nonce-key-for-tests....."), r.cfg.NonceLife, r.cfg.MaxNonces, r.zone.NowMS, r.srv.rand),
	}
	for _, f := range change {
		f(r.srv.digest)
	}
	return r
}

// ua answers challenges as a phone does.
type ua struct {
	user, realm, password string
	algorithm             credentials.Algorithm
	nonce                 string
	nc                    uint32
	qop                   string
	body                  string
}

// challenged takes the nonce of a challenge.
func (u *ua) challenged(t testing.TB, raw string) *ua {
	t.Helper()
	_, headers, _, err := splitMessage(raw)
	if err != nil {
		t.Fatalf("no message: %q", raw)
	}
	for _, h := range headers {
		if h.name == "WWW-Authenticate" || h.name == "Proxy-Authenticate" {
			_, rest, _ := strings.Cut(h.value, `nonce="`)
			u.nonce, _, _ = strings.Cut(rest, `"`)
			u.nc = 0
			return u
		}
	}
	t.Fatalf("no challenge in\n%s", raw)
	return nil
}

// header is a header line with credentials for a request.
func (u *ua) header(name, method, uri string) string {
	u.nc++
	qop := u.qop
	if qop == "" {
		qop = "auth"
	}
	nc := fmt.Sprintf("%08x", u.nc)
	ha2 := method + ":" + uri
	if qop == "auth-int" {
		ha2 += ":" + u.algorithm.Sum(u.body)
	}
	res := u.algorithm.Sum(strings.Join([]string{
		u.algorithm.HA1(u.user, u.realm, u.password), u.nonce, nc, "c0", qop, u.algorithm.Sum(ha2),
	}, ":"))
	return fmt.Sprintf(`%s: Digest username="%s", realm="%s", nonce="%s", uri="%s", response="%s", algorithm=%s, cnonce="c0", qop=%s, nc=%s`,
		name, u.user, u.realm, u.nonce, uri, res, u.algorithm, qop, nc)
}

func newUA() *ua {
	return &ua{user: "alice", realm: "example.com", password: "wonder", algorithm: credentials.SHA256}
}

// registration is a REGISTER for a user, with further header lines.
func registration(user, callID string, cseq int, lines ...string) string {
	extra := ""
	for _, l := range lines {
		extra += l + "\n"
	}
	return fmt.Sprintf(`REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK%s%d
%sMax-Forwards: 70
From: <sip:%s@example.com>;tag=r
To: <sip:%s@example.com>
Call-ID: %s
CSeq: %d REGISTER
Contact: <sip:%s@192.0.2.10:5060>
Content-Length: 0

`, callID, cseq, extra, user, user, callID, cseq, user)
}

// status is the start line of the last answer to a phone, without the version.
func (m *mesh) status(n *rig, phone string) string {
	m.t.Helper()
	delete(n.lastRes, phone)
	m.pump()
	m.inbox[phone] = nil
	line, _, _ := strings.Cut(n.lastRes[phone], "\r\n")
	return strings.TrimPrefix(line, "SIP/2.0 ")
}

func expectStatus(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func values(raw, name string) (vs []string) {
	_, headers, _, err := splitMessage(raw)
	if err != nil {
		return nil
	}
	for _, h := range headers {
		if h.name == name {
			vs = append(vs, h.value)
		}
	}
	return vs
}

// headerLine is the line with credentials in a request.
func (u *ua) headerLine(req string) string {
	for line := range strings.Lines(req) {
		if strings.Contains(line, u.nonce) {
			return line
		}
	}
	return ""
}

// reached tells whether a REGISTER has come through.
func (m *memRegistrar) reached() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last != nil
}
