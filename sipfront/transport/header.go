package transport

import (
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

var errHeader = errors.New("malformed header")

// parseVia reads one via-parm (RFC 3261 20.42) with LWS wherever the grammar has it.
func parseVia(s string, v *sip.ViaHeader) error {
	name, rest, ok1 := strings.Cut(s, "/")
	version, rest, ok2 := strings.Cut(rest, "/")
	v.ProtocolName, v.ProtocolVersion = strings.Trim(name, lws), strings.Trim(version, lws)
	rest = strings.TrimLeft(rest, lws)
	end := strings.IndexAny(rest, lws)
	if !ok1 || !ok2 || end <= 0 || !isToken(v.ProtocolName) || !isToken(v.ProtocolVersion) || !isToken(rest[:end]) {
		return errHeader
	}
	v.Transport = rest[:end]
	by, params, more := strings.Cut(rest[end:], ";")
	by = strings.Trim(by, lws)
	if i := strings.LastIndexByte(by, ':'); i > strings.LastIndexByte(by, ']') && strings.ContainsAny(by, lws) {
		// "host : 5060"; white space anywhere else is an error.
		by = strings.TrimRight(by[:i], lws) + ":" + strings.TrimLeft(by[i+1:], lws)
	}
	if hostPort(by, &v.Host, &v.Port) != nil {
		return errHeader
	}
	// The model keeps an IPv6 sent-by without its brackets and puts them back,
	// except around an IPv4-mapped one.
	if bare := unbracket(v.Host); !strings.HasPrefix(v.Host, "[") || !strings.Contains(bare, ".") {
		v.Host = bare
	}
	if !more {
		return nil
	}
	return parseParams(params, &v.Params)
}

func unbracket(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// parseNameAddr reads name-addr or addr-spec with header parameters (20.10,
// 20.20, 20.39). Without angle brackets everything after ';' is the header's,
// and '?' and ',' may not appear.
func parseNameAddr(s string, display *string, u *sip.Uri, params *sip.HeaderParams) error {
	if strings.HasPrefix(s, `"`) {
		end := quotedEnd(s)
		if end < 0 {
			return errHeader
		}
		*display, s = s[1:end-1], strings.TrimLeft(s[end:], lws)
		if !strings.HasPrefix(s, "<") {
			return errHeader
		}
	}
	open := strings.IndexByte(s, '<')
	if semi := strings.IndexByte(s, ';'); open < 0 || semi >= 0 && semi < open {
		return parseAddrSpec(s, u, params)
	}
	if open > 0 {
		name := strings.Trim(s[:open], lws)
		if strings.ContainsAny(name, "\"\\,;:<>@") {
			return errHeader
		}
		*display = name
	}
	end := strings.IndexByte(s, '>')
	if end < open {
		return errHeader
	}
	if err := ParseURI(s[open+1:end], u); err != nil {
		return err
	}
	s = strings.Trim(s[end+1:], lws)
	if s == "" {
		return nil
	}
	if s[0] != ';' {
		return errHeader
	}
	return parseParams(s[1:], params)
}

func parseAddrSpec(s string, u *sip.Uri, params *sip.HeaderParams) error {
	spec, rest, more := strings.Cut(s, ";")
	spec = strings.Trim(spec, lws)
	if strings.ContainsAny(spec, "?,") {
		return errHeader
	}
	if err := ParseURI(spec, u); err != nil || !more {
		return err
	}
	return parseParams(rest, params)
}

// parseParams reads generic-params: names to lower case, LWS around '=' and ';'
// away, no name twice (7.3.1). A quoted value keeps its quotes, unless it holds
// a space: there the model's writer adds them.
func parseParams(s string, out *sip.HeaderParams) error {
	list := make(sip.HeaderParams, 0, strings.Count(s, ";")+2)
	for {
		s = strings.TrimLeft(s, lws)
		end := 0
		for end < len(s) && isTokenChar(s[end]) {
			end++
		}
		if end == 0 {
			return errHeader
		}
		kv := sip.HeaderKV{K: strings.ToLower(s[:end])}
		s = strings.TrimLeft(s[end:], lws)
		if strings.HasPrefix(s, "=") {
			var err error
			if kv.V, s, err = paramValue(strings.TrimLeft(s[1:], lws)); err != nil {
				return err
			}
		}
		if list.Has(kv.K) {
			return errHeader
		}
		list = append(list, kv)
		if s == "" {
			*out = list
			return nil
		}
		if s[0] != ';' {
			return errHeader
		}
		s = s[1:]
	}
}

func paramValue(s string) (value, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		end := quotedEnd(s)
		if end < 0 {
			return "", "", errHeader
		}
		value = s[:end]
		if strings.ContainsAny(value, lws) {
			value = value[1 : end-1]
		}
		return value, strings.TrimLeft(s[end:], lws), nil
	}
	end := strings.IndexByte(s, ';')
	if end < 0 {
		end = len(s)
	}
	value = strings.TrimRight(s[:end], lws)
	if strings.ContainsAny(value, " \t\",<>") {
		return "", "", errHeader
	}
	return value, s[end:], nil
}

// quotedEnd returns the index after the quote that closes the one at s[0], or -1.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// parseCSeq reads 20.16; 8.1.1.5: the number is below 2**31.
func parseCSeq(s string, c *sip.CSeqHeader) error {
	i := strings.IndexAny(s, lws)
	if i < 0 {
		return errHeader
	}
	n, err := parseNumber(s[:i], 1<<31-1)
	method := strings.TrimLeft(s[i:], lws)
	if err != nil || !isToken(method) {
		return errHeader
	}
	c.SeqNo, c.MethodName = n, sip.RequestMethod(method)
	return nil
}

// parseNumber reads 1*DIGIT up to limit, without the sign that strconv admits elsewhere.
func parseNumber(s string, limit uint64) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > limit {
		return 0, errHeader
	}
	return uint32(n), nil
}
