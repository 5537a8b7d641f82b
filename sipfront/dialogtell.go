package sipfront

import (
	"context"
	"errors"
	"strconv"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// dialogExpires is the life of a publication of a call, in seconds: what a node
// that has died told is over after that. It is refreshed at half of it.
const dialogExpires = 600

// publication is what watchers are told of one side of a call. Its key at the
// user's owner stays the same, so that each word takes the place of the one
// before, whichever of them have arrived (CONSISTENCY rule 23).
type publication struct {
	// told is the count of changes that was published, at toldAt.
	told   uint32
	toldAt time.Time
	// until is when it ends by itself, zero if there is none; unsure: the last
	// word may have arrived or not, so tag may not be the entity-tag.
	until  time.Time
	unsure bool
	tag    string
	// cseq counts what was published, fails the failures in a row.
	cseq  uint32
	fails int
}

// telling is one word on its way.
type telling struct {
	m       *messages.Publish
	is      event.Dialog
	changes uint32
	removal bool
}

// tell publishes a side as it is, until there is nothing new or it fails, and
// returns when to go on.
func (d *dialogEvents) tell(ctx context.Context, side *dialogSide) time.Time {
	for {
		t, next := d.due(side, time.Now())
		if t == nil {
			return next
		}
		if !t.removal {
			doc := t.is.Document(side.aor)
			t.m.ContentType, t.m.Body, t.m.ExpiresS = doc.MediaType, doc.Body, dialogExpires
		}
		ctx, cancel := context.WithTimeout(ctx, d.s.cfg.LookupTimeout)
		res, err := d.s.parts.Presentities.Publish(ctx, t.m)
		cancel()
		if next := d.done(side, t, res, err, time.Now()); !next.IsZero() {
			return next
		}
	}
}

// due is what there is to publish of a side now, or when there will be.
func (d *dialogEvents) due(side *dialogSide, now time.Time) (*telling, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := side.call
	end := c.since.Add(dialogLife)
	if !c.over && !now.Before(end) {
		d.end(c)
	}
	refresh := side.toldAt.Add(dialogExpires * time.Second / 2)
	switch {
	case c.over && (side.until.IsZero() || !now.Before(side.until)):
		side.until = time.Time{}
		d.settle(c)
		return nil, time.Time{}
	case c.over:
	case side.told == side.changes && side.until.IsZero():
		return nil, end
	case side.told == side.changes && now.Before(refresh):
		if refresh.Before(end) {
			return nil, refresh
		}
		return nil, end
	}
	side.cseq++
	t := &telling{is: side.now, changes: side.changes, removal: c.over && !side.unsure}
	t.m = &messages.Publish{
		Aor: side.aor, Event: "dialog", CallId: "dialog-" + side.now.ID, Cseq: side.cseq,
		EntityTag: strconv.FormatUint(d.s.rand(), 36), Id: side.now.ID, HasExpires: true,
	}
	if t.removal {
		t.m.IfMatch = side.tag
	}
	return t, time.Time{}
}

// done takes in what has become of a telling, and returns when to try again;
// zero: it is done.
func (d *dialogEvents) done(side *dialogSide, t *telling, res *messages.Published, err error, now time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := t.removal && (errors.Is(err, actors.ErrConditionFailed) || errors.Is(err, actors.ErrNotFound))
	switch {
	case err == nil && !t.removal:
		d.s.count.dialogsTold.Add(1)
		side.told, side.toldAt, side.tag, side.unsure, side.fails = t.changes, now, res.GetEntityTag(), false, 0
		side.until = now.Add(dialogExpires * time.Second)
		return time.Time{}
	case err == nil, gone:
		// Also one that has expired, or that a repeat finds withdrawn.
		d.s.count.dialogsTold.Add(1)
		side.until, side.tag, side.fails = time.Time{}, "", 0
		return time.Time{}
	}
	d.s.count.dialogsFailed.Add(1)
	if !t.removal && inVain(err) {
		// Not before there is something new to say.
		side.told, side.toldAt = t.changes, now
		if side.until.IsZero() || side.call.over {
			side.until = time.Time{}
			return time.Time{}
		}
	} else if !t.removal {
		side.unsure = true
		if t.is.State != "terminated" {
			side.until = now.Add(dialogExpires * time.Second)
		}
	}
	side.fails++
	return now.Add(backoff(side.fails))
}

// inVain tells whether a publication would be refused again for what it is.
func inVain(err error) bool {
	return errors.Is(err, actors.ErrNotFound) || errors.Is(err, actors.ErrBadRequest) || errors.Is(err, actors.ErrIntervalTooBrief)
}

// settle lets a call go that is over and withdrawn; mu is held.
func (d *dialogEvents) settle(c *followedCall) {
	for _, side := range c.sides {
		if !side.until.IsZero() {
			return
		}
	}
	if c.held {
		c.held = false
		d.held--
	}
}
