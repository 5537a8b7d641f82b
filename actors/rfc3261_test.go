package actors

import (
	"fmt"
	"testing"
	"time"

	"hereis/messages"
)

const (
	contactA = "sip:alice@10.0.0.1"
	contactB = "sip:alice@10.0.0.2"
)

func TestRFC3261_10_3_AddRefreshRemove(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "query of nobody", show(p.register("n1", "c", 1)), "")
	check(t, "add", show(p.register("n1", "c", 2, contactA+"|expires=600")), contactA+";600@n1")
	p.advance(100 * time.Second)
	check(t, "query", show(p.register("n1", "c", 3)), contactA+";500@n1")
	check(t, "second device", show(p.register("n2", "d", 1, contactB+"|expires=60")), contactA+";500@n1 "+contactB+";60@n2")
	check(t, "refresh", show(p.register("n1", "c", 4, contactA+"|expires=300")), contactA+";300@n1 "+contactB+";60@n2")
	check(t, "remove", show(p.register("n1", "c", 5, contactA+"|expires=0")), contactB+";60@n2")
	p.advance(60 * time.Second)
	check(t, "after expiry", show(p.register("n1", "c", 6)), "")
}

func TestRFC3261_10_3_6_Star(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA)
	p.register("n2", "d", 9, contactB)
	for name, r := range map[string]*messages.Register{
		"without Expires": request(p.now, "n1", "e", 1, "*"),
		"Expires not 0":   expires(request(p.now, "n1", "e", 1, "*"), 1),
		"other Contacts":  expires(request(p.now, "n1", "e", 1, "*", contactA), 0),
	} {
		check(t, name, show(p.ask(r)), "BAD_REQUEST")
	}
	p.advance(time.Second)
	// Same Call-ID and CSeq not higher than one binding's: nothing is removed.
	check(t, "old CSeq", show(p.ask(expires(request(p.now, "n2", "d", 9, "*"), 0))), "STALE_CSEQ")
	check(t, "nothing removed", p.locate(), contactB+" "+contactA)
	a := p.ask(expires(request(p.now, "n1", "c", 2, "*"), 0))
	check(t, "all removed", show(a), "")
	check(t, "edges told", fmt.Sprint(a.All, a.Tell), "true [n2]")
	check(t, "replay", show(p.ask(expires(request(p.now+1, "n1", "c", 2, "*"), 0))), "")
	check(t, "CSeq of the star", show(p.register("n1", "c", 2, contactA)), "STALE_CSEQ")
	p.advance(time.Second)
	check(t, "registers again", show(p.register("n1", "c", 3, contactA)), contactA+";3600@n1")
}

func TestRFC3261_10_3_7_Intervals(t *testing.T) {
	limits := DefaultLimits()
	limits.MinExpires, limits.MaxExpires = 90*time.Second, 2*time.Hour
	for _, tt := range []struct {
		name, contact string
		header        int64
		want          string
	}{
		{"parameter over header", contactA + "|expires=120", 600, contactA + ";120@n1"},
		{"header", contactA, 600, contactA + ";600@n1"},
		{"default", contactA, -1, contactA + ";3600@n1"},
		{"too brief", contactA + "|expires=89", -1, "INTERVAL_TOO_BRIEF min=90"},
		{"too brief in the header", contactA, 1, "INTERVAL_TOO_BRIEF min=90"},
		{"minimum", contactA + "|expires=90", -1, contactA + ";90@n1"},
		{"maximum", contactA + "|expires=7201", -1, contactA + ";7200@n1"},
		{"overflow", contactA + "|expires=99999999999", -1, contactA + ";7200@n1"},
		{"zero", contactA + "|expires=0", -1, ""},
		{"zero header", contactA, 0, ""},
		{"parameter over zero header", contactA + "|expires=100", 0, contactA + ";100@n1"},
	} {
		r := request(startMS, "n1", "c", 1, tt.contact)
		if tt.header >= 0 {
			expires(r, uint32(tt.header))
		}
		check(t, tt.name, show(newReplica(limits).ask(r)), tt.want)
	}
}

// An interval of an hour or more may not be refused, whatever the minimum.
func TestRFC3261_10_3_7_NeverBriefFromOneHour(t *testing.T) {
	limits := DefaultLimits()
	limits.MinExpires, limits.DefaultExpires, limits.MaxExpires = 2*time.Hour, 2*time.Hour, 3*time.Hour
	check(t, "1 h", show(newReplica(limits).register("n1", "c", 1, contactA+"|expires=3600")), contactA+";3600@n1")
	check(t, "below", show(newReplica(limits).register("n1", "c", 1, contactA+"|expires=3599")), "INTERVAL_TOO_BRIEF min=7200")
}

func TestRFC3261_10_3_7_CallIDAndCSeq(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 5, contactA)
	p.advance(time.Second)
	check(t, "lower CSeq", show(p.register("n1", "c", 4, contactA)), "STALE_CSEQ")
	check(t, "lower CSeq removes", show(p.register("n1", "c", 4, contactA+"|expires=0")), "STALE_CSEQ")
	check(t, "equal CSeq, other meaning", show(p.register("n1", "c", 5, contactA+"|expires=0")), "STALE_CSEQ")
	check(t, "other Call-ID", show(p.register("n1", "d", 1, contactA+"|expires=60")), contactA+";60@n1")
	p.advance(time.Second)
	check(t, "other Call-ID removes", show(p.register("n1", "e", 1, contactA+"|expires=0")), "")
}

func TestRFC3261_10_3_7_AllOrNone(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 5, contactA)
	p.advance(time.Second)
	a := p.ask(request(p.now, "n1", "c", 5, contactB, contactA+"|expires=0"))
	check(t, "one stale of two", show(a), "STALE_CSEQ")
	check(t, "brief of two", show(p.register("n1", "x", 6, contactB, contactA+"|expires=1")), "INTERVAL_TOO_BRIEF min=60")
	check(t, "nothing happened", p.locate(), contactA)
}

func TestRFC3261_10_3_7_SeveralContactsInOneRequest(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "two", show(p.register("n1", "c", 1, contactA+"|expires=60", contactB+"|expires=70")),
		contactA+";60@n1 "+contactB+";70@n1")
	p.advance(time.Second)
	check(t, "equal ones: the last counts", show(p.register("n1", "c", 2, contactA+"|expires=80", contactA+";x=1|expires=90", contactB+"|expires=0")),
		contactA+";x=1;90@n1")
	fresh := newReplica(DefaultLimits())
	check(t, "equal new ones", show(fresh.register("n1", "c", 1, contactA+"|expires=80", contactA+";x=1|expires=90")), contactA+";x=1;90@n1")
	fresh = newReplica(DefaultLimits())
	check(t, "added and removed", show(fresh.register("n1", "c", 1, contactA, contactA+"|expires=0")), "")
}

func TestRFC3261_10_3_7_ContactsMatchBy19_1_4(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, "sip:%61lice@Phone.example.com;transport=TCP")
	p.advance(time.Second)
	check(t, "equal URI refreshes", show(p.register("n1", "c", 2, "sip:alice@phone.EXAMPLE.com;transport=tcp|expires=60")),
		"sip:alice@phone.EXAMPLE.com;transport=tcp;60@n1")
	p.advance(time.Second)
	check(t, "no transport is another", show(p.register("n1", "c", 3, "sip:alice@phone.example.com|expires=60")),
		"sip:alice@phone.EXAMPLE.com;transport=tcp;59@n1 sip:alice@phone.example.com;60@n1")
	p.advance(time.Second)
	check(t, "equal URI removes", show(p.register("n1", "c", 4, "sip:alice@phone.example.com;transport=tcp|expires=0")),
		"sip:alice@phone.example.com;59@n1")
	// The tombstone is found by an equal URI too: an old request meets its CSeq.
	check(t, "late refresh", show(p.register("n1", "c", 2, "sip:alice@phone.Example.com;transport=tcp")), "STALE_CSEQ")
}

func TestRFC3261_10_2_1_2_TargetsByQ(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|q=0.3", contactB+"|q=0.7", "sip:alice@10.0.0.3|q=0")
	check(t, "order", p.locate(), contactB+" "+contactA+" sip:alice@10.0.0.3")
}

func TestRegister_SinceStaysAndParametersAreKept(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+`|methods="INVITE"`)
	p.advance(time.Minute)
	r := request(p.now, "n1", "c", 2, contactA+`|methods="INVITE,BYE"`)
	r.Path = []string{"<sip:p1;lr>", "<sip:p2;lr>"}
	a := p.ask(r)
	b := decode(a.Reply.(*messages.Registered).Bindings[0])
	if b.SinceMs != startMS || len(b.Params) != 1 || b.Params[0] != `methods="INVITE,BYE"` || len(b.Path) != 2 {
		t.Errorf("got %v", b)
	}
}

func TestRegister_JitterShortensWithinItsFraction(t *testing.T) {
	limits := DefaultLimits()
	limits.Jitter = 0.1
	seen := make(map[int64]bool)
	for i := range 200 {
		r := request(startMS+int64(i), "n1", "c", 1, contactA)
		one, two := newReplica(limits), newReplica(limits)
		a, b := one.ask(r), two.ask(r)
		check(t, "two holders grant the same", show(a), show(b))
		left := (a.Writes.Leases[0].ExpiresMs - r.Stamp.Ms) / 1000
		if left < 3240 || left > 3600 {
			t.Fatalf("granted %d s", left)
		}
		seen[left] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d different intervals of 200", len(seen))
	}
	check(t, "never below the minimum", show(newReplica(limits).register("n1", "c", 1, contactA+"|expires=60")), contactA+";60@n1")
}

func TestLimits_Validate(t *testing.T) {
	for _, change := range []func(*Limits){
		func(l *Limits) { l.MinExpires = 0 },
		func(l *Limits) { l.DefaultExpires = time.Second },
		func(l *Limits) { l.MaxExpires = time.Minute },
		func(l *Limits) { l.MaxExpires = 1 << 62 },
		func(l *Limits) { l.Jitter = 0.6 },
		func(l *Limits) { l.MaxBindings = 0 },
		func(l *Limits) { l.Policy = "" },
	} {
		l := DefaultLimits()
		change(&l)
		if l.Validate() == nil {
			t.Errorf("%+v is valid", l)
		}
	}
}
