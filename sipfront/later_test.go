package sipfront

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/sipfront/transport"
)

// full makes a node refuse every REGISTER for as long as a test wants.
func full(r *rig) {
	r.srv.pace.mu.Lock()
	defer r.srv.pace.mu.Unlock()
	r.srv.pace.limit, r.srv.pace.running = 1, 1
	r.srv.pace.began = time.Now().Add(time.Hour)
}

// toldIn is what the one answer that was sent says, and the answer without it.
func toldIn(t *testing.T, r *rig) (seconds int, rest string) {
	t.Helper()
	out := r.net.take()
	if len(out) != 1 {
		t.Fatalf("%d answers, want 1", len(out))
	}
	head, tail, ok := strings.Cut(string(out[0].raw), "Retry-After: ")
	digits, tail, ok2 := strings.Cut(tail, "\r\n")
	seconds, err := strconv.Atoi(digits)
	if !ok || !ok2 || err != nil {
		t.Fatalf("no Retry-After in %s", out[0].raw)
	}
	return seconds, out[0].to + head + tail
}

// A REGISTER that is to come later is told so as the ordinary way does it, but
// without a transaction.
func TestLaterAgreesWithTheOrdinaryWay(t *testing.T) {
	plain, ordinary := newRig(t), newRig(t)
	for _, raw := range []string{plainSample, strings.Replace(plainSample, "192.0.2.10:5060;branch", "10.0.0.1:5060;branch", 1)} {
		full(plain)
		full(ordinary)
		from := netip.MustParseAddrPort(alice)
		m := &transport.Message{Raw: []byte(raw), Flow: plain.net.flow(from), At: time.Now()}
		if !plain.srv.Plain(m) || !m.Spent {
			t.Fatalf("not taken, or kept:\n%s", raw)
		}
		req, _, err := transport.NewParser(transport.DefaultLimits()).Parse([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		ordinary.layer.Receive(&transport.Message{Request: req, Raw: []byte(raw), Flow: ordinary.net.flow(from), At: time.Now()})
		after, text := toldIn(t, plain)
		after2, text2 := toldIn(t, ordinary)
		if text != text2 || after != after2 {
			t.Errorf("answers in %d s\n%s\nthe ordinary way in %d s\n%s", after, text, after2, text2)
		}
	}
	if st := plain.layer.Stats(); st.Active != 0 || st.Pending != 0 || st.Answers != 0 {
		t.Errorf("%+v is left, want no transaction", st)
	}
	if st, st2 := plain.srv.Stats(), ordinary.srv.Stats(); st.Answers != st2.Answers || st.Registers != 2 || st.RegistersPaced != 2 || st.Requests != 2 {
		t.Errorf("counted %+v, the ordinary way %+v", st, st2)
	}
}

// A repeat of a REGISTER that was refused without state is refused again, with
// the appointment that it has; when that has come it is a new request.
func TestRFC3261_8_2_7_ARepeatKeepsItsAppointment(t *testing.T) {
	// Time stands still: appointments do not depend on how long the others take.
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		full(r)
		flow := r.net.flow(netip.MustParseAddrPort(alice))
		in := func(branch string, at time.Time, late bool) {
			t.Helper()
			raw := strings.Replace(plainSample, "z9hG4bKa1", branch, 1)
			if !r.srv.Plain(&transport.Message{Raw: []byte(raw), Flow: flow, At: at, Late: late}) {
				t.Fatal("not taken")
			}
		}
		in("z9hG4bKfirst", time.Now(), false)
		first, answer := toldIn(t, r)
		for i := range 20_000 { // others have appointments after it
			in(fmt.Sprintf("z9hG4bK%d", i), time.Now(), false)
		}
		r.net.take()
		in("z9hG4bKlast", time.Now(), false)
		last, _ := toldIn(t, r)
		in("z9hG4bKfirst", time.Now(), false)
		again, same := toldIn(t, r)
		if same != answer || again > first || last <= first {
			t.Errorf("in %d s, again in %d s, the last one in %d s:\n%s\n%s", first, again, last, answer, same)
		}
		// One that has crossed its answer, and one that has not; late or not.
		in("z9hG4bKfirst", time.Now().Add(-time.Minute), true)
		if out := r.net.take(); len(out) != 0 {
			t.Errorf("answered one that had its answer on the way: %s", out[0].raw)
		}
		in("z9hG4bKfirst", time.Now().Add(-time.Minute), false)
		toldIn(t, r)
		in("z9hG4bKfirst", time.Now().Add(time.Minute), true)
		toldIn(t, r)
		if st := r.srv.Stats(); st.PacedRepeats != 4 || st.Registers != 20_002 || st.RegistersPaced != 20_002 {
			t.Errorf("counted %+v", st)
		}
	})
}

// What is told is found as long as its appointment lies ahead and it may be repeated.
func TestToldIsForgotten(t *testing.T) {
	epoch := time.Unix(1000, 0)
	tl := newTold(epoch)
	if tl.any(epoch) {
		t.Error("somebody was told before the first")
	}
	if _, _, ok := tl.of(7, epoch); ok {
		t.Error("found before the first")
	}
	tl.tell(7, 3*time.Second, epoch)
	tl.tell(8, time.Minute, epoch)
	for _, c := range []struct {
		mark  uint64
		after time.Duration
		wait  time.Duration
	}{{7, time.Second, 2 * time.Second}, {7, 3 * time.Second, 0}, {9, time.Second, 0}, {8, 31 * time.Second, 29 * time.Second}, {8, toldFor, 0}} {
		wait, since, ok := tl.of(c.mark, epoch.Add(c.after))
		if wait != c.wait || ok != (c.wait > 0) || ok && !since.Equal(epoch) {
			t.Errorf("%d after %v: is to come in %v, told at %v, %t", c.mark, c.after, wait, since, ok)
		}
	}
	if !tl.any(epoch.Add(toldFor-1)) || tl.any(epoch.Add(toldFor)) {
		t.Error("may be repeated for another time than 64*T1")
	}
	// Of one set the oldest gives way, and one that is told again does not take another's place.
	const step = toldSlots / toldWays
	for i := range uint64(toldWays) {
		tl.tell(1+i*step, time.Minute, epoch.Add(time.Duration(i)*time.Second))
	}
	now := epoch.Add(10 * time.Second)
	tl.tell(1+step, time.Minute, now)
	tl.tell(1+toldWays*step, time.Minute, now)
	for i := range uint64(toldWays + 1) {
		if _, _, ok := tl.of(1+i*step, now); ok != (i > 0) {
			t.Errorf("%d of the set: found is %t", i, ok)
		}
	}
}

// A plain REGISTER that is told to come later, and one that repeats it.
func BenchmarkLater(b *testing.B) {
	for _, repeats := range []bool{false, true} {
		b.Run(fmt.Sprintf("repeats=%t", repeats), func(b *testing.B) {
			r := newRig(b)
			full(r)
			r.srv.spoils = false
			r.net.quiet = true
			flow := r.net.flow(netip.MustParseAddrPort(alice))
			raw := []byte(strings.Replace(plainSample, "z9hG4bKa1", "z9hG4bK10000000", 1))
			at := strings.Index(string(raw), "z9hG4bK") + 7
			b.ReportAllocs()
			m, n := &transport.Message{}, 10_000_000
			for b.Loop() {
				if !repeats {
					n++
				}
				strconv.AppendInt(raw[:at], int64(n), 10)
				*m = transport.Message{Raw: raw, Flow: flow, At: time.Now()}
				r.srv.Plain(m)
			}
		})
	}
}
