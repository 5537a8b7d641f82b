package transport

import "strings"

// name returns the full name of a header in its usual capitals (RFC 3261 7.3.3
// and the registry's compact forms), or the name as it came.
func (p *Parser) name(s string) string {
	if full, ok := p.names[s]; ok {
		return full
	}
	if full, ok := p.names[strings.ToLower(s)]; ok {
		return full
	}
	return s
}

// headerNames maps the usual spelling, the lower-case one and the compact form to the usual one.
func headerNames() map[string]string {
	m := map[string]string{
		"a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
		"e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
		"l": "Content-Length", "m": "Contact", "n": "Identity-Info", "o": "Event", "r": "Refer-To",
		"s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
	}
	for _, full := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Authentication-Info",
		"Authorization", "CSeq", "Call-Info", "Content-Disposition", "Content-Language", "Date",
		"Error-Info", "Expires", "Flow-Timer", "Geolocation", "History-Info", "In-Reply-To", "Join",
		"MIME-Version", "Max-Breadth", "Max-Forwards", "Min-Expires", "Min-SE", "Organization",
		"P-Access-Network-Info", "P-Asserted-Identity", "P-Preferred-Identity", "Path", "Priority",
		"Privacy", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
		"Proxy-Require", "RAck", "RSeq", "Reason", "Record-Route", "Refer-Sub", "Replaces", "Reply-To",
		"Require", "Retry-After", "Route", "SIP-ETag", "SIP-If-Match", "Server", "Service-Route",
		"Subscription-State", "Target-Dialog", "Timestamp", "Unsupported", "User-Agent",
		"WWW-Authenticate", "Warning",
	} {
		m[full] = full
	}
	full := make([]string, 0, len(m))
	for _, name := range m {
		full = append(full, name)
	}
	for _, name := range full {
		m[name] = name
		m[strings.ToLower(name)] = name
	}
	return m
}
