package sipfront

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// errURI says that a text is no URI that the core can route by.
var errURI = errors.New("malformed URI")

// uri is a SIP URI split where routing needs it (RFC 3261 19.1.1). Its parts
// are slices of text, as written, but for scheme and host in lower case; so
// what is passed on is what came in. Other schemes keep their rest in opaque.
type uri struct {
	text   string
	scheme string
	// user has a password with it, escapes kept.
	user string
	// host is without the brackets of an IPv6 reference.
	host string
	// port is 0 if the URI has none.
	port    uint16
	params  string
	headers string
	opaque  string
}

// parseURI splits a URI. Any scheme is taken; sip and sips must be well-formed.
func parseURI(text string) (uri, error) {
	u := uri{text: text}
	for i := 0; i < len(text); i++ {
		if c := text[i]; c <= ' ' || c == 0x7f || c == '<' || c == '>' || c == '"' {
			return u, errURI
		}
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || !isToken(scheme) {
		return u, errURI
	}
	u.scheme = lower(scheme)
	if u.scheme != "sip" && u.scheme != "sips" {
		if rest == "" {
			return u, errURI
		}
		u.opaque = rest
		return u, nil
	}
	if at := strings.IndexByte(rest, '@'); at >= 0 {
		u.user, rest = rest[:at], rest[at+1:]
		if u.user == "" || strings.IndexByte(rest, '@') >= 0 {
			return u, errURI
		}
	}
	rest, u.headers, _ = strings.Cut(rest, "?")
	rest, u.params, _ = strings.Cut(rest, ";")
	if strings.HasPrefix(rest, "[") && strings.Contains(rest, ":::") {
		return u.mended(rest)
	}
	return u, u.parseHostPort(rest)
}

// mended is a URI whose IPv6 reference has the colon too many that RFC 3261's
// grammar puts before an IPv4 part: it goes on without (RFC 5118 4.10).
func (u *uri) mended(hostPort string) (uri, error) {
	at := len(u.scheme) + 1
	if u.user != "" {
		at += len(u.user) + 1
	}
	good := strings.Replace(hostPort, ":::", "::", 1)
	if strings.Contains(good, ":::") {
		return *u, errURI
	}
	return parseURI(u.text[:at] + good + u.text[at+len(hostPort):])
}

func (u *uri) parseHostPort(s string) error {
	var err error
	u.host, u.port, err = parseHostPort(s)
	return err
}

// parseHostPort reads host [":" port] of a URI or of a Via's sent-by. The host
// comes back in lower case, an IPv6 reference without its brackets.
func parseHostPort(s string) (host string, port uint16, err error) {
	if strings.HasPrefix(s, "[") {
		var ok bool
		if host, s, ok = strings.Cut(s[1:], "]"); !ok {
			return "", 0, errURI
		}
		host = strings.Replace(host, ":::", "::", 1) // RFC 5118 4.10
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" {
			return "", 0, errURI
		}
		if s != "" && s[0] != ':' {
			return "", 0, errURI
		}
	} else {
		end := strings.IndexByte(s, ':')
		if end < 0 {
			end = len(s)
		}
		host, s = s[:end], s[end:]
		if !isHost(host) {
			return "", 0, errURI
		}
	}
	host = lower(host)
	if s == "" {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	if err != nil || n == 0 || s[1] == '+' {
		return "", 0, errURI
	}
	return host, uint16(n), nil
}

// param returns a URI parameter; names are matched whatever their case.
func (u *uri) param(name string) (value string, ok bool) { return param(u.params, name) }

// addr returns the host as an address, if it is one.
func (u *uri) addr() (netip.Addr, bool) {
	if isName(u.host) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(u.host)
	return a.Unmap(), err == nil
}

// isName tells that a host is surely no address: an IPv4 one ends with a digit, an
// IPv6 one has a colon. It spares the error.
func isName(host string) bool {
	return host == "" || (host[len(host)-1] < '0' || host[len(host)-1] > '9') && strings.IndexByte(host, ':') < 0
}

// transportOr returns the transport that the URI asks for, or def.
func (u *uri) transportOr(def string) string {
	t, ok := u.param("transport")
	if !ok || t == "" {
		if u.scheme == "sips" {
			return "tls"
		}
		return def
	}
	t = lower(t)
	if u.scheme == "sips" {
		switch t {
		case "tcp", "udp":
			return "tls"
		case "ws":
			return "wss"
		}
	}
	return t
}

// without returns the URI with some parameters and, if port is set, the port taken away.
func (u *uri) without(port bool, names ...string) uri {
	var b strings.Builder
	b.WriteString(u.scheme + ":")
	if u.user != "" {
		b.WriteString(u.user + "@")
	}
	b.WriteString(bracket(u.host))
	if u.port != 0 && !port {
		b.WriteString(":" + strconv.Itoa(int(u.port)))
	}
	eachParam(u.params, func(name, _, whole string) bool {
		for _, n := range names {
			if strings.EqualFold(n, name) {
				return true
			}
		}
		b.WriteString(";" + whole)
		return true
	})
	if u.headers != "" {
		b.WriteString("?" + u.headers)
	}
	v, err := parseURI(b.String())
	if err != nil {
		return *u
	}
	return v
}

// eachParam calls f for each parameter of ";a=b;c" or "a=b;c", with the value
// unquoted and the whole text, until f returns false. A ';' in quotes is part of the value.
func eachParam(params string, f func(name, value, whole string) bool) {
	for params != "" {
		if params[0] == ';' || params[0] == ' ' || params[0] == '\t' {
			params = params[1:]
			continue
		}
		end := indexUnquoted(params, ';')
		whole := trimRight(params[:end])
		params = params[end:]
		name, value, _ := strings.Cut(whole, "=")
		if !f(trimRight(name), unquote(trimLeft(value)), whole) {
			return
		}
	}
}

// param looks up one of a list of parameters, whatever the case of its name.
func param(params, name string) (value string, ok bool) {
	eachParam(params, func(n, v, _ string) bool {
		if strings.EqualFold(n, name) {
			value, ok = v, true
			return false
		}
		return true
	})
	return value, ok
}

// indexUnquoted is the place of the first c outside of quotes, or len(s).
func indexUnquoted(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == c && !quoted:
			return i
		}
	}
	return len(s)
}

// unquote takes the quotes and escapes off a quoted-string; all else comes back as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// bracket writes a host as it stands in a URI or Via.
func bracket(host string) string {
	if strings.IndexByte(host, ':') >= 0 {
		return "[" + host + "]"
	}
	return host
}

func isHost(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// isToken is RFC 3261 25.1, token.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && strings.IndexByte("-.!%*_+`'~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// lower is strings.ToLower for ASCII, without a copy if there is nothing to do.
func lower(s string) string {
	if s == "UDP" {
		return "udp" // as nearly every Via has it
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
