package actors

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Presentity is a user as a node knows them that has watchers of theirs: a copy
// of the record that the user's owner keeps right. The owner tells the node of
// each change, and the node asks when it may have missed one: it is plain state,
// and who calls it carries the questions.
type Presentity struct {
	// Rec is all that has been told and asked, merged, so that an older word never
	// undoes a newer one. It is nobody else's.
	Rec *messages.Record
	// resumed: watchers were shown the user's state before this node restarted.
	resumed bool
	// asked: the owner has answered once.
	asked bool
	// interest is the Interest that the owner knows, which lives until untilMS;
	// owner is who it was.
	interest []byte
	untilMS  int64
	owner    string
	// tries counts questions without an answer that settles it.
	tries int
}

const (
	// interestMoreMS is how much longer than the last subscription an interest is
	// asked for, so that the owner need not write with each of them.
	interestMoreMS = 300_000
	// resumeTries is how often an owner that has not settled is asked again, for
	// about seven seconds in all, before its word is taken after a restart.
	resumeTries = 4
	// believeMS is how long what has been told is not taken back because the owner
	// does not know it (any more).
	believeMS = 10_000
	// firstAskMS and lastAskMS bound the waits after questions without an answer.
	firstAskMS = 500
	lastAskMS  = 30_000
)

// NewPresentity knows nothing yet. resumed: its watchers were shown something
// before this node restarted.
func NewPresentity(aor string, resumed bool) *Presentity {
	return &Presentity{Rec: &messages.Record{Aor: aor}, resumed: resumed}
}

// Outlived notes that the owner knows of an interest of which this node knows
// nothing, as after a crash.
func (p *Presentity) Outlived(m *messages.StateChanged) { p.untilMS = m.GetNowMs() + 1 }

// Known tells whether there is anything to show: a part of the truth is none.
func (p *Presentity) Known() bool { return p.asked }

// Interested tells whether an owner may take this node for interested.
func (p *Presentity) Interested() bool { return p.untilMS != 0 }

// Says tells whether this is the Interest that the owner knows.
func (p *Presentity) Says(interest []byte) bool { return bytes.Equal(p.interest, interest) }

// Owner is who was asked last.
func (p *Presentity) Owner() string { return p.owner }

// Waits tells whether the last question had no answer that settles it.
func (p *Presentity) Waits() bool { return p.tries > 0 }

// Told takes in what the owner tells. False: something has been missed, what is
// here now may never have been so, and the owner is to be asked.
func (p *Presentity) Told(m *messages.StateChanged) bool {
	p.Rec.Merge(m.GetDelta())
	return Sum(p.Rec, m.GetNowMs()) == m.GetSum()
}

// Question is what the owner is asked. interest is what this node wants to be
// told of, for watchers the last of whom goes at untilMS, 0 if there is none.
func (p *Presentity) Question(interest []byte, untilMS int64) *messages.Subscribe {
	m := &messages.Subscribe{Aor: p.Rec.GetAor()}
	if untilMS == 0 && p.untilMS == 0 {
		return m
	}
	i := &messages.Interest{}
	if proto.Unmarshal(interest, i) != nil {
		return m
	}
	switch {
	case len(i.Events) == 0:
		untilMS = 0
	case untilMS > p.untilMS || !p.Says(interest):
		untilMS += interestMoreMS
	}
	m.Interest, m.UntilMs = i, untilMS
	return m
}

// Answered takes in what owner said to the question m with that interest. It
// tells whether that is to be shown, and after how many ms to ask again, 0 for
// never: an answer of a node that did not know all, or that stood in for the
// owner, may lack what the owner had accepted before it heard of this interest,
// and that nobody will tell of.
func (p *Presentity) Answered(m *messages.Subscribe, interest []byte, owner string, res *messages.Subscribed) (show bool, againMS int64) {
	if m.Interest != nil {
		p.interest, p.untilMS = interest, max(p.untilMS, m.UntilMs)
		if len(m.Interest.Events) == 0 {
			p.untilMS = 0
		}
	}
	p.owner = owner
	p.Rec.Merge(res.GetState())
	if res.GetSettled() {
		p.asked, p.tries = true, 0
		return true, p.takeBack(res)
	}
	// It may know less than watchers were shown before a restart, which would be
	// an older state after a newer one (rule 23).
	show = p.asked || !p.resumed || p.tries >= resumeTries
	p.asked = show
	return show, p.Unanswered()
}

// takeBack forgets what the owner, who knows all, does not know: it was told of,
// and lost before it was acknowledged. That may be something that counts, or the
// end of something that counts at the owner. A copy of what is younger than
// believeMS may be late: it is asked for again after the ms that it returns.
func (p *Presentity) takeBack(res *messages.Subscribed) (againMS int64) {
	now := res.GetNowMs()
	for i := 0; i < len(p.Rec.Leases); i++ {
		l := p.Rec.Leases[i]
		is := res.GetState().Lease(l.Key)
		counts := p.Rec.Alive(l, now) || is != nil && res.GetState().Alive(is, now)
		switch left := l.Stamp.GetMs() + believeMS - now; {
		case !counts || is != nil && is.Compare(l) >= 0:
		case left > 0:
			againMS = max(againMS, left)
			p.tries = 1
		case is != nil:
			p.Rec.Leases[i] = is
		default:
			p.Rec.Leases = slices.Delete(p.Rec.Leases, i, i+1)
			i--
		}
	}
	return againMS
}

// Unanswered notes that there was no answer, and says after how many ms to ask again.
func (p *Presentity) Unanswered() int64 {
	p.tries++
	return min(int64(firstAskMS)<<min(p.tries, 6), lastAskMS)
}
