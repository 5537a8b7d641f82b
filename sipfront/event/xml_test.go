package event

import (
	"encoding/xml"
	"testing"
)

// TestXML_NamesSurvive: what is read is what is written, in whatever namespace.
func TestXML_NamesSurvive(t *testing.T) {
	const doc = `<p:presence xmlns:p="urn:ietf:params:xml:ns:pidf" entity="sip:a@b" xmlns:x="urn:x">
	  <p:tuple id="a" p:hint="1"><p:status><x:y x:z="&lt;&quot;" xml:lang="de">1 &amp; 2</x:y></p:status></p:tuple>
	  <bare><p:inside/><x:other/></bare><p:note> a <p:b/> c </p:note></p:presence>`
	root := xml.Name{Space: nsPIDF, Local: "presence"}
	one, err := parseXML([]byte(doc), root)
	if err != nil {
		t.Fatal(err)
	}
	text := one.marshal()
	two, err := parseXML(text, root)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !one.equal(two) {
		t.Errorf("not the same any more:\n%s", text)
	}
}

// FuzzXML: whatever can be read can be written, and read again as the same.
func FuzzXML(f *testing.F) {
	f.Add([]byte(`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:a="u" a:b="c" entity="x"><a:d> <e xmlns=""/>t</a:d></presence>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		root := xml.Name{Space: nsPIDF, Local: "presence"}
		one, err := parseXML(body, root)
		if err != nil {
			return
		}
		text := one.marshal()
		two, err := parseXML(text, root)
		if len(text) > maxDocument {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if string(two.marshal()) != string(text) {
			t.Fatalf("not the same any more:\n%s\n%s", text, two.marshal())
		}
	})
}
