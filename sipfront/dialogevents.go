package sipfront

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hereis/actors"
	"hereis/sipfront/event"
)

// What a node tells of the calls that enter the cluster by it, in the event
// package "dialog" (RFC 4235), so that lamps show them whatever the phones
// publish themselves. Each side that is a user of ours is a publication of this
// node's, made, changed and withdrawn as the call goes on (dialogtell.go);
// watchers hear of it as of any other. The call itself waits for none of it.
// A node that a call ends at in the place of this one says so (dialogelsewhere.go).

const (
	// dialogLife is how long a call is followed whose end is never heard of.
	dialogLife = 4 * time.Hour
	// dialogWorkers is how many publications, and how many words to other nodes,
	// are under way at a time.
	dialogWorkers = 16
	// dialogTags bounds the answers to one INVITE that count: devices that have
	// all taken the call.
	dialogTags = 8
)

// dialogEvents follows calls. It is nil if nobody wants that.
type dialogEvents struct {
	s *Server
	// tells has a piece of work for each side, farewells one for each node that
	// must hear of an end.
	tells, farewells *backlog

	// mu may be held while a backlog is pushed to, never the other way round.
	mu sync.Mutex
	// calls are those that last, by Call-ID and the caller's tag.
	calls map[string]*followedCall
	// held counts them and those that are over and not withdrawn yet; leaving
	// counts the farewells. Each is MaxDialogs at most.
	held, leaving int
}

// followedCall is one call. It is guarded by dialogEvents.mu, and so are its sides.
type followedCall struct {
	key   string
	since time.Time
	sides []*dialogSide
	// dialogs are those that a 2xx has made, by the callee's tag, dialogTags at most.
	dialogs []calleeDialog
	// over: nobody has taken it, or all that did have ended it. A 2xx that comes
	// late may begin it again.
	over bool
	// held: it counts as such.
	held bool
}

// calleeDialog is what one device that has taken a call made of it.
type calleeDialog struct {
	tag  string
	over bool
}

// dialogSide is a call as one of our users has it.
type dialogSide struct {
	call *followedCall
	aor  string
	piece
	// now is the dialog as it is; changes counts its changes.
	now     event.Dialog
	changes uint32
	publication
}

func newDialogEvents(s *Server) *dialogEvents {
	return &dialogEvents{
		s: s, calls: make(map[string]*followedCall),
		tells: newBacklog(dialogWorkers), farewells: newBacklog(dialogWorkers),
	}
}

func callKey(callID, callerTag string) string { return callID + "\x00" + callerTag }

// run does what there is to do until ctx ends.
func (d *dialogEvents) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { d.tells.run(ctx) })
	both.Go(func() { d.farewells.run(ctx) })
	both.Wait()
}

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
	for i, side := range c.sides {
		side.now.ID = strconv.FormatUint(d.s.rand(), 36) + strconv.Itoa(i)
		side.piece = newPiece(func(ctx context.Context) time.Time { return d.tell(ctx, side) })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.hold(c) {
		return nil
	}
	for _, side := range c.sides {
		d.changed(side)
	}
	return c
}

// hold begins to follow a call, or does so again; mu is held.
func (d *dialogEvents) hold(c *followedCall) bool {
	if d.calls[c.key] != nil || !c.held && d.held >= d.s.cfg.MaxDialogs {
		d.s.count.dialogsRefused.Add(1)
		return false
	}
	if !c.held {
		c.held = true
		d.held++
	}
	c.over = false
	d.calls[c.key] = c
	return true
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
	tag = strings.Clone(tag)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case r.status >= 200:
		d.taken(c, tag)
	case c.over || len(c.dialogs) > 0:
	case tag != "":
		d.set(c, "early", tag)
	default:
		d.set(c, "proceeding", tag)
	}
}

// taken takes in a 2xx: the first makes the call, each further one that is no
// repeat is of another device, and keeps the call up for as long; mu is held.
func (d *dialogEvents) taken(c *followedCall, tag string) {
	if len(c.dialogs) >= dialogTags || slices.ContainsFunc(c.dialogs, func(cd calleeDialog) bool { return cd.tag == tag }) {
		return
	}
	if c.over && !d.hold(c) {
		return
	}
	show := !slices.ContainsFunc(c.dialogs, func(cd calleeDialog) bool { return !cd.over })
	c.dialogs = append(c.dialogs, calleeDialog{tag: tag})
	if show {
		d.set(c, "confirmed", tag)
	}
}

// set makes a state that of both sides; mu is held.
func (d *dialogEvents) set(c *followedCall, state, tag string) {
	for _, side := range c.sides {
		was := side.now
		side.now.State = state
		if side.now.Direction == "initiator" {
			side.now.RemoteTag = tag
		} else {
			side.now.LocalTag = tag
		}
		if side.now != was {
			d.changed(side)
		}
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
	if len(c.dialogs) == 0 {
		d.end(c)
	}
}

// over takes in that a dialog has ended, whose tags come in either order. It
// tells whether the call is followed here.
func (d *dialogEvents) over(callID, oneTag, otherTag string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tags := range [2][2]string{{oneTag, otherTag}, {otherTag, oneTag}} {
		c := d.calls[callKey(callID, tags[0])]
		if c == nil {
			continue
		}
		i := slices.IndexFunc(c.dialogs, func(cd calleeDialog) bool { return cd.tag == tags[1] })
		if i < 0 {
			continue
		}
		c.dialogs[i].over = true
		if left := slices.IndexFunc(c.dialogs, func(cd calleeDialog) bool { return !cd.over }); left >= 0 {
			d.set(c, "confirmed", c.dialogs[left].tag)
		} else {
			d.end(c)
		}
		return true
	}
	return false
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
		d.changed(side)
	}
}

// changed has a side told as it is when its turn comes; mu is held.
func (d *dialogEvents) changed(side *dialogSide) {
	if side.now.State != "" {
		side.changes++
	}
	d.tells.push(&side.piece)
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
