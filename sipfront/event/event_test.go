package event

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the documents of testdata anew")

// golden compares a document with a file of testdata, and that it is well formed.
func golden(t *testing.T, name string, doc Document) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, doc.Body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(doc.Body); got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	if strings.HasSuffix(name, ".xml") {
		if _, err := (&xmlReader{dec: newDecoder(doc.Body)}).document(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compose(t *testing.T, p Package, c *Composition) Document {
	t.Helper()
	doc, err := p.Compose(c)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const alice = "sip:alice@example.com"

func publication(id, mediaType, body string) Publication {
	return Publication{ID: id, MediaType: mediaType, Body: []byte(body), StampMS: 1000, ExpiresMS: 100_000}
}

func phone(id string) Device {
	return Device{
		ID: id, Contact: "sip:alice@192.0.2.1:5060", Q: 1000, CallID: "c-" + id, CSeq: 1,
		SinceMS: 1000, ExpiresMS: 61_000, From: "udp 192.0.2.1:5060",
	}
}

// TestDocuments_Hostile: what no phone sends is refused, and by Check.
func TestDocuments_Hostile(t *testing.T) {
	pidf := func(inner string) string {
		return `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b">` + inner + `</presence>`
	}
	bomb := `<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>` + pidf("<note>&b;</note>")
	for name, body := range map[string]string{
		"entities":            bomb,
		"external":            `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + pidf(""),
		"unknown entity":      pidf("<note>&nothing;</note>"),
		"deep":                pidf(strings.Repeat("<note>", 100) + strings.Repeat("</note>", 100)),
		"wide":                pidf(strings.Repeat("<note/>", 10_000)),
		"large":               pidf("<note>" + strings.Repeat("x", maxDocument) + "</note>"),
		"many attributes":     pidf("<note " + attributes(100) + "/>"),
		"attribute twice":     pidf(`<note a="1" a="2"/>`),
		"not UTF-8":           pidf("<note>\xff</note>"),
		"other encoding":      `<?xml version="1.0" encoding="utf-16"?>` + pidf(""),
		"instruction":         pidf("<?php echo ?>"),
		"two roots":           pidf("") + pidf(""),
		"text after the root": pidf("") + "x",
		"open end":            `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b">`,
		"empty":               "",
		"other root":          `<presence entity="sip:a@b"/>`,
		"no entity":           `<presence xmlns="urn:ietf:params:xml:ns:pidf"/>`,
		"tuple without id":    pidf(`<tuple><status/></tuple>`),
		"no status":           pidf(`<tuple id="a"/>`),
		"basic":               pidf(`<tuple id="a"><status><basic>ajar</basic></status></tuple>`),
	} {
		if err := (Presence{}).Check(typePIDF, []byte(body)); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: got %v, want ErrDocument", name, err)
		}
	}
	for _, p := range Packages() {
		if err := p.Check("text/html", []byte("<p>hello")); !errors.Is(err, ErrMediaType) {
			t.Errorf("%s: text/html: got %v, want ErrMediaType", p.Name(), err)
		}
	}
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" a")
		b.WriteString(strings.Repeat("x", i))
		b.WriteString(`="1"`)
	}
	return b.String()
}

// TestPackages_Deterministic: equal states give equal documents, and what one
// node composes another can read.
func TestPackages_Deterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		for _, p := range Packages() {
			c := &Composition{State: s, Version: rapid.Uint32().Draw(t, "version"), MediaType: p.NotifyTypes()[0]}
			one, err := p.Compose(c)
			if err != nil {
				t.Fatalf("%s: %v", p.Name(), err)
			}
			two, err := p.Compose(c)
			if err != nil || string(one.Body) != string(two.Body) || one.MediaType != two.MediaType {
				t.Fatalf("%s: not the same twice: %v\n%s\n%s", p.Name(), err, one.Body, two.Body)
			}
			if p.Changed(s, s) {
				t.Fatalf("%s: a state has changed against itself", p.Name())
			}
			if len(p.PublishTypes()) > 0 {
				if err := p.Check(one.MediaType, one.Body); err != nil {
					t.Fatalf("%s: %v in\n%s", p.Name(), err, one.Body)
				}
			}
		}
	})
}

func drawState(t *rapid.T) *State {
	text := rapid.StringMatching(`[ -~é]{0,12}`)
	id := rapid.StringMatching(`[a-c]{1,2}`)
	s := &State{AoR: alice, NowMS: 50_000}
	for range rapid.IntRange(0, 3).Draw(t, "devices") {
		d := phone(text.Draw(t, "id"))
		d.Contact, d.Q, d.From = "sip:"+text.Draw(t, "contact"), rapid.Uint32Range(0, 1000).Draw(t, "q"), ""
		d.DisplayName = text.Draw(t, "name")
		s.Devices = append(s.Devices, d)
	}
	for range rapid.IntRange(0, 4).Draw(t, "publications") {
		note := escaped(text.Draw(t, "note"))
		s.Publications = append(s.Publications, publication(id.Draw(t, "publication"), typePIDF,
			`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" entity="sip:a@b">`+
				`<tuple id="`+id.Draw(t, "tuple")+`"><status><basic>open</basic></status></tuple><note>`+note+`</note>`+
				`<dm:person id="`+id.Draw(t, "person")+`"><dm:note>`+note+`</dm:note></dm:person>`+
				`<dm:device id="`+id.Draw(t, "device")+`"><dm:deviceID>`+id.Draw(t, "deviceID")+`</dm:deviceID></dm:device></presence>`))
	}
	return s
}

func FuzzPresence(f *testing.F) {
	f.Add([]byte(`<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b"><tuple id="a"><status><basic>open</basic></status></tuple></presence>`))
	f.Add([]byte(`<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="0" state="full" entity="sip:a@b"><dialog id="1"><state>early</state></dialog></dialog-info>`))
	f.Add([]byte("Messages-Waiting: yes\r\nVoice-Message: 2/8 (0/2)\r\n"))
	f.Add([]byte(`<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list><entry uri="sip:a@b"/></list></resource-lists>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, p := range Packages() {
			if len(p.PublishTypes()) == 0 || p.Check(p.PublishTypes()[0], body) != nil {
				continue
			}
			s := &State{AoR: alice, Publications: []Publication{publication("p", p.PublishTypes()[0], string(body))}}
			doc, err := p.Compose(&Composition{State: s, MediaType: p.NotifyTypes()[0]})
			if err != nil {
				t.Fatal(err)
			}
			// What was let in must be readable in what is sent.
			if err := p.Check(doc.MediaType, doc.Body); err != nil && len(doc.Body) <= maxDocument {
				t.Fatalf("%s: %v in\n%s", p.Name(), err, doc.Body)
			}
		}
		_, _ = ParseResourceLists(typeResourceLists, body, 10)
	})
}
