package sipfront

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// A request that another node of ours sends to a device of this one has been
// decided on there, and that node has its transactions. Over datagrams this one
// need not have them a second time: it passes the request on by the one flow that
// its token names, and the answers back by their Vias, statelessly (RFC 3261
// 16.11), and sees to it that the other hears from it in time (transaction.Passing).
// What it sends is what the ordinary way would send, which is left all that is in
// any way unusual: another transport, a flow that is gone, a request that has a
// transaction here.

const (
	// passParam is a parameter of the Route to a device's edge. It says that the
	// node that wrote it carries its mark into ACK and CANCEL, as is needed for
	// passing them on without a transaction that they belong to.
	passParam = "pass"
	// passedLoop stands in the Via of what is passed on so, where others have their
	// loopHash: what came here from a node has been through its check for loops.
	passedLoop = "~passed~"
	// passedLine and passedLines bound what is read so, in bytes and lines.
	passedLine, passedLines = 2048, 64
)

// passes takes in a datagram that is to be passed on without a transaction.
func (s *Server) passes(m *transport.Message) bool {
	if m.Flow.Reliable() || len(m.Raw) < 64 {
		return false
	}
	if bytes.HasPrefix(m.Raw, []byte("SIP/2.0 ")) {
		return bytes.Contains(m.Raw[:min(len(m.Raw), 512)], []byte(passedLoop)) && isPassable(m.Raw) && s.passBack(m)
	}
	return s.parts.Cluster.IsNode(m.Flow.Remote()) && s.passRequest(m)
}

// passRequest passes a request of another node on to a device of this one.
func (s *Server) passRequest(m *transport.Message) bool {
	r, ok := readPassed(m)
	if !ok || s.validate(r) != nil || r.target.scheme != "sip" || r.method == "BYE" && s.dialogs != nil {
		return false
	}
	key, ok := s.passKey(r)
	if !ok {
		return false
	}
	is := marked(s.markKey, s.parts.Cluster.NowMS(), r)
	if _, has := r.value(markHeader); has && !is {
		return false
	}
	p, err := s.planMarked(r, is)
	if err != nil || p.way != wayFlow || p.token.edge != s.parts.Cluster.Self() || len(p.routes) > 0 ||
		p.token.kind == tokenHop && !strings.Contains(p.tokenRoute, ";"+passParam+">") {
		return false
	}
	d, w, ok := s.passDraft(s.withoutOurs(r), p, key)
	if !ok {
		return false
	}
	raw := d.bytes()
	if r.method != "ACK" && r.method != "CANCEL" {
		switch s.plain.Pass(key, r.method == "INVITE", raw, w.flow, func(status int) { s.passAnswer(r, status) }) {
		case transaction.PassFull:
			return false
		case transaction.PassRepeat:
			return true
		}
	}
	if transport.SendWith(m.Flow, w.flow, raw, nil) != nil {
		s.plain.PassAnswered(key, 430)
		return false // the ordinary way has the answer
	}
	if r.method == "ACK" {
		s.count.acks.Add(1)
	}
	s.count.passed.Add(1)
	return true
}

// passDraft is what a request is passed on as, if there is exactly one way.
func (s *Server) passDraft(r *request, p *plan, key string) (draft, wayOut, bool) {
	t, err := s.planned(r, p)
	if err != nil || t.via == viaNode {
		return draft{}, wayOut{}, false
	}
	ways, err := s.ways(t)
	if err != nil || len(ways) != 1 || ways[0].node || ways[0].flow.Reliable() {
		return draft{}, wayOut{}, false
	}
	f, w := &fork{s: s, r: r, plan: p}, ways[0]
	t.breadth = f.breadth()
	d := s.draftFor(f, t, w)
	// RFC 3261 16.11: the branch is the same for every repeat, and for the ACK and
	// the CANCEL that belong to an INVITE.
	d.via = "SIP/2.0/UDP " + s.advertised(w.flow).String() + ";branch=" + magic + key + "." + passedLoop +
		s.branchMAC(passedLoop+key, r.callID, r.vias[0])
	if w.large.IsValid() && d.size() > maxDatagram {
		return draft{}, wayOut{}, false
	}
	return d, w, true
}

// passKey names a request by its top Via, which must be true and that of a
// request without a transaction here.
func (s *Server) passKey(r *request) (string, bool) {
	v, err := parseVia(r.vias[0])
	if err != nil || v.transport != "udp" || !viaIs(v, r.msg.Flow.Remote(), false) {
		return "", false
	}
	branch := ""
	simple := true
	eachParam(v.params, func(name, value, _ string) bool {
		switch {
		case strings.EqualFold(name, "branch"):
			branch = value
		case strings.EqualFold(name, "received"), strings.EqualFold(name, "rport"), strings.EqualFold(name, "maddr"):
			simple = false
		}
		return simple
	})
	if !simple || len(branch) <= len(magic) || !strings.HasPrefix(branch, magic) {
		return "", false
	}
	for _, below := range r.vias[1:] {
		if _, ours := s.ownBranch(below); ours {
			return "", false // the ordinary way looks for loops
		}
	}
	if s.plain.Knows(branch, v.host, int(v.port), r.method) {
		return "", false
	}
	return strconv.FormatUint(xxh3.HashString(branch+" "+v.host+" "+strconv.Itoa(int(v.port))), 36), true
}

// passAnswer sends an answer of our own to the node that a request came from.
func (s *Server) passAnswer(r *request, status int) {
	a := answer{status: 100, reason: "Trying"}
	if status != 100 {
		a = answer{status: 408, reason: "Request Timeout"}
	}
	s.count.answered(a.status)
	tag := transport.TagPrefix + strconv.FormatUint(xxh3.HashString(r.vias[0]), 36)
	_ = r.msg.Flow.Send(s.answerBytes(r, a, tag)) // counted by the transport; the node repeats the request
}

// passBack passes an answer back whose top Via was written for that; false: it
// was not. A 100 is of one hop (RFC 3261 16.7 step 2, 8.2.6.1).
func (s *Server) passBack(m *transport.Message) bool {
	text := string(m.Raw)
	_, _, top, ok := topVia(text)
	if !ok {
		return false
	}
	b, ok := s.ownBranch(firstValue(top))
	if !ok || b.loop != passedLoop {
		return false
	}
	r, next, err := readReply(text)
	callID, method := passedFields(text)
	if err != nil || next == "" || b.mac != s.branchMAC(passedLoop+b.nonce, callID, next) {
		return false
	}
	v, err := parseVia(next)
	if err != nil || v.transport != "udp" {
		return false
	}
	to, ok := v.source()
	if !ok {
		return false
	}
	if method != "CANCEL" {
		s.plain.PassAnswered(b.nonce, r.status)
	}
	if r.status == 100 {
		return true
	}
	flow, err := s.parts.Transport.Flow(v.transport, to)
	if err != nil || transport.SendWith(m.Flow, flow, r.raw, nil) != nil {
		s.count.dropped.Add(1)
		return true
	}
	s.count.passed.Add(1)
	return true
}

// firstValue is the first value of a list header.
func firstValue(value string) string {
	if strings.IndexByte(value, ',') < 0 {
		return value
	}
	return first(splitValues(nil, value))
}

// passedFields are the Call-ID and the method of CSeq.
func passedFields(text string) (callID, method string) {
	for callID == "" || method == "" {
		line, rest, ok := cutLine(text)
		if !ok || line == "" {
			break
		}
		text = rest
		name, value, _ := strings.Cut(line, ":")
		switch canonicalName(strings.TrimRight(name, " \t")) {
		case "Call-ID":
			callID = trim(value)
		case "CSeq":
			_, method, _ = cutSpace(trim(value))
		}
	}
	return callID, method
}

// isPassable tells whether the head of a message is lines as they should be:
// none folded, no CR or LF but at their ends.
func isPassable(raw []byte) bool {
	for lines := 0; lines < passedLines; lines++ {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || end > passedLine || raw[end-1] != '\r' || bytes.IndexByte(raw[:end-1], '\r') >= 0 {
			return false
		}
		if end == 1 {
			return lines > 0
		}
		if raw[0] == ' ' || raw[0] == '\t' {
			return false
		}
		raw = raw[end+1:]
	}
	return false
}

// readPassed is parseRequest for what another node has written.
func readPassed(m *transport.Message) (*request, bool) {
	if !isPassable(m.Raw) {
		return nil, false
	}
	start, headers, body, err := splitMessage(string(m.Raw))
	if err != nil {
		return nil, false
	}
	r := &request{
		msg:     &transport.Message{Flow: m.Flow, Reply: m.Flow, At: m.At},
		asked:   asked{at: m.At},
		headers: headers, body: body, maxForwards: -1, maxBreadth: -1,
	}
	var ok bool
	if r.method, start, ok = strings.Cut(start, " "); !ok || !isToken(r.method) {
		return nil, false
	}
	target, version, ok := strings.Cut(start, " ")
	r.version = version
	if r.target, err = parseURI(target); err != nil || !ok || r.target.headers != "" {
		return nil, false
	}
	seen := uint(0)
	for _, h := range headers {
		bit, ok := passedField(r, h)
		if !ok || seen&bit != 0 || r.take(h) != nil {
			return nil, false
		}
		seen |= bit
	}
	return r, seen == passedAll && len(r.vias) > 0 && r.maxForwards > 0 && r.maxBreadth != 0
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

// passedField looks at a header field; false: it is one for the ordinary way.
func passedField(r *request, h header) (bit uint, ok bool) {
	switch h.name {
	case "From":
		return passedFrom, h.value != ""
	case "To":
		return passedTo, h.value != ""
	case "Call-ID":
		return passedCallID, h.value != "" && !strings.ContainsAny(h.value, " \t")
	case "CSeq":
		_, method, _ := cutSpace(h.value)
		return passedCSeq, method == r.method
	case "Max-Forwards":
		return passedMaxForwards, true
	case "Content-Length":
		n, err := strconv.Atoi(h.value)
		return passedLength, err == nil && n == len(r.body)
	case "Proxy-Require":
		return 0, false
	}
	return 0, isToken(h.name)
}
