package transaction

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// passing begins to pass a request on; what it answers the sender is told.
func (r *rig) passing(key string, invite bool) Passed {
	return r.Pass(key, invite, []byte("INVITE sip:a@b SIP/2.0\r\n\r\n"), r.flow, func(status int) {
		r.told.add(map[int]string{100: "100", 408: "408"}[status])
	})
}

// Of an INVITE that is passed on, the sender hears within passTrying; it is
// repeated by timer A until the device speaks, and given up when timer B would.
func TestRFC3261_16_11_PassedInvite(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		if got := r.passing("k", true); got != PassNew {
			t.Fatalf("got %v", got)
		}
		r.wait(99 * time.Millisecond)
		r.toldUser()
		r.wait(20 * time.Millisecond)
		r.toldUser("100")
		r.wait(32 * time.Second)
		if got := len(r.flow.take()); got != 6 {
			t.Errorf("repeated %d times, timer A does so 6 times", got)
		}
		r.toldUser("408")
		if st := r.Stats(); st.Active != 0 || st.Timeouts != 1 || st.Passed != 1 {
			t.Errorf("%+v", st)
		}
		r.wait(time.Minute)
		r.sent()
		r.toldUser()
	})
}

func TestRFC3261_16_11_AnyAnswerEndsThePassing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.passing("k", true)
		if got := r.passing("k", true); got != PassRepeat {
			t.Errorf("a repeat is %v", got)
		}
		r.toldUser("100")
		r.PassAnswered("k", 180)
		r.wait(time.Minute)
		r.sent()
		r.toldUser()
		if st := r.Stats(); st.Active != 0 {
			t.Errorf("%+v", st)
		}
		r.PassAnswered("k", 200) // nothing is left to end
		if got := r.passing("k", true); got != PassNew {
			t.Errorf("after an answer a repeat is %v", got)
		}
		r.PassAnswered("k", 200)
	})
}

// Other requests are repeated by their sender; a provisional answer is none (RFC 4320 4.1).
func TestRFC4320_4_1_PassedRequest(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.passing("k", false)
		if got := r.passing("k", false); got != PassNew {
			t.Errorf("a repeat is %v", got)
		}
		r.PassAnswered("k", 183)
		r.wait(3490 * time.Millisecond)
		r.toldUser()
		r.wait(50 * time.Millisecond)
		r.toldUser("100")
		r.sent()
		if st := r.Stats(); st.Active != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// An answer to an earlier copy of a request may come while a later one begins.
func TestPassing_AnsweredWhileItBegins(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { r.passing("k", true) })
			all.Go(func() { r.PassAnswered("k", 200) })
		}
		all.Wait()
		r.PassAnswered("k", 200)
		r.told.take()
		r.wait(time.Minute)
		r.sent()
		r.toldUser()
		if st := r.Stats(); st.Active != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestPassing_CountsAsTransaction(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxTransactions = 20 }, func(r *rig) {
		for i := range 18 {
			if got := r.passing(strings.Repeat("k", i+1), i%2 == 0); got != PassNew {
				t.Fatalf("request %d is %v", i, got)
			}
		}
		if got := r.passing("more", true); got != PassFull {
			t.Errorf("got %v", got)
		}
		r.PassAnswered("k", 404)
		if got := r.passing("more", true); got != PassNew {
			t.Errorf("got %v", got)
		}
	})
}

// An ACK and a CANCEL take the field along that the configuration names.
func TestFollowersCarryAField(t *testing.T) {
	raw := "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKa\r\nVia: SIP/2.0/UDP y;branch=z9hG4bKb\r\nRoute: <sip:r;lr>\r\n" +
		"X-Own: v\r\nX-Other: w\r\nFrom: <sip:f@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 3 INVITE\r\nContent-Length: 0\r\n\r\n"
	names := func(carry string) (list []string) {
		for line := range strings.SplitSeq(string(appendFollower(nil, []byte(raw), "CANCEL", nil, carry, "")), "\r\n") {
			if name, _, ok := strings.Cut(line, ": "); ok {
				list = append(list, name)
			}
		}
		return list
	}
	want := []string{"Via", "Route", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length"}
	if got := names(""); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := names("X-Own"); !slices.Equal(got, slices.Insert(want, 2, "X-Own")) {
		t.Errorf("got %q", got)
	}
}

// A request that has a transaction here is known by it, and by its answer for as
// long as that is kept, although nobody looks for others that could be passed on.
func TestRFC3261_16_11_RequestsWithATransactionAreKnown(t *testing.T) {
	for _, all := range []bool{true, false} {
		change := func(c *Config) { c.Passable = func(b string) bool { return strings.HasSuffix(b, ".node") } }
		if all {
			change = nil
		}
		bubble(t, change, func(r *rig) {
			const node = branch + ".node"
			knows := func(branch, method string, want bool) {
				t.Helper()
				if got := r.Knows(branch, "192.0.2.1", 5060, method); got != want {
					t.Errorf("%v: %s %s: known is %v", all, method, branch, got)
				}
			}
			knows(node, "BYE", false)
			r.receive("INVITE", branch)
			caller := r.tx()
			r.receive("BYE", node)
			tx := r.tx()
			knows(node, "BYE", true)
			knows(node, "INVITE", false)
			knows(branch, "ACK", true)
			if err := r.respond(tx, 200); err != nil {
				t.Fatal(err)
			}
			knows(node, "BYE", true)
			r.wait(31 * time.Second)
			knows(node, "BYE", true)
			r.wait(5 * time.Second)
			knows(node, "BYE", false)
			r.receive("INVITE", node)
			tx = r.tx()
			r.wait(10 * time.Minute) // ringing
			knows(node, "CANCEL", true)
			for _, x := range []*Server{tx, caller} {
				if err := r.respond(x, 200); err != nil {
					t.Fatal(err)
				}
			}
			knows(node, "ACK", true)
			r.wait(time.Minute)
			knows(node, "ACK", false)
		})
	}
}
