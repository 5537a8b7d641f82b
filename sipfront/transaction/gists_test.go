package transaction

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hereis/sipfront/transport"
)

// TestGists_AreAQueueWithATable does at random what a layer does, with hashes that
// collide in the table, and compares with a list.
func TestGists_AreAQueueWithATable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var g gists
		// Places pass the end of their numbers soon.
		g.head = math.MaxUint32 - uint32(rapid.IntRange(0, 300).Draw(rt, "before the end"))
		type kept struct {
			gistEntry
			place uint32
		}
		var list []kept // in order of age
		now := uint32(math.MaxUint32 - 500)
		hash := rapid.Custom(func(rt *rapid.T) uint64 {
			// Few of them, and with few homes.
			return uint64(rapid.IntRange(1, 3).Draw(rt, "home"))<<62 | uint64(rapid.IntRange(0, 1).Draw(rt, "upper"))<<34 | uint64(rapid.IntRange(0, 200).Draw(rt, "lower"))
		})
		index := func(h uint64) int {
			for i := range list {
				if list[i].hash == h {
					return i
				}
			}
			return -1
		}
		remove := func(i int) { list = append(list[:i:i], list[i+1:]...) }
		for range rapid.IntRange(1, 400).Draw(rt, "steps") {
			switch h := hash.Draw(rt, "hash"); rapid.IntRange(0, 9).Draw(rt, "step") {
			default:
				e := gistEntry{hash: h, text: uint64(now), at: int64(now), value: uint32(len(list)), expires: now + 1000}
				if i := index(h); i >= 0 {
					remove(i)
				}
				list = append(list, kept{e, g.add(e)})
			case 7:
				if i := index(h); i >= 0 {
					if !g.holds(list[i].place, h) {
						rt.Fatalf("%x is not held", h)
					}
					g.drop(list[i].place)
					if g.holds(list[i].place, h) {
						rt.Fatalf("%x is held, and was dropped", h)
					}
					remove(i)
				}
			case 8:
				now += uint32(rapid.IntRange(0, 900).Draw(rt, "later"))
				g.expire(now)
				for len(list) > 0 && int32(list[0].expires-now) <= 0 {
					remove(0)
				}
			case 9:
				// As when there is no more room.
				for g.n > 0 && !g.pop() {
				}
				if len(list) > 0 {
					remove(0)
				}
			}
			for _, k := range list {
				if place, e := g.find(k.hash); e == nil || place != k.place || *e != k.gistEntry {
					rt.Fatalf("%x: found %+v at %d, want %+v", k.hash, e, place, k)
				}
			}
			if _, e := g.find(hash.Draw(rt, "asked for")); e != nil && index(e.hash) < 0 {
				rt.Fatalf("%+v is found, and is not there", e)
			}
		}
		if g.expire(now + 1000); g.n != 0 || g.bytes() != 0 {
			rt.Fatalf("%d are left", g.n)
		}
		for _, slot := range g.table {
			if slot != 0 {
				rt.Fatal("the table has something left")
			}
		}
	})
}

// plain is a REGISTER in its smallest form.
func (r *rig) plain(n int) *Plain {
	return &Plain{Branch: fmt.Sprintf("z9hG4bKp%d", n), Host: "h", Port: 5060, Method: "REGISTER", Reply: r.flow}
}

// TestRFC3261_17_2_2_GistIsKeptForTimerJ: from the answer on, also if that took
// its time; a request of another text is none of its repeats.
func TestRFC3261_17_2_2_GistIsKeptForTimerJ(t *testing.T) {
	for _, took := range []time.Duration{0, gistSlack, 2 * time.Second} {
		bubble(t, nil, func(r *rig) {
			began := time.Now()
			p := r.plain(0)
			if found, _ := r.Begin(p, []byte("text"), began); found != BeginNew {
				t.Fatalf("got %v", found)
			}
			again := func(text string) (Begun, Gist) { return r.Begin(r.plain(0), []byte(text), time.Now()) }
			if found, _ := again("text"); found != BeginRepeat {
				t.Errorf("while it is seen to: got %v", found)
			}
			if found, _ := again("other"); found != BeginRepeat {
				t.Errorf("while it is seen to, of another text: got %v", found)
			}
			r.wait(took)
			want := Gist{At: 12, Value: 34}
			if err := p.RespondGist(want, []byte("SIP/2.0 200 OK\r\n\r\n"), time.Now()); err != nil {
				t.Error(err)
			}
			answered := time.Now()
			r.sent(fmt.Sprintf("%v 200", took.Seconds()))
			r.wait(32*time.Second - wheelTick)
			if found, got := again("text"); found != BeginAgain || got != want {
				t.Errorf("%s after the answer: got %v, %v", time.Since(answered), found, got)
			}
			if !r.Knows(p.Branch, p.Host, p.Port, p.Method) {
				t.Error("it is not known")
			}
			if st := r.Stats(); st.Active != 0 || st.Pending != 0 || st.Answers != 1 || st.Repeats != 3 {
				t.Errorf("%+v", st)
			}
			r.wait(gistSlack + wheelTick + 2*answersTick)
			if found, _ := again("text"); found != BeginNew {
				t.Errorf("%s after the answer: got %v", time.Since(answered), found)
			}
			r.sent()
		})
	}
}

// TestRFC3261_17_2_2_AnotherTextIsNoRepeat: what only has the branch of a request
// that was answered is seen to as a request of its own, and its own answer kept.
func TestRFC3261_17_2_2_AnotherTextIsNoRepeat(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		p := r.plain(0)
		r.Begin(p, []byte("text"), time.Now())
		_ = p.RespondGist(Gist{1, 2}, []byte("SIP/2.0 200 OK\r\n\r\n"), time.Now())
		other := r.plain(0)
		if found, _ := r.Begin(other, []byte("other"), time.Now()); found != BeginNew {
			t.Fatalf("got %v", found)
		}
		_ = other.RespondRaw(400, []byte("SIP/2.0 400 Bad Request\r\n\r\n"))
		r.sent("0 200", "0 400")
		if found, _ := r.Begin(r.plain(0), []byte("other"), time.Now()); found != BeginRepeat {
			t.Errorf("got %v", found)
		}
		r.sent("0 400")
		if st := r.Stats(); st.Active != 0 || st.Pending != 0 || st.Answers != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestGists_GiveWay: gists and whole answers share one bound, and the oldest goes first.
func TestGists_GiveWay(t *testing.T) {
	const each = 10 * gistSize
	c := answers{byHash: make(map[uint64]*answer), limit: each}
	at := func(n int) time.Duration { return time.Duration(n) * time.Second }
	c.addGist(gistEntry{hash: 1, expires: gistTime(at(1))})
	c.add(&answer{key: "a", hash: 2, expires: at(2)})
	for n := 3; n < 10; n++ {
		c.addGist(gistEntry{hash: uint64(n), expires: gistTime(at(n))})
	}
	if c.bytes != answerOverhead+1 || c.evicted != 0 || c.gists.n != 8 {
		t.Fatalf("%d bytes, %d gists, %d evicted", c.bytes, c.gists.n, c.evicted)
	}
	c.addGist(gistEntry{hash: 10, expires: gistTime(at(10))})
	if _, e := c.gists.find(1); e != nil || c.evicted != 1 || len(c.byHash) != 1 {
		t.Errorf("the oldest gist did not give way: %d evicted", c.evicted)
	}
	c.addGist(gistEntry{hash: 11, expires: gistTime(at(11))})
	if len(c.byHash) != 0 || c.bytes != 0 || c.evicted != 2 {
		t.Errorf("the oldest answer did not give way: %d evicted", c.evicted)
	}
	c.limit = 0
	if c.addGist(gistEntry{hash: 12, expires: gistTime(at(12))}); c.gists.n != 0 {
		t.Errorf("%d are left without any room", c.gists.n)
	}
}

// silentFlow takes what is sent by it.
type silentFlow struct{ transport.Flow }

func (silentFlow) Send([]byte) error { return nil }

// A request with its answer, of which a gist is kept.
func BenchmarkPlain(b *testing.B) {
	l := New(DefaultConfig(), &fakeUser{})
	now := time.Now()
	text := make([]byte, 500)
	p := &Plain{Host: "h", Port: 5060, Method: "REGISTER", Reply: silentFlow{}}
	branch := []byte("z9hG4bK10000000")
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		for i, v := 14, n; v > 0; i, v = i-1, v/10 {
			branch[i] = byte('0' + v%10)
		}
		p.Branch = string(branch)
		if found, _ := l.Begin(p, text, now); found != BeginNew {
			b.Fatal(found)
		}
		if p.RespondGist(Gist{1, 2}, nil, now) != nil {
			b.Fatal("not sent")
		}
	}
}
