package messages

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// What a REGISTER, a lookup or a copy is made of is written and read by hand, to
// the bytes of the library and without its reflection: most of what a node does
// beside SIP would be that. Whatever is unusual goes by the library: it has what a
// newer node may have added, and it refuses what is no text. Code that is generated
// for this, as by vtprotobuf, lets such text and malformed tags pass, and makes
// each message of as many pieces as it has parts.

// writer appends the fields of a message to b, in the order of their numbers.
// odd: something has come up that is left to the library.
type writer struct {
	b   []byte
	odd bool
}

// tag begins a field; none has a number above 2047.
func (w *writer) tag(field uint64, wire protowire.Type) {
	tag := field<<3 | uint64(wire)
	if tag < 1<<7 {
		w.b = append(w.b, byte(tag))
	} else {
		w.b = append(w.b, byte(tag)|1<<7, byte(tag>>7))
	}
}

func (w *writer) number(field, v uint64) {
	if v != 0 {
		w.tag(field, protowire.VarintType)
		w.b = protowire.AppendVarint(w.b, v)
	}
}

func (w *writer) fixed(field, v uint64) {
	if v != 0 {
		w.tag(field, protowire.Fixed64Type)
		w.b = protowire.AppendFixed64(w.b, v)
	}
}

func (w *writer) flag(field uint64, v bool) {
	if v {
		w.tag(field, protowire.VarintType)
		w.b = append(w.b, 1)
	}
}

func (w *writer) text(field uint64, v string) {
	if v != "" {
		w.element(field, v)
	}
}

// texts writes a repeated field, whose empty values count.
func (w *writer) texts(field uint64, list []string) {
	for _, v := range list {
		w.element(field, v)
	}
}

func (w *writer) element(field uint64, v string) {
	w.odd = w.odd || !utf8.ValidString(v)
	w.tag(field, protowire.BytesType)
	w.b = append(protowire.AppendVarint(w.b, uint64(len(v))), v...)
}

func (w *writer) bytes(field uint64, v []byte) {
	if len(v) > 0 {
		w.piece(field, v)
	}
}

// piece writes an element of a repeated field of bytes.
func (w *writer) piece(field uint64, v []byte) {
	w.tag(field, protowire.BytesType)
	w.b = append(protowire.AppendVarint(w.b, uint64(len(v))), v...)
}

// open begins a field that is a message; close, with what it has returned, ends it.
func (w *writer) open(field uint64) (at int) {
	w.tag(field, protowire.BytesType)
	w.b = append(w.b, 0)
	return len(w.b)
}

func (w *writer) close(at int) {
	size := len(w.b) - at
	if size < 1<<7 {
		w.b[at-1] = byte(size)
		return
	}
	var room [binary.MaxVarintLen64]byte
	length := protowire.AppendVarint(room[:0], uint64(size))
	w.b = append(w.b, length[1:]...) // whatever they are
	copy(w.b[at-1+len(length):], w.b[at:at+size])
	copy(w.b[at-1:], length)
}

// newer ends a message with what a newer node has added to it.
func (w *writer) newer(fields []byte) { w.b = append(w.b, fields...) }

// reader goes through the fields of an encoded message: varints, numbers of 64
// bits and length-delimited ones; anything else is bad. What it gives shares text.
type reader struct {
	text   string
	field  uint64
	wire   protowire.Type
	number uint64
	value  string
	bad    bool
}

// Wire types as they stand in what tag returns.
const (
	asFixed = uint64(protowire.Fixed64Type)
	asBytes = uint64(protowire.BytesType)
)

// tag is the field's number and wire type as one.
func (r *reader) tag() uint64 { return r.field<<3 | uint64(r.wire) }

// more reads the next field; false at the end, or if there is none to be read.
func (r *reader) more() bool {
	if r.bad || r.text == "" {
		return false
	}
	tag := r.varint()
	r.field, r.wire = tag>>3, protowire.Type(tag&7)
	switch r.wire {
	case protowire.VarintType:
		r.number = r.varint()
	case protowire.BytesType:
		if n := r.varint(); n <= uint64(len(r.text)) {
			r.value, r.text = r.text[:n], r.text[n:]
		} else {
			r.bad = true
		}
	case protowire.Fixed64Type:
		if len(r.text) < 8 {
			r.bad = true
			break
		}
		r.number, _ = protowire.ConsumeFixed64(bytesOf(r.text[:8]))
		r.text = r.text[8:]
	default:
		r.bad = true
	}
	return !r.bad
}

func (r *reader) varint() (v uint64) {
	for i := 0; i < len(r.text) && i < 10; i++ {
		c := r.text[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.bad = r.bad || i == 9 && c > 1 // more than 64 bits
			r.text = r.text[i+1:]
			return v
		}
	}
	r.bad = true
	return 0
}

// matcher goes through an encoded message beside what a writer would write.
type matcher struct {
	text    string
	differs bool
}

// byte takes one byte off.
func (m *matcher) byte(b byte) {
	if m.text == "" || m.text[0] != b {
		m.text, m.differs = "", true
		return
	}
	m.text = m.text[1:]
}

func (m *matcher) varint(v uint64) {
	for ; v >= 1<<7; v >>= 7 {
		m.byte(byte(v) | 1<<7)
	}
	m.byte(byte(v))
}

func (m *matcher) tag(field uint64, wire protowire.Type) { m.varint(field<<3 | uint64(wire)) }

func (m *matcher) number(field, v uint64) {
	if v != 0 {
		m.tag(field, protowire.VarintType)
		m.varint(v)
	}
}

func (m *matcher) flag(field uint64, v bool) {
	if v {
		m.number(field, 1)
	}
}

func (m *matcher) texts(field uint64, list []string) {
	for _, v := range list {
		m.tag(field, protowire.BytesType)
		m.varint(uint64(len(v)))
		if len(m.text) < len(v) || m.text[:len(v)] != v {
			m.text, m.differs = "", true
			return
		}
		m.text = m.text[len(v):]
	}
}

func (m *matcher) one(field uint64, v string) {
	if v != "" {
		room := [1]string{v}
		m.texts(field, room[:])
	}
}

// ends tells whether all that there is has been matched.
func (m *matcher) ends() bool { return m.text == "" && !m.differs }

// string is the value, which must be text.
func (r *reader) string() string {
	r.bad = r.bad || !utf8.ValidString(r.value)
	return r.value
}

// bytes is the value; it must not be written to.
func (r *reader) bytes() []byte { return bytesOf(r.value) }

// message reads the value.
func (r *reader) message() reader { return reader{text: r.value} }

// bytesOf is s without a copy; it must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// textOf is b without a copy, for as long as b is not written to.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
