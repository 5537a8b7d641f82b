package sipfront

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"hereis/messages"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

const plainSample = "REGISTER sip:example.com SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKa1;rport\r\n" +
	"Max-Forwards: 70\r\n" +
	"From: <sip:alice@example.com>;tag=f1\r\n" +
	"To: <sip:alice@example.com>\r\n" +
	"Call-ID: c1@192.0.2.10\r\n" +
	"CSeq: 7 REGISTER\r\n" +
	"Contact: <sip:alice@192.0.2.10:5060;transport=udp>;expires=600\r\n" +
	"Expires: 3600\r\n" +
	"User-Agent: Phone/1.0 (x; y)\r\n" +
	"Supported: path, outbound\r\n" +
	"Allow: INVITE, ACK\r\n" +
	"Content-Length: 0\r\n\r\n"

// pair is two nodes that read the same requests, each in its own way.
type pair struct {
	t             testing.TB
	plain, normal *rig
	parser        *transport.Parser
}

func newPair(t testing.TB) *pair {
	p := &pair{t: t, plain: newRig(t), normal: newRig(t), parser: transport.NewParser(transport.DefaultLimits())}
	p.plain.reg.atOnce = true
	return p
}

// check gives a datagram to both and compares what they made of it, and of
// another like it that finds what the first has registered. It tells whether the
// one took it for plain.
func (p *pair) check(raw string) bool {
	p.t.Helper()
	p.plain.reg.list, p.normal.reg.list = nil, nil
	plain := p.checkOnce(raw)
	return plain && p.checkOnce(raw)
}

func (p *pair) checkOnce(raw string) bool {
	p.t.Helper()
	from := netip.MustParseAddrPort(alice)
	var ordinary *transaction.Layer
	for _, r := range []*rig{p.plain, p.normal} {
		// Repeats of an earlier request are none here.
		lcfg := transaction.DefaultConfig()
		lcfg.Seed = 1
		ordinary = transaction.New(lcfg, r.srv)
		r.srv.Use(ordinary)
		r.reg.last = nil
		r.net.take()
	}
	now := time.Now()
	if !p.plain.srv.Plain(&transport.Message{Raw: []byte(raw), Flow: p.plain.net.flow(from), At: now}) {
		if got := p.plain.net.take(); len(got) > 0 {
			p.t.Fatalf("left it alone, and answered %q", got)
		}
		return false
	}
	// As the transport does: CRLF first is no part of it, received and rport are written by the parser's side too.
	req, _, err := p.parser.Parse([]byte(raw))
	if err != nil {
		p.t.Fatalf("plain, and %v:\n%s", err, raw)
	}
	ordinary.Receive(&transport.Message{Request: req, Raw: []byte(raw), Flow: p.normal.net.flow(from), At: now})
	question := func(r *rig) *messages.Register {
		if r.reg.last == nil {
			return nil
		}
		q := proto.CloneOf(r.reg.last)
		q.AgeMs, q.Stamp = 0, nil
		return q
	}
	if a, b := question(p.plain), question(p.normal); !proto.Equal(a, b) {
		p.t.Fatalf("plain asks\n%v\nthe ordinary way\n%v\nfor\n%s", a, b, raw)
	}
	answer := func(r *rig) (to, text string) {
		out := r.net.take()
		if len(out) != 1 {
			p.t.Fatalf("%d answers", len(out))
		}
		for line := range strings.SplitSeq(string(out[0].raw), "\r\n") {
			if !strings.HasPrefix(line, "Date: ") {
				text += line + "\n"
			}
		}
		return out[0].to, text
	}
	to, text := answer(p.plain)
	if to2, text2 := answer(p.normal); to != to2 || text != text2 {
		p.t.Fatalf("plain answers %s\n%s\nthe ordinary way %s\n%s\nto\n%s", to, text, to2, text2, raw)
	}
	return true
}

func TestPlain_AgreesWithTheOrdinaryWay(t *testing.T) {
	p := newPair(t)
	if !p.check(plainSample) {
		t.Error("the sample is not plain")
	}
	edit := func(old, new string) string { return strings.Replace(plainSample, old, new, 1) }
	for _, raw := range []string{
		edit(";expires=600", ""), edit("Expires: 3600", "Expires: 0"), edit("Expires: 3600", "Expires: 5"),
		edit(";expires=600", ";expires=1"), edit("To: <sip:alice@", "To: <sip:bob@"), edit("To: <sip:alice@example.com>", "To: <sip:alice@elsewhere.example>"),
		edit(";transport=udp", ""), edit("Content-Length: 0\r\n", ""), edit("Max-Forwards: 70\r\n", ""), edit("192.0.2.10:5060;branch", "10.0.0.1:5060;branch"),
		edit("User-Agent: Phone/1.0 (x; y)", "User-Agent:"), edit(";rport", ""), edit("alice@192.0.2.10:5060;transport=udp", "alice@phone.local"),
	} {
		if !p.check(raw) {
			t.Errorf("not plain:\n%s", raw)
		}
	}
	for _, raw := range []string{
		edit("REGISTER sip:example.com", "REGISTER sip:elsewhere.example"), edit("REGISTER sip:example.com", "REGISTER sips:example.com"),
		edit("CSeq: 7", "CSeq: 07x"), edit("Content-Length: 0", "Content-Length: 5"), edit("Via: ", "Route: <sip:x>\r\nVia: "),
		edit("Via: SIP", "Via: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bKx\r\nVia: SIP"), edit("Expires: 3600", "Expires: 3600\r\nExpires: 5"),
		edit("Contact: <", "Contact: <sip:b@c>, <"), edit("Contact: <sip:alice@192.0.2.10:5060;transport=udp>;expires=600", "Contact: *"),
		edit("User-Agent", "Require"), edit("User-Agent: ", "User-Agent: \r\n "), edit("Allow", "Authorization"), edit("\r\n\r\n", "\r\n"),
		edit("z9hG4bKa1", "1"), edit(";rport", ";received=192.0.2.1;rport"), edit(":5060;branch", ":9;branch"), "", "REGISTER sip:",
		strings.Replace(edit(";rport", ""), ":5060;branch", ":5070;branch", 1),
	} {
		if p.check(raw) && !strings.Contains(raw, ":9;branch") {
			t.Errorf("plain:\n%s", raw)
		}
	}
}

// TestPlain_AgreesOnEdits changes the sample at random.
func TestPlain_AgreesOnEdits(t *testing.T) {
	p := newPair(t)
	rapid.Check(t, func(rt *rapid.T) {
		p.check(edited(rt, plainSample, 4))
	})
}

// TestPlain_RFC3261_17_2_2_RepeatGetsTheSameAnswer: also when the repeat comes
// the ordinary way, and none while the first is being seen to.
func TestPlain_RFC3261_17_2_2_RepeatGetsTheSameAnswer(t *testing.T) {
	r := newRig(t)
	flow := r.net.flow(netip.MustParseAddrPort(alice))
	in := func() *transport.Message {
		return &transport.Message{Raw: []byte(plainSample), Flow: flow, At: time.Now()}
	}
	ordinary := func() {
		req, _, err := transport.NewParser(transport.DefaultLimits()).Parse([]byte(plainSample))
		if err != nil {
			t.Fatal(err)
		}
		m := in()
		m.Request = req
		r.layer.Receive(m)
	}
	var done func(*messages.Registered, error)
	r.srv.parts.Registrar = laterRegistrar(func(d func(*messages.Registered, error)) { done = d })
	if !r.srv.Plain(in()) || done == nil {
		t.Fatal("not plain")
	}
	if !r.srv.Plain(in()) {
		t.Error("a repeat is not known as one")
	}
	ordinary()
	if out := r.net.take(); len(out) > 0 {
		t.Errorf("answered before there is an answer: %q", out)
	}
	done(&messages.Registered{}, nil)
	first := r.net.take()
	for name, repeat := range map[string]func(){"ordinary": ordinary, "plain": func() { r.srv.Plain(in()) }} {
		repeat()
		if again := r.net.take(); len(first) != 1 || len(again) != 1 || string(again[0].raw) != string(first[0].raw) {
			t.Errorf("%s: got %q, then %q", name, first, again)
		}
	}
	if s := r.srv.Stats(); s.Registers != 1 {
		t.Errorf("%d REGISTERs", s.Registers)
	}
}

// TestPlain_RFC3261_17_2_2_AnswerIsWrittenAgain: of a REGISTER that was taken in at
// once nothing is kept but two numbers, and its repeats have the same answer all the
// same: later, after other requests, and when the node takes no new ones.
func TestPlain_RFC3261_17_2_2_AnswerIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.reg.atOnce = true
		flow := r.net.flow(netip.MustParseAddrPort(alice))
		send := func(raw string) string {
			m := &transport.Message{Raw: []byte(raw), Flow: flow, At: time.Now()}
			if !r.srv.Plain(m) {
				return ""
			}
			var text string
			for _, out := range r.net.take() {
				text += out.to + " " + string(out.raw)
			}
			return text
		}
		next := strings.NewReplacer("z9hG4bKa1", "z9hG4bKa2", "CSeq: 7", "CSeq: 8", ";expires=600", ";expires=900").Replace(plainSample)
		first, second := send(plainSample), ""
		for range 3 {
			time.Sleep(1500 * time.Millisecond)
			if second == "" {
				second = send(next)
			}
			if got := send(plainSample); !strings.Contains(first, " 200 OK\r\n") || got != first {
				t.Errorf("answered\n%s\nand then\n%s", first, got)
			}
			if got := send(next); !strings.Contains(second, ";expires=900\r\n") || got != second {
				t.Errorf("answered\n%s\nand then\n%s", second, got)
			}
			r.srv.SetDraining(true)
		}
		if got := send(strings.Replace(plainSample, "z9hG4bKa1", "z9hG4bKa3", 1)); got != "" {
			t.Errorf("a new one at a node that takes none: %s", got)
		}
		if st := r.layer.Stats(); st.Active != 0 || st.Repeats != 6 || r.srv.Stats().Registers != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// laterRegistrar is told what to call when the answer is there.
type laterRegistrar func(done func(*messages.Registered, error))

func (l laterRegistrar) AtOnce(*messages.Register, func(nowMS, expiresMS int64, err error)) bool {
	return false
}

func (l laterRegistrar) RegisterThen(_ *messages.Register, _ int64, done func(*messages.Registered, error)) {
	l(done)
}

func TestPlain_Printable(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'~'}, n)
				b[at] = byte(c)
				if at%2 == 0 {
					b[0] = ' '
					b[at] = byte(c)
				}
				if got, want := isPrintable(string(b)), c >= ' ' && c <= '~'; got != want {
					t.Fatalf("%q: got %t", b, got)
				}
			}
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add(plainSample)
	f.Add(strings.ReplaceAll(plainSample, "alice", "%61lice"))
	p := newPair(f)
	f.Fuzz(func(t *testing.T, raw string) {
		p.t = t
		p.check(raw)
	})
}

// A plain REGISTER that refreshes one binding, without socket and cluster: one
// that is taken in at once, and one that the cluster is asked about.
func BenchmarkPlainRegister(b *testing.B) {
	for _, atOnce := range []bool{true, false} {
		b.Run(fmt.Sprintf("at-once=%t", atOnce), func(b *testing.B) {
			r := newRig(b)
			r.net.quiet = true
			r.srv.parts.Registrar = sameRegistrar(atOnce)
			flow := r.net.flow(netip.MustParseAddrPort(alice))
			answers := 0
			flow.tap = func([]byte) { answers++ }
			raw := []byte(strings.Replace(plainSample, "z9hG4bKa1", "z9hG4bK10000000", 1))
			at := strings.Index(string(raw), "z9hG4bK") + 7
			b.ReportAllocs()
			n := 10_000_000
			for b.Loop() {
				n++
				strconv.AppendInt(raw[:at], int64(n), 10)
				r.srv.Plain(&transport.Message{Raw: raw, Flow: flow, At: time.Now()})
			}
			if answers != n-10_000_000 {
				b.Fatalf("%d answers", answers)
			}
		})
	}
}

// sameRegistrar knows one binding, at once or by a question.
type sameRegistrar bool

func (s sameRegistrar) AtOnce(_ *messages.Register, then func(nowMS, expiresMS int64, err error)) bool {
	if s {
		then(0, 600_000, nil)
	}
	return bool(s)
}

func (s sameRegistrar) RegisterThen(q *messages.Register, _ int64, done func(*messages.Registered, error)) {
	done(&messages.Registered{}, nil)
}

// TestPlain_AnswersWhenItIsStored: a REGISTER that is decided at once is answered
// when it is stored, and 503 if it cannot be; its memory is nobody else's until then.
func TestPlain_AnswersWhenItIsStored(t *testing.T) {
	r := newRig(t)
	flow := r.net.flow(netip.MustParseAddrPort(alice))
	var stored []func()
	r.reg.atOnce, r.reg.later = true, func(done func()) { stored = append(stored, done) }
	send := func(n int) {
		raw := strings.Replace(plainSample, "z9hG4bKa1", fmt.Sprintf("z9hG4bKa%d", n), 1)
		raw = strings.Replace(raw, "CSeq: 7", fmt.Sprintf("CSeq: %d", 7+n), 1)
		if !r.srv.Plain(&transport.Message{Raw: []byte(raw), Flow: flow, At: time.Now()}) {
			t.Fatal("not plain")
		}
	}
	const many = 20
	for n := range many {
		send(n)
	}
	if out := r.net.take(); len(out) > 0 || len(stored) != many {
		t.Fatalf("%d to be stored, and answered %q", len(stored), out)
	}
	_, running := r.srv.pace.now()
	if running != many {
		t.Errorf("%d are under way", running)
	}
	for _, done := range stored {
		done()
	}
	out := r.net.take()
	for n := range many {
		if text := string(out[n].raw); !strings.HasPrefix(text, "SIP/2.0 200 OK\r\n") || !strings.Contains(text, fmt.Sprintf("z9hG4bKa%d;", n)) ||
			!strings.Contains(text, fmt.Sprintf("CSeq: %d REGISTER\r\n", 7+n)) {
			t.Errorf("%d: answered %s", n, text)
		}
	}
	if _, running := r.srv.pace.now(); running != 0 {
		t.Errorf("%d are still under way", running)
	}
	stored, r.reg.unstored = nil, errors.New("no room")
	send(many)
	stored[0]()
	if out := r.net.take(); len(out) != 1 || !strings.HasPrefix(string(out[0].raw), "SIP/2.0 503 ") || !strings.Contains(string(out[0].raw), "Retry-After: ") {
		t.Errorf("not stored, and answered %q", out)
	}
}
