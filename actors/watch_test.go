package actors

import (
	"fmt"
	"testing"
	"time"

	"hereis/messages"
)

func TestWhereAndUnknownMessages(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA)
	w := p.ask(&messages.Where{Aor: testAoR}).Reply.(*messages.Whereabouts)
	if w.Record != p.rec || w.NowMs != p.now || !w.Settled {
		t.Errorf("got %v", w)
	}
	check(t, "unknown", showFailure(p.ask(&messages.Ping{})), "UNKNOWN_TYPE")
}

func TestChanged(t *testing.T) {
	p := newReplica(DefaultLimits())
	live := map[string]uint64{"n1": 0, "n2": 0, "n3": 0}
	step := func(what string, f func(), want string) {
		t.Helper()
		before := Sight{p.rec, p.now, live}
		f()
		got := "nothing"
		if p.user.Changed(before.Record, p.rec, p.now) {
			s := StepBetween(before, Sight{p.rec, p.now, live})
			got = fmt.Sprintf("%s %s n=%d edge=%s", s.Kind, s.Reason, len(s.Devices), s.Device.GetEdge())
		}
		check(t, what, got, want)
		p.advance(time.Second)
	}
	step("first", func() { p.register("n1", "c", 1, contactA) }, "online registered n=1 edge=n1")
	step("refresh", func() { p.register("n1", "c", 2, contactA) }, "nothing")
	step("second", func() { p.register("n2", "d", 1, contactB) }, "changed  n=2 edge=n2")
	step("move", func() { p.register("n3", "c", 3, contactA) }, "changed  n=2 edge=n3")
	step("one leaves", func() { p.register("n2", "d", 2, contactB+"|expires=0") }, "changed unregistered n=1 edge=n2")
	step("tombstone refreshed", func() { p.register("n2", "d", 3, contactB+"|expires=0") }, "nothing")
	step("all leave", func() { p.ask(expires(request(p.now, "n1", "e", 1, "*"), 0)) }, "offline unregistered n=0 edge=n3")
	if p.user.Changed(nil, p.rec, p.now) {
		t.Errorf("nobody to nobody is a change")
	}
}
