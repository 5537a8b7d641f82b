package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

const (
	nsRLMI   = "urn:ietf:params:xml:ns:rlmi"
	typeRLMI = "application/rlmi+xml"
)

// ListMediaType is what a subscriber to a list must accept besides the media
// type of the package (RFC 4662 4.1), and TypeRLMI the other one.
const (
	ListMediaType = "multipart/related"
	TypeRLMI      = typeRLMI
)

// List is the state of a resource list, or the part of it that has changed,
// of which a notifier makes one document (RFC 4662 5).
type List struct {
	URI string
	// Version counts the documents of one subscription, from 0.
	Version uint32
	// Full: all members are here, with their state.
	Full    bool
	Members []Member
}

// Member is one resource of a list.
type Member struct {
	Resource
	// Instance tells the virtual subscription to the member apart from others.
	Instance string
	// State is "active", "pending" or "terminated"; Reason goes with the last
	// (RFC 6665 4.1.3).
	State, Reason string
	// Document is the state of the member; nil if none is sent with this one.
	Document *Document
}

// Document makes the multipart/related body. Equal lists give equal bytes.
func (l *List) Document() Document {
	parts := l.parts()
	boundary := boundaryOf(parts)
	var b bytes.Buffer
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <%s>\r\nContent-Type: %s\r\n\r\n",
			boundary, p.id, p.mediaType)
		b.Write(p.body)
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return Document{
		MediaType: fmt.Sprintf(`%s;type="%s";start="<%s>";boundary="%s"`, ListMediaType, typeRLMI, parts[0].id, boundary),
		Body:      b.Bytes(),
	}
}

// part is one body part.
type part struct {
	id, mediaType string
	body          []byte
}

// parts makes the list itself, which is the root, and the members' documents.
func (l *List) parts() []part {
	root := newElement(nsRLMI, "list", "").set("uri", l.URI).
		set("version", strconv.FormatUint(uint64(l.Version), 10)).set("fullState", strconv.FormatBool(l.Full))
	parts := []part{{id: l.contentID(0), mediaType: typeRLMI + ";charset=\"UTF-8\""}}
	for i := range l.Members {
		m := &l.Members[i]
		res := root.add(nsRLMI, "resource", "").set("uri", m.URI)
		if m.Name != "" {
			res.add(nsRLMI, "name", m.Name)
		}
		if m.State == "" {
			continue
		}
		inst := res.add(nsRLMI, "instance", "").set("id", m.Instance).set("state", m.State)
		if m.Reason != "" {
			inst.set("reason", m.Reason)
		}
		if m.Document != nil && len(m.Document.Body) > 0 {
			id := l.contentID(i + 1)
			inst.set("cid", id)
			parts = append(parts, part{id: id, mediaType: m.Document.MediaType, body: m.Document.Body})
		}
	}
	parts[0].body = root.marshal()
	return parts
}

// contentID is unique among the documents of a list (RFC 2392 asks for more,
// but nobody looks for these parts outside their body).
func (l *List) contentID(n int) string {
	sum := sha256.Sum256([]byte(l.URI))
	return fmt.Sprintf("%d.%d@%s", l.Version, n, hex.EncodeToString(sum[:8]))
}

// boundaryOf makes a boundary that no part contains: 128 bits of their hash.
func boundaryOf(parts []part) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p.id))
		h.Write(p.body)
	}
	return "list-" + hex.EncodeToString(h.Sum(nil)[:16])
}
