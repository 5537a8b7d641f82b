package load

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"hereis/bench/sipmsg"
)

// algorithms are the digests that a client of RFC 8760 knows.
var algorithms = map[string]func(string) string{
	"MD5":         func(s string) string { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]) },
	"SHA-256":     func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) },
	"SHA-512-256": func(s string) string { h := sha512.Sum512_256([]byte(s)); return hex.EncodeToString(h[:]) },
}

// challenged answers a 401 or 407 once with credentials (RFC 3261 22.2, 22.3):
// the same request with the next CSeq. It tells whether it has.
func (e *endpoint) challenged(u *unit, m *sipmsg.Message) bool {
	if e.cfg.Password == "" || u.auth != "" || m.Status != 401 && m.Status != 407 {
		return false
	}
	from, to := "WWW-Authenticate", "Authorization"
	if m.Status == 407 {
		from, to = "Proxy-Authenticate", "Proxy-Authorization"
	}
	m.Lines(from, func(v []byte) {
		if u.auth == "" { // the first that we know is the server's favourite
			u.auth = credentials(string(v), u.authUser, e.cfg.Password, u.method, u.authURI)
		}
	})
	if u.auth == "" {
		return false
	}
	u.auth = to + ": " + u.auth + "\r\n"
	e.phase.Challenges++
	if u.method == "INVITE" {
		e.ackFailure(u, m)
	}
	u.cseq++
	u.tx++
	e.work.scenario.build(e, u)
	e.send(u, time.Now())
	return true
}

// credentials answer a challenge with qop=auth, or are empty if its algorithm is unknown.
func credentials(challenge, user, password, method, uri string) string {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(challenge), " ")
	if !strings.EqualFold(scheme, "Digest") {
		return ""
	}
	p := authParams(rest)
	name := p["algorithm"]
	if name == "" {
		name = "MD5"
	}
	hash := algorithms[strings.ToUpper(name)]
	if hash == nil {
		return ""
	}
	const nc, cnonce = "00000001", "62656e6368"
	a1, a2 := hash(user+":"+p["realm"]+":"+password), hash(method+":"+uri)
	out := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s", algorithm=%s`, user, p["realm"], p["nonce"], uri, name)
	if p["qop"] == "" {
		out += fmt.Sprintf(`, response="%s"`, hash(a1+":"+p["nonce"]+":"+a2))
	} else {
		out += fmt.Sprintf(`, qop=auth, nc=%s, cnonce="%s", response="%s"`, nc, cnonce, hash(strings.Join([]string{a1, p["nonce"], nc, cnonce, "auth", a2}, ":")))
	}
	if p["opaque"] != "" {
		out += fmt.Sprintf(`, opaque="%s"`, p["opaque"])
	}
	return out
}

// authParams reads name=value and name="value", separated by commas.
func authParams(s string) map[string]string {
	p := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var value string
		if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
			value, rest, _ = strings.Cut(quoted, `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		p[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		s = rest
	}
	return p
}

// WriteUsers writes a users file of Hereis for users first to first+n-1 with one password.
func WriteUsers(w io.Writer, first, n uint64, domain, password string) error {
	var b bytes.Buffer
	for user := first; user < first+n; user++ {
		b.Reset()
		name := userName(user)
		fmt.Fprintf(&b, "%s@%s", name, domain)
		for _, algorithm := range []string{"MD5", "SHA-256", "SHA-512-256"} {
			fmt.Fprintf(&b, " %s=%s", algorithm, algorithms[algorithm](name+":"+domain+":"+password))
		}
		b.WriteByte('\n')
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
