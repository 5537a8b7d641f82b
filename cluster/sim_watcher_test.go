package cluster_test

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// desk is a node's side of watching, through one of its lives: what it knows of
// each watched user, and the questions that this makes. It stands for the
// notifier, without anybody to be notified.
type desk struct {
	w     *world
	n     *simNode
	core  *cluster.Core
	round uint64
	users map[string]*watchedUser
}

type watchedUser struct {
	*actors.Presentity
	// untilMS is when the last of the node's watchers goes, 0 if there is none.
	untilMS int64
	// asking: the owner has been asked; again: it is to be asked after that, or
	// at dueMS if it is not 0.
	asking, again bool
	dueMS         int64
	log           []string
}

// watchEvent is the event package that all of the simulation watch.
const watchEvent = "presence"

// wants is the Interest of a node with watchers, or of one without.
func wants(any bool) []byte {
	i := &messages.Interest{}
	if any {
		i.Events = []*messages.EventInterest{{Event: watchEvent}}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(i)
	if err != nil {
		panic(err)
	}
	return b
}

// openDesk is the desk of a new life, with the watchers that the disk has.
func (w *world) openDesk(n *simNode, core *cluster.Core, kept map[string]int64) *desk {
	d := &desk{w: w, n: n, core: core, users: map[string]*watchedUser{}}
	for aor, untilMS := range kept {
		d.users[aor] = &watchedUser{Presentity: actors.NewPresentity(aor, true), untilMS: untilMS, again: true}
	}
	core.Hear(messages.TypeName(&messages.StateChanged{}), func(_ string, msg proto.Message) {
		if m, ok := msg.(*messages.StateChanged); ok {
			d.changed(m)
		}
	})
	core.Hear(messages.TypeName(&messages.StateLost{}), func(string, proto.Message) {
		d.askAgain(func(*watchedUser) bool { return true })
	})
	return d
}

// kept are the watchers that a next life finds on the disk.
func (d *desk) kept() map[string]int64 {
	kept := map[string]int64{}
	for aor, u := range d.users {
		if u.untilMS != 0 {
			kept[aor] = u.untilMS
		}
	}
	return kept
}

func (d *desk) now() int64 { return d.w.now + d.n.skew }

func (u *watchedUser) note(d *desk, format string, args ...any) {
	u.log = append(u.log, fmt.Sprintf("%d: %s: ", d.w.now-startMS, d.n.name)+fmt.Sprintf(format, args...))
}

// watch has a user watched here until a node time; 0: no more.
func (d *desk) watch(aor string, untilMS int64) {
	u := d.users[aor]
	if u == nil {
		if untilMS == 0 {
			return
		}
		u = &watchedUser{Presentity: actors.NewPresentity(aor, false)}
		d.users[aor] = u
	}
	u.untilMS, u.again = untilMS, true
	u.note(d, "watched until %d", untilMS-startMS)
}

// changed takes in what an owner tells.
func (d *desk) changed(m *messages.StateChanged) {
	if !slices.Contains(m.Watching, d.n.name) {
		return
	}
	u := d.users[m.Aor]
	if u == nil {
		u = &watchedUser{Presentity: actors.NewPresentity(m.Aor, false), again: true}
		u.Outlived(m)
		d.users[m.Aor] = u
		return
	}
	ok := u.Told(m)
	u.again = u.again || !ok
	u.note(d, "told, as it is %v: %v", ok, m.Delta)
}

// askAgain: something of these users may have been missed.
func (d *desk) askAgain(which func(*watchedUser) bool) {
	for _, u := range d.users {
		u.again = u.again || which(u)
	}
}

// peerBack: the connection with a node has been renewed.
func (d *desk) peerBack(name string) {
	d.askAgain(func(u *watchedUser) bool { return u.Owner() == name })
}

// tick asks what is to be asked.
func (d *desk) tick() {
	if round := d.core.Round(); round != d.round {
		d.round = round
		for aor, u := range d.users {
			u.again = u.again || d.core.Owner(aor) != u.Owner()
		}
	}
	for _, aor := range slices.Sorted(maps.Keys(d.users)) {
		u := d.users[aor]
		if u.untilMS != 0 && u.untilMS <= d.now() {
			u.untilMS, u.again = 0, true
		}
		if u.dueMS != 0 && u.dueMS <= d.now() {
			u.dueMS, u.again = 0, true
		}
		switch {
		case u.again && !u.asking:
			u.again, u.asking = false, true
			d.ask(aor, u)
		case !u.asking && u.untilMS == 0 && !u.Interested() && u.dueMS == 0:
			delete(d.users, aor)
		}
	}
}

// ask asks a user's owner, as the notifier does by the client.
func (d *desk) ask(aor string, u *watchedUser) {
	interest, owner := wants(u.untilMS != 0), d.core.Owner(aor)
	m := u.Question(interest, u.untilMS)
	d.subscribe(m, true, func(res *messages.Subscribed, f *messages.Failure) {
		u.asking = false
		if res == nil {
			u.dueMS = d.now() + u.Unanswered()
			u.note(d, "%s does not answer: %v", owner, f)
			return
		}
		u.dueMS = 0
		if _, againMS := u.Answered(m, interest, owner, res); againMS > 0 {
			u.dueMS = d.now() + againMS
		}
		u.note(d, "%s answers, settled %v", owner, res.Settled)
	})
}

func (d *desk) subscribe(m *messages.Subscribe, retry bool, done func(*messages.Subscribed, *messages.Failure)) {
	began := d.w.now
	m = proto.CloneOf(m)
	m.Edge, m.Incarnation, m.Stamp = d.n.name, d.n.inc, d.core.NewStamp(d.now())
	d.core.Ask(d.now(), m.Aor, m, 0, func(reply proto.Message, _ error) {
		switch reply := reply.(type) {
		case *messages.Subscribed:
			d.core.Keep(d.now(), reply.Writes, func(error) { done(reply, nil) })
		case *messages.Failure:
			if reply.Code == messages.FailureCode_FAILURE_CODE_CLOCK_BEHIND && retry {
				d.core.RaiseClock(d.now(), reply.StampMs)
				again := proto.CloneOf(m)
				again.AgeMs = d.w.now - began
				d.subscribe(again, false, done)
				return
			}
			done(nil, reply)
		default:
			done(nil, nil)
		}
	})
}
