package cluster_test

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// device is a UA with one instance and one flow at a time.
type device struct {
	aor, id string
	// instance is its instance-id, id if empty; id is its Call-ID.
	instance string
	cseq     uint32
	stream   bool
	// steady: it has no instance, and its flow is the same as long as its edge is.
	steady bool
	// edge and flow are what its last acknowledged registration is over.
	edge *simNode
	flow *messages.FlowID
	inc  uint64
	// until is when that expires, in node time.
	until int64
	// state is what it may believe: 1 registered, 0 not, -1 unknown.
	state int
	busy  bool
	// restMS is when it may act again.
	restMS int64
	// log is what it did, for people.
	log []string
}

func newDevice(aor, id string) *device { return &device{aor: aor, id: id} }

// register sends one REGISTER (expires 0: a removal) through an edge, as the
// edge's registrar client does, and calls done with whether it got a 200.
func (w *world) register(d *device, n *simNode, expires uint32, done func(ok bool, f *messages.Failure)) {
	d.cseq++
	flow := d.flow
	if !d.steady || d.edge != n || d.inc != n.inc {
		n.counter++
		flow = &messages.FlowID{Incarnation: n.inc, Counter: n.counter, Stream: d.stream}
	}
	if d.stream {
		n.flows.open[flow.Counter] = true
	}
	r := &messages.Register{
		Aor: d.aor, CallId: d.id, Cseq: d.cseq, Stamp: n.core.NewStamp(w.now + n.skew), Edge: n.name, Flow: flow,
		Incarnation: n.inc, Transport: "udp", Remote: "192.0.2.1:5060",
		Contacts: []*messages.RegisterContact{{
			Uri: "sip:" + d.id + "@192.0.2.1", ExpiresS: expires, HasExpires: true, Q: 1000, InstanceId: "urn:" + cmp.Or(d.instance, d.id), RegId: 1, FlowBound: true,
		}},
	}
	if d.steady {
		r.Contacts[0].InstanceId, r.Contacts[0].RegId = "", 0
	}
	w.send(d, n, r, expires, true, func(ok bool, f *messages.Failure) {
		d.log = append(d.log, fmt.Sprintf("%d: cseq %d expires %d at %s stamp %v: ok %v %v", w.now-startMS, r.Cseq, expires, n.name, r.Stamp, ok, f))
		done(ok, f)
	})
}

// star removes all bindings of an AoR through an edge.
func (w *world) star(d *device, n *simNode, done func(ok bool)) {
	d.cseq++
	r := &messages.Register{
		Aor: d.aor, CallId: d.id, Cseq: d.cseq, Stamp: n.core.NewStamp(w.now + n.skew), Edge: n.name,
		Incarnation: n.inc, Star: true, HasExpires: true,
	}
	w.send(d, n, r, 0, true, func(ok bool, f *messages.Failure) {
		d.log = append(d.log, fmt.Sprintf("%d: cseq %d * at %s stamp %v: ok %v %v", w.now-startMS, r.Cseq, n.name, r.Stamp, ok, f))
		done(ok)
	})
}

func (w *world) send(d *device, n *simNode, r *messages.Register, expires uint32, retry bool, done func(bool, *messages.Failure)) {
	core, began := n.core, w.now
	finish := func(ok bool, f *messages.Failure) {
		switch {
		case r.Cseq != d.cseq:
			ok = false // the node slept over it, and the device has gone on meanwhile
		case ok && core == n.core && n.up:
			d.state, d.edge, d.flow, d.inc = 1, n, r.Flow, n.inc
			d.until = r.Stamp.Ms + int64(expires)*1000
			if expires == 0 {
				d.state = 0
			}
		default:
			ok = false
		}
		done(ok, f)
	}
	inPlace := proto.CloneOf(r)
	inPlace.Stamp = &messages.Stamp{}
	if core.AtOnce(w.now+n.skew, inPlace, func(_, _ int64, err error) {
		r.Stamp = inPlace.Stamp
		finish(err == nil, nil)
		proto.Reset(inPlace) // whoever still shares it sees that
	}) {
		w.inPlace++
		return
	}
	core.Ask(w.now+n.skew, d.aor, r, 0, func(reply proto.Message, err error) {
		switch reply := reply.(type) {
		case *messages.Registered:
			core.Keep(w.now+n.skew, reply.Writes, func(err error) { finish(err == nil, nil) })
		case *messages.Failure:
			if reply.Code == messages.FailureCode_FAILURE_CODE_CLOCK_BEHIND && retry {
				core.RaiseClock(w.now+n.skew, reply.StampMs)
				again := proto.CloneOf(r)
				again.Stamp, again.AgeMs = core.NewStamp(w.now+n.skew), w.now-began
				w.send(d, n, again, expires, false, done)
				return
			}
			finish(false, reply)
		default:
			finish(false, nil)
		}
	})
}

// mustRegister registers and waits for the 200.
func (w *world) mustRegister(d *device, n *simNode, expires uint32) {
	w.t.Helper()
	got := 0
	w.register(d, n, expires, func(ok bool, f *messages.Failure) {
		got = 1
		if !ok {
			w.t.Errorf("register %s at %s: %v", d.aor, n.name, f)
		}
	})
	w.runUntil(3000, "registered", func() bool { return got != 0 })
}
