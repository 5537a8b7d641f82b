package sipfront

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"hereis/sipfront/transport"
)

// Allow and Accept of the node itself. Everything else is passed on, but that
// is the other end's to say.
const allow = "REGISTER, OPTIONS, PUBLISH, SUBSCRIBE"

// answerBytes writes an answer of our own to a request (RFC 3261 8.2.6.2).
// tag goes into To unless the request has one or the answer is a 100.
func (s *Server) answerBytes(r *request, a answer, tag string) []byte {
	n := answerSize(r)
	for _, h := range a.headers {
		n += len(h.name) + len(h.value) + 4
	}
	b := appendAnswerTo(make([]byte, 0, n), r, a.status, a.reason, tag)
	for _, h := range a.headers {
		b = appendHeader(b, h.name, h.value)
	}
	return s.endAnswer(b, a.status)
}

// answerSize is about the size of an answer, its own header fields apart.
func answerSize(r *request) int {
	n := 128 + len(r.from) + len(r.to) + len(r.callID)
	for _, v := range r.vias {
		n += len(v) + 7
	}
	return n
}

// appendAnswerTo begins an answer to a request: with what it takes from there.
func appendAnswerTo(b []byte, r *request, status int, reason, tag string) []byte {
	b = append(b, "SIP/2.0 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(append(b, ' '), reason...), "\r\n"...)
	for _, v := range r.vias {
		b = appendHeader(b, "Via", v)
	}
	b = appendHeader(b, "From", r.from)
	if r.toTag == "" && tag != "" && status != 100 {
		b = append(append(append(b, "To: "...), r.to...), ";tag="...)
		b = append(append(b, tag...), "\r\n"...)
	} else {
		b = appendHeader(b, "To", r.to)
	}
	b = appendHeader(b, "Call-ID", r.callID)
	b = append(b, "CSeq: "...)
	b = strconv.AppendUint(b, uint64(r.cseq), 10)
	b = append(append(append(b, ' '), r.method...), "\r\n"...)
	if status == 100 {
		// RFC 3261 8.2.6.1.
		if v, ok := r.value("Timestamp"); ok {
			b = appendHeader(b, "Timestamp", v)
		}
	}
	return b
}

// endAnswer ends one without a body.
func (s *Server) endAnswer(b []byte, status int) []byte {
	if s.cfg.ServerHeader != "" && status != 100 {
		b = appendHeader(b, "Server", s.cfg.ServerHeader)
	}
	return append(b, "Content-Length: 0\r\n\r\n"...)
}

// reply is an answer from below, on its way up.
type reply struct {
	status int
	// raw is the message without its top Via, ready to be sent.
	raw []byte
	// own: this node made it.
	own bool
	// by is what it came by; nil for one of this node's own.
	by transport.Flow
}

// readReply takes the top Via off a response and passes all else as it is
// (RFC 3261 16.7 step 3). The next Via value is returned; it is empty if the
// response was for this node alone.
func readReply(text string) (r reply, next string, err error) {
	var x plainReply
	if x.read(text) {
		return reply{status: x.status, raw: x.append(make([]byte, 0, len(text)))}, x.next, nil
	}
	return readFolded(text)
}

// readFolded is readReply for a response that is not plain.
func readFolded(text string) (r reply, next string, err error) {
	start, _, ok := cutLine(text)
	if !ok || len(start) < 11 || !strings.EqualFold(start[:8], "SIP/2.0 ") {
		return r, "", errMessage
	}
	if r.status, err = strconv.Atoi(start[8:11]); err != nil || r.status < 100 || r.status > 699 {
		return r, "", errMessage
	}
	begin, end, value, ok := topVia(text)
	if !ok || value == "" {
		return r, "", errMessage
	}
	r.raw = make([]byte, 0, len(text))
	r.raw = append(r.raw, text[:begin]...)
	if strings.IndexByte(value, ',') < 0 {
		if _, _, value, ok := topVia(text[end:]); ok {
			next = firstValue(value)
		}
	} else {
		values := splitValues(nil, value)
		if len(values) == 0 {
			return r, "", errMessage
		}
		if len(values) > 1 {
			next = values[1]
			r.raw = appendHeader(r.raw, "Via", strings.Join(values[1:], ", "))
		} else if _, _, value, ok := topVia(text[end:]); ok {
			next = firstValue(value)
		}
	}
	r.raw = framed(append(r.raw, text[end:]...))
	return r, next, nil
}

// framed makes a message end where its body does (RFC 3261 18.3), and say so.
// A datagram may have more behind it, or no Content-Length at all: on a
// connection the first would pass for a message of ours, and the second lose
// all that follow.
func framed(raw []byte) []byte {
	head := bytes.Index(raw, []byte("\r\n\r\n"))
	if head < 0 {
		return raw
	}
	body := head + 4
	for rest := raw[:head]; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) == 0 || line[0]|0x20 != 'c' && line[0]|0x20 != 'l' {
			continue
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		name = bytes.TrimRight(name, " \t")
		if !bytes.EqualFold(name, []byte("Content-Length")) && !bytes.EqualFold(name, []byte("l")) {
			continue
		}
		if n, err := strconv.Atoi(string(bytes.TrimSpace(value))); err == nil && n >= 0 && n < len(raw)-body {
			return raw[:body+n]
		}
		return raw
	}
	text := "Content-Length: " + strconv.Itoa(len(raw)-body) + "\r\n"
	return slices.Insert(raw, head+2, []byte(text)...)
}

// topVia finds the first Via field: where it begins and ends, folded lines
// included, and its value.
func topVia(text string) (begin, end int, value string, ok bool) {
	for at := 0; ; {
		line, _, more := cutLine(text[at:])
		if !more || line == "" {
			return 0, 0, "", false
		}
		next := at + strings.IndexByte(text[at:], '\n') + 1
		name, v, isField := strings.Cut(line, ":")
		if !isField || canonicalName(trimRight(name)) != "Via" {
			at = next
			continue
		}
		for next < len(text) && (text[next] == ' ' || text[next] == '\t') {
			fold, _, more := cutLine(text[next:])
			if !more {
				return 0, 0, "", false
			}
			v += " " + strings.TrimSpace(fold)
			next += strings.IndexByte(text[next:], '\n') + 1
		}
		return at, next, strings.TrimSpace(v), true
	}
}

// fields returns the header fields of a name in a response.
func (r *reply) fields(name string) (vs []string) {
	_, headers, _, err := splitMessage(string(r.raw))
	if err != nil {
		return nil
	}
	for _, h := range headers {
		if h.name == name {
			vs = append(vs, h.value)
		}
	}
	return vs
}

// with adds header fields in front of the body.
func (r *reply) with(hs []header) reply {
	text := string(r.raw)
	end := strings.Index(text, "\r\n\r\n")
	if end < 0 || len(hs) == 0 {
		return *r
	}
	b := append(make([]byte, 0, len(text)+256), text[:end+2]...)
	for _, h := range hs {
		b = appendHeader(b, h.name, h.value)
	}
	return reply{status: r.status, raw: append(b, text[end+2:]...), by: r.by}
}
