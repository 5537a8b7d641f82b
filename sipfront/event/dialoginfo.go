package event

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
)

const (
	nsDialogInfo   = "urn:ietf:params:xml:ns:dialog-info"
	typeDialogInfo = "application/dialog-info+xml"
)

// DialogInfo is the package "dialog" (RFC 4235): the calls of a user, for busy
// lamps, as devices publish them, or whoever sees them (Dialog).
type DialogInfo struct{}

var _ Package = DialogInfo{}

// Name is "dialog".
func (DialogInfo) Name() string { return "dialog" }

// NotifyTypes is the one of RFC 4235 3.6.
func (DialogInfo) NotifyTypes() []string { return []string{typeDialogInfo} }

// PublishTypes is dialog-info.
func (DialogInfo) PublishTypes() []string { return []string{typeDialogInfo} }

// Check tells whether a body is a dialog-info document.
func (DialogInfo) Check(mediaType string, body []byte) error {
	if mediaType != typeDialogInfo {
		return ErrMediaType
	}
	_, err := parseDialogInfo(body)
	return err
}

// dialogStates are the states of a dialog (RFC 4235 3.7.1), least telling first.
var dialogStates = []string{"terminated", "trying", "proceeding", "early", "confirmed"}

func parseDialogInfo(body []byte) (*element, error) {
	root, err := parseXML(body, xml.Name{Space: nsDialogInfo, Local: "dialog-info"})
	if err != nil {
		return nil, err
	}
	if root.attr("entity") == "" {
		return nil, fmt.Errorf("%w: no entity", ErrDocument)
	}
	root.all(nsDialogInfo, "dialog", func(d *element) {
		state := d.first(nsDialogInfo, "state").text()
		switch {
		case d.attr("id") == "":
			err = fmt.Errorf("%w: dialog without id", ErrDocument)
		case !slices.Contains(dialogStates, state):
			err = fmt.Errorf("%w: dialog state %q", ErrDocument, state)
		}
	})
	if err != nil {
		return nil, err
	}
	return root, nil
}

// Changed compares publications.
func (DialogInfo) Changed(told, now *State) bool {
	return !samePublications(told.Publications, now.Publications)
}

// Compose lists every dialog of the user; each document is full (RFC 4235 4.1
// leaves that to the notifier). A dialog that several tell of is listed once, as
// the latest of them has it.
func (DialogInfo) Compose(c *Composition) (Document, error) {
	root := newElement(nsDialogInfo, "dialog-info", "").
		set("version", strconv.FormatUint(uint64(c.Version), 10)).set("state", "full").set("entity", c.State.AoR)
	d := dialogs{ids: map[string]bool{}}
	for i := range c.State.Publications {
		p := &c.State.Publications[i]
		if published, err := parseDialogInfo(p.Body); err == nil {
			published.all(nsDialogInfo, "dialog", func(e *element) { d.publish(e, p.ID) })
		}
	}
	for _, e := range d.list {
		root.kids = append(root.kids, child{el: e})
	}
	return Document{MediaType: typeDialogInfo, Body: root.marshal()}, nil
}

// dialogs is the list under construction.
type dialogs struct {
	list []*element
	ids  map[string]bool
}

func (d *dialogs) publish(e *element, publication string) {
	if i := d.index(e.attr("call-id"), e.attr("local-tag"), e.attr("remote-tag")); i >= 0 {
		d.list[i] = e.withAttr("id", d.list[i].attr("id"))
		return
	}
	d.list = append(d.list, e.withAttr("id", d.unique(e.attr("id"), publication)))
}

// Document is what is published of one dialog of a user.
func (d *Dialog) Document(aor string) Document {
	root := newElement(nsDialogInfo, "dialog-info", "").set("version", "0").set("state", "full").set("entity", aor)
	e := root.add(nsDialogInfo, "dialog", "").set("id", xmlID(d.ID))
	for _, a := range [][2]string{
		{"call-id", d.CallID}, {"local-tag", d.LocalTag}, {"remote-tag", d.RemoteTag}, {"direction", d.Direction},
	} {
		if a[1] != "" {
			e.set(a[0], a[1])
		}
	}
	e.add(nsDialogInfo, "state", d.State)
	if d.Remote != "" {
		e.add(nsDialogInfo, "remote", "").add(nsDialogInfo, "identity", d.Remote)
	}
	return Document{MediaType: typeDialogInfo, Body: root.marshal()}
}

// index finds a dialog by its identifiers; one without Call-ID is like no other.
func (d *dialogs) index(callID, local, remote string) int {
	if callID == "" {
		return -1
	}
	return slices.IndexFunc(d.list, func(e *element) bool {
		return e.attr("call-id") == callID && sameTag(e.attr("local-tag"), local) && sameTag(e.attr("remote-tag"), remote)
	})
}

// sameTag: a side that has not heard of a tag yet means the same dialog.
func sameTag(a, b string) bool { return a == b || a == "" || b == "" }

func (d *dialogs) unique(id, publication string) string {
	for i := 0; id == "" || d.ids[id]; i++ {
		id = fmt.Sprintf("%s-%s-%d", id, xmlID(publication), i)
	}
	d.ids[id] = true
	return id
}
