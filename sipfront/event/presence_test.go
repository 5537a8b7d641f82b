package event

import (
	"fmt"
	"strings"
	"testing"
)

const deskPIDF = `<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:rp="urn:ietf:params:xml:ns:pidf:rpid" xmlns:x="urn:example:x" entity="pres:alice@example.com">
  <tuple id="t1"><status><basic>closed</basic></status><contact priority="0.8">sip:alice@192.0.2.1:5060</contact>
    <note xml:lang="en">at the desk</note><timestamp>2026-01-01T00:00:00Z</timestamp></tuple>
  <note>Alice</note>
  <dm:person id="p1"><rp:activities><rp:meeting/></rp:activities><rp:mood><rp:happy/></rp:mood><dm:note>in a meeting</dm:note></dm:person>
  <dm:device id="d1"><rp:user-input>idle</rp:user-input><dm:deviceID>urn:device:1</dm:deviceID></dm:device>
  <x:seat floor="2">17 &amp; 18</x:seat>
</presence>`

const mobilePIDF = `<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="sip:alice@example.com">
  <tuple id="t1"><status><basic>open</basic></status></tuple>
  <note>Alice</note>
  <dm:person id="p9"><rpid:activities><rpid:on-the-phone/></rpid:activities><dm:note>walking</dm:note></dm:person>
  <dm:device id="d1"><rpid:user-input>active</rpid:user-input><dm:deviceID>urn:device:1</dm:deviceID></dm:device>
</presence>`

// TestRFC3856_6_7_OneDocumentOfAll: two devices have published (both a tuple
// "t1"), a third is registered and silent; the first is registered as well, and
// is not told of twice.
func TestRFC3856_6_7_OneDocumentOfAll(t *testing.T) {
	silent := phone("silent")
	silent.Contact, silent.From, silent.Q = "sip:alice@192.0.2.9:5060;transport=tcp", "tcp 192.0.2.9:5060", 500
	c := &Composition{MediaType: typePIDF, State: &State{
		AoR: alice, NowMS: 5000, Devices: []Device{phone("desk"), silent},
		Publications: []Publication{publication("desk", typePIDF, deskPIDF), publication("mobile", typePIDF, mobilePIDF)},
	}}
	golden(t, "presence-all.xml", compose(t, Presence{}, c))
}

// TestRFC3856_NobodyThere: neither a device nor a publication is closed.
func TestRFC3856_NobodyThere(t *testing.T) {
	doc := compose(t, Presence{}, &Composition{State: &State{AoR: alice}, MediaType: typePIDF})
	golden(t, "presence-none.xml", doc)
	if polite := (Presence{}).Closed(alice); string(polite.Body) != string(doc.Body) {
		t.Errorf("who is blocked politely can tell:\n%s", polite.Body)
	}
}

// TestRFC3856_RegisteredIsOpen: a registered device without PUBLISH is open;
// one that has published from the same address speaks for itself.
func TestRFC3856_RegisteredIsOpen(t *testing.T) {
	s := &State{AoR: alice, Devices: []Device{phone("a")}}
	c := &Composition{State: s, MediaType: typePIDF}
	if doc := string(compose(t, Presence{}, c).Body); !strings.Contains(doc, "<basic>open</basic>") || !strings.Contains(doc, s.Devices[0].Contact) {
		t.Errorf("registered, not open:\n%s", doc)
	}
	p := publication("p", typePIDF, strings.Replace(mobilePIDF, "open", "closed", 1))
	p.From = s.Devices[0].From
	s.Publications = []Publication{p}
	if doc := string(compose(t, Presence{}, c).Body); strings.Contains(doc, "<basic>open</basic>") {
		t.Errorf("the device said closed:\n%s", doc)
	}
}

func TestPresence_Changed(t *testing.T) {
	a := &State{AoR: alice, NowMS: 1, Devices: []Device{phone("a")}, Publications: []Publication{publication("p", typePIDF, deskPIDF)}}
	refreshed := &State{AoR: alice, NowMS: 2, Devices: []Device{phone("a")}, Publications: []Publication{publication("p", typePIDF, deskPIDF)}}
	refreshed.Devices[0].ExpiresMS++
	refreshed.Devices[0].CSeq++
	refreshed.Publications[0].ExpiresMS++
	if (Presence{}).Changed(a, refreshed) {
		t.Error("a refresh is told")
	}
	for name, b := range map[string]*State{
		"device gone":      {AoR: alice, Publications: a.Publications},
		"publication gone": {AoR: alice, Devices: a.Devices},
		"modified":         {AoR: alice, Devices: a.Devices, Publications: []Publication{publication("p", typePIDF, mobilePIDF)}},
	} {
		if !(Presence{}).Changed(a, b) {
			t.Errorf("%s: not told", name)
		}
	}
}

func TestBasics(t *testing.T) {
	doc := func(tuples string) []byte {
		return []byte(`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" entity="sip:a@b">` + tuples + `</presence>`)
	}
	open := doc(`<tuple id="1"><status><basic>open</basic></status><note>here</note></tuple>`)
	closed := doc(`<tuple id="2"><status><basic>closed</basic></status></tuple><note>away</note><note>here</note>`)
	person := doc(`<tuple id="3"><status/></tuple><dm:person id="p"><dm:note>in a meeting</dm:note></dm:person>`)
	for what, c := range map[string]struct {
		docs  [][]byte
		basic string
		notes string
	}{
		"nothing":          {nil, "", "[]"},
		"open wins":        {[][]byte{closed, open}, "open", "[away here]"},
		"only closed":      {[][]byte{closed}, "closed", "[away here]"},
		"nothing is said":  {[][]byte{person}, "", "[in a meeting]"},
		"what is no PIDF":  {[][]byte{[]byte("<html/>"), open}, "open", "[here]"},
		"the order counts": {[][]byte{open, closed}, "open", "[here away]"},
	} {
		basic, notes := Basics(c.docs...)
		if basic != c.basic || fmt.Sprint(notes) != c.notes {
			t.Errorf("%s: got %q %v, want %q %s", what, basic, notes, c.basic, c.notes)
		}
	}
}
