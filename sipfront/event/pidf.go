package event

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// Namespaces of presence documents.
const (
	nsPIDF      = "urn:ietf:params:xml:ns:pidf"            // RFC 3863
	nsDataModel = "urn:ietf:params:xml:ns:pidf:data-model" // RFC 4479
	nsRPID      = "urn:ietf:params:xml:ns:pidf:rpid"       // RFC 4480
)

const typePIDF = "application/pidf+xml"

// Presence is the package "presence" (RFC 3856): PIDF documents (RFC 3863) with
// persons and devices (RFC 4479) and rich presence (RFC 4480), composed from
// what all devices of a user publish and from their registrations.
type Presence struct{}

var _ Package = Presence{}

// Uniform: every watcher who may see the user sees the same.
func (Presence) Uniform() {}

// Name is "presence".
func (Presence) Name() string { return "presence" }

// NotifyTypes is PIDF alone, which every watcher must understand (RFC 3856 6.7).
func (Presence) NotifyTypes() []string { return []string{typePIDF} }

// PublishTypes is PIDF.
func (Presence) PublishTypes() []string { return []string{typePIDF} }

// Check tells whether a body is a PIDF document.
func (Presence) Check(mediaType string, body []byte) error {
	if mediaType != typePIDF {
		return ErrMediaType
	}
	_, err := parsePIDF(body)
	return err
}

// Changed compares registrations and publications.
func (Presence) Changed(told, now *State) bool {
	return !slices.EqualFunc(told.Devices, now.Devices, func(a, b Device) bool {
		return a.ID == b.ID && a.Contact == b.Contact && a.Q == b.Q && a.From == b.From
	}) || !samePublications(told.Publications, now.Publications)
}

// samePublications tells whether nothing was published, modified or withdrawn.
func samePublications(a, b []Publication) bool {
	return slices.EqualFunc(a, b, func(a, b Publication) bool {
		return a.ID == b.ID && a.StampMS == b.StampMS && a.From == b.From &&
			a.MediaType == b.MediaType && string(a.Body) == string(b.Body)
	})
}

// Compose makes one document of everything. A tuple of a publication stands as
// it was published; a registered device that has not published is an open
// tuple of its own; a user with neither is one closed tuple.
func (Presence) Compose(c *Composition) (Document, error) {
	b := newPIDF(c.State.AoR)
	for i := range c.State.Publications {
		p := &c.State.Publications[i]
		root, err := parsePIDF(p.Body)
		if err != nil {
			// Checked when it was published; a node of another release may think otherwise.
			continue
		}
		b.merge(p, root)
	}
	for i := range c.State.Devices {
		b.register(&c.State.Devices[i])
	}
	return Document{MediaType: typePIDF, Body: b.document().marshal()}, nil
}

// Closed is what a watcher sees who is blocked politely (RFC 5025 3.2.1): a
// user who is not there, whatever the truth.
func (Presence) Closed(aor string) Document {
	return Document{MediaType: typePIDF, Body: newPIDF(aor).document().marshal()}
}

// Basics are the essence of what a user has published: "open" if any tuple of any
// document is, "closed" if there are only others, empty if there is none; and the
// notes of all, each once. Documents that cannot be read are left out.
func Basics(documents ...[]byte) (basic string, notes []string) {
	note := func(e *element) {
		if text := strings.TrimSpace(e.text()); text != "" && !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	for _, body := range documents {
		root, err := parsePIDF(body)
		if err != nil {
			continue
		}
		root.all(nsPIDF, "note", note)
		root.all(nsPIDF, "tuple", func(t *element) {
			t.all(nsPIDF, "note", note)
			if is := t.first(nsPIDF, "status").first(nsPIDF, "basic"); is != nil && basic != "open" {
				basic = is.text()
			}
		})
		root.all(nsDataModel, "person", func(p *element) { p.all(nsDataModel, "note", note) })
	}
	return basic, notes
}

// parsePIDF reads a presence document and checks what composing relies on.
func parsePIDF(body []byte) (*element, error) {
	root, err := parseXML(body, xml.Name{Space: nsPIDF, Local: "presence"})
	if err != nil {
		return nil, err
	}
	if root.attr("entity") == "" {
		return nil, fmt.Errorf("%w: no entity", ErrDocument)
	}
	root.all(nsPIDF, "tuple", func(t *element) {
		basic := t.first(nsPIDF, "status").first(nsPIDF, "basic")
		switch {
		case t.attr("id") == "":
			err = fmt.Errorf("%w: tuple without id", ErrDocument)
		case t.first(nsPIDF, "status") == nil:
			err = fmt.Errorf("%w: tuple without status", ErrDocument)
		case basic != nil && basic.text() != "open" && basic.text() != "closed":
			err = fmt.Errorf("%w: basic status %q", ErrDocument, basic.text())
		}
	})
	if err != nil {
		return nil, err
	}
	return root, nil
}

// pidf is a presence document under construction.
type pidf struct {
	aor     string
	tuples  []*element
	persons []*element
	devices []*element
	notes   []*element
	others  []*element
	// spoken are the contacts and addresses of devices that have published.
	spoken map[string]bool
	ids    map[string]bool
}

func newPIDF(aor string) *pidf {
	return &pidf{aor: aor, spoken: map[string]bool{}, ids: map[string]bool{}}
}

// merge takes in a publication.
func (b *pidf) merge(p *Publication, root *element) {
	if p.From != "" {
		b.spoken[p.From] = true
	}
	for _, k := range root.kids {
		switch {
		case k.el == nil:
		case k.el.is(nsPIDF, "tuple"):
			if contact := k.el.first(nsPIDF, "contact").text(); contact != "" {
				b.spoken[contact] = true
			}
			b.tuples = append(b.tuples, b.unique(k.el, "id", p.ID))
		case k.el.is(nsPIDF, "note"):
			b.notes = addOnce(b.notes, k.el)
		case k.el.is(nsDataModel, "person"):
			b.persons = append(b.persons, k.el)
		case k.el.is(nsDataModel, "device"):
			b.device(k.el, p.ID)
		default:
			b.others = addOnce(b.others, k.el)
		}
	}
}

// device adds a device element, or puts it in the place of an older one of the
// same deviceID (RFC 4479 3.2).
func (b *pidf) device(e *element, publication string) {
	id := e.first(nsDataModel, "deviceID").text()
	if i := slices.IndexFunc(b.devices, func(o *element) bool {
		return id != "" && o.first(nsDataModel, "deviceID").text() == id
	}); i >= 0 {
		b.devices[i] = e.withAttr("id", b.devices[i].attr("id"))
		return
	}
	b.devices = append(b.devices, b.unique(e, "id", publication))
}

// unique returns the element with an id that nothing else in the document has.
func (b *pidf) unique(e *element, attr, publication string) *element {
	id := e.attr(attr)
	for i := 0; id == "" || b.ids[id]; i++ {
		id = fmt.Sprintf("%s-%s", e.attr(attr), xmlID(publication))
		if i > 0 {
			id = fmt.Sprintf("%s-%d", id, i)
		}
	}
	b.ids[id] = true
	if id == e.attr(attr) {
		return e
	}
	return e.withAttr(attr, id)
}

// register adds a registered device that has not said anything of itself.
func (b *pidf) register(d *Device) {
	if b.spoken[d.Contact] || d.From != "" && b.spoken[d.From] {
		return
	}
	t := newElement(nsPIDF, "tuple", "").set("id", "r"+xmlID(d.ID))
	t = b.unique(t, "id", d.ID)
	t.add(nsPIDF, "status", "").add(nsPIDF, "basic", "open")
	contact := t.add(nsPIDF, "contact", d.Contact)
	if d.Q < 1000 {
		contact.set("priority", qvalue(d.Q))
	}
	b.tuples = append(b.tuples, t)
}

// document puts everything in the order that RFC 3863 4.1.1 has: tuples, notes, extensions.
func (b *pidf) document() *element {
	root := newElement(nsPIDF, "presence", "").set("entity", b.aor)
	if len(b.tuples) == 0 {
		t := newElement(nsPIDF, "tuple", "").set("id", "none")
		t.add(nsPIDF, "status", "").add(nsPIDF, "basic", "closed")
		b.tuples = append(b.tuples, t)
	}
	for _, list := range [][]*element{b.tuples, b.notes, b.person(), b.devices, b.others} {
		for _, e := range list {
			root.kids = append(root.kids, child{el: e})
		}
	}
	return root
}

// person makes one person of all (RFC 4479 3.1: there is one): of each kind of
// element the latest word counts, and all notes do.
func (b *pidf) person() []*element {
	if len(b.persons) <= 1 {
		return b.persons
	}
	last := b.persons[len(b.persons)-1]
	one := &element{name: last.name, attrs: last.attrs}
	var notes, stamps, kids []*element
	for _, p := range b.persons {
		fresh := map[xml.Name]bool{}
		for _, k := range p.kids {
			switch {
			case k.el == nil:
				continue
			case k.el.is(nsDataModel, "note"):
				notes = addOnce(notes, k.el)
				continue
			case k.el.is(nsDataModel, "timestamp"):
				stamps = []*element{k.el}
				continue
			}
			if !fresh[k.el.name] {
				fresh[k.el.name] = true
				kids = slices.DeleteFunc(kids, func(o *element) bool { return o.name == k.el.name })
			}
			kids = append(kids, k.el)
		}
	}
	for _, list := range [][]*element{kids, notes, stamps} {
		for _, e := range list {
			one.kids = append(one.kids, child{el: e})
		}
	}
	return []*element{one}
}

func (e *element) is(space, local string) bool {
	return e.name.Space == space && e.name.Local == local
}

// addOnce appends an element that the list does not have.
func addOnce(list []*element, e *element) []*element {
	if slices.ContainsFunc(list, func(o *element) bool { return o.equal(e) }) {
		return list
	}
	return append(list, e)
}

func (e *element) equal(o *element) bool {
	return e.name == o.name && slices.Equal(e.attrs, o.attrs) &&
		slices.EqualFunc(e.kids, o.kids, func(a, b child) bool {
			if a.el == nil || b.el == nil {
				return a.el == b.el && a.text == b.text
			}
			return a.el.equal(b.el)
		})
}

// xmlID makes a string fit to be part of an xs:ID.
func xmlID(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, s)
}

// qvalue writes thousandths as RFC 3261 25.1 has it.
func qvalue(thousandths uint32) string {
	if thousandths >= 1000 {
		return "1"
	}
	if thousandths == 0 {
		return "0"
	}
	return strings.TrimRight(fmt.Sprintf("0.%03d", thousandths), "0")
}
