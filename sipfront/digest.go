package sipfront

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"hereis/actors"
	"hereis/sipfront/credentials"
)

// Credentials knows the users who may register and call: credentials.File.
type Credentials interface {
	// HA1 is a user's in lower-case hexadecimal (RFC 7616 3.4.2); it must not block.
	HA1(user, realm string, a credentials.Algorithm) (ha1 string, ok bool)
	// Offered are the algorithms that a challenge of a realm may name.
	Offered(realm string) credentials.Algorithms
}

// errIdentity says that somebody speaks for another user than their credentials are of.
var errIdentity = errors.New("credentials of another user")

// challengeError asks for credentials: 401 for what this node answers as UAS,
// 407 for what it passes on (RFC 3261 22.2, 22.3).
type challengeError struct {
	proxy bool
	// values has one challenge for each algorithm, the preferred one first (RFC 8760 2.4).
	values []string
}

func (e challengeError) Error() string { return "credentials are needed" }

func (e challengeError) answer() answer {
	a, name := answer{status: 401, reason: "Unauthorized"}, "WWW-Authenticate"
	if e.proxy {
		a, name = answer{status: 407, reason: "Proxy Authentication Required"}, "Proxy-Authenticate"
	}
	for _, v := range e.values {
		a.headers = append(a.headers, header{name, v})
	}
	return a
}

// digest checks credentials (RFC 3261 22, RFC 8760).
type digest struct {
	users Credentials
	// order is that of the challenges.
	order  []credentials.Algorithm
	nonces *nonces
	count  *counters
}

// verdict is what one header field with credentials comes to.
type verdict int

const (
	refused verdict = iota
	stale
	accepted
)

// maxCredentials is how many for one realm are looked at: one for each algorithm.
const maxCredentials = 3

// check finds credentials of a realm in a request and returns whose they are:
// the user part of the address. The error is a challengeError, or
// errAuthorization for what cannot be read.
func (s *Server) check(r *request, realm string, proxy bool) (user string, err error) {
	d := s.digest
	name := "Authorization"
	if proxy {
		name = "Proxy-Authorization"
	}
	best, given := refused, 0
	for _, h := range r.headers {
		if h.name != name {
			continue
		}
		a, ok, err := parseAuthorization(h.value)
		if !ok || a.realm != realm && a.realm != "" {
			// For somebody else (RFC 3261 22.3).
			continue
		}
		if err != nil {
			d.count.digestRefused.Add(1)
			return "", err
		}
		if !s.sameTarget(r, a.uri) {
			// RFC 7616 3.4.6: credentials for something else, perhaps somebody else's.
			d.count.digestRefused.Add(1)
			return "", errAuthorization
		}
		if given++; given > maxCredentials {
			break
		}
		switch v := d.judge(r, &a); {
		case v == accepted:
			d.count.digestAccepted.Add(1)
			return a.username, nil
		case v > best:
			best = v
		}
	}
	if given > 0 && best == refused {
		d.count.digestRefused.Add(1)
	}
	d.count.digestChallenges.Add(1)
	return "", d.challenge(realm, proxy, best == stale)
}

// sameTarget tells whether a digest-uri is the Request-URI. A proxy on the way
// may have written one name of ours in the place of another, and some clients
// name only the server.
func (s *Server) sameTarget(r *request, digestURI string) bool {
	if digestURI == r.target.text || actors.EqualURI(digestURI, r.target.text) {
		return true
	}
	u, err := parseURI(digestURI)
	return err == nil && (s.serves(&u) || s.isAddress(&u)) &&
		(u.user == "" || u.user == r.target.user && (s.serves(&r.target) || s.isAddress(&r.target)))
}

// judge takes the same steps for an unknown user, a wrong password and the
// right one, so that neither answer nor time tells who is there.
func (d *digest) judge(r *request, a *authorization) verdict {
	nc, ok := parseNC(a.nc)
	// What was offered is qop=auth; a client that knows of none could be
	// replayed (RFC 7616 3.4.5).
	if !ok || !a.usable || a.cnonce == "" || a.qop != "auth" && a.qop != "auth-int" || !d.speaks(a.algorithm) {
		return refused
	}
	ha1, known := d.users.HA1(a.username, a.realm, a.algorithm)
	if !known {
		ha1 = d.nobody(a)
	}
	want := a.expected(ha1, r)
	right := subtle.ConstantTimeCompare([]byte(lower(a.response)), []byte(want)) == 1
	if !known {
		d.count.digestUnknown.Add(1)
		return refused
	}
	if !right {
		return refused
	}
	madeMS, ok := d.nonces.made(a.nonce)
	switch {
	case !ok:
		// RFC 7616 3.3: stale says that the password was right.
		d.count.digestStale.Add(1)
		return stale
	case !d.nonces.use(a.nonce, madeMS, nc):
		d.count.digestReplays.Add(1)
		return stale
	}
	return accepted
}

func (d *digest) speaks(a credentials.Algorithm) bool {
	for _, o := range d.order {
		if o == a {
			return true
		}
	}
	return false
}

// nobody is an HA1 that no password has.
func (d *digest) nobody(a *authorization) string {
	h := hmac.New(sha256.New, d.nonces.key)
	h.Write([]byte("nobody\x00" + a.username + "\x00" + a.realm))
	return hex.EncodeToString(h.Sum(nil))[:2*a.algorithm.Size()]
}

// expected is the response of who has the password (RFC 7616 3.4.1).
func (a *authorization) expected(ha1 string, r *request) string {
	ha2 := r.method + ":" + a.uri
	if a.qop == "auth-int" {
		ha2 += ":" + a.algorithm.Sum(r.body)
	}
	return a.algorithm.Sum(strings.Join([]string{ha1, a.nonce, a.nc, a.cnonce, a.qop, a.algorithm.Sum(ha2)}, ":"))
}

// parseNC reads eight hexadecimal digits.
func parseNC(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err == nil && len(s) == 8
}

// challenge asks for credentials, with one nonce for all algorithms.
func (d *digest) challenge(realm string, proxy, stale bool) error {
	nonce, offered := d.nonces.make(), d.users.Offered(realm)
	e := challengeError{proxy: proxy}
	add := func(a credentials.Algorithm) {
		v := `Digest realm="` + realm + `", nonce="` + nonce + `", algorithm=` + a.String() + `, qop="auth"`
		if stale {
			v += ", stale=true"
		}
		e.values = append(e.values, v)
	}
	for _, a := range d.order {
		if offered.Has(a) {
			add(a)
		}
	}
	if len(e.values) == 0 {
		// Nobody of this realm can answer; they get the same as where somebody can.
		for _, a := range d.order {
			add(a)
		}
	}
	return e
}

// admitRegister wants the credentials of the user whose bindings a REGISTER is
// about (RFC 3261 10.3 steps 3 and 4): the one in To, whoever From is.
func (s *Server) admitRegister(r *request, aor actors.AoR) error {
	if s.digest == nil {
		return nil
	}
	return s.authenticate(r, aor.Domain(), aor, false)
}

// authenticate wants credentials of a realm, and those of a certain user
// unless as is empty.
func (s *Server) authenticate(r *request, realm string, as actors.AoR, proxy bool) error {
	user, err := s.check(r, realm, proxy)
	switch {
	case err != nil:
		return err
	case as != "" && (as.User() != user || as.Domain() != realm):
		s.count.digestIdentity.Add(1)
		return errIdentity
	}
	return nil
}

// withoutOurs is the request without the credentials that are for us: they are
// used up here and nobody else's to see (RFC 3261 22.3). Others stay.
func (s *Server) withoutOurs(r *request) *request {
	if s.digest == nil {
		return r
	}
	ours := func(h header) bool {
		if h.name != "Proxy-Authorization" {
			return false
		}
		a, ok, _ := parseAuthorization(h.value)
		name, served := s.cfg.Domains.Canonical(a.realm)
		return ok && served && name == a.realm
	}
	for i, h := range r.headers {
		if !ours(h) {
			continue
		}
		rest := append(make([]header, 0, len(r.headers)), r.headers[:i]...)
		for _, h := range r.headers[i+1:] {
			if !ours(h) {
				rest = append(rest, h)
			}
		}
		stripped := *r
		stripped.headers = rest
		return &stripped
	}
	return r
}
