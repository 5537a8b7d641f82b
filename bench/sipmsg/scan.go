package sipmsg

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
)

// Errors of Scan: what is wrong with a datagram.
var (
	ErrStartLine     = errors.New("malformed start line")
	ErrHeaderLine    = errors.New("malformed header line")
	ErrUnterminated  = errors.New("no empty line after the header fields")
	ErrContentLength = errors.New("content-length is malformed or longer than the body")
)

// Header is one header line, unfolded and trimmed; both parts point into the scanned bytes.
type Header struct{ Name, Value []byte }

// Message is a scanned request or response. Its parts point into the bytes
// given to Scan; a Message may be scanned into again and again.
type Message struct {
	// Status is 100 to 699, or 0 for a request.
	Status int
	Reason []byte
	// Method and URI are a request's.
	Method, URI []byte
	Headers     []Header
	Body        []byte
}

// Scan reads one datagram. Folded lines are unfolded in place (RFC 3261 7.3.1);
// bytes after Content-Length are ignored (18.3).
func (m *Message) Scan(b []byte) error {
	*m = Message{Headers: m.Headers[:0]}
	line, rest, ok := cutLine(b)
	if !ok {
		return ErrUnterminated
	}
	if err := m.startLine(line); err != nil {
		return err
	}
	rest, err := m.headerLines(rest)
	if err != nil {
		return err
	}
	m.Body = rest
	if v := m.Get("Content-Length"); v != nil {
		n, err := strconv.ParseUint(string(v), 10, 31)
		if err != nil || int(n) > len(rest) {
			return ErrContentLength
		}
		m.Body = rest[:n]
	}
	return nil
}

func (m *Message) startLine(line []byte) error {
	first, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(first) == 0 {
		return ErrStartLine
	}
	second, third, ok := bytes.Cut(rest, []byte{' '})
	if string(first) == "SIP/2.0" {
		status, err := strconv.Atoi(string(second))
		if err != nil || len(second) != 3 || status < 100 || status > 699 {
			return ErrStartLine
		}
		m.Status, m.Reason = status, third
		return nil
	}
	if !ok || string(third) != "SIP/2.0" || len(second) == 0 {
		return ErrStartLine
	}
	m.Method, m.URI = first, second
	return nil
}

func (m *Message) headerLines(b []byte) (body []byte, err error) {
	for {
		line, rest, ok := cutLine(b)
		if !ok {
			return nil, ErrUnterminated
		}
		if len(line) == 0 {
			return rest, nil
		}
		for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			if line, rest, ok = unfold(b, len(b)-len(rest)); !ok {
				return nil, ErrUnterminated
			}
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		name = bytes.TrimRight(name, " \t")
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return nil, ErrHeaderLine
		}
		m.Headers = append(m.Headers, Header{Name: name, Value: bytes.Trim(value, " \t")})
		b = rest
	}
}

// unfold blanks the line break that ends at b[end] and cuts b's first line anew.
func unfold(b []byte, end int) (line, rest []byte, ok bool) {
	for i := end - 1; i >= 0 && (b[i] == '\r' || b[i] == '\n'); i-- {
		b[i] = ' '
	}
	return cutLine(b)
}

// cutLine cuts b after its first line break, CRLF or (leniently) a bare LF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, false
	}
	return bytes.TrimSuffix(b[:i], []byte{'\r'}), b[i+1:], true
}

// compact has the short form of the header names that Get is asked for (RFC 3261 7.3.3).
func compact(name string) byte {
	switch name {
	case "Via":
		return 'v'
	case "From":
		return 'f'
	case "To":
		return 't'
	case "Call-ID":
		return 'i'
	case "Contact":
		return 'm'
	case "Content-Length":
		return 'l'
	}
	return 0
}

func (h *Header) is(name string) bool {
	if len(h.Name) == 1 {
		c := compact(name)
		return c != 0 && h.Name[0]|0x20 == c
	}
	return len(h.Name) == len(name) && bytes.EqualFold(h.Name, []byte(name))
}

// Get is the value of the first header line of that (long) name, nil if there is none.
func (m *Message) Get(name string) []byte {
	for i := range m.Headers {
		if m.Headers[i].is(name) {
			return m.Headers[i].Value
		}
	}
	return nil
}

// Lines calls f for each header line of that name.
func (m *Message) Lines(name string, f func(value []byte)) {
	for i := range m.Headers {
		if m.Headers[i].is(name) {
			f(m.Headers[i].Value)
		}
	}
}

// Values calls f for each comma-separated value of the lines of that name.
func (m *Message) Values(name string, f func(value []byte)) {
	m.Lines(name, func(v []byte) {
		for len(v) > 0 {
			n := listEnd(v)
			if one := bytes.Trim(v[:n], " \t"); len(one) > 0 {
				f(one)
			}
			v = v[min(n+1, len(v)):]
		}
	})
}

// Count is the number of values of that name.
func (m *Message) Count(name string) (n int) {
	m.Values(name, func([]byte) { n++ })
	return n
}

// listEnd finds the first comma outside quotes and angle brackets.
func listEnd(v []byte) int {
	quoted, angle := false, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			return i
		}
	}
	return len(v)
}

// CSeq is the number and method of the CSeq header.
func (m *Message) CSeq() (n uint32, method []byte, ok bool) {
	num, method, ok := bytes.Cut(m.Get("CSeq"), []byte{' '})
	u, err := strconv.ParseUint(string(num), 10, 31)
	return uint32(u), bytes.Trim(method, " \t"), ok && err == nil
}

// URI is the address in a name-addr or addr-spec, without brackets and, in the
// second form, without header parameters (RFC 3261 20.10).
func URI(value []byte) []byte {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			end := bytes.IndexByte(value[i:], '>')
			if end < 0 {
				return nil
			}
			return value[i+1 : i+end]
		}
	}
	if i := bytes.IndexByte(value, ';'); i >= 0 {
		value = value[:i]
	}
	return bytes.Trim(value, " \t")
}

// Param is a header parameter's value, behind the address if there is one; ok
// tells that the parameter is there, with or without a value.
func Param(value []byte, name string) (v []byte, ok bool) {
	if i := bytes.LastIndexByte(value, '>'); i >= 0 {
		value = value[i+1:]
	}
	for {
		_, rest, found := bytes.Cut(value, []byte{';'})
		if !found {
			return nil, false
		}
		one, _, _ := bytes.Cut(rest, []byte{';'})
		k, v, _ := bytes.Cut(one, []byte{'='})
		if bytes.EqualFold(bytes.Trim(k, " \t"), []byte(name)) {
			return bytes.Trim(v, " \t"), true
		}
		value = rest
	}
}

// AddrPort is the host and port of a URI whose host is an IP address; the port
// is 5060 if it has none. ok is false for a host name.
func AddrPort(uri []byte) (addr netip.AddrPort, ok bool) {
	_, rest, found := bytes.Cut(uri, []byte{':'})
	if !found {
		return addr, false
	}
	if i := bytes.IndexAny(rest, ";?"); i >= 0 {
		rest = rest[:i]
	}
	if i := bytes.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if addr, err := netip.ParseAddrPort(string(rest)); err == nil {
		return addr, true
	}
	ip, err := netip.ParseAddr(string(bytes.Trim(rest, "[]")))
	return netip.AddrPortFrom(ip, 5060), err == nil
}
