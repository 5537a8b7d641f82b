package sipfront

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// subscription is one subscription that this node serves (RFC 6665 4.2), guarded
// by the notifier's mutex.
type subscription struct {
	// p is what is known on disk too; it is replaced, never changed.
	p       *messages.Subscription
	pkg     event.Package
	user    *watched
	of      *packageState
	verdict event.Verdict
	// told is the state that the last NOTIFY was made of.
	told *event.State
	// expiryMS is where its expiry timer stands.
	expiryMS int64
	// asked is the highest CSeq that is, or is being, reserved on disk; p.Reserved is on disk.
	asked uint32
	// cseq and version are those of the last NOTIFY and the next document.
	cseq, version uint32
	// nextMS is when the next NOTIFY may be sent (RFC 6446).
	nextMS int64
	// reason ends it: the Subscription-State of the last NOTIFY.
	reason string
	fails  uint8

	// members are those of a resource list, if it is one.
	members []*listMember
	// parent and member say what a virtual subscription is a part of.
	parent *subscription
	member *listMember

	// accepted: the 200 has been sent. answering: that of a refresh, or of the end,
	// has not, and its NOTIFY waits for it. force: the next NOTIFY is due whatever was told.
	// retry: the last one failed.
	accepted, answering, force, retry bool
	// waiting: it stands in its user's waiting; timed: a timer will put it there.
	waiting, timed bool
	// busy: a NOTIFY has no answer yet; again: something became due meanwhile.
	busy, again bool
	// reserving: more CSeqs are on their way to the disk.
	reserving bool
	// fetch: it is one NOTIFY and no more (RFC 6665 4.4.3).
	fetch bool
	// gone: it is no subscription any more; silent: nor is there a last NOTIFY.
	gone, silent bool
}

// cseqBlock is how many CSeqs are reserved on disk at a time (CONSISTENCY rule 23).
const cseqBlock = 256

// errDisk is that a subscription cannot be kept.
var errDisk = errors.New("subscription not stored")

// begin takes a subscription in that is not accepted yet, so that the owner is
// told of the interest; a fetch asks only.
func (n *notifier) begin(sub *subscription, fetch bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Under the mutex: rules that change from now on find the subscription.
	sub.verdict = n.verdictOf(sub.p)
	u := n.users[sub.p.Aor]
	switch {
	case sub.verdict == event.Block:
		return errWatcher
	case n.served()+len(sub.p.Members) >= n.s.cfg.MaxSubscriptions:
		return actors.ErrOverloaded
	case fetch:
		n.fetches++
		sub.fetch = true
		sub.user = n.user(sub.p.Aor)
		sub.of = sub.user.package_(sub.pkg)
		n.attachMembers(sub)
		return nil
	case n.draining:
		return n.s.drainingError()
	case u != nil && u.subs() >= n.s.cfg.MaxWatchers:
		return errWatchers
	}
	n.attach(sub)
	n.attachMembers(sub)
	return nil
}

// served counts what MaxSubscriptions bounds.
func (n *notifier) served() int { return len(n.usages) + n.virtual + n.fetches }

// fetched says that a fetch is over.
func (n *notifier) fetched(sub *subscription) {
	if sub.fetch {
		sub.fetch = false
		n.fetches--
	}
}

// giveUp takes back a begin whose SUBSCRIBE is refused.
func (n *notifier) giveUp(sub *subscription) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sub.silent = true
	n.fetched(sub)
	if sub.accepted || n.usages[usageOf(sub.p)] != sub {
		sub.gone = true
		n.detachMembers(sub)
		n.tidy(sub.user)
		n.poke()
		return
	}
	n.drop(sub)
	n.poke()
}

// established lets the first NOTIFY go; that of a fetch is the last as well.
func (n *notifier) established(sub *subscription, fetch bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.nowMS()
	sub.accepted = true
	if fetch {
		n.renew(sub.user, sub.of, now)
		sub.gone, sub.reason = true, "timeout"
		n.detachMembers(sub)
	} else if sub.gone {
		n.forget(sub) // it has ended before it was stored
	} else if sub.of.state == nil {
		n.renew(sub.user, sub.of, now)
	}
	n.due(sub, now)
	if !fetch {
		n.changed(sub.user)
	}
	n.poke()
}

// find is the subscription of a usage, with what is known of it.
func (n *notifier) find(key usage) (*subscription, *messages.Subscription) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sub := n.usages[key]
	if sub == nil || !sub.accepted {
		return nil, nil
	}
	return sub, sub.p
}

// refresh makes p what is known of a subscription from now on, and has the whole
// state sent (RFC 6665 4.2.1.2); with no time left it ends.
func (n *notifier) refresh(sub *subscription, p *messages.Subscription, expiresS uint32, now int64) error {
	n.mu.Lock()
	if sub.gone {
		n.mu.Unlock()
		return errNoDialog
	}
	if p.RemoteCseq <= sub.p.RemoteCseq {
		n.mu.Unlock()
		return actors.ErrStaleCSeq
	}
	if more := len(p.Members) - len(sub.p.Members); more > 0 && n.served()+more > n.s.cfg.MaxSubscriptions {
		n.mu.Unlock()
		n.s.count.subscriptionsRefused.Add(1)
		return actors.ErrOverloaded
	}
	n.leaveStream(sub)
	p.Reserved = sub.p.Reserved
	sub.p = p
	if f := p.GetFlow(); f.GetStream() {
		n.streams[f.Counter] = append(n.streams[f.Counter], sub)
	}
	sub.told, sub.force, sub.nextMS, sub.answering = nil, true, 0, true
	if expiresS == 0 {
		n.end(sub, "timeout", now)
		n.mu.Unlock()
		return nil
	}
	n.renewMembers(sub)
	n.fileExpiry(sub)
	sub.user.refreshed = append(sub.user.refreshed, sub)
	n.ask(sub.user)
	done := make(chan error, 1)
	n.store(sub, func(err error) { done <- err })
	n.mu.Unlock()
	if err := <-done; err != nil {
		return errors.Join(actors.ErrDisk, errDisk, err)
	}
	return nil
}

// replied says that a SUBSCRIBE in the dialog has its answer. A watcher must
// take a NOTIFY that comes before it (RFC 6665 4.1.2.4); not all do.
func (n *notifier) replied(sub *subscription) {
	n.mu.Lock()
	if sub.answering {
		sub.answering = false
		// One that waits for the owner's word is due when that comes.
		if !slices.Contains(sub.user.refreshed, sub) {
			n.due(sub, n.nowMS())
		}
	}
	n.mu.Unlock()
	n.poke()
}

// due has a NOTIFY sent as soon as it may be, if there is something to tell then.
func (n *notifier) due(sub *subscription, now int64) {
	switch {
	case sub.parent != nil:
		if !sub.gone {
			sub.member.dirty = true
			n.due(sub.parent, now)
		}
	case sub.waiting || sub.silent || !sub.accepted || sub.answering:
	case sub.busy:
		sub.again = true
	case sub.nextMS > now && sub.reason == "" && !sub.force:
		if !sub.timed {
			sub.timed = true
			n.at(timer{ms: sub.nextMS, sub: sub})
		}
	default:
		sub.waiting = true
		u := sub.user
		u.waiting = append(u.waiting, sub)
		if !u.inReady {
			u.inReady = true
			n.ready = append(n.ready, u)
		}
	}
}

// fileExpiry makes sure that a subscription is looked at when it is over.
func (n *notifier) fileExpiry(sub *subscription) {
	if sub.expiryMS == 0 || sub.p.ExpiresMs < sub.expiryMS {
		sub.expiryMS = sub.p.ExpiresMs
		n.at(timer{ms: sub.expiryMS, sub: sub, expiry: true})
	}
}

// checkExpiry is the timer that fileExpiry has set: a refresh leaves it where it is.
func (n *notifier) checkExpiry(sub *subscription, ms, now int64) {
	switch {
	case sub.gone || ms != sub.expiryMS:
	case sub.p.ExpiresMs <= now:
		n.end(sub, "timeout", now)
	default:
		sub.expiryMS = 0
		n.fileExpiry(sub)
	}
}

// reserve has more CSeqs put on disk. Called with the mutex held.
func (n *notifier) reserve(sub *subscription) {
	if sub.reserving || sub.gone {
		return
	}
	sub.reserving = true
	upTo := sub.p.Reserved + cseqBlock
	sub.asked = upTo
	n.store(sub, func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		sub.reserving = false
		if sub.gone {
			return
		}
		now := n.nowMS()
		if err != nil {
			n.s.log.Warn("subscription not stored", "aor", sub.p.Aor, "err", err)
			sub.nextMS = now + 1000
			n.due(sub, now)
			return
		}
		p := proto.CloneOf(sub.p)
		p.Reserved = upTo
		sub.p = p
		n.due(sub, now)
		n.poke()
	})
}
