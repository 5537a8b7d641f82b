package sipfront

import (
	"strconv"
	"strings"
)

// plainReply is an answer whose Vias stand in lines of their own and that ends
// where its body does, as nearly all are, read in one pass and without a copy.
type plainReply struct {
	text   string
	status int
	// top is the topmost Via value, which stands in the line from begin to end;
	// next is the value below it.
	top, next      string
	begin, end     int
	callID, method string
	// raw, if not nil, is the message without its top Via, of an answer that is
	// written otherwise (readAny).
	raw []byte
}

// read reads an answer; false: it is not plain, and readReply may read it.
func (r *plainReply) read(text string) bool {
	*r = plainReply{text: text}
	line, rest, ok := passedLineOf(text)
	if !ok || len(line) < 11 || line[:8] != "SIP/2.0 " {
		return false
	}
	var err error
	if r.status, err = strconv.Atoi(line[8:11]); err != nil || r.status < 100 || r.status > 699 {
		return false
	}
	seen, length := uint(0), 0
	for range passedLines - 1 {
		at := len(text) - len(rest)
		if line, rest, ok = passedLineOf(rest); !ok {
			return false
		}
		if line == "" {
			return seen == passedCallID|passedCSeq|passedLength && r.next != "" && length == len(rest)
		}
		name, value, _ := strings.Cut(line, ":")
		bit := uint(0)
		switch canonicalName(trimRight(name)) {
		case "Via":
			value = strings.TrimSpace(value)
			switch {
			case r.end == 0:
				r.top, r.begin, r.end = value, at, len(text)-len(rest)
				ok = value != "" && strings.IndexByte(value, ',') < 0
			case r.next == "":
				r.next = firstValue(value)
				ok = r.next != ""
			}
		case "Call-ID":
			bit, r.callID = passedCallID, trim(value)
			ok = r.callID != ""
		case "CSeq":
			bit = passedCSeq
			_, r.method, _ = cutSpace(trim(value))
			ok = r.method != ""
		case "Content-Length":
			bit = passedLength
			length, err = strconv.Atoi(trim(value))
			ok = err == nil
		}
		if !ok || seen&bit != 0 {
			return false
		}
		seen |= bit
	}
	return false
}

// readAny is read for every answer that readReply reads.
func (r *plainReply) readAny(text string) bool {
	*r = plainReply{text: text}
	_, _, top, ok := topVia(text)
	if !ok {
		return false
	}
	res, next, err := readFolded(text)
	r.top, r.next, r.status, r.raw = firstValue(top), next, res.status, res.raw
	r.callID, r.method = passedFields(text)
	return err == nil
}

// append writes the answer as it is passed back.
func (r *plainReply) append(b []byte) []byte {
	if r.raw != nil {
		return append(b, r.raw...)
	}
	return append(append(b, r.text[:r.begin]...), r.text[r.end:]...)
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
