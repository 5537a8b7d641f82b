package sipfront

import (
	"testing"
	"time"
)

// paced is a cluster that does capacity REGISTERs a second one after the
// other, in steps of a millisecond of time that the test makes.
type paced struct {
	*pace
	now      time.Time
	capacity float64
	// asking began then; credit is what the cluster may do by now.
	asking []time.Time
	credit float64
	done   int
}

func newPaced(capacity float64) *paced {
	cfg := DefaultConfig()
	return &paced{pace: newPace(&cfg), now: time.Unix(1000, 0), capacity: capacity}
}

// step lets a millisecond pass.
func (p *paced) step() {
	p.now = p.now.Add(time.Millisecond)
	for p.credit = min(p.credit+p.capacity/1000, 100); p.credit >= 1 && len(p.asking) > 0; p.credit-- {
		p.leave(p.asking[0], p.now)
		p.asking = p.asking[1:]
		p.done++
	}
}

// ask sends a REGISTER; wait is 0 if it was let in.
func (p *paced) ask() (wait time.Duration) {
	wait, ok := p.enter(false, p.now)
	if ok {
		p.asking = append(p.asking, p.now)
		return 0
	}
	return wait
}

// storm sends all users' REGISTERs as fast as sent a second, and again when they
// are told to come, in whole seconds. It returns how long it took, the longest
// that one took of those let in, and how many were refused.
func (p *paced) storm(users, sent int) (took, slowest time.Duration, refused int) {
	began, due := p.now, map[int64]int{}
	for left := users; p.done < users; {
		due[p.now.UnixMilli()] += min(left, sent/1000)
		left -= min(left, sent/1000)
		for range due[p.now.UnixMilli()] {
			if wait := p.ask(); wait > 0 {
				refused++
				at := p.now.Add((wait + time.Second - 1).Truncate(time.Second))
				due[at.UnixMilli()]++
			}
		}
		delete(due, p.now.UnixMilli())
		if len(p.asking) > 0 {
			slowest = max(slowest, p.now.Sub(p.asking[0]))
		}
		if p.step(); p.now.Sub(began) > time.Hour {
			break
		}
	}
	return p.now.Sub(began), slowest, refused
}

// Whoever is refused comes when there is room: a storm takes hardly longer than
// the cluster needs for it, and nobody is let in to wait for a deadline.
func TestRFC3261_21_5_4_AStormIsPacedToWhatTheClusterCanDo(t *testing.T) {
	for _, capacity := range []float64{300, 3000, 20_000} {
		p := newPaced(capacity)
		users := int(60 * capacity)
		took, slowest, refused := p.storm(users, int(10*capacity))
		t.Logf("%v a second: %d users in %v, slowest %v, %d refused", capacity, users, took, slowest, refused)
		if took > 80*time.Second {
			t.Errorf("%v a second: %d users took %v, want the 60 s that the cluster needs", capacity, users, took)
		}
		if deadline := DefaultConfig().LookupTimeout; capacity >= paceStart && slowest >= deadline {
			t.Errorf("%v a second: one was let in and took %v, want less than its deadline of %v", capacity, slowest, deadline)
		}
		if refused > 6*users {
			t.Errorf("%v a second: %d were refused, want at most six for each of %d users", capacity, refused, users)
		}
	}
}

// A node that has died makes some REGISTERs slow: others are not refused for it.
func TestPaceToleratesThatSomeAreSlow(t *testing.T) {
	cfg := DefaultConfig()
	p, now := newPace(&cfg), time.Unix(1000, 0)
	for i := range 100_000 {
		now = now.Add(time.Millisecond / 4)
		if _, ok := p.enter(false, now); !ok {
			t.Fatalf("REGISTER %d refused", i)
		}
		began := now
		if i%3 == 0 {
			began = now.Add(-time.Second)
		}
		p.leave(began, now)
	}
	for { // and with as many as may be
		if _, ok := p.enter(false, now); !ok {
			break
		}
	}
	full, _ := p.now()
	for i := range 10_000 {
		now = now.Add(time.Millisecond / 4)
		p.enter(false, now)
		began := now
		if i%3 == 0 {
			began = now.Add(-time.Second)
		}
		p.leave(began, now)
	}
	if after, _ := p.now(); after < full {
		t.Errorf("limit %d, want not below %d", after, full)
	}
}

// The limit leaves questions for calls, and Retry-After has bounds.
func TestPaceBounds(t *testing.T) {
	p := newPaced(1e6)
	p.storm(2_000_000, 2_000_000)
	if limit, _ := p.pace.now(); limit > DefaultConfig().MaxLookups*3/4 {
		t.Errorf("limit %d, want at most three quarters of %d", limit, DefaultConfig().MaxLookups)
	}
	idle := newPaced(0)
	var longest time.Duration
	for range 1_000_000 {
		if wait := idle.ask(); wait > 0 {
			longest = max(longest, wait)
			if wait < paceSoonest {
				t.Fatalf("told to come again in %v, want at least %v", wait, paceSoonest)
			}
		}
	}
	if longest != paceLongest {
		t.Errorf("longest %v, want %v", longest, paceLongest)
	}
}

// What has waited in front of the process for too long is refused before its
// sender repeats it, but a few; what comes by another socket is not.
func TestPaceRefusesWhatIsReadTooLate(t *testing.T) {
	cfg := DefaultConfig()
	p, now, in := newPace(&cfg), time.Unix(1000, 0), 0
	for range 10 * paceSpared {
		now = now.Add(time.Millisecond)
		wait, ok := p.enter(true, now)
		if ok {
			in++
			p.leave(now, now)
		} else if wait < paceSoonest {
			t.Fatalf("is to come again after %v, want %v at least", wait, paceSoonest)
		}
		if _, ok := p.enter(false, now); !ok {
			t.Fatal("one that was read in time was refused")
		}
		p.leave(now, now)
	}
	if in != 10 {
		t.Errorf("%d of %d let in, want one in %d", in, 10*paceSpared, paceSpared)
	}
}

// While most are refused as they are read too late, little is done: that is not
// what can be done when they come again, and their appointments do not heed it.
func TestPaceBooksForWhenTheQueueIsShortAgain(t *testing.T) {
	p := newPaced(3000)
	for range 5000 { // busy, as before a storm
		for range 3 {
			p.ask()
		}
		p.step()
	}
	before, done := p.rate, p.done
	const late = 30_000
	for range late { // 30 s of ten times that, read too late
		for range 30 {
			if _, ok := p.enter(true, p.now); ok {
				p.asking = append(p.asking, p.now)
			}
		}
		p.step()
	}
	if share := float64(p.done-done) / (30 * late); share > 1.2/paceSpared {
		t.Fatalf("%.2f of all were let in, want one in %d", share, paceSpared)
	}
	if p.rate < before/2 {
		t.Errorf("booked at %.0f a second, and %.0f before", p.rate, before)
	}
}
