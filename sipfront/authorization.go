package sipfront

import (
	"errors"
	"strings"

	"hereis/sipfront/credentials"
)

// authorization is the value of an Authorization or Proxy-Authorization header
// field of scheme Digest (RFC 3261 20.7, RFC 7616 3.4), unquoted.
type authorization struct {
	username, realm, nonce, uri, response string
	cnonce, nc, qop                       string
	algorithm                             credentials.Algorithm
	// usable: nothing in it is an extension that we do not speak.
	usable bool
}

// errAuthorization is a Digest header field that is malformed.
var errAuthorization = errors.New("malformed credentials")

// parseAuthorization reads credentials. ok is false if they are of another
// scheme than Digest, which are none of our business.
func parseAuthorization(value string) (a authorization, ok bool, err error) {
	scheme, rest, _ := cutSpace(value)
	if !strings.EqualFold(scheme, "Digest") {
		return a, false, nil
	}
	a.usable = true
	seen := map[string]bool{}
	err = eachAuthParam(rest, func(name, value string) error {
		if seen[name] {
			// Which of two counts is what attackers would like to choose.
			return errAuthorization
		}
		seen[name] = true
		a.take(name, value)
		return nil
	})
	for _, name := range [...]string{"username", "realm", "nonce", "uri", "response"} {
		if !seen[name] {
			return a, true, errAuthorization
		}
	}
	return a, true, err
}

func (a *authorization) take(name, value string) {
	switch name {
	case "username":
		a.username = value
	case "realm":
		a.realm = value
	case "nonce":
		a.nonce = value
	case "uri":
		a.uri = value
	case "response":
		a.response = value
	case "cnonce":
		a.cnonce = value
	case "nc":
		a.nc = value
	case "qop":
		a.qop = lower(value)
	case "algorithm":
		var err error
		if a.algorithm, err = credentials.ParseAlgorithm(value); err != nil {
			a.usable = false
		}
	case "userhash":
		a.usable = a.usable && !strings.EqualFold(value, "true")
	case "username*":
		a.usable = false
	}
}

// eachAuthParam calls f for each name=value of a list, with the name in lower
// case and the value unquoted. A comma in quotes is part of a value; quotes
// around what is a token elsewhere are borne with.
func eachAuthParam(s string, f func(name, value string) error) error {
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return nil
		}
		eq := strings.IndexByte(s, '=')
		if eq < 0 {
			return errAuthorization
		}
		name := lower(strings.TrimRight(s[:eq], " \t"))
		if !isToken(name) {
			return errAuthorization
		}
		s = strings.TrimLeft(s[eq+1:], " \t")
		end, err := authValueEnd(s)
		if err != nil {
			return err
		}
		if err := f(name, unquote(strings.TrimRight(s[:end], " \t"))); err != nil {
			return err
		}
		s = s[end:]
	}
}

// authValueEnd is where the value at the beginning of s ends: at a comma or the end.
func authValueEnd(s string) (int, error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, ',')
		if end < 0 {
			end = len(s)
		}
		if v := strings.TrimRight(s[:end], " \t"); v == "" || strings.ContainsAny(v, "\" \t") {
			return 0, errAuthorization
		}
		return end, nil
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			end := i + 1
			for end < len(s) && (s[end] == ' ' || s[end] == '\t') {
				end++
			}
			if end < len(s) && s[end] != ',' {
				return 0, errAuthorization
			}
			return end, nil
		}
	}
	return 0, errAuthorization
}
