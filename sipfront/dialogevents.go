package sipfront

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// What a node tells of the calls that enter the cluster by it, in the event
// package "dialog" (RFC 4235), so that lamps show them whatever the phones
// publish themselves. Each side that is a user of ours is a publication of this
// node's, made, changed and withdrawn as the call goes on; watchers hear of it
// as of any other. The call itself waits for none of it.

const (
	// dialogExpires is the life of such a publication, in seconds: what a node
	// that has died told is over after that. It is refreshed at half of it.
	dialogExpires = 600
	// dialogLife is how long a call is followed whose BYE never comes by here.
	dialogLife = 4 * time.Hour
	// dialogWorkers is how many publications are under way at a time.
	dialogWorkers = 16
	// dialogTick is how often refreshes are looked for.
	dialogTick = 30 * time.Second
)

// dialogEvents follows calls. It is nil if nobody wants that.
type dialogEvents struct {
	s *Server

	mu sync.Mutex
	// calls by Call-ID and the caller's tag; MaxDialogs at most.
	calls map[string]*followedCall
	// queue has the sides with something to tell, each once.
	queue []*dialogSide
	// more is sent to, and never closed, when the queue has grown; one deep for
	// each worker, as one that is awake takes all that there is.
	more chan struct{}
}

// followedCall is one call. It is guarded by dialogEvents.mu, and so are its sides.
type followedCall struct {
	key   string
	since time.Time
	sides []*dialogSide
	over  bool
}

// dialogSide is a call as one of our users has it.
type dialogSide struct {
	call *followedCall
	aor  string
	// now is the dialog as it is, told the state that has been published.
	now  event.Dialog
	told string
	// toldAt is when; queued: it stands in the queue or is being published.
	toldAt time.Time
	queued bool
	// tag is the entity-tag of the publication, cseq counts what was published.
	tag  string
	cseq uint32
}

func newDialogEvents(s *Server) *dialogEvents {
	return &dialogEvents{s: s, calls: make(map[string]*followedCall), more: make(chan struct{}, dialogWorkers)}
}

func callKey(callID, callerTag string) string { return callID + "\x00" + callerTag }

// begin follows a call from its INVITE on, nil if it is not to be: it is no
// first INVITE, came from another node of ours, or none of its sides is ours.
func (d *dialogEvents) begin(r *request, p *plan) *followedCall {
	if d == nil || r.method != "INVITE" || r.toTag != "" || p.marked || r.fromTag == "" {
		return nil
	}
	from, to := addrURI(r.from), addrURI(r.to)
	c := &followedCall{key: strings.Clone(callKey(r.callID, r.fromTag)), since: time.Now()}
	if aor, err := actors.ParseAoR(from, d.s.cfg.Domains); err == nil && aor.User() != "" {
		c.sides = append(c.sides, &dialogSide{call: c, aor: string(aor), now: event.Dialog{
			CallID: strings.Clone(r.callID), LocalTag: strings.Clone(r.fromTag), Direction: "initiator", State: "trying", Remote: strings.Clone(to),
		}})
	}
	if p.way == wayUser {
		c.sides = append(c.sides, &dialogSide{call: c, aor: string(p.aor), now: event.Dialog{
			CallID: strings.Clone(r.callID), RemoteTag: strings.Clone(r.fromTag), Direction: "recipient", Remote: strings.Clone(from),
		}})
	}
	if len(c.sides) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls[c.key] != nil || len(d.calls) >= d.s.cfg.MaxDialogs {
		d.s.count.dialogsRefused.Add(1)
		return nil
	}
	d.calls[c.key] = c
	for i, side := range c.sides {
		side.now.ID = strconv.FormatUint(d.s.rand(), 36) + strconv.Itoa(i)
		d.enqueue(side)
	}
	return c
}

// addrURI is the URI of a name-addr, or "".
func addrURI(v string) string {
	uri, _, _ := splitAddr(v)
	return uri
}

// answered takes in a response to the INVITE that is passed on.
func (d *dialogEvents) answered(c *followedCall, r reply) {
	if c == nil || r.status <= 100 || r.status >= 300 {
		return
	}
	tag := ""
	if to := r.fields("To"); len(to) > 0 {
		tag, _ = param(addrParams(to[0]), "tag")
	}
	state := "proceeding"
	switch {
	case r.status >= 200:
		state = "confirmed"
	case tag != "":
		state = "early"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, side := range c.sides {
		if c.over || side.now.State == "confirmed" {
			continue
		}
		side.now.State = state
		if side.now.Direction == "initiator" {
			side.now.RemoteTag = tag
		} else {
			side.now.LocalTag = tag
		}
		d.enqueue(side)
	}
}

// ended says that the INVITE has its final answer for good: a call that nobody
// has taken is over.
func (d *dialogEvents) ended(c *followedCall) {
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.sides[0].now.State != "confirmed" {
		d.end(c)
	}
}

// bye takes in a BYE that comes by, from either side.
func (d *dialogEvents) bye(r *request) {
	if d == nil || r.method != "BYE" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tag := range []string{r.fromTag, r.toTag} {
		if c := d.calls[callKey(r.callID, tag)]; c != nil {
			d.end(c)
		}
	}
}

// end has both sides of a call withdrawn; mu is held.
func (d *dialogEvents) end(c *followedCall) {
	if c.over {
		return
	}
	c.over = true
	delete(d.calls, c.key)
	for _, side := range c.sides {
		side.now.State = "terminated"
		d.enqueue(side)
	}
}

// enqueue has a side told as it is when its turn comes; mu is held.
func (d *dialogEvents) enqueue(side *dialogSide) {
	if side.queued || side.now.State == "" {
		return
	}
	side.queued = true
	d.queue = append(d.queue, side)
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends. Its workers are all that ever waits for the cluster.
func (d *dialogEvents) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range dialogWorkers {
		workers.Go(func() { d.work(ctx) })
	}
	tick := time.NewTicker(dialogTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			workers.Wait()
			return
		case now := <-tick.C:
			d.refresh(now)
		}
	}
}

// refresh has publications told again before they expire, and gives up calls
// that have been followed for too long.
func (d *dialogEvents) refresh(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		if now.Sub(c.since) > dialogLife {
			d.end(c)
			continue
		}
		for _, side := range c.sides {
			if side.tag != "" && now.Sub(side.toldAt) > dialogExpires*time.Second/2 {
				side.told = ""
				d.enqueue(side)
			}
		}
	}
}

func (d *dialogEvents) work(ctx context.Context) {
	for {
		side := d.next()
		if side == nil {
			select {
			case <-ctx.Done():
				return
			case <-d.more:
			}
			continue
		}
		for d.tell(ctx, side) {
		}
	}
}

func (d *dialogEvents) next() *dialogSide {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.queue = nil
		return nil
	}
	side := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	return side
}

// tell publishes a side as it is now, and tells whether it has changed meanwhile.
func (d *dialogEvents) tell(ctx context.Context, side *dialogSide) (again bool) {
	d.mu.Lock()
	now, m := side.now, d.publication(side)
	if m == nil {
		side.queued = false
		d.mu.Unlock()
		return false
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d.s.cfg.LookupTimeout)
	res, err := d.s.parts.Presentities.Publish(ctx, m)
	cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case errors.Is(err, actors.ErrConditionFailed) && m.ExpiresS > 0:
		// It has expired, or was lost: begin anew.
		side.tag = ""
		return true
	case err != nil:
		d.s.count.dialogsFailed.Add(1)
	default:
		d.s.count.dialogsTold.Add(1)
		side.tag = res.GetEntityTag()
	}
	side.told, side.toldAt = now.State, time.Now()
	if side.now.State != now.State {
		return true
	}
	side.queued = false
	return false
}

// publication is what there is to publish, nil for nothing; mu is held.
func (d *dialogEvents) publication(side *dialogSide) *messages.Publish {
	over := side.now.State == "terminated"
	if side.now.State == side.told || over && side.tag == "" {
		return nil
	}
	side.cseq++
	m := &messages.Publish{
		Aor: side.aor, Event: "dialog", CallId: "dialog-" + side.now.ID, Cseq: side.cseq, IfMatch: side.tag,
		EntityTag: strconv.FormatUint(d.s.rand(), 36), Id: side.now.ID, HasExpires: true,
	}
	if !over {
		doc := side.now.Document(side.aor)
		m.ContentType, m.Body, m.ExpiresS = doc.MediaType, doc.Body, dialogExpires
	}
	return m
}

// following is the number of calls that are followed now.
func (d *dialogEvents) following() int {
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.calls)
}
