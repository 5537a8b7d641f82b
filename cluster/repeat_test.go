package cluster_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// A device that has no answer yet sends its request again, as a new transaction.
// The second answer promises what the first one would have: it does not overtake
// the copies for which that one waits.
func TestRule5_ARepeatWaitsForTheCopiesOfTheFirst(t *testing.T) {
	type story struct {
		// before makes the state that ask changes, which goes through edge; the
		// copies for slow do not arrive.
		before func(w *world, d *device)
		ask    func(w *world, d *device, edge *simNode) proto.Message
		// holder: the edge is the owner, and slow the backup; else slow is the former edge.
		holder bool
	}
	bind := func(expires uint32) func(*world, *device, *simNode) proto.Message {
		return func(w *world, d *device, edge *simNode) proto.Message {
			return &messages.Register{
				Aor: d.aor, CallId: d.id, Cseq: 7, Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc,
				Flow: &messages.FlowID{Incarnation: edge.inc, Counter: 99},
				Contacts: []*messages.RegisterContact{{
					Uri: "sip:" + d.id + "@192.0.2.1", ExpiresS: expires, HasExpires: true, InstanceId: "urn:" + d.id, RegId: 1, FlowBound: true,
				}},
			}
		}
	}
	registered := func(w *world, d *device) { w.mustRegister(d, w.others(d.aor)[0], 3600) }
	for name, c := range map[string]story{
		"an add":    {ask: bind(3600), holder: true},
		"a removal": {before: registered, ask: bind(0)},
		"a move":    {before: registered, ask: bind(3600)},
		"a star": {before: registered, ask: func(w *world, d *device, edge *simNode) proto.Message {
			return &messages.Register{
				Aor: d.aor, CallId: d.id, Cseq: 7, Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc,
				Star: true, HasExpires: true,
			}
		}},
		"an operator's removal": {before: registered, ask: func(w *world, d *device, edge *simNode) proto.Message {
			return &messages.Remove{
				Aor: d.aor, CallId: "operator-1", Binding: "sip:" + d.id + "@192.0.2.1",
				Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc,
			}
		}},
		"a publication": {holder: true, ask: func(w *world, d *device, edge *simNode) proto.Message {
			return &messages.Publish{
				Aor: d.aor, Event: watchEvent, CallId: d.id, Cseq: 7, Id: "id", EntityTag: "tag", ContentType: "text/plain",
				Body: []byte("here"), ExpiresS: 3600, HasExpires: true, Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc,
			}
		}},
		"a message": {holder: true, ask: func(w *world, d *device, edge *simNode) proto.Message {
			return &messages.StoreMessage{
				Aor: d.aor, CallId: d.id, Cseq: 7, Payload: []byte("hello"), ExpiresMs: w.now + 3_600_000,
				Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc,
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			w.settle()
			d := newDevice("sip:again@example.com", "again")
			if c.before != nil {
				c.before(w, d)
			}
			w.run(1000)
			owner, backup := w.holders(w.nodes[0], d.aor)
			edge, slow := w.others(d.aor)[1], w.others(d.aor)[0]
			if c.holder {
				edge, slow = owner, backup
			}
			end := w.filter(func(_, to string, env *messages.Envelope) bool { return to != slow.name || env.Type != "hereis.Push" })
			answers := 0
			ask := func() {
				edge.core.Ask(w.now, d.aor, c.ask(w, d, edge), 0, func(reply proto.Message, err error) {
					if f, failed := reply.(*messages.Failure); failed || err != nil {
						t.Errorf("%v %v", f, err)
					}
					answers++
				})
			}
			ask()
			w.run(50)
			ask()
			w.run(50)
			if answers != 0 {
				t.Errorf("%d of two were answered before %s had the copy", answers, slow.name)
			}
			end()
			w.run(140)
			if answers != 2 {
				t.Errorf("%d of two were answered when %s had the copy", answers, slow.name)
			}
			// What has been copied is answered at once.
			w.run(3000)
			ask()
			w.run(20)
			if answers != 3 {
				t.Error("a late repeat waits for nobody, and was not answered")
			}
			if n := owner.core.Stats().Undercopied.Load(); n != 0 {
				t.Errorf("%d were answered without copies", n)
			}
		})
	}
}
