package event

import (
	"errors"
	"strings"
	"testing"
)

// TestRFC3680_5_EveryChange: a device registers, refreshes, shortens, expires
// and is removed; documents after the first are partial.
func TestRFC3680_5_EveryChange(t *testing.T) {
	at := func(nowMS int64, devices ...Device) *State { return &State{AoR: alice, NowMS: nowMS, Devices: devices} }
	a, b := phone("a"), phone("b")
	b.Contact, b.Q, b.InstanceID, b.RegID, b.Params = "sip:alice@[2001:db8::1]", 500, "urn:uuid:1", 2, []string{`audio`, `methods="INVITE"`}
	b.DisplayName = `Alice "B" & sons`
	refreshed, shortened := b, a
	refreshed.CSeq, refreshed.ExpiresMS = 2, 90_000
	shortened.CSeq, shortened.ExpiresMS = 2, 30_000
	states := []*State{at(500), at(2000, a), at(3000, a, b), at(4000, shortened, refreshed), at(31_000, refreshed), at(32_000)}
	names := []string{"init", "registered", "second", "changed", "expired", "unregistered"}
	var told *State
	for i, s := range states {
		if told != nil && !(Reg{}).Changed(told, s) {
			t.Errorf("%s is no change", names[i])
		}
		c := &Composition{State: s, Told: told, Version: uint32(i), MediaType: typeReginfo}
		golden(t, "reg-"+names[i]+".xml", compose(t, Reg{}, c))
		told = s
	}
}

// TestRFC4235_4_Dialogs: two devices and the proxy tell of calls; each call is
// listed once.
func TestRFC4235_4_Dialogs(t *testing.T) {
	const desk = `<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="7" state="full" entity="sip:alice@example.com">
		<dialog id="1" call-id="c1" local-tag="l1" remote-tag="r1" direction="initiator"><state code="180">early</state></dialog></dialog-info>`
	const mobile = `<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="0" state="partial" entity="sip:alice@example.com">
		<dialog id="1" call-id="c2" local-tag="l2"><state>trying</state></dialog></dialog-info>`
	seen := func(d Dialog) Publication {
		return publication("seen", typeDialogInfo, string(d.Document(alice).Body))
	}
	s := &State{AoR: alice, Publications: []Publication{
		seen(Dialog{ID: "x", CallID: "c1", LocalTag: "l1", Direction: "initiator", State: "confirmed"}),
		publication("desk", typeDialogInfo, desk), publication("mobile", typeDialogInfo, mobile),
		seen(Dialog{ID: "y", CallID: "c3", LocalTag: "l3", RemoteTag: "r3", Direction: "recipient", State: "confirmed", Remote: "sip:bob@example.com"}),
	}}
	golden(t, "dialog.xml", compose(t, DialogInfo{}, &Composition{State: s, Version: 3, MediaType: typeDialogInfo}))
	golden(t, "dialog-none.xml", compose(t, DialogInfo{}, &Composition{State: &State{AoR: alice}, MediaType: typeDialogInfo}))
	for name, body := range map[string]string{
		"state": strings.Replace(desk, "early", "late", 1), "id": strings.Replace(desk, `id="1"`, "", 1), "root": deskPIDF,
	} {
		if err := (DialogInfo{}).Check(typeDialogInfo, []byte(body)); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestRFC3858_4_Watchers: full, then partial with who came, changed and went.
func TestRFC3858_4_Watchers(t *testing.T) {
	w := Winfo{Of: "presence"}
	bob := Watcher{ID: "b", AoR: "sip:bob@example.com", Status: "pending", Event: "subscribe", SinceMS: 1000, ExpiresMS: 61_000}
	carol := Watcher{ID: "c", AoR: "sip:carol@example.com", Status: "active", Event: "subscribe", SinceMS: 2000, ExpiresMS: 61_000}
	approved := bob
	approved.Status, approved.Event = "active", "approved"
	first := &State{AoR: alice, NowMS: 3000, Watchers: []Watcher{bob, carol}}
	golden(t, "winfo-full.xml", compose(t, w, &Composition{State: first, MediaType: typeWinfo}))
	next := &State{AoR: alice, NowMS: 4000, Watchers: []Watcher{approved}}
	if !w.Changed(first, next) || w.Changed(first, first) {
		t.Error("what is a change?")
	}
	golden(t, "winfo-partial.xml", compose(t, w, &Composition{State: next, Told: first, Version: 1, MediaType: typeWinfo}))
}

// TestRFC3842_3_6_Mailboxes: the example of RFC 3842 5.2, two mailboxes, none, and nonsense.
func TestRFC3842_3_6_Mailboxes(t *testing.T) {
	const one = "Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 2/8 (0/2)\r\n\r\nTo: <alice@atlanta.example.com>\r\n"
	const two = "messages-waiting: no\nFax-Message: 0/1\nvoice-message: 1/0\n"
	none := compose(t, MessageSummary{}, &Composition{State: &State{AoR: alice}})
	golden(t, "mwi-none.txt", none)
	s := &State{AoR: alice, Publications: []Publication{publication("a", typeMessageSummary, one), publication("b", typeMessageSummary, two)}}
	golden(t, "mwi-two.txt", compose(t, MessageSummary{}, &Composition{State: s}))
	for _, bad := range []string{"", "Voice-Message: 1/2\r\n", "Messages-Waiting: maybe\r\n", "Messages-Waiting: yes\r\nVoice-Message: 1\r\n",
		"Messages-Waiting: yes\r\nVoice-Message: 1/2 (3/4\r\n", "Messages-Waiting: yes\r\nSmoke-Message: 1/2\r\n", "Messages-Waiting"} {
		if err := (MessageSummary{}).Check(typeMessageSummary, []byte(bad)); !errors.Is(err, ErrDocument) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// TestRFC5367_4_ListInTheBody: nested lists are one; references are refused.
func TestRFC5367_4_ListInTheBody(t *testing.T) {
	list := func(inner string) []byte {
		return []byte(`<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists">` + inner + `</resource-lists>`)
	}
	got, err := ParseResourceLists(typeResourceLists, list(`<list><entry uri="sip:a@b"><display-name>A</display-name></entry>
		<list name="more"><entry uri="sip:c@d"/><entry uri="sip:a@b"/></list></list>`), 2)
	if err != nil || len(got) != 2 || got[0] != (Resource{"sip:a@b", "A"}) || got[1].URI != "sip:c@d" {
		t.Errorf("got %v, %v", got, err)
	}
	for name, inner := range map[string]string{
		"empty": "<list/>", "none": "", "no uri": "<list><entry/></list>",
		"external": `<list><external anchor="http://x"/></list>`, "ref": `<list><entry-ref ref="x"/></list>`,
	} {
		if _, err := ParseResourceLists(typeResourceLists, list(inner), 9); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var many TooManyResourcesError
	if _, err := ParseResourceLists(typeResourceLists, list(`<list><entry uri="sip:a@b"/><entry uri="sip:c@d"/></list>`), 1); !errors.As(err, &many) || many.Max != 1 {
		t.Errorf("too many: got %v", err)
	}
}

// TestRFC4662_5_ListDocument: the list is the root part, each member with state
// has a part of its own.
func TestRFC4662_5_ListDocument(t *testing.T) {
	closed := (Presence{}).Closed("sip:bob@example.com")
	l := &List{URI: "sip:friends@example.com", Version: 1, Full: true, Members: []Member{
		{Resource: Resource{"sip:bob@example.com", "Bob"}, Instance: "i1", State: "active", Document: &closed},
		{Resource: Resource{"sip:carol@example.com", ""}, Instance: "i2", State: "pending"},
		{Resource: Resource{"sip:dave@example.com", ""}, Instance: "i3", State: "terminated", Reason: "noresource"},
		{Resource: Resource{"sip:erin@example.com", ""}},
	}}
	doc := l.Document()
	golden(t, "list.multipart", doc)
	if !strings.HasPrefix(doc.MediaType, `multipart/related;type="application/rlmi+xml";start="<1.0@`) {
		t.Errorf("media type %s", doc.MediaType)
	}
}
