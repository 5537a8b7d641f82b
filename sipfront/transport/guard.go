package transport

import (
	"bytes"
	"fmt"
	"strings"
)

// Limits bound one message before anything is built from it. What they stop is
// work out of proportion to the bytes sent: parameter lists are compared
// pairwise, headers are allocated one by one.
type Limits struct {
	// Datagram is the largest UDP message, in bytes; a larger request is answered 513.
	Datagram int
	// HeaderLine is the longest header line after unfolding, in bytes.
	HeaderLine int
	// Headers is the highest number of header values: a line with three Vias counts three.
	Headers int
	// Params is the highest number of ';' in one header value.
	Params int
	// Body is the largest body, in bytes; a request with a larger one is answered 513.
	Body int
}

// DefaultLimits are wide enough for RFC 4475 clause 3.1.1.7.
func DefaultLimits() Limits {
	return Limits{Datagram: 8 << 10, HeaderLine: 4 << 10, Headers: 128, Params: 64, Body: 64 << 10}
}

// Malformed says why a message was refused. Reason is one of a small fixed set:
// it is a metric's label, and never put into an answer beside the standard phrase.
type Malformed struct {
	// Status is what a request deserves: 400, 505 or 513.
	Status int
	Reason string
}

func (m *Malformed) Error() string { return fmt.Sprintf("malformed message: %s", m.Reason) }

func bad(reason string) *Malformed { return &Malformed{Status: 400, Reason: reason} }

// line is one header value under its full, usually capitalised name.
type line struct{ name, value string }

// head is a message cut into lines and not yet understood. After an error it
// holds what came before it: the answer to a broken request is made from that.
type head struct {
	start string
	lines []line
	body  []byte
	// shares: what is read is not changed any more, and the lines may be parts of it.
	shares bool
}

// request reports the method, if the start line is a Request-Line at all.
func (h *head) request() (method string, ok bool) {
	method, rest, found := strings.Cut(h.start, " ")
	if !found || !isToken(method) {
		return "", false
	}
	i := strings.LastIndex(strings.TrimRight(rest, " \t"), " ")
	return method, i >= 0 && hasPrefixFold(rest[i+1:], "SIP/")
}

// first returns the value of the first line of that name.
func (h *head) first(name string) (string, bool) {
	for i := range h.lines {
		if h.lines[i].name == name {
			return h.lines[i].value, true
		}
	}
	return "", false
}

// guard cuts raw into lines: it unfolds continuations (RFC 3261 7.3.1), expands
// compact names (7.3.3), puts each value of Via, Route, Record-Route, Contact,
// Path and Service-Route on a line of its own, and enforces the limits.
func (p *Parser) guard(raw []byte, h *head) *Malformed {
	// 7.5: CRLF before the start line is no part of the message.
	for len(raw) >= 2 && raw[0] == '\r' && raw[1] == '\n' {
		raw = raw[2:]
	}
	end := bytes.Index(raw, []byte("\r\n\r\n"))
	var fault *Malformed
	if end < 0 {
		// Read what there is: the sender may be told.
		end, fault = max(bytes.LastIndex(raw, []byte("\r\n")), 0), bad("no empty line")
	} else {
		h.body = raw[end+4:]
	}
	text := shared(raw[:end])
	if !h.shares {
		text = strings.Clone(text)
	}
	h.start, text, _ = strings.Cut(text, "\r\n")
	if h.start == "" || strings.ContainsAny(h.start, "\r\n") {
		return bad("start line")
	}
	if h.lines == nil {
		h.lines = make([]line, 0, 24)
	}
	for text != "" {
		var one string
		one, text = nextLine(text)
		if err := p.cut(one, h); err != nil {
			if fault == nil {
				fault = err
			}
			if err.Reason == reasonHeaders {
				break
			}
		}
	}
	return fault
}

const reasonHeaders = "too many headers"

// nextLine takes the first header line off text and unfolds it.
func nextLine(text string) (first, rest string) {
	first, rest, _ = strings.Cut(text, "\r\n")
	if rest == "" || !isLWS(rest[0]) {
		return first, rest
	}
	var b strings.Builder
	b.WriteString(strings.TrimRight(first, lws))
	for rest != "" && isLWS(rest[0]) {
		var more string
		more, rest, _ = strings.Cut(rest, "\r\n")
		b.WriteByte(' ')
		b.WriteString(strings.Trim(more, lws))
	}
	return b.String(), rest
}

// cut adds the values of one unfolded line to h.
func (p *Parser) cut(one string, h *head) *Malformed {
	if len(one) > p.limits.HeaderLine {
		return bad("header line too long")
	}
	if strings.ContainsAny(one, "\r\n") {
		return bad("lone CR or LF")
	}
	colon := strings.IndexByte(one, ':')
	if colon < 0 {
		return bad("header without colon")
	}
	name := strings.TrimRight(one[:colon], lws)
	if !isToken(name) {
		return bad("header name")
	}
	name = p.name(name)
	value := strings.Trim(one[colon+1:], lws)
	if !isList(name) {
		return p.add(h, name, value)
	}
	for {
		next, rest, more, ok := cutList(value)
		if !ok || next == "" {
			// Kept whole: the answer to the request copies it.
			h.lines = append(h.lines, line{name, value})
			return bad("list of " + name)
		}
		if err := p.add(h, name, next); err != nil {
			return err
		}
		if !more {
			return nil
		}
		value = rest
	}
}

func (p *Parser) add(h *head, name, value string) *Malformed {
	if len(h.lines) >= p.limits.Headers {
		return bad(reasonHeaders)
	}
	h.lines = append(h.lines, line{name, value})
	if strings.Count(value, ";") > p.limits.Params {
		return bad("too many parameters")
	}
	return nil
}

// isList tells the headers whose values are kept apart.
func isList(name string) bool {
	switch name {
	case "Via", "Route", "Record-Route", "Contact", "Path", "Service-Route":
		return true
	}
	return false
}

// cutList takes the first value off a comma-separated list. Commas inside
// quotes and angle brackets do not separate; ok is false when either is not closed.
func cutList(s string) (first, rest string, more, ok bool) {
	quoted, angled := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"' && !angled:
			quoted = true
		case c == '<':
			angled = true
		case c == '>':
			angled = false
		case c == ',' && !angled:
			return strings.TrimRight(s[:i], lws), strings.TrimLeft(s[i+1:], lws), true, true
		}
	}
	return s, "", false, !quoted && !angled
}

const lws = " \t"

func isLWS(c byte) bool { return c == ' ' || c == '\t' }

// isToken is RFC 3261 25.1's token.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenChar(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '-', '.', '!', '%', '*', '_', '+', '`', '\'', '~':
		return true
	}
	return false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
