package sipfront

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"hereis/messages"
	"hereis/sipfront/event"
)

// Whatever the order in which a node has heard of leases, it composes the same documents.
func TestDocumentsDoNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := &messages.Record{Aor: "sip:alice@example.com"}
		for i := range rapid.IntRange(0, 6).Draw(t, "leases") {
			l := &messages.Lease{
				Key: fmt.Appendf(nil, "k%d", i), Stamp: &messages.Stamp{Ms: int64(i + 1)}, Edge: "n",
				ExpiresMs: 100_000, CallId: fmt.Sprint("c", i), Cseq: 1,
			}
			if rapid.Bool().Draw(t, "binding") {
				l.Kind = messages.LeaseKind_LEASE_KIND_BINDING
				l.Payload = marshaled(&messages.Binding{Contact: fmt.Sprintf("sip:alice@192.0.2.%d", i), Q: 1000, Transport: "udp"})
			} else {
				l.Kind = messages.LeaseKind_LEASE_KIND_PUBLICATION
				note := rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "note")
				l.Payload = marshaled(&messages.Publication{
					Event: "presence", ContentType: "application/pidf+xml", ChangedMs: rapid.Int64Range(1, 3).Draw(t, "changed"),
					Body: []byte(`<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" entity="sip:a@b">` +
						`<tuple id="t"><status><basic>open</basic></status></tuple><dm:person id="p"><dm:note>` + note + `</dm:note></dm:person></presence>`),
				})
			}
			rec.Leases = append(rec.Leases, l)
		}
		seed := rapid.Uint64().Draw(t, "order")
		other := proto.CloneOf(rec)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(other.Leases), func(i, j int) {
			other.Leases[i], other.Leases[j] = other.Leases[j], other.Leases[i]
		})
		for _, p := range event.Packages() {
			a, b := composed(t, p, rec), composed(t, p, other)
			if a != b {
				t.Fatalf("%s:\n%s\nin another order:\n%s", p.Name(), a, b)
			}
		}
	})
}

func marshaled(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // of a message made here
	}
	return b
}

func composed(t *rapid.T, p event.Package, rec *messages.Record) string {
	doc, err := p.Compose(&event.Composition{State: stateOf(p.Name(), rec, 50_000), MediaType: p.NotifyTypes()[0]})
	if err != nil {
		t.Fatal(err)
	}
	return string(doc.Body)
}
