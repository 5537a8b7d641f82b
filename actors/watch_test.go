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
	step := func(what string, f func(), want string) {
		t.Helper()
		before := p.rec
		f()
		got := "nothing"
		if ev := p.user.Changed(before, p.rec, p.now); ev != nil {
			got = fmt.Sprintf("online=%v changed=%v n=%d edge=%s", ev.Online, ev.Changed, len(ev.Bindings), ev.Edge)
			if ev.Aor != testAoR || ev.Ms != p.now {
				t.Errorf("%s: %v", what, ev)
			}
		}
		check(t, what, got, want)
		p.advance(time.Second)
	}
	step("first", func() { p.register("n1", "c", 1, contactA) }, "online=true changed=true n=1 edge=n1")
	step("refresh", func() { p.register("n1", "c", 2, contactA) }, "nothing")
	step("second", func() { p.register("n2", "d", 1, contactB) }, "online=true changed=false n=2 edge=n2")
	step("move", func() { p.register("n3", "c", 3, contactA) }, "online=true changed=false n=2 edge=n3")
	step("one leaves", func() { p.register("n2", "d", 2, contactB+"|expires=0") }, "online=true changed=false n=1 edge=n2")
	step("tombstone refreshed", func() { p.register("n2", "d", 3, contactB+"|expires=0") }, "nothing")
	step("all leave", func() { p.ask(expires(request(p.now, "n1", "e", 1, "*"), 0)) }, "online=false changed=true n=0 edge=n3")
	before := p.rec
	if ev := p.user.Changed(nil, before, p.now); ev != nil {
		t.Errorf("nobody to nobody: %v", ev)
	}
}
