package actors

import "strings"

// maxURIHeaders bounds the headers of a URI that are compared one by one; a
// URI with more is equal to itself alone.
const maxURIHeaders = 32

// EqualURI compares two URIs as RFC 3261 19.1.4 says; tel URIs by RFC 3966 4,
// others (and malformed ones) byte by byte. It is reflexive and symmetric; as
// the RFC notes it is not transitive, so it is never a map key.
func EqualURI(a, b string) bool {
	if a == b {
		return true
	}
	pa, pb := parseForEqual(a), parseForEqual(b)
	return pa.equal(&pb)
}

// comparedURI is a URI cut up once to be compared many times.
type comparedURI struct {
	raw   string
	uri   uri
	isSIP bool
}

func parseForEqual(s string) comparedURI {
	u, ok := parseURI(s)
	return comparedURI{raw: s, uri: u, isSIP: ok}
}

// equal is EqualURI. What differs most often is compared first.
func (a *comparedURI) equal(b *comparedURI) bool {
	if a.raw == b.raw {
		return true
	}
	if !a.isSIP || !b.isSIP {
		return !a.isSIP && !b.isSIP && equalTel(a.raw, b.raw)
	}
	ua, ub := &a.uri, &b.uri
	return ua.secure == ub.secure && ua.port == ub.port &&
		ua.hasUser == ub.hasUser && ua.hasPassword == ub.hasPassword &&
		equalHost(ua.host, ub.host) &&
		equalEscaped(ua.user, ub.user, false) &&
		equalEscaped(ua.password, ub.password, false) &&
		paramsMatch(ua.params, ub.params) && paramsMatch(ub.params, ua.params) &&
		equalHeaders(ua.headers, ub.headers)
}

// hostDiffers tells, for the price of a scan, that two URIs cannot be equal
// because their host names differ; false if that takes more to know. Most
// bindings of a user are told apart by it.
func hostDiffers(a []byte, b string) bool {
	ha, okA := hostName(a)
	hb, okB := hostName(b)
	if !okA || !okB {
		return false
	}
	if len(ha) != len(hb) {
		return true
	}
	for i := range len(ha) {
		if lower(uint16(ha[i])) != lower(uint16(hb[i])) {
			return true
		}
	}
	return false
}

// hostName cuts the host out of what looks like a SIP URI with a host name or
// an IPv4 address.
func hostName[T string | []byte](uri T) (T, bool) {
	if len(uri) < 5 || uri[0]|0x20 != 's' {
		return uri, false
	}
	start := 0
	for i := range len(uri) {
		if uri[i] == '@' {
			start = i + 1
			break
		}
		if uri[i] == ':' && start == 0 {
			start = i + 1
		}
	}
	end := start
	for end < len(uri) && uri[end] != ':' && uri[end] != ';' && uri[end] != '?' {
		end++
	}
	return uri[start:end], end > start && uri[start] != '['
}

// equalHost compares names without case and addresses by value.
func equalHost(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	if a[0] != '[' || b[0] != '[' {
		return false
	}
	ca, okA := canonicalHost(a)
	cb, okB := canonicalHost(b)
	return okA && okB && ca == cb
}

// paramsMatch checks the parameters of one URI against those of the other:
// what both have must match; user, ttl, method, maddr and transport may not be
// in one alone (the transport by the RFC's text on default values and its
// examples); all others may.
func paramsMatch(a, b string) bool {
	for a != "" {
		var p string
		p, a, _ = strings.Cut(a, ";")
		name, value, _ := strings.Cut(p, "=")
		other, found := param(b, name)
		if found && !equalEscaped(value, other, true) {
			return false
		}
		if !found && isDistinctive(name) {
			return false
		}
	}
	return true
}

func isDistinctive(name string) bool {
	switch len(name) {
	case 3:
		return strings.EqualFold(name, "ttl")
	case 4:
		return strings.EqualFold(name, "user")
	case 5:
		return strings.EqualFold(name, "maddr")
	case 6:
		return strings.EqualFold(name, "method")
	case 9:
		return strings.EqualFold(name, "transport")
	}
	return false
}

// equalHeaders: both have the same headers with matching values, in any order.
func equalHeaders(a, b string) bool {
	if a == b {
		return true
	}
	n := strings.Count(a, "&")
	if a == "" || b == "" || n != strings.Count(b, "&") || n >= maxURIHeaders {
		return false
	}
	// Equality of headers is transitive: equal counts of each are enough.
	for h := range strings.SplitSeq(a, "&") {
		if countHeader(a, h) != countHeader(b, h) {
			return false
		}
	}
	return true
}

func countHeader(headers, h string) (n int) {
	name, value, _ := strings.Cut(h, "=")
	for other := range strings.SplitSeq(headers, "&") {
		otherName, otherValue, _ := strings.Cut(other, "=")
		if strings.EqualFold(longName(name), longName(otherName)) &&
			equalEscaped(value, otherValue, !caseMatters(name)) {
			n++
		}
	}
	return n
}

// caseMatters names what is compared with case: a body, and Call-ID by RFC
// 3261 20.8; other field values have none unless stated (7.3.1).
func caseMatters(name string) bool {
	name = longName(name)
	return strings.EqualFold(name, "body") || strings.EqualFold(name, "Call-ID")
}

// longName expands the compact forms of RFC 3261 7.3.3.
func longName(name string) string {
	if len(name) != 1 {
		return name
	}
	switch name[0] | 0x20 {
	case 'c':
		return "Content-Type"
	case 'e':
		return "Content-Encoding"
	case 'f':
		return "From"
	case 'i':
		return "Call-ID"
	case 'k':
		return "Supported"
	case 'l':
		return "Content-Length"
	case 'm':
		return "Contact"
	case 's':
		return "Subject"
	case 't':
		return "To"
	case 'v':
		return "Via"
	}
	return name
}

// equalEscaped compares strings in which an escape equals the character that
// it stands for, except a reserved one (RFC 2396 2.2).
func equalEscaped(a, b string, fold bool) bool {
	if a == b {
		return true
	}
	for a != "" && b != "" {
		var ca, cb uint16
		ca, a = nextChar(a)
		cb, b = nextChar(b)
		if fold {
			ca, cb = lower(ca), lower(cb)
		}
		if ca != cb {
			return false
		}
	}
	return a == "" && b == ""
}

// escapedReserved marks a character that was escaped and is not the same unescaped.
const escapedReserved = 0x100

func nextChar(s string) (uint16, string) {
	c := s[0]
	if c != '%' || len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return uint16(c), s[1:]
	}
	c = unhex(s[1])<<4 | unhex(s[2])
	if strings.IndexByte(";/?:@&=+$,", c) >= 0 {
		return escapedReserved | uint16(c), s[3:]
	}
	// An escaped '%' is no '%': it never begins an escape.
	if c == '%' {
		return escapedReserved | uint16(c), s[3:]
	}
	return uint16(c), s[3:]
}

func lower(c uint16) uint16 {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// equalTel compares tel URIs; anything else is equal to its own bytes alone.
func equalTel(a, b string) bool {
	schemeA, restA, _ := strings.Cut(a, ":")
	schemeB, restB, _ := strings.Cut(b, ":")
	if !strings.EqualFold(schemeA, "tel") || !strings.EqualFold(schemeB, "tel") {
		return false
	}
	numberA, paramsA, _ := strings.Cut(restA, ";")
	numberB, paramsB, _ := strings.Cut(restB, ";")
	numberA, okA := stripSeparators(numberA)
	numberB, okB := stripSeparators(numberB)
	return okA && okB && numberA == numberB &&
		telParamsMatch(paramsA, paramsB) && telParamsMatch(paramsB, paramsA)
}

// telParamsMatch: RFC 3966 4 ignores no parameter.
func telParamsMatch(a, b string) bool {
	for a != "" {
		var p string
		p, a, _ = strings.Cut(a, ";")
		name, value, _ := strings.Cut(p, "=")
		other, found := param(b, name)
		if !found {
			return false
		}
		if na, ok := stripSeparators(value); ok && strings.EqualFold(name, "phone-context") {
			nb, okB := stripSeparators(other)
			if !okB || na != nb {
				return false
			}
			continue
		}
		if !strings.EqualFold(value, other) {
			return false
		}
	}
	return true
}
