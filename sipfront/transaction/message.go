package transaction

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// bytesWriter lets a message write itself into a slice.
type bytesWriter []byte

func (w *bytesWriter) WriteString(s string) (int, error) {
	*w = append(*w, s...)
	return len(s), nil
}

// appendRequest serialises req.
func appendRequest(b []byte, req *sip.Request) []byte {
	w := bytesWriter(b)
	req.StartLineWrite(&w)
	return appendRest(w, req.Headers(), req.Body())
}

// appendResponse serialises res.
func appendResponse(b []byte, res *sip.Response) []byte {
	w := bytesWriter(b)
	res.StartLineWrite(&w)
	return appendRest(w, res.Headers(), res.Body())
}

func appendRest(w bytesWriter, headers []sip.Header, body []byte) []byte {
	w = append(w, "\r\n"...)
	for _, h := range headers {
		w = append(appendHeader(w, h), "\r\n"...)
	}
	w = append(w, "\r\n"...)
	return append(w, body...)
}

// appendHeader writes a header; Via, of which a proxy has many, without the
// strings that its own writer makes.
func appendHeader(w bytesWriter, h sip.Header) bytesWriter {
	v, ok := h.(*sip.ViaHeader)
	if !ok {
		h.StringWrite(&w)
		return w
	}
	w = append(append(w, "Via: "...), v.ProtocolName...)
	w = append(append(w, '/'), v.ProtocolVersion...)
	w = append(append(w, '/'), v.Transport...)
	w = append(w, ' ')
	if strings.IndexByte(v.Host, ':') >= 0 && v.Host[0] != '[' {
		w = append(append(append(w, '['), v.Host...), ']')
	} else {
		w = append(w, v.Host...)
	}
	if v.Port > 0 {
		w = strconv.AppendInt(append(w, ':'), int64(v.Port), 10)
	}
	if len(v.Params) > 0 {
		w = append(w, ';')
		v.Params.ToStringWrite(';', &w)
	}
	return w
}

// AppendResponse appends a response without a body to req (8.2.6): every Via,
// From, To with tag if it has none (give "" for a 100), Call-ID, CSeq, and
// Timestamp for a 100. lines are further header lines, each ending in CRLF.
func AppendResponse(b []byte, req *sip.Request, status int, reason, tag, lines string) []byte {
	w := bytesWriter(b)
	w = append(w, "SIP/2.0 "...)
	w = strconv.AppendInt(w, int64(status), 10)
	w = append(append(w, ' '), reason...)
	w = append(w, "\r\n"...)
	for _, h := range req.Headers() {
		switch h := h.(type) {
		case *sip.ViaHeader, *sip.FromHeader, *sip.CallIDHeader, *sip.CSeqHeader:
			w = appendHeader(w, h)
		case *sip.ToHeader:
			h.StringWrite(&w)
			if tag != "" && !h.Params.Has("tag") {
				w = append(append(w, ";tag="...), tag...)
			}
		default:
			if status != 100 || h.Name() != "Timestamp" {
				continue
			}
			h.StringWrite(&w)
		}
		w = append(w, "\r\n"...)
	}
	w = append(w, lines...)
	return append(w, "Content-Length: 0\r\n\r\n"...)
}

// appendFollower appends the ACK (17.1.1.3) or the CANCEL (9.1) that belongs to
// the INVITE whose bytes are raw: same Request-URI, only the top Via, Route,
// From, Call-ID and CSeq number, and the field carry; to is the To of the
// response, or nil for the INVITE's own.
func appendFollower(b, raw []byte, method string, to *sip.ToHeader, carry, lines string) []byte {
	start, rest, _ := bytes.Cut(raw, crlf)
	_, target, _ := bytes.Cut(start, []byte{' '})
	b = append(append(append(b, method...), ' '), target...)
	b = append(b, "\r\n"...)
	vias := 0
	for len(rest) > 0 {
		var one []byte
		one, rest, _ = bytes.Cut(rest, crlf)
		if len(one) == 0 {
			break
		}
		name, _, _ := bytes.Cut(one, []byte{':'})
		switch string(name) {
		case "Via":
			if vias++; vias > 1 {
				continue
			}
		case "To":
			if to != nil {
				w := bytesWriter(b)
				to.StringWrite(&w)
				b = append(w, "\r\n"...)
				continue
			}
		case "CSeq":
			one = one[:bytes.LastIndexByte(one, ' ')+1]
			b = append(append(append(b, one...), method...), "\r\n"...)
			continue
		case "Route", "From", "Call-ID":
		default:
			if carry == "" || string(name) != carry {
				continue
			}
		}
		b = append(append(b, one...), "\r\n"...)
	}
	b = append(b, lines...)
	return append(b, "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"...)
}

var crlf = []byte("\r\n")

// madeHere tells an ACK for a final response that one of our layers made by
// itself, from one to be routed on.
func madeHere(toTag string) bool {
	return len(toTag) > len(transport.TagPrefix) && strings.HasPrefix(toTag, transport.TagPrefix)
}
