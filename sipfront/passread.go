package sipfront

import (
	"net/netip"
	"strconv"
	"strings"

	"hereis/sipfront/transport"
)

// What is passed on is read here where it lies, in one pass over its lines, and
// written anew from them: a node writes messages as they should be, and a message
// that is written otherwise is left to the ordinary way.

// passedLine and passedLines bound what is read so, in bytes and lines.
const passedLine, passedLines = 2048, 64

// passage is what a message that is passed on stands in while that is done. What
// it has shares the datagram, which is the socket's again afterwards: nothing of
// it is kept.
type passage struct {
	req    request
	msg    transport.Message
	plan   plan
	target target
	draft  draft
	// source is where the top Via says that the request comes from, key what it is
	// known by here, size its length.
	source netip.AddrPort
	key    []byte
	size   int
	res    plainReply

	headers [passedLines]header
	tokens  [2]token
	vias    [8]string
	routes  [4]string
	// via, nonce and out have room for our Via, for what is hashed, and for what is sent.
	via, nonce, out []byte
}

// passage gives room for a message, which leave takes back.
func (s *Server) passage() *passage {
	if x, ok := s.passages.Get().(*passage); ok {
		return x
	}
	return &passage{}
}

func (s *Server) leave(x *passage) {
	if s.spoils {
		for _, b := range [][]byte{x.key, x.via, x.nonce, x.out} {
			for i := range b {
				b[i] = '?'
			}
		}
	}
	clear(x.headers[:len(x.req.headers)])
	for i := range x.tokens {
		x.tokens[i].sides, x.tokens[i].room = nil, [2]side{}
	}
	clear(x.vias[:])
	clear(x.routes[:])
	x.req, x.msg, x.plan, x.target, x.draft, x.res = request{}, transport.Message{}, plan{}, target{}, draft{}, plainReply{}
	s.passages.Put(x)
}

// read is parseRequest for what another node has written.
func (x *passage) read(m *transport.Message) bool {
	text := textOf(m.Raw)
	x.size = len(text)
	x.msg = transport.Message{Flow: m.Flow, Reply: m.Flow, At: m.At}
	x.req = request{
		msg: &x.msg, asked: asked{at: m.At}, maxForwards: -1, maxBreadth: -1,
		headers: x.headers[:0], vias: x.vias[:0], routes: x.routes[:0],
	}
	x.plan.room = x.tokens[:]
	r := &x.req
	line, rest, ok := passedLineOf(text)
	if !ok || !r.start(line) {
		return false
	}
	seen, length := uint(0), 0
	for range passedLines - 1 {
		if line, rest, ok = passedLineOf(rest); !ok {
			return false
		}
		if line == "" {
			if seen != passedAll || length > len(rest) {
				return false
			}
			// RFC 3261 18.3: what follows the body in a datagram is no part of it.
			r.body = rest[:length]
			return len(r.vias) > 0 && r.maxForwards > 0 && r.maxBreadth != 0
		}
		name, value, ok := strings.Cut(line, ":")
		h := header{canonicalName(trimRight(name)), trim(value)}
		if !ok {
			return false
		}
		bit, n := r.passedField(h)
		if n < 0 || seen&bit != 0 || r.take(h) != nil {
			return false
		}
		if bit == passedLength {
			length = n
		}
		seen |= bit
		r.headers = append(r.headers, h)
	}
	return false
}

// start reads a request line.
func (r *request) start(line string) bool {
	method, rest, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isToken(method) {
		return false
	}
	r.method, r.version = method, version
	var err error
	r.target, err = parseURI(target)
	return err == nil && r.target.headers == ""
}

// passedLineOf takes a line off the head of a message that ends as it should, has
// no other CR or LF, and is not folded.
func passedLineOf(text string) (line, rest string, ok bool) {
	end := strings.IndexByte(text, '\n')
	if end < 1 || end > passedLine || text[end-1] != '\r' || isLWS(text[0]) || strings.IndexByte(text[:end-1], '\r') >= 0 {
		return "", "", false
	}
	return text[:end-1], text[end+1:], true
}

// The header fields that must be there, each once.
const (
	passedFrom = 1 << iota
	passedTo
	passedCallID
	passedCSeq
	passedMaxForwards
	passedLength
	passedAll = 1<<iota - 1
)

// passedField looks at a header field; n is negative if it is one for the ordinary
// way, and else what Content-Length says.
func (r *request) passedField(h header) (bit uint, n int) {
	ok := true
	switch h.name {
	case "From":
		bit, ok = passedFrom, h.value != ""
	case "To":
		bit, ok = passedTo, h.value != ""
	case "Call-ID":
		bit, ok = passedCallID, h.value != "" && strings.IndexByte(h.value, ' ') < 0 && strings.IndexByte(h.value, '\t') < 0
	case "CSeq":
		_, method, _ := cutSpace(h.value)
		bit, ok = passedCSeq, method == r.method
	case "Max-Forwards":
		bit = passedMaxForwards
	case "Content-Length":
		var err error
		n, err = strconv.Atoi(h.value)
		bit, ok = passedLength, err == nil
	case "Via", "Route", "Record-Route", "Contact", "Content-Type":
	case "Proxy-Require":
		ok = false
	default:
		ok = isToken(h.name)
	}
	if !ok {
		return bit, -1
	}
	return bit, n
}
