package transport

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

var errURI = errors.New("malformed URI")

// ParseURI reads a URI (RFC 3261 19.1.1 for sip and sips, any other scheme as
// opaque text) into u. Parameter names are lower-cased. It is stricter than
// sip.ParseUri (one '@', a port that exists, a host) and, unlike it, keeps a
// valueless parameter before '?' intact.
func ParseURI(s string, u *sip.Uri) error {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !isScheme(scheme) || rest == "" || strings.ContainsAny(s, " \t\r\n<>\"") {
		return errURI
	}
	*u = sip.Uri{Scheme: strings.ToLower(scheme)}
	if u.Scheme != "sip" && u.Scheme != "sips" {
		return opaqueURI(s, rest, u)
	}
	if at := strings.IndexByte(rest, '@'); at >= 0 {
		u.User, u.Password, _ = strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
		if u.User == "" || strings.IndexByte(rest, '@') >= 0 {
			return errURI
		}
	}
	end := strings.IndexAny(rest, ";?")
	if end < 0 {
		end = len(rest)
	}
	if err := hostPort(rest[:end], &u.Host, &u.Port); err != nil {
		return err
	}
	rest = rest[end:]
	if strings.HasPrefix(rest, ";") {
		params, _, _ := strings.Cut(rest[1:], "?")
		if err := uriParams(params, ";", true, &u.UriParams); err != nil {
			return err
		}
		rest = rest[1+len(params):]
	}
	if strings.HasPrefix(rest, "?") {
		return uriParams(rest[1:], "&", false, &u.Headers)
	}
	return nil
}

// opaqueURI keeps what follows an unknown scheme. sip.ParseUri alone can fill
// the opaque part, but refuses the schemes that hold a digit, '+', '-' or '.'.
func opaqueURI(s, rest string, u *sip.Uri) error {
	if sip.ParseUri(s, u) != nil {
		*u = sip.Uri{Scheme: u.Scheme, Host: strings.TrimPrefix(rest, "//"), HierarhicalSlashes: strings.HasPrefix(rest, "//")}
	}
	return nil
}

func isScheme(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if c >= 'a' && c <= 'z' {
			continue
		}
		c = s[i]
		if i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return s != ""
}

// hostPort reads RFC 3261's hostport. An IPv6 reference keeps its brackets, as
// the URI model wants it.
func hostPort(s string, host *string, port *int) error {
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']')
		if i < 0 {
			return errURI
		}
		// RFC 5118 4.10: RFC 3261's grammar has a colon too many before an IPv4 part.
		*host, s = strings.Replace(s[:i+1], ":::", "::", 1), s[i+1:]
		if !isIPv6((*host)[1 : len(*host)-1]) {
			return errURI
		}
	} else {
		i := strings.IndexByte(s, ':')
		if i < 0 {
			i = len(s)
		}
		if !isHostname(s[:i]) {
			return errURI
		}
		*host, s = s[:i], s[i:]
	}
	if s == "" {
		return nil
	}
	if s[0] != ':' {
		return errURI
	}
	return parsePort(s[1:], port)
}

func parsePort(s string, port *int) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return errURI
	}
	*port = int(n)
	return nil
}

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// isHostname is liberal: an underscore is no letter of a host, but seen in the wild.
func isHostname(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

// uriParams reads uri-parameters or headers. RFC 3261 19.1.1: a parameter name
// does not appear twice; a header name may.
func uriParams(s, sep string, params bool, out *sip.HeaderParams) error {
	list := make(sip.HeaderParams, 0, strings.Count(s, sep)+1)
	for more := true; more; {
		var one string
		one, s, more = strings.Cut(s, sep)
		k, v, _ := strings.Cut(one, "=")
		if k == "" {
			return errURI
		}
		if params {
			k = strings.ToLower(k)
			if list.Has(k) {
				return errURI
			}
		}
		list = append(list, sip.HeaderKV{K: k, V: v})
	}
	*out = list
	return nil
}
