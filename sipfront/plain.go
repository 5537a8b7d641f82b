package sipfront

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"hereis/messages"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// A REGISTER as phones send it by the thousand is read here in one pass, without
// the message model and without a transaction of the full kind. What is in any
// way unusual is left to the ordinary way, parse.go and message.go, whose
// decision this one must not differ from (FuzzPlain).

// plainLayer is what the transaction layer has for requests without a transaction of the full kind.
type plainLayer interface {
	Begin(p *transaction.Plain, text []byte, now time.Time) (transaction.Begun, transaction.Gist)
	Mark(branch, host string, port int, method string) uint64
	Knows(branch, host string, port int, method string) bool
	Pass(key string, invite bool, raw []byte, flow transport.Flow, answer func(status int)) transaction.Passed
	PassAnswered(key string, status int)
}

// plainHeaders is how many header fields a plain REGISTER has at most.
const plainHeaders = 16

// Plain takes in what need not be parsed: a plain REGISTER to a domain of ours,
// and what is passed on between a device of this node's and another node
// (passing.go). It returns false for everything else. It is a transport.Config's Plain.
func (s *Server) Plain(m *transport.Message) bool {
	switch {
	case s.plain == nil || s.debug:
		return false
	case !bytes.HasPrefix(m.Raw, []byte(plainStart)):
		return s.passes(m)
	case s.digest != nil:
		return false
	}
	return s.plainRegister(m)
}

// plainRegister answers a plain REGISTER; false: it is not plain.
func (s *Server) plainRegister(m *transport.Message) bool {
	x, ok := s.plains.Get().(*plain)
	if !ok {
		x = &plain{}
	}
	if x.room == nil {
		x.room = &plainRoom{}
	}
	r := &x.req
	x.room.text = append(x.room.text[:0], m.Raw...)
	x.text, r.headers, r.plain = textOf(x.room.text), x.headers[:0], x
	began := time.Now()
	begun, done := s.beginPlain(x, m, began)
	if !begun {
		s.release(r)
		m.Spent = done
		return done
	}
	s.count.requests.Add(1)
	x.take(m)
	m.Spent = true
	if wait, ok := s.enterRegister(m.Late, began); !ok {
		x.own.Withdraw()
		s.tellLater(x, m, s.told.tell(s.markOf(x), wait, began))
		return true
	}
	s.registerNow(&x.own, r, &x.plan, began)
	return true
}

// take gives the request what came with its text. The socket may use m's flow again.
func (x *plain) take(m *transport.Message) {
	flow := x.flow.Hold(m.Flow)
	x.own.Reply = flow
	x.msg = transport.Message{Flow: flow, Reply: flow, At: m.At, Late: m.Late}
	x.req.msg, x.req.at = &x.msg, m.At
	x.req.vias = append(x.vias[:0], x.stampedVia(m.Flow.Remote()))
}

// textOf is b as a string, without a copy.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// beginPlain reads a request and begins its transaction; if it has not begun, the
// request repeats one and is done with, or it is not plain, or not to be taken so.
func (s *Server) beginPlain(x *plain, m *transport.Message, now time.Time) (begun, done bool) {
	if !x.scan() || !x.rport && x.port() != m.Flow.Remote().Port() {
		return false, false
	}
	x.plan.target = x.req.target
	if s.planTarget(&x.plan) != nil || x.plan.way != wayNode {
		return false, false
	}
	if s.toldLater(x, m, now) {
		return false, true
	}
	x.own.Branch, x.own.Host, x.own.Port, x.own.Method = x.branch, x.host, int(x.sentPort), x.req.method
	switch found, gist := s.plain.Begin(&x.own, x.room.text, now); found {
	case transaction.BeginNew:
		if s.draining.Load() {
			x.own.Withdraw()
			return false, false
		}
		x.mark = x.own.Mark()
		return true, false
	case transaction.BeginAgain:
		s.answerAgain(x, m, gist)
		return false, true
	case transaction.BeginRepeat:
		return false, true
	}
	return false, false
}

// release gives back what a plain request stood in, after its answer; of others
// there is nothing to give back.
func (s *Server) release(r *request) {
	if x := r.plain; x != nil {
		if s.spoils {
			x.room.spoil()
		}
		*x = plain{room: x.room, then: x.then}
		s.plains.Put(x)
	}
}

const plainStart = "REGISTER sip:"

// plain is a REGISTER being scanned. What it finds shares text, which is room's.
type plain struct {
	text    string
	req     request
	plan    plan
	msg     transport.Message
	headers [plainHeaders]header
	vias    [1]string
	// answer has room for the fields of the answer.
	answer [6]header
	room   *plainRoom
	// own is its transaction, and flow what it came by.
	own  transaction.Plain
	flow transport.FlowRoom
	// began is of a REGISTER that is taken in at once, then is what answers it (atonce.go).
	began time.Time
	then  func(nowMS, expiresMS int64, err error)

	via, host, branch string
	// mark is what the layer knows it by (later.go); 0: it has not been asked.
	mark     uint64
	sentPort uint16
	rport    bool
	seen     uint
	// to and contact are the URIs of To and Contact.
	to, contact string
	userAgent   string
	// contactHost and contactParams are of contact.
	contactHost, contactParams string
	// fromHost: the Via names the host that the request came from.
	fromHost bool
	// expires is of the Expires header, contactExpires of the Contact; hasExpires
	// and contactHas tell whether there are any.
	expires, contactExpires uint32
	hasExpires, contactHas  bool
}

// plainRoom is the memory of a plain request, and of the question that it is. It
// is used again unless it was given away.
type plainRoom struct {
	text, via, remote []byte
	// answer is one that is not kept: a 503 (later.go), or a 200 (atonce.go).
	answer   []byte
	question messages.Register
	contacts [1]*messages.RegisterContact
	contact  messages.RegisterContact
	stamp    messages.Stamp
	pinned   messages.FlowID
}

// spoil overwrites what strings may still share.
func (r *plainRoom) spoil() {
	if r != nil {
		for _, b := range [][]byte{r.text, r.via, r.remote} {
			copy(b, bytes.Repeat([]byte{'?'}, len(b)))
		}
	}
}

// stampedVia is stampVia of the Via.
func (x *plain) stampedVia(from netip.AddrPort) string {
	if !from.IsValid() {
		return x.via
	}
	var room [64]byte
	addr := from.Addr().Unmap().AppendTo(room[:0])
	// Of an IPv4 address there is one spelling.
	x.fromHost = string(addr) == x.host
	if x.fromHost && !x.rport {
		return x.via
	}
	head, _, _ := cutByte(x.via, ';')
	b := append(x.room.via[:0], strings.TrimRight(head, " ")...)
	for params := x.via[len(head):]; params != ""; {
		var p string
		p, params = params[1:], ""
		if i := strings.IndexByte(p, ';'); i >= 0 {
			p, params = p[:i], p[i:]
		}
		b = append(append(b, ';'), p...)
		if p == "rport" {
			b = strconv.AppendUint(append(b, '='), uint64(from.Port()), 10)
		}
	}
	x.room.via = append(append(b, ";received="...), addr...)
	return textOf(x.room.via)
}

// direct tells of nearly every device that is where its Via and its Contact say
// that it is, and comes by no WebSocket, so that flowBound need not be asked.
// stampedVia has been called.
func (x *plain) direct() bool {
	remote := x.msg.Flow.Remote()
	return x.fromHost && x.contactHost == x.host && x.port() == remote.Port() && !strings.ContainsAny(x.contactParams, "wW")
}

// port is where sent-by says that answers go.
func (x *plain) port() uint16 { return portOr(x.sentPort, "udp") }

// scan cuts the text into lines and reads those that matter.
func (x *plain) scan() bool {
	r := &x.req
	r.method, r.version, r.maxForwards, r.maxBreadth = "REGISTER", "SIP/2.0", -1, -1
	rest := x.text
	line, rest, ok := plainLine(rest)
	target, version, ok2 := cutByte(strings.TrimPrefix(line, "REGISTER "), ' ')
	if !ok || !ok2 || version != "SIP/2.0" || strings.ContainsAny(target, "@;?") {
		return false
	}
	var err error
	if r.target, err = parseURI(target); err != nil {
		return false
	}
	for {
		if line, rest, ok = plainLine(rest); !ok {
			return false
		}
		if line == "" {
			// All that every request has, and a Contact; no body.
			return rest == "" && x.seen&plainAll == plainAll
		}
		if len(r.headers) == plainHeaders || !x.header(line) {
			return false
		}
	}
}

// plainLine takes a line of printable ASCII off the text.
func plainLine(text string) (line, rest string, ok bool) {
	end := strings.IndexByte(text, '\r')
	if end < 0 || end >= 512 || end+1 == len(text) || text[end+1] != '\n' || !isPrintable(text[:end]) {
		return "", "", false
	}
	return text[:end], text[end+2:], true
}

// isPrintable tells whether all of s is from ' ' to '~', by eight bytes at a time.
func isPrintable(s string) bool {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		v := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		// A byte below ' ' borrows, one above '~' has or gets the high bit.
		if ((v-each*' ')|(v+each)|v)&high != 0 {
			return false
		}
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// cutByte is strings.Cut for a separator of one byte.
func cutByte(s string, c byte) (before, after string, found bool) {
	if i := strings.IndexByte(s, c); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// The header fields that a plain REGISTER has, each once.
const (
	plainVia = 1 << iota
	plainFrom
	plainTo
	plainCallID
	plainCSeq
	plainContact
	plainMaxForwards
	plainExpires
	plainContentLength
	plainUserAgent
	plainAllow
	plainSupported
	plainOther

	plainAll = plainVia | plainFrom | plainTo | plainCallID | plainCSeq | plainContact
)

// header reads one line; false: the request is not plain.
func (x *plain) header(line string) bool {
	name, value, ok := cutByte(line, ':')
	if !ok {
		return false
	}
	value = strings.Trim(value, " ")
	r := &x.req
	var bit uint
	switch name {
	case "Via":
		bit, ok = plainVia, x.readVia(value)
	case "From":
		r.from, bit = value, plainFrom
		_, r.fromTag, ok = plainAddr(value)
	case "To":
		r.to, bit = value, plainTo
		x.to, r.toTag, ok = plainAddr(value)
	case "Call-ID":
		r.callID, bit, ok = value, plainCallID, value != "" && strings.IndexByte(value, ' ') < 0
	case "CSeq":
		bit = plainCSeq
		digits, method, _ := cutByte(value, ' ')
		r.cseq, ok = plainNumber(digits)
		ok = ok && method == "REGISTER"
	case "Contact":
		bit, ok = plainContact, x.readContact(value)
	case "Max-Forwards":
		bit = plainMaxForwards
		n, good := plainNumber(value)
		r.maxForwards, ok = int(n), good && n > 0 && n < 256
	case "Expires":
		bit = plainExpires
		x.expires, ok = plainNumber(value)
		x.hasExpires = true
	case "Content-Length":
		bit, ok = plainContentLength, value == "0"
	case "User-Agent":
		bit, x.userAgent = plainUserAgent, value
	case "Allow":
		bit = plainAllow
	case "Supported":
		bit = plainSupported
	default:
		return false
	}
	if !ok || x.seen&bit != 0 {
		return false
	}
	x.seen |= bit
	r.headers = append(r.headers, header{name, value})
	return true
}

// readVia reads a Via whose parameters are a branch with the cookie and perhaps
// an empty rport.
func (x *plain) readVia(v string) bool {
	sentBy, ok := strings.CutPrefix(v, "SIP/2.0/UDP ")
	if !ok {
		return false
	}
	sentBy, params, _ := cutByte(sentBy, ';')
	host, port, hasPort := cutByte(sentBy, ':')
	if !plainHost(host) {
		return false
	}
	if hasPort {
		n, ok := plainNumber(port)
		if !ok || n == 0 || n > 65535 || port[0] == '0' {
			return false
		}
		x.sentPort = uint16(n)
	}
	for more := params != ""; more; {
		var p string
		p, params, more = cutByte(params, ';')
		name, value, _ := cutByte(p, '=')
		switch {
		case name == "branch" && x.branch == "" && strings.HasPrefix(value, "z9hG4bK") && len(value) > 7 && len(value) < 128 && isToken(value):
			x.branch = value
		case p == "rport" && !x.rport:
			x.rport = true
		default:
			return false
		}
	}
	x.via, x.host = v, host
	return x.branch != ""
}

// plainHost is a name or an IPv4 address that begins and ends as one.
func plainHost(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && (s[i] != '.' && s[i] != '-' || i == 0 || i == len(s)-1 || !isAlnum(s[i-1])) {
			return false
		}
	}
	return s != ""
}

// plainURI reads "sip:user@host" and perhaps a port and parameters, with nothing
// that has to be escaped.
func plainURI(s string) (host, params string, ok bool) {
	s, ok = strings.CutPrefix(s, "sip:")
	user, rest, ok2 := cutByte(s, '@')
	if !ok || !ok2 || user == "" {
		return "", "", false
	}
	for i := 0; i < len(user); i++ {
		if c := user[i]; !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return "", "", false
		}
	}
	hostport, params, hasParams := cutByte(rest, ';')
	if hasParams && !plainParams(params) {
		return "", "", false
	}
	host, port, hasPort := cutByte(hostport, ':')
	if n, ok := plainNumber(port); hasPort && (!ok || n == 0 || n > 65535) {
		return "", "", false
	}
	return host, params, plainHost(host)
}

// plainParams are names and name=value, of letters, digits, '-' and '.'.
func plainParams(s string) bool {
	for more := true; more; {
		var p string
		p, s, more = cutByte(s, ';')
		name, value, hasValue := cutByte(p, '=')
		if name == "" || hasValue && value == "" {
			return false
		}
		for i := 0; i < len(p); i++ {
			if c := p[i]; !isAlnum(c) && c != '-' && c != '.' && i != len(name) {
				return false
			}
		}
	}
	return true
}

// plainAddr reads a From or To value, <sip:user@host> with no parameter but a tag.
func plainAddr(v string) (uri, tag string, ok bool) {
	v, ok = strings.CutPrefix(v, "<")
	uri, params, ok2 := cutByte(v, '>')
	_, uriParams, ok3 := plainURI(uri)
	if !ok || !ok2 || !ok3 || uriParams != "" {
		return "", "", false
	}
	if params == "" {
		return uri, "", true
	}
	tag, ok = strings.CutPrefix(params, ";tag=")
	return uri, tag, ok && isToken(tag)
}

// readContact reads one Contact with at most an expiry.
func (x *plain) readContact(v string) bool {
	v, ok := strings.CutPrefix(v, "<")
	uri, params, ok2 := cutByte(v, '>')
	var ok3 bool
	x.contactHost, x.contactParams, ok3 = plainURI(uri)
	if !ok || !ok2 || !ok3 {
		return false
	}
	x.contact = uri
	if params == "" {
		return true
	}
	digits, ok := strings.CutPrefix(params, ";expires=")
	var good bool
	x.contactExpires, good = plainNumber(digits)
	x.contactHas = true
	return ok && good
}

// plainNumber reads up to nine digits.
func plainNumber(s string) (n uint32, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + uint32(s[i]-'0')
	}
	return n, s != "" && len(s) <= 9
}
