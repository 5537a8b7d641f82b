package event

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a document may have at most. Presence documents are a few KiB, ten
// levels deep; a peer's bomb is neither.
const (
	maxDocument = 64 << 10
	maxDepth    = 32
	maxElements = 2048
	maxAttrs    = 32
)

// element is an XML element of a document that was read, with namespaces
// resolved. It is read-only once parsed.
type element struct {
	name  xml.Name
	attrs []xml.Attr // without namespace declarations
	kids  []child
}

// child is an element or character data.
type child struct {
	el   *element // nil: text
	text string
}

// parseXML reads a document whose root has a name. Document type declarations,
// processing instructions and directives are refused: no entity is ever
// expanded but the five of XML itself. Comments and white space between
// elements are dropped.
func parseXML(body []byte, root xml.Name) (*element, error) {
	if len(body) > maxDocument {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", ErrDocument, len(body), maxDocument)
	}
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrDocument)
	}
	top, err := (&xmlReader{dec: newDecoder(body)}).document()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDocument, err)
	}
	if top.name != root {
		return nil, fmt.Errorf("%w: root is %s in %q", ErrDocument, top.name.Local, top.name.Space)
	}
	return top, nil
}

func newDecoder(body []byte) *xml.Decoder {
	dec := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	dec.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		if strings.EqualFold(label, "utf-8") || strings.EqualFold(label, "us-ascii") {
			return in, nil
		}
		return nil, fmt.Errorf("encoding %q", label)
	}
	return dec
}

// xmlReader counts while it reads.
type xmlReader struct {
	dec      *xml.Decoder
	elements int
}

func (r *xmlReader) document() (*element, error) {
	var top *element
	for {
		tok, err := r.dec.Token()
		if errors.Is(err, io.EOF) && top != nil {
			return top, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if top != nil {
				return nil, errors.New("more than one root")
			}
			if top, err = r.element(t, 1); err != nil {
				return nil, err
			}
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return nil, errors.New("text outside the root")
			}
		case xml.ProcInst:
			if t.Target != "xml" {
				return nil, fmt.Errorf("processing instruction %q", t.Target)
			}
		case xml.Directive:
			return nil, errors.New("document type or other directive")
		}
	}
}

func (r *xmlReader) element(start xml.StartElement, depth int) (*element, error) {
	if r.elements++; r.elements > maxElements {
		return nil, errors.New("too many elements")
	}
	if depth > maxDepth {
		return nil, errors.New("too deep")
	}
	if len(start.Attr) > maxAttrs {
		return nil, errors.New("too many attributes")
	}
	e := &element{name: start.Name}
	for _, a := range start.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		if slices.ContainsFunc(e.attrs, func(o xml.Attr) bool { return o.Name == a.Name }) {
			return nil, fmt.Errorf("attribute %s twice", a.Name.Local)
		}
		e.attrs = append(e.attrs, a)
	}
	for {
		tok, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			kid, err := r.element(t, depth+1)
			if err != nil {
				return nil, err
			}
			e.kids = append(e.kids, child{el: kid})
		case xml.CharData:
			e.kids = append(e.kids, child{text: string(t)})
		case xml.EndElement:
			e.trim()
			return e, nil
		case xml.ProcInst, xml.Directive:
			return nil, errors.New("instruction or directive inside the document")
		}
	}
}

// trim drops white space between elements, which has no meaning in any document here.
func (e *element) trim() {
	if !slices.ContainsFunc(e.kids, func(c child) bool { return c.el != nil }) {
		return
	}
	e.kids = slices.DeleteFunc(e.kids, func(c child) bool { return c.el == nil && strings.TrimSpace(c.text) == "" })
}

// attr returns an attribute without namespace.
func (e *element) attr(local string) string {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// withAttr is a copy with one attribute (without namespace) set.
func (e *element) withAttr(local, value string) *element {
	c := &element{name: e.name, attrs: slices.Clone(e.attrs), kids: e.kids}
	for i := range c.attrs {
		if c.attrs[i].Name.Space == "" && c.attrs[i].Name.Local == local {
			c.attrs[i].Value = value
			return c
		}
	}
	c.attrs = append(c.attrs, xml.Attr{Name: xml.Name{Local: local}, Value: value})
	return c
}

// text is the character data of an element without that of its children,
// white space around it removed.
func (e *element) text() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range e.kids {
		b.WriteString(c.text)
	}
	return strings.TrimSpace(b.String())
}

// first returns the first child of a name, or nil.
func (e *element) first(space, local string) *element {
	if e == nil {
		return nil
	}
	for _, c := range e.kids {
		if c.el != nil && c.el.name.Space == space && c.el.name.Local == local {
			return c.el
		}
	}
	return nil
}

// all calls f for every child of a name.
func (e *element) all(space, local string, f func(*element)) {
	for _, c := range e.kids {
		if c.el != nil && c.el.name.Space == space && c.el.name.Local == local {
			f(c.el)
		}
	}
}

// add appends a new child element with text (none if empty) and returns it.
func (e *element) add(space, local, text string) *element {
	kid := newElement(space, local, text)
	e.kids = append(e.kids, child{el: kid})
	return kid
}

func newElement(space, local, text string) *element {
	e := &element{name: xml.Name{Space: space, Local: local}}
	if text != "" {
		e.kids = []child{{text: text}}
	}
	return e
}

// set appends an attribute without namespace; it is for elements under construction.
func (e *element) set(local, value string) *element {
	e.attrs = append(e.attrs, xml.Attr{Name: xml.Name{Local: local}, Value: value})
	return e
}

// knownPrefixes are the prefixes that the RFCs use in their examples.
var knownPrefixes = map[string]string{
	nsDataModel: "dm", nsRPID: "rpid", nsXML: "xml",
	"urn:ietf:params:xml:ns:pidf:caps":          "caps",
	"urn:ietf:params:xml:ns:pidf:cipid":         "cipid",
	"urn:ietf:params:xml:ns:pidf:geopriv10":     "gp",
	"urn:ietf:params:xml:ns:pidf:timed-status":  "ts",
	"http://www.w3.org/2001/XMLSchema-instance": "xsi",
}

const nsXML = "http://www.w3.org/XML/1998/namespace"

// marshal writes a document: the namespace of the root is the default one,
// every other is declared at the root, so equal trees give equal bytes.
func (e *element) marshal() []byte {
	w := &xmlWriter{prefix: map[string]string{e.name.Space: "", "": "", nsXML: "xml"}}
	var spaces []string
	e.spaces(func(s string) {
		if _, ok := w.prefix[s]; !ok && !slices.Contains(spaces, s) {
			spaces = append(spaces, s)
		}
	})
	slices.Sort(spaces)
	w.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	var decl strings.Builder
	fmt.Fprintf(&decl, ` xmlns="%s"`, escaped(e.name.Space))
	for i, s := range spaces {
		p, ok := knownPrefixes[s]
		if !ok {
			p = fmt.Sprintf("ns%d", i+1)
		}
		w.prefix[s] = p
		fmt.Fprintf(&decl, ` xmlns:%s="%s"`, p, escaped(s))
	}
	if e.hasAttrOf(e.name.Space) {
		fmt.Fprintf(&decl, ` xmlns:own="%s"`, escaped(e.name.Space))
	}
	w.element(e, e.name.Space, decl.String(), 0)
	w.WriteByte('\n')
	return w.Bytes()
}

// hasAttrOf tells whether an attribute, here or below, is of a namespace.
func (e *element) hasAttrOf(space string) bool {
	return slices.ContainsFunc(e.attrs, func(a xml.Attr) bool { return a.Name.Space == space && space != "" }) ||
		slices.ContainsFunc(e.kids, func(c child) bool { return c.el != nil && c.el.hasAttrOf(space) })
}

// spaces calls f for every namespace that is used.
func (e *element) spaces(f func(string)) {
	f(e.name.Space)
	for _, a := range e.attrs {
		if a.Name.Space != "" {
			f(a.Name.Space)
		}
	}
	for _, c := range e.kids {
		if c.el != nil {
			c.el.spaces(f)
		}
	}
}

type xmlWriter struct {
	bytes.Buffer
	prefix map[string]string
}

// element writes one element; unprefixed names are of space there.
func (w *xmlWriter) element(e *element, space, decl string, depth int) {
	name := w.name(e.name)
	if w.prefix[e.name.Space] == "" && e.name.Space != space {
		// Of no namespace inside of one, or back in it.
		space = e.name.Space
		decl += fmt.Sprintf(` xmlns="%s"`, escaped(space))
	}
	w.WriteString("<" + name + decl)
	for _, a := range e.attrs {
		w.WriteString(" " + w.attr(a.Name) + `="` + escaped(a.Value) + `"`)
	}
	if len(e.kids) == 0 {
		w.WriteString("/>")
		return
	}
	w.WriteByte('>')
	indent := e.onlyElements()
	for _, c := range e.kids {
		if c.el == nil {
			w.WriteString(escaped(c.text))
			continue
		}
		if indent {
			w.newLine(depth + 1)
		}
		w.element(c.el, space, "", depth+1)
	}
	if indent {
		w.newLine(depth)
	}
	w.WriteString("</" + name + ">")
}

// onlyElements tells whether white space may be put between the children.
func (e *element) onlyElements() bool {
	return !slices.ContainsFunc(e.kids, func(c child) bool { return c.el == nil })
}

func (w *xmlWriter) newLine(depth int) {
	w.WriteByte('\n')
	for range depth {
		w.WriteString("  ")
	}
}

// attr is the name of an attribute: one that has the root's namespace needs a
// prefix for it, as no attribute is of the default namespace.
func (w *xmlWriter) attr(n xml.Name) string {
	if n.Space != "" && w.prefix[n.Space] == "" {
		return "own:" + n.Local
	}
	return w.name(n)
}

func (w *xmlWriter) name(n xml.Name) string {
	if p := w.prefix[n.Space]; p != "" {
		return p + ":" + n.Local
	}
	return n.Local
}

func escaped(s string) string {
	var b strings.Builder
	// A strings.Builder never fails.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
