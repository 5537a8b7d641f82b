package sipfront

import "strings"

// header is one header field: its name, in the usual spelling if the core
// knows it, and its value, unfolded.
type header struct{ name, value string }

// canonicalName is the usual spelling of the names that the core knows, long
// and compact (RFC 3261 7.3.3, 20); others are kept as they are.
func canonicalName(name string) string {
	switch name {
	case "Via", "From", "To", "Call-ID", "CSeq", "Contact", "Max-Forwards", "Route", "Content-Length",
		"Record-Route", "Content-Type", "Supported", "Allow", "User-Agent", "Expires", "Path", "Server",
		"Accept", "Event", "Require", "Reason", "Session-Expires", "Min-SE", "Date", "Subject", markHeader:
		return name
	}
	var room [24]byte
	if len(name) > len(room) {
		return name
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		room[i] = c
	}
	switch string(room[:len(name)]) { // which is no copy
	case "via", "v":
		return "Via"
	case "from", "f":
		return "From"
	case "to", "t":
		return "To"
	case "call-id", "i":
		return "Call-ID"
	case "cseq":
		return "CSeq"
	case "contact", "m":
		return "Contact"
	case "max-forwards":
		return "Max-Forwards"
	case "route":
		return "Route"
	case "max-breadth":
		return "Max-Breadth"
	case "record-route":
		return "Record-Route"
	case "content-length", "l":
		return "Content-Length"
	case "content-type", "c":
		return "Content-Type"
	case "supported", "k":
		return "Supported"
	case "require":
		return "Require"
	case "proxy-require":
		return "Proxy-Require"
	case "expires":
		return "Expires"
	case "path":
		return "Path"
	case "event", "o":
		return "Event"
	case "accept":
		return "Accept"
	case "sip-if-match":
		return "SIP-If-Match"
	case "retry-after":
		return "Retry-After"
	case "user-agent":
		return "User-Agent"
	case "reason":
		return "Reason"
	case "timestamp":
		return "Timestamp"
	case "www-authenticate":
		return "WWW-Authenticate"
	case "proxy-authenticate":
		return "Proxy-Authenticate"
	case "authorization":
		return "Authorization"
	case "proxy-authorization":
		return "Proxy-Authorization"
	case "x-hereis-mark":
		return markHeader
	}
	return name
}

// splitValues appends the comma-separated values of a list header to vs. A
// comma in quotes or angle brackets is part of a value.
func splitValues(vs []string, value string) []string {
	eachValue(value, func(v string) bool {
		vs = append(vs, v)
		return true
	})
	return vs
}

// eachValue calls f for each value of a list header that is not empty, until f
// returns false.
func eachValue(value string, f func(v string) bool) {
	if strings.IndexByte(value, ',') < 0 {
		if v := strings.TrimSpace(value); v != "" {
			f(v)
		}
		return
	}
	quoted, depth, begin := false, false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			depth = true
		case c == '>':
			depth = false
		case c == ',' && !depth:
			if v := strings.TrimSpace(value[begin:i]); v != "" && !f(v) {
				return
			}
			begin = i + 1
		}
	}
	if v := strings.TrimSpace(value[begin:]); v != "" {
		f(v)
	}
}

// splitAddr cuts a name-addr or addr-spec (RFC 3261 20.10) into the URI and
// the header parameters behind it. Without angle brackets all parameters are
// the header's.
func splitAddr(v string) (target, params string, ok bool) {
	open := indexUnquoted(v, '<')
	if open == len(v) {
		v = strings.TrimSpace(v)
		end := strings.IndexAny(v, "; \t")
		if end < 0 {
			end = len(v)
		}
		// A URI with a '?' or ',' must stand in angle brackets.
		if end == 0 || strings.ContainsAny(v[:end], "\",?") {
			return "", "", false
		}
		return v[:end], trimLeft(v[end:]), goodTail(v[end:])
	}
	end := strings.IndexByte(v[open:], '>')
	if end < 0 {
		return "", "", false
	}
	tail := v[open+end+1:]
	return strings.TrimSpace(v[open+1 : open+end]), trimLeft(tail), goodTail(tail)
}

// goodTail tells whether what follows an address is empty or begins a parameter.
func goodTail(s string) bool {
	s = trimLeft(s)
	return s == "" || s[0] == ';'
}

// addrParams returns the header parameters of a name-addr.
func addrParams(v string) string {
	_, params, _ := splitAddr(v)
	return params
}
