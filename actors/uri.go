package actors

import (
	"errors"
	"fmt"
	"strings"
)

// AoR is a canonical address-of-record, as "sip:alice@example.com": scheme
// sip, host lower-cased and mapped to one of our domains, no port, password,
// parameters or headers, the user unescaped as far as its meaning allows and
// its case kept (RFC 3261 10.3 step 5). Two spellings of one user are one
// AoR. ParseAoR alone makes them.
type AoR string

// Errors of ParseAoR.
var (
	// ErrBadURI is a URI that is malformed or cannot be an address-of-record.
	ErrBadURI = errors.New("malformed URI")
	// ErrForeignDomain is a URI of a domain that we do not serve.
	ErrForeignDomain = errors.New("foreign domain")
)

// User is the user of an AoR with its escapes, "" for the AoR of a domain.
func (a AoR) User() string {
	user, _, found := strings.Cut(strings.TrimPrefix(string(a), "sip:"), "@")
	if !found {
		return ""
	}
	return user
}

// Domain is the domain of an AoR.
func (a AoR) Domain() string {
	rest := strings.TrimPrefix(string(a), "sip:")
	if _, host, found := strings.Cut(rest, "@"); found {
		return host
	}
	return rest
}

// ParseAoR makes the canonical form of a sip, sips or tel URI.
//
// A telephone number loses its visual separators (RFC 3966 3) where it is
// surely one: in a tel URI, as a global number, and with user=phone and a
// phone-context. A tel URI lives in the default domain, unless it is a local
// number whose phone-context is one of our domains; another phone-context
// stays part of the user, for without it the number means nothing.
//
// The error is ErrBadURI or ErrForeignDomain.
func ParseAoR(s string, d *Domains) (AoR, error) {
	if isCanonical(s, d) {
		return AoR(s), nil
	}
	return parseAoR(s, d)
}

func parseAoR(s string, d *Domains) (AoR, error) {
	if scheme, rest, ok := strings.Cut(s, ":"); ok && strings.EqualFold(scheme, "tel") {
		number, ok := parseNumber(rest, true)
		if !ok {
			return "", fmt.Errorf("%w: telephone number", ErrBadURI)
		}
		return number.aor(d, d.Default()), nil
	}
	u, ok := parseURI(s)
	if !ok {
		return "", ErrBadURI
	}
	domain, ok := d.Canonical(u.host)
	if !ok {
		return "", ErrForeignDomain
	}
	phone := false
	if v, ok := param(u.params, "user"); ok && strings.EqualFold(v, "phone") {
		phone = true
	}
	if !u.hasUser {
		if phone {
			return "", fmt.Errorf("%w: user=phone without a user", ErrBadURI)
		}
		return AoR("sip:" + domain), nil
	}
	// A local number is left alone: "10-20" with user=phone is the user that
	// "10-20" without it is.
	if phone || u.user[0] == '+' || u.user[0] == '%' {
		if number, ok := parseNumber(u.user, phone); ok && (number.global() || number.context != "") {
			return number.aor(d, domain), nil
		}
	}
	return AoR("sip:" + canonicalUser(u.user) + "@" + domain), nil
}

// isCanonical tells of nearly every AoR that is written as such that it is.
func isCanonical(s string, d *Domains) bool {
	rest, ok := strings.CutPrefix(s, "sip:")
	at := strings.IndexByte(rest, '@')
	if !ok || at <= 0 {
		return false
	}
	for i := range at {
		if c := rest[i]; !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	domain := rest[at+1:]
	return d.byHost[domain] == domain && domain != ""
}

// phoneNumber is a telephone-subscriber of RFC 3966 without what does not
// identify it.
type phoneNumber struct{ digits, context string }

func (n phoneNumber) global() bool { return n.digits[0] == '+' }

func (n phoneNumber) aor(d *Domains, domain string) AoR {
	user := n.digits
	if !n.global() && n.context != "" {
		if ours, ok := d.Canonical(n.context); ok {
			domain = ours
		} else {
			user += ";phone-context=" + n.context
		}
	}
	return AoR("sip:" + canonicalUser(user) + "@" + domain)
}

// parseNumber reads a telephone-subscriber (RFC 3966 3). Parameters that we do
// not understand are dropped, mandatory ones (m-...) make it unusable (5.4).
func parseNumber(s string, params bool) (phoneNumber, bool) {
	s, ok := unescape(s)
	if !ok {
		return phoneNumber{}, false
	}
	digits, rest, hasParams := strings.Cut(s, ";")
	if hasParams && !params {
		return phoneNumber{}, false
	}
	n := phoneNumber{}
	if n.digits, ok = stripSeparators(digits); !ok {
		return phoneNumber{}, false
	}
	for p := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(p, "=")
		name = strings.ToLower(name)
		switch {
		case strings.HasPrefix(name, "m-"):
			return phoneNumber{}, false
		case name != "phone-context":
		case strings.HasPrefix(value, "+"):
			if n.context, ok = stripSeparators(value); !ok {
				return phoneNumber{}, false
			}
		default:
			if n.context, ok = canonicalHost(value); !ok {
				return phoneNumber{}, false
			}
		}
	}
	return n, true
}

// stripSeparators checks a global or local number and removes the visual
// separators. Letters of a local number are hexadecimal digits, without case.
func stripSeparators(s string) (string, bool) {
	body := strings.TrimPrefix(s, "+")
	local := len(body) == len(s)
	b := make([]byte, 0, len(s))
	if !local {
		b = append(b, '+')
	}
	start := len(b)
	for i := 0; i < len(body); i++ {
		c := body[i]
		switch {
		case c == '-' || c == '.' || c == '(' || c == ')':
		case c >= '0' && c <= '9':
			b = append(b, c)
		case local && (c == '*' || c == '#'):
			b = append(b, c)
		case local && (c|0x20) >= 'a' && (c|0x20) <= 'f':
			b = append(b, c|0x20)
		default:
			return "", false
		}
	}
	return string(b), len(b) > start
}

// uri is a sip or sips URI, cut into components that share its memory.
type uri struct {
	secure               bool
	user, password       string
	hasUser, hasPassword bool
	host                 string
	port                 int // -1 if absent
	params, headers      string
}

// parseURI cuts a SIP or SIPS URI (RFC 3261 19.1.1, 25.1). It tolerates
// printable characters that should have been escaped, and refuses all that
// makes the components ambiguous.
func parseURI(s string) (uri, bool) {
	u := uri{port: -1}
	scheme, rest, found := strings.Cut(s, ":")
	if !found || !(strings.EqualFold(scheme, "sip") || strings.EqualFold(scheme, "sips")) {
		return u, false
	}
	u.secure = len(scheme) == 4
	for i := 0; i < len(rest); i++ {
		if c := rest[i]; c <= ' ' || c >= 0x7f || c == '<' || c == '>' || c == '"' {
			return u, false
		}
	}
	// The user may hold ';' and '?', but never '@'.
	if info, after, found := strings.Cut(rest, "@"); found {
		u.user, u.password, u.hasPassword = strings.Cut(info, ":")
		u.hasUser, rest = true, after
		if u.user == "" || !validEscapes(info) {
			return u, false
		}
	}
	rest, u.headers, _ = strings.Cut(rest, "?")
	hostport, params, _ := strings.Cut(rest, ";")
	u.params = params
	if strings.IndexByte(rest, '@') >= 0 || !validEscapes(params) || !validEscapes(u.headers) {
		return u, false
	}
	return u, u.cutHostPort(hostport)
}

func (u *uri) cutHostPort(s string) bool {
	end := strings.IndexByte(s, ']') + 1
	colon := strings.IndexByte(s[end:], ':')
	u.host = s
	if colon >= 0 {
		u.host = s[:end+colon]
		digits := s[end+colon+1:]
		if len(digits) == 0 || len(digits) > 5 {
			return false
		}
		u.port = 0
		for i := 0; i < len(digits); i++ {
			if digits[i] < '0' || digits[i] > '9' {
				return false
			}
			u.port = u.port*10 + int(digits[i]-'0')
		}
		if u.port > 65535 {
			return false
		}
	}
	if strings.HasPrefix(u.host, "[") != (end > 0) {
		return false
	}
	return validHost(u.host)
}

// validHost is canonicalHost without its result, and free of allocation for names.
func validHost(h string) bool {
	if strings.IndexByte(h, ':') >= 0 || strings.HasPrefix(h, "[") {
		_, ok := canonicalHost(h)
		return ok
	}
	for i := 0; i < len(h); i++ {
		if !isHostByte(h[i]) || h[i] == '.' && (i == 0 || h[i-1] == '.') {
			return false
		}
	}
	return h != "" && len(h) <= 254
}

// param finds a URI parameter; names have no case.
func param(params, name string) (value string, found bool) {
	for params != "" {
		var p string
		p, params, _ = strings.Cut(params, ";")
		n, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// canonicalUser unescapes a user and escapes again what cannot stand in one,
// so that '@' and the like stay safe and each user has one spelling. The input
// has valid escapes.
func canonicalUser(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = isUserByte(s[i])
	}
	if plain {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		if isUserByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// isUserByte: unreserved and user-unreserved of RFC 3261 25.1.
func isUserByte(c byte) bool {
	return isAlnum(c) || strings.IndexByte("-_.!~*'()&=+$,;?/", c) >= 0
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || (c|0x20) >= 'a' && (c|0x20) <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20 - 'a') + 10
}

// validEscapes tells whether every '%' has its two hexadecimal digits.
func validEscapes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return false
		}
	}
	return true
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	if !validEscapes(s) {
		return "", false
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}
