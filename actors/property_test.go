package actors

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"hereis/messages"
)

// naive is the registrar that RFC 3261 10.3 describes, with the two things
// that ours adds for a UA's sake: a retransmission is answered 200, and a
// removed or expired binding is remembered by its Call-ID and CSeq.
type naive struct {
	list     []*naiveBinding
	starCall string
	starCSeq uint32
	// Default, minimum and maximum in seconds.
	def, lo, hi int64
}

type naiveBinding struct {
	uri, call string
	cseq      uint32
	until     int64
	removed   bool // by an interval of zero
}

func (n *naive) register(r *messages.Register, now int64) string {
	if r.Star {
		for _, b := range n.list {
			if b.call == r.CallId && b.cseq >= r.Cseq {
				return "STALE_CSEQ"
			}
		}
		if n.starCall == r.CallId && r.Cseq < n.starCSeq {
			return "STALE_CSEQ"
		}
		if n.starCall == r.CallId && r.Cseq == n.starCSeq {
			return n.show(now)
		}
		for _, b := range n.list {
			b.until = 0
		}
		n.starCall, n.starCSeq = r.CallId, r.Cseq
		return n.show(now)
	}
	next := make(map[*naiveBinding]naiveBinding)
	var added []*naiveBinding
	for _, c := range r.Contacts {
		if c.HasExpires && c.ExpiresS > 0 && int64(c.ExpiresS) < n.lo {
			return fmt.Sprintf("INTERVAL_TOO_BRIEF min=%d", n.lo)
		}
	}
	for _, c := range r.Contacts {
		want := n.def
		if c.HasExpires {
			want = min(int64(c.ExpiresS), n.hi)
		}
		var b *naiveBinding
		for _, o := range n.list {
			if EqualURI(o.uri, c.Uri) {
				b = o
			}
		}
		if n.starCall == r.CallId && r.Cseq <= n.starCSeq {
			return "STALE_CSEQ"
		}
		if b == nil {
			b = new(naiveBinding)
			added = append(added, b)
		} else if b.call == r.CallId && (r.Cseq < b.cseq || r.Cseq == b.cseq && b.removed != (want == 0)) {
			return "STALE_CSEQ"
		} else if b.call == r.CallId && r.Cseq == b.cseq {
			continue
		}
		next[b] = naiveBinding{uri: c.Uri, call: r.CallId, cseq: r.Cseq, until: now + want*1000, removed: want == 0}
	}
	for b, v := range next {
		*b = v
	}
	n.list = append(n.list, added...)
	return n.show(now)
}

func (n *naive) show(now int64) string {
	var live []string
	for _, b := range n.list {
		if b.until > now {
			live = append(live, fmt.Sprintf("%s;%d", b.uri, (b.until-now)/1000))
		}
	}
	slices.Sort(live)
	return fmt.Sprint(live)
}

func showSorted(a *Answer) string {
	res, ok := a.Reply.(*messages.Registered)
	if !ok {
		return showFailure(a)
	}
	var live []string
	for _, l := range res.Bindings {
		live = append(live, fmt.Sprintf("%s;%d", decode(l).Contact, (l.ExpiresMs-res.NowMs)/1000))
	}
	slices.Sort(live)
	return fmt.Sprint(live)
}

func drawContacts(t *rapid.T) []string {
	n := rapid.IntRange(1, 2).Draw(t, "contacts")
	first := rapid.IntRange(1, 4).Draw(t, "first")
	var contacts []string
	for i := range n {
		uri := fmt.Sprintf("sip:alice@10.0.0.%d", (first+i)%4+1)
		if rapid.Bool().Draw(t, "escaped") {
			uri = "sip:%61lice" + uri[len("sip:alice"):]
		}
		s := rapid.SampledFrom([]int{0, 30, 60, 100, 600, 9999, -1}).Draw(t, "expires")
		if s >= 0 {
			uri += fmt.Sprintf("|expires=%d", s)
		}
		contacts = append(contacts, uri)
	}
	return contacts
}

// In order, at one holder, the state is a naive registrar's.
func TestProperty_InOrderItIsANaiveRegistrar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := DefaultLimits()
		p := newReplica(limits)
		model := &naive{def: 3600, lo: 60, hi: 7200}
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			p.advance(time.Duration(rapid.SampledFrom([]int{1, 1000, 61_000, 700_000}).Draw(t, "wait")) * time.Millisecond)
			call := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "call")
			cseq := rapid.Uint32Range(1, 12).Draw(t, "cseq")
			var r *messages.Register
			if rapid.IntRange(0, 9).Draw(t, "star") == 0 {
				r = expires(request(p.now, "n1", call, cseq, "*"), 0)
			} else {
				r = request(p.now, "n1", call, cseq, drawContacts(t)...)
			}
			r.Stamp.Counter = uint32(i)
			want := model.register(r, p.now)
			if got := showSorted(p.ask(r)); got != want {
				t.Fatalf("step %d, %v:\n got %s\nwant %s", i, r, got, want)
			}
		}
	})
}

// Whatever reaches which holder in which order and how often: when all have
// seen each other's records, they are one.
func TestProperty_ReorderedDuplicatedSplitHistoriesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := DefaultLimits()
		limits.MaxBindings, limits.Policy = 3, ReplaceOldest
		replicas := make([]*replica, rapid.IntRange(2, 4).Draw(t, "replicas"))
		for i := range replicas {
			replicas[i] = newReplica(limits)
			replicas[i].id = uint64(1000 + i)
		}
		type delivery struct {
			r  *messages.Register
			to int
		}
		var queue []delivery
		for i := range rapid.IntRange(1, 25).Draw(t, "requests") {
			call := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "call")
			ms := startMS + int64(rapid.IntRange(0, 1500).Draw(t, "ms"))
			edge := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "edge")
			var r *messages.Register
			if rapid.IntRange(0, 9).Draw(t, "star") == 0 {
				r = expires(request(ms, edge, call, uint32(i+1), "*"), 0)
			} else {
				r = request(ms, edge, call, uint32(i+1), drawContacts(t)...)
			}
			r.AgeMs = int64(rapid.IntRange(0, 1500).Draw(t, "age"))
			for range rapid.IntRange(1, 3).Draw(t, "copies") {
				queue = append(queue, delivery{r, rapid.IntRange(0, len(replicas)-1).Draw(t, "to")})
			}
		}
		queue = rapid.Permutation(queue).Draw(t, "order")
		for _, d := range queue {
			p := replicas[d.to]
			p.now += int64(rapid.IntRange(0, 300).Draw(t, "wait"))
			p.ask(d.r)
			if rapid.IntRange(0, 4).Draw(t, "gossip") == 0 {
				p.copyFrom(replicas[rapid.IntRange(0, len(replicas)-1).Draw(t, "from")])
			}
		}
		forward, backward := &messages.Record{Aor: testAoR}, &messages.Record{Aor: testAoR}
		for i := range replicas {
			forward.Merge(replicas[i].rec)
			backward.Merge(replicas[len(replicas)-1-i].rec)
		}
		if !equalRecords(forward, backward) {
			t.Fatalf("two states:\n%v\n%v", forward, backward)
		}
		for _, p := range replicas {
			for _, o := range replicas {
				p.copyFrom(o)
			}
			if p.rec.Merge(forward) || !equalRecords(p.rec, forward) {
				t.Fatalf("a replica differs:\n%v\n%v", p.rec, forward)
			}
			p.now = startMS + 10_000
		}
		for _, p := range replicas[1:] {
			if got, want := p.locate(), replicas[0].locate(); got != want {
				t.Fatalf("located %q and %q", got, want)
			}
		}
	})
}

// A UA's last word counts, however its REGISTERs were delayed, repeated and
// spread over holders and edges, as long as the edges' clocks agree.
func TestProperty_TheLastWordCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		holders := []*replica{newReplica(DefaultLimits()), newReplica(DefaultLimits()), newReplica(DefaultLimits())}
		last := make(map[string]bool) // contact: registered by its UA's last word
		type delivery struct {
			r  *messages.Register
			to int
		}
		var queue []delivery
		for i := range rapid.IntRange(1, 15).Draw(t, "requests") {
			device := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "device")
			edge := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "edge")
			contact := "sip:alice@10.0.0." + device
			last[contact] = rapid.IntRange(0, 2).Draw(t, "leaves") > 0
			s := map[bool]string{true: "600", false: "0"}[last[contact]]
			// A UA that restarts takes another Call-ID, and may begin with any CSeq.
			call := fmt.Sprintf("%s-%d", device, i/5)
			r := request(startMS+int64(i)*50, edge, call, uint32(100*(5-i/5)+i), contact+"|expires="+s)
			for range rapid.IntRange(1, 3).Draw(t, "copies") {
				queue = append(queue, delivery{r, rapid.IntRange(0, 2).Draw(t, "to")})
			}
		}
		for _, d := range rapid.Permutation(queue).Draw(t, "order") {
			p := holders[d.to]
			p.now = max(p.now, startMS+750) + int64(rapid.IntRange(0, 100).Draw(t, "wait"))
			late := proto.CloneOf(d.r)
			late.AgeMs = p.now - d.r.Stamp.Ms
			a := p.ask(late)
			if f, refused := a.Reply.(*messages.Failure); refused && f.Code != messages.FailureCode_FAILURE_CODE_STALE_CSEQ {
				t.Fatalf("%v: %v", late, f)
			}
			if rapid.Bool().Draw(t, "gossip") {
				holders[rapid.IntRange(0, 2).Draw(t, "copy")].copyFrom(p)
			}
		}
		for _, p := range holders {
			for _, o := range holders {
				p.copyFrom(o)
			}
			p.now = startMS + 10_000
			for _, contact := range []string{"sip:alice@10.0.0.1", "sip:alice@10.0.0.2"} {
				l := p.rec.Lease([]byte(contact))
				if got := l != nil && p.rec.Alive(l, p.now); got != last[contact] {
					t.Fatalf("%s: registered %v, want %v: %v", contact, got, last[contact], l)
				}
			}
		}
	})
}

// A holder that is asked again, by a hedge or after a lost answer, and one that
// learns by a copy, write nothing new and tell the same.
func TestProperty_RepeatsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, hedge := newReplica(DefaultLimits()), newReplica(DefaultLimits())
		for i := range rapid.IntRange(1, 12).Draw(t, "steps") {
			p.advance(time.Second)
			r := request(p.now, "n1", "c", uint32(i+1), drawContacts(t)...)
			first := p.ask(r)
			before := proto.CloneOf(p.rec)
			if again := p.ask(r); show(again) != show(first) || !proto.Equal(before, p.rec) {
				t.Fatalf("again: %q, first %q", show(again), show(first))
			}
			hedge.now = p.now
			hedge.copyFrom(p)
			if other := hedge.ask(r); show(other) != show(first) || other.Writes != nil {
				t.Fatalf("hedge: %q, first %q, writes %v", show(other), show(first), other.Writes)
			}
		}
	})
}

// The shortcut that reads a few fields of a Binding agrees with protobuf.
func TestProperty_PeekReadsWhatBindWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &messages.RegisterContact{
			Uri: rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "uri"), InstanceId: rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "instance"),
			Params: rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,5}`), 0, 3).Draw(t, "params"), Q: rapid.Uint32().Draw(t, "q"), RegId: rapid.Uint32().Draw(t, "reg"), FlowBound: rapid.Bool().Draw(t, "bound"),
		}
		since := rapid.Int64().Draw(t, "since")
		b, err := bind(&messages.Register{Path: []string{"<sip:p;lr>"}}, c, since, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := peek(b, bindingSince); string(p.contact) != c.Uri || string(p.instance) != c.InstanceId || p.sinceMS != since {
			t.Fatalf("got %q %q %d", p.contact, p.instance, p.sinceMS)
		}
		garbage := rapid.SliceOf(rapid.Byte()).Draw(t, "garbage")
		peek(garbage, bindingSince)
	})
}
