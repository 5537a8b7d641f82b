package cluster_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// BenchmarkGate is what the owner's gate costs, without network and disk.
func BenchmarkGate(b *testing.B) {
	w := newWorld(b, 1, 1)
	w.settle()
	n := w.nodes[0]
	const users = 10_000
	payload := make([]*messages.Register, users)
	for i := range payload {
		aor := fmt.Sprintf("sip:user%d@example.com", i)
		payload[i] = &messages.Register{Aor: aor, CallId: aor, Edge: n.name, Incarnation: n.inc,
			Contacts: []*messages.RegisterContact{{Uri: "sip:dev@192.0.2.1:5060", ExpiresS: 3600, HasExpires: true, FlowBound: true}}}
	}
	register := func(i int) {
		r := proto.CloneOf(payload[i%users])
		r.Cseq, r.Stamp = uint32(i/users+1), n.core.NewStamp(w.now)
		n.core.Ask(w.now, r.Aor, r, 0, func(m proto.Message, err error) {
			if _, ok := m.(*messages.Registered); !ok {
				b.Fatal(m, err)
			}
		})
	}
	for i := range users {
		register(i)
	}
	b.Run("register", func(b *testing.B) {
		b.ReportAllocs()
		for i := users; b.Loop(); i++ {
			register(i)
		}
	})
	var stamp messages.Stamp
	b.Run("renew", func(b *testing.B) {
		n.disk.none = true
		r := proto.CloneOf(payload[0])
		w.run(100) // all go to rest
		then := func(int64, int64, error) {}
		b.ReportAllocs()
		renewed := 0
		for i := users; b.Loop(); i++ {
			p := payload[i%users]
			r.Aor, r.CallId, r.Cseq, r.Stamp = p.Aor, p.CallId, 1<<20+uint32(i), &stamp
			w.now += int64(i & 1)
			if n.core.AtOnce(w.now, r, then) {
				renewed++
			}
		}
		if renewed < b.N-users {
			b.Fatalf("%d of %d renewed", renewed, b.N)
		}
	})
	b.Run("locate", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			aor := payload[i%users].Aor
			n.core.Ask(w.now, aor, &messages.Locate{Aor: aor}, 0, func(m proto.Message, err error) {
				if _, ok := m.(*messages.Located); !ok {
					b.Fatal(m, err)
				}
			})
		}
	})
}
