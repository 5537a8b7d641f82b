package transport

import "strings"

// A proxy needs little of most messages: what transactions know them by. A plain
// one, as nearly all are, is read here in one pass over its lines, without the
// message model. What is in any way unusual is left to guard.go and parse.go, and
// nothing is taken here that they would refuse, nor read otherwise (FuzzScan).

// Head is what transactions know a message by.
type Head struct {
	// Method is of a request, and empty for a response; Status is of a response.
	Method string
	Status int
	// CSeqMethod is the method in CSeq.
	CSeqMethod string
	// Branch is the branch of the top Via, Host and Port are its sent-by, as it came
	// but for the brackets; Port is 0 if there is none. Network is its transport.
	Branch, Host, Network string
	Port                  int
	// RPort: the top Via asks for it (RFC 3581).
	RPort bool
	// ToTag is the tag in To; InDialog: there is one, if only an empty one.
	ToTag    string
	InDialog bool
}

// Bounds of what is plain: parameters behind one URI or header value, and values
// of one line.
const (
	plainParams = 8
	plainValues = 8
)

// scanner reads a plain message.
type scanner struct {
	head   *Head
	limits *Limits
	seen   seen
	// values counts header values as Limits.Headers does.
	values int
	// length is of Content-Length.
	length uint32
}

// scans tells whether all that is plain is within the limits on parameters.
func (l *Limits) scans() bool { return l.Params >= 2*plainParams }

// scan reads a message that is alone in text; false: it is not plain, and h of no use.
func (p *Parser) scan(text string, h *Head) bool {
	if !p.limits.scans() {
		return false
	}
	s := scanner{head: h, limits: &p.limits}
	line, rest, ok := plainLine(text)
	if !ok || !s.start(line) {
		return false
	}
	for {
		if line, rest, ok = plainLine(rest); !ok || len(line) > p.limits.HeaderLine {
			return false
		}
		if line == "" {
			break
		}
		if !s.line(line) {
			return false
		}
	}
	const all = seenVia | seenFrom | seenTo | seenCallID | seenCSeq | seenContentLength
	return s.seen&all == all && int(s.length) == len(rest) && len(rest) <= p.limits.Body &&
		(h.Method == "" || h.CSeqMethod == h.Method)
}

// plainLine takes off a line that ends as it should, and has no other CR or LF.
func plainLine(text string) (line, rest string, ok bool) {
	i := strings.IndexByte(text, '\n')
	if i < 1 || text[i-1] != '\r' || strings.IndexByte(text[:i-1], '\r') >= 0 {
		return "", "", false
	}
	return text[:i-1], text[i+1:], true
}

// start reads the start line. CANCEL is no request of its own.
func (s *scanner) start(line string) bool {
	const version = "SIP/2.0"
	if strings.HasPrefix(line, version+" ") {
		rest := line[len(version)+1:]
		if len(rest) < 4 || rest[3] != ' ' {
			return false
		}
		n, err := parseNumber(rest[:3], 699)
		s.head.Status = int(n)
		return err == nil && n >= 100
	}
	method, rest, _ := strings.Cut(line, " ")
	target, after, _ := strings.Cut(rest, " ")
	s.head.Method = method
	return isToken(method) && method != "CANCEL" && after == version && plainURI(target)
}

// line reads a header line.
func (s *scanner) line(line string) bool {
	colon := strings.IndexByte(line, ':')
	if colon < 1 || isLWS(line[0]) {
		return false
	}
	name, value := line[:colon], trimLWS(line[colon+1:])
	s.values++
	if s.values > s.limits.Headers {
		return false
	}
	switch name {
	case "Via":
		return s.via(value)
	case "From":
		return s.once(seenFrom) && plainNameAddr(value, nil)
	case "To":
		return s.once(seenTo) && plainNameAddr(value, func(name, value string) {
			if foldIs(name, "tag") {
				s.head.ToTag, s.head.InDialog = value, true
			}
		})
	case "Call-ID":
		return s.once(seenCallID) && value != "" && strings.IndexByte(value, ' ') < 0 && strings.IndexByte(value, '\t') < 0
	case "CSeq":
		return s.once(seenCSeq) && s.cseq(value)
	case "Max-Forwards":
		_, err := parseNumber(value, 255)
		return s.once(seenMaxForwards) && err == nil
	case "Content-Length":
		n, err := parseNumber(value, 1<<31-1)
		s.length = n
		return s.once(seenContentLength) && err == nil
	case "Contact":
		return value != "" && value[0] == '<' && strings.IndexByte(value, ',') < 0 && plainNameAddr(value, nil)
	case "Route", "Record-Route":
		return s.routes(value)
	case "Content-Type":
		return s.once(seenContentType) && s.text(value)
	case "Expires":
		return s.once(seenExpires) && s.text(value)
	case "Event":
		return s.once(seenEvent) && s.text(value)
	case "User-Agent", "Allow", "Supported", "Server", "Accept", "Subject":
		return s.text(value)
	}
	return !isRead(name) && isToken(name) && s.text(value)
}

func (s *scanner) once(bit seen) bool {
	was := s.seen
	s.seen |= bit
	return was&bit == 0
}

// text is a value that is passed on as it is: all that may be wrong with it is
// its number of parameters.
func (s *scanner) text(value string) bool {
	return len(value) <= s.limits.Params || strings.Count(value, ";") <= s.limits.Params
}

// isRead tells a name, other than as line spells it, that the parser looks into
// or that has its full name elsewhere: all of one letter are such.
func isRead(name string) bool {
	switch len(name) {
	case 1:
		return true
	case 2:
		return foldIs(name, "to")
	case 3:
		return foldIs(name, "via")
	case 4:
		return foldIs(name, "from") || foldIs(name, "cseq") || foldIs(name, "path")
	case 5:
		return foldIs(name, "route") || foldIs(name, "event")
	case 7:
		return foldIs(name, "call-id") || foldIs(name, "contact") || foldIs(name, "expires")
	case 11:
		return foldIs(name, "min-expires")
	case 12:
		return foldIs(name, "max-forwards") || foldIs(name, "content-type") || foldIs(name, "record-route")
	case 13:
		return foldIs(name, "service-route")
	case 14:
		return foldIs(name, "content-length")
	}
	return false
}

// foldIs tells whether s is lower, whatever the case of its letters.
func foldIs(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// via reads one Via value, of which the first is the top one.
func (s *scanner) via(value string) bool {
	const protocol = "SIP/2.0/"
	if !strings.HasPrefix(value, protocol) {
		return false
	}
	network, rest, _ := strings.Cut(value[len(protocol):], " ")
	end := strings.IndexByte(rest, ';')
	if end < 1 || !isToken(network) || rest[0] == '[' {
		return false
	}
	var host string
	var port int
	if hostPort(rest[:end], &host, &port) != nil {
		return false
	}
	top := s.seen&seenVia == 0
	s.seen |= seenVia
	h := s.head
	if top {
		h.Network, h.Host, h.Port = network, host, port
	}
	ok := readParams(rest[end:], func(name, value string) {
		if !top {
			return
		}
		if foldIs(name, "branch") {
			h.Branch = value
		} else if foldIs(name, "rport") {
			h.RPort = true
		}
	})
	// An older branch is not what a request is known by alone.
	return ok && (!top || h.Method == "" || len(h.Branch) > len(branchCookie) && h.Branch[:len(branchCookie)] == branchCookie)
}

// branchCookie begins every branch of RFC 3261 (8.1.1.7).
const branchCookie = "z9hG4bK"

func (s *scanner) cseq(value string) bool {
	number, method, _ := strings.Cut(value, " ")
	_, err := parseNumber(number, 1<<31-1)
	s.head.CSeqMethod = method
	return err == nil && isToken(method)
}

// routes reads the values of one Route or Record-Route line, which have no
// parameters but their URIs'.
func (s *scanner) routes(value string) bool {
	for n := 1; ; n++ {
		end := strings.IndexByte(value, '>')
		if end < 0 || value[0] != '<' || !plainURI(value[1:end]) || n > plainValues {
			return false
		}
		if value = value[end+1:]; value == "" {
			return true
		}
		if value[0] != ',' {
			return false
		}
		if value = trimLWS(value[1:]); value == "" {
			return false
		}
		if s.values++; s.values > s.limits.Headers {
			return false
		}
	}
}

// plainNameAddr reads a URI in angle brackets with header parameters, each of
// which f, if not nil, is given. Before it may stand a name: words, or in quotes.
func plainNameAddr(s string, f func(name, value string)) bool {
	open := strings.IndexByte(s, '<')
	if open < 0 || open > 0 && !plainDisplay(trimLWS(s[:open])) {
		return false
	}
	end := strings.IndexByte(s, '>')
	return end > open && plainURI(s[open+1:end]) && readParams(s[end+1:], f)
}

// plainDisplay is a name of token characters and spaces, in quotes or not.
func plainDisplay(s string) bool {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	for i := 0; i < len(s); i++ {
		if s[i] != ' ' && !isTokenChar(s[i]) {
			return false
		}
	}
	return true
}

// plainURI tells whether s is a sip or sips URI without password and headers.
func plainURI(s string) bool {
	switch {
	case strings.HasPrefix(s, "sip:"):
		s = s[4:]
	case strings.HasPrefix(s, "sips:"):
		s = s[5:]
	default:
		return false
	}
	if at := strings.IndexByte(s, '@'); at >= 0 {
		if !areOf(s[:at], userChar) {
			return false
		}
		s = s[at+1:]
	}
	params := ""
	if i := strings.IndexByte(s, ';'); i >= 0 {
		s, params = s[:i], s[i:]
	}
	var host string
	var port int
	return s != "" && s[0] != '[' && hostPort(s, &host, &port) == nil && readParams(params, nil)
}

// readParams reads parameters, each of which begins with its semicolon, and gives
// them to f, if not nil. There is no white space, and no name twice.
func readParams(s string, f func(name, value string)) bool {
	var names [plainParams]string
	for n := 0; s != ""; n++ {
		if s[0] != ';' || n == plainParams {
			return false
		}
		one := s[1:]
		if end := strings.IndexByte(one, ';'); end >= 0 {
			one = one[:end]
		}
		s = s[1+len(one):]
		name, value, more := strings.Cut(one, "=")
		if !isToken(name) || more && !areOf(value, valueChar) {
			return false
		}
		for _, other := range names[:n] {
			if len(other) == len(name) && strings.EqualFold(other, name) {
				return false
			}
		}
		names[n] = name
		if f != nil {
			f(name, value)
		}
	}
	return true
}

// trimLWS takes white space off both ends.
func trimLWS(s string) string {
	for s != "" && isLWS(s[0]) {
		s = s[1:]
	}
	for s != "" && isLWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// The characters that are plain in the user of a URI and in the value of a parameter.
const (
	userChar uint8 = 1 << iota
	valueChar
)

var plainChars = func() (t [256]uint8) {
	for c := range t {
		if isTokenChar(byte(c)) {
			t[c] = userChar | valueChar
		}
	}
	for _, c := range "&=$()" {
		t[c] |= userChar
	}
	for _, c := range "=/:[]&$()" {
		t[c] |= valueChar
	}
	return t
}()

// areOf tells whether s is one or more of such characters.
func areOf(s string, kind uint8) bool {
	for i := 0; i < len(s); i++ {
		if plainChars[s[i]]&kind == 0 {
			return false
		}
	}
	return s != ""
}
