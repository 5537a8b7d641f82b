package sipmsg

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Builder writes one message into a buffer that it keeps and grows.
type Builder struct{ b []byte }

// Bytes is what has been written; it is valid until the next Request or Response.
func (w *Builder) Bytes() []byte { return w.b }

// Into makes w write to b from its beginning.
func (w *Builder) Into(b []byte) { w.b = b[:0] }

// Request begins a request.
func (w *Builder) Request(method, uri string) {
	w.b = append(w.b[:0], method...)
	w.b = append(w.b, ' ')
	w.b = append(w.b, uri...)
	w.b = append(w.b, " SIP/2.0\r\n"...)
}

// Response begins a response and copies what RFC 3261 8.2.6.2 tells to copy:
// Via, From, To, Call-ID and CSeq, with toTag added to To if it has no tag, and
// the source of the request filled into an empty rport of the top Via (RFC 3581 4).
func (w *Builder) Response(req *Message, status int, reason, toTag string, source netip.AddrPort) {
	w.b = append(w.b[:0], "SIP/2.0 "...)
	w.b = strconv.AppendInt(w.b, int64(status), 10)
	w.b = append(w.b, ' ')
	w.b = append(w.b, reason...)
	w.b = append(w.b, "\r\n"...)
	top := true
	req.Values("Via", func(v []byte) {
		if port, ok := Param(v, "rport"); top && ok && len(port) == 0 {
			w.Header("Via", string(fillRport(v, source)))
		} else {
			w.Header("Via", string(v))
		}
		top = false
	})
	w.Copy(req, "From")
	w.b = append(w.b, "To: "...)
	to := req.Get("To")
	w.b = append(w.b, to...)
	if _, tagged := Param(to, "tag"); !tagged && toTag != "" {
		w.b = append(w.b, ";tag="...)
		w.b = append(w.b, toTag...)
	}
	w.b = append(w.b, "\r\n"...)
	w.Copy(req, "Call-ID")
	w.Copy(req, "CSeq")
}

// fillRport gives the valueless rport parameter of a Via the source's port, and adds received.
func fillRport(via []byte, source netip.AddrPort) []byte {
	i := bytes.Index(bytes.ToLower(via), []byte("rport"))
	out := append([]byte(nil), via[:i]...)
	out = append(out, "rport="...)
	out = strconv.AppendUint(out, uint64(source.Port()), 10)
	out = append(out, ";received="...)
	out = source.Addr().AppendTo(out)
	return append(out, via[i+len("rport"):]...)
}

// Copy repeats every line of a header of m, in order.
func (w *Builder) Copy(m *Message, name string) {
	m.Lines(name, func(v []byte) { w.Header(name, string(v)) })
}

// Header writes one header line; the parts of the value are joined.
func (w *Builder) Header(name string, value ...string) {
	w.b = append(w.b, name...)
	w.b = append(w.b, ": "...)
	for _, v := range value {
		w.b = append(w.b, v...)
	}
	w.b = append(w.b, "\r\n"...)
}

// Raw writes whole lines as they are.
func (w *Builder) Raw(lines string) { w.b = append(w.b, lines...) }

// Int writes a header line "name: n" or, with a suffix, "name: n suffix".
func (w *Builder) Int(name string, n uint64, suffix string) {
	w.b = append(w.b, name...)
	w.b = append(w.b, ": "...)
	w.b = strconv.AppendUint(w.b, n, 10)
	if suffix != "" {
		w.b = append(w.b, ' ')
		w.b = append(w.b, suffix...)
	}
	w.b = append(w.b, "\r\n"...)
}

// End writes Content-Length, with Content-Type if there is a body, and the body.
func (w *Builder) End(contentType, body string) {
	if body != "" {
		w.Header("Content-Type", contentType)
	}
	w.Int("Content-Length", uint64(len(body)), "")
	w.b = append(w.b, "\r\n"...)
	w.b = append(w.b, body...)
}
