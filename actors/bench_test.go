package actors

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// benchReplica holds n live bindings and as many tombstones as said.
func benchReplica(n, dead int) *replica {
	limits := DefaultLimits()
	limits.MaxBindings = 64
	p := newReplica(limits)
	for i := range n {
		p.register("n1", "c", uint32(i+1), fmt.Sprintf("sip:alice@10.0.0.%d:5060;transport=udp", i))
	}
	for i := range dead {
		p.register("n1", "c", uint32(i+1), fmt.Sprintf("sip:alice@10.0.1.%d:5060|expires=0", i))
	}
	return p
}

func BenchmarkRegister(b *testing.B) {
	for _, n := range []int{1, 5, 20} {
		for _, kind := range []string{"refresh", "replay", "equal-uri", "query"} {
			b.Run(fmt.Sprintf("bindings=%d/do=%s", n, kind), func(b *testing.B) {
				p := benchReplica(n, 2)
				p.now += 1000
				r := request(p.now, "n1", "c", 1000, "sip:alice@10.0.0.0:5060;transport=udp")
				switch kind {
				case "replay":
					p.ask(r)
				case "equal-uri":
					r.Contacts[0].Uri = "sip:%61lice@10.0.0.0:5060;transport=UDP"
				case "query":
					r.Contacts = nil
				}
				q := p.question(r)
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := p.user.Answer(q).Reply.(*messages.Registered); !ok {
						b.Fatal("refused")
					}
				}
			})
		}
	}
}

func BenchmarkLocate(b *testing.B) {
	for _, n := range []int{0, 1, 5, 20} {
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) {
			p := benchReplica(n, 2)
			q := p.question(&messages.Locate{Aor: testAoR})
			b.ReportAllocs()
			for b.Loop() {
				p.user.Answer(q)
			}
		})
	}
}

func BenchmarkParseAoR(b *testing.B) {
	d := testDomains(b)
	for name, uri := range map[string]string{"plain": "sip:alice@example.com", "full": "sip:+1-201-555-0123@SIP.example.com:5060;user=phone"} {
		b.Run("uri="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseAoR(uri, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEqualURI(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !EqualURI("sip:alice@phone.example.com:5060;transport=udp;ob", "sip:%61lice@Phone.example.com:5060;ob;transport=UDP") {
			b.Fatal("different")
		}
	}
}

func BenchmarkChanged(b *testing.B) {
	p := benchReplica(5, 2)
	before := proto.CloneOf(p.rec)
	b.ReportAllocs()
	for b.Loop() {
		p.user.Changed(before, p.rec, p.now)
	}
}
