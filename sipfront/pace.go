package sipfront

import (
	"sync"
	"time"
)

const (
	// paceWindow is how long REGISTERs are counted before the limit is looked at.
	paceWindow = 100 * time.Millisecond
	// paceSample is the least number of them that says anything.
	paceSample = 16
	// paceLeast and paceStart are the limit's least and first values. With too few
	// under way a cluster whose processes wait for a core does less than it could:
	// what they do in one turn is done together.
	paceLeast, paceStart = 512, 1024
	// paceSoonest and paceLongest bound what Retry-After says.
	paceSoonest, paceLongest = time.Second, 5 * time.Minute
	// paceParts of a second have their own appointments; each is shorter than
	// REGISTERs may queue.
	paceParts = 8
	// paceSpared is of how many one is served while they are refused for that: a
	// flood that never ends must not stop everything.
	paceSpared = 16
	// paceOverbook is how many are asked to come for each that there is room for:
	// some do not come again, and whole seconds bring them in bursts. The rate that
	// it is of is that of the best tenths of a second already.
	paceOverbook = 1.1
)

// pace decides how many REGISTERs ask the cluster at a time, and when those that
// are too many are to come again (RFC 3261 21.5.4).
//
// A cluster with more to do than it can is no use if each request waits until
// its deadline: then all are worked at and none is answered in time. So the
// limit falls while it is reached and nearly all take longer than they should,
// and grows while it is reached and they do not. "Nearly all", because a dead
// node makes some of them slow and that is no reason to refuse others.
//
// Nor may they wait to be read at all: what does not fit in front of the process
// is lost, and what waits there for long is sent again and makes it worse. To
// refuse one costs a small part of what it costs to serve one. So while all that
// is read from a socket has waited too long, all of it is refused but one in sixteen.
//
// Those that are refused are given appointments, one after the other at the rate
// at which REGISTERs are done by now: they use what the cluster can do, and do
// not come again all at once.
type pace struct {
	// slowAfter is how long a REGISTER may take; most is the highest limit.
	slowAfter time.Duration
	most      float64

	mu      sync.Mutex
	limit   float64
	running int
	// began is when the window began; done and slow are REGISTERs that ended in
	// it, full tells that the limit was reached, late that some were refused as they
	// had waited to be read.
	began      time.Time
	done, slow int
	full, late bool
	// lates counts those that were read too late.
	lates int
	// rate is REGISTERs done per second: quick to rise, slow to fall, and falling
	// in full windows alone. One appointment too many costs a 503 and one too few
	// leaves the cluster idle, so it is rather too high. While most are refused for
	// they are read too late, what is done says little of what could be done once
	// that is over, which is when those that are refused come again.
	rate float64
	// booked are the last appointments given in each part of a second: who is
	// told whole seconds comes in the same part of one, and those of a part must
	// not be more than it has room for.
	booked [paceParts]time.Time
}

func newPace(cfg *Config) *pace {
	// A quarter of all questions is left for calls.
	most := float64(max(cfg.MaxLookups-cfg.MaxLookups/4, 1))
	slowAfter := cfg.LookupTimeout / 8
	limit := min(paceStart, most)
	return &pace{slowAfter: slowAfter, most: most, limit: limit, rate: limit / slowAfter.Seconds()}
}

// enter lets one REGISTER go on, until leave, or says how long it is to wait
// before it comes again. late: its socket's queue is too long.
func (p *pace) enter(late bool, now time.Time) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(now)
	switch {
	case float64(p.running) >= p.limit:
		p.full = true
		return p.book(now), false
	case late && !p.spares():
		p.late = true
		return p.book(now), false
	}
	p.running++
	return 0, true
}

// spares tells whether one is served that came by a socket whose queue is too
// long. mu is held.
func (p *pace) spares() bool {
	p.lates++
	return p.lates%paceSpared == 0
}

// leave ends what enter let in.
func (p *pace) leave(began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	p.done++
	if now.Sub(began) > p.slowAfter {
		p.slow++
	}
	p.look(now)
}

// look closes the window if it is old enough and says something. mu is held.
func (p *pace) look(now time.Time) {
	took := now.Sub(p.began)
	if took < paceWindow || p.done < paceSample && took < 10*paceWindow {
		return
	}
	if rate := float64(p.done) / took.Seconds(); rate > p.rate {
		p.rate += (rate - p.rate) / 4
	} else if p.late {
		p.rate -= (p.rate - rate) / 512
	} else if p.full {
		p.rate -= (p.rate - rate) / 64
	}
	switch {
	case !p.full && p.late:
		// There was neither room nor too many that ask.
	case !p.full:
		// There was room: the appointments are later than they need be.
		for i := range p.booked {
			if left := p.booked[i].Sub(now); left > 0 {
				p.booked[i] = now.Add(left - left/50)
			}
		}
		p.limit = max(p.limit, min(p.limit*1.1, paceStart, p.most))
	case p.slow*5 > p.done*4:
		p.limit = max(p.limit*3/4, min(paceLeast, p.most))
	default:
		p.limit = min(p.limit*1.1, p.most)
	}
	p.began, p.done, p.slow, p.full, p.late = now, 0, 0, false, false
}

// giveBack takes back what enter allowed, as nothing is to be asked.
func (p *pace) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
}

// turnAway takes back what enter allowed, as there is no room elsewhere.
func (p *pace) turnAway(now time.Time) (wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	return p.book(now)
}

// book is how long it is until the next appointment. mu is held.
func (p *pace) book(now time.Time) time.Duration {
	booked := &p.booked[now.Nanosecond()/int(time.Second/paceParts)]
	if soonest := now.Add(paceSoonest); booked.Before(soonest) {
		*booked = soonest
	}
	*booked = booked.Add(time.Duration(float64(time.Second) * paceParts / max(p.rate*paceOverbook, 1)))
	if longest := now.Add(paceLongest); booked.After(longest) {
		*booked = longest
	}
	return booked.Sub(now)
}

// now is the limit, and how many there are.
func (p *pace) now() (limit, running int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.limit), p.running
}
