package cluster

import "hereis/messages"

// hearing is how this node hears from one member: whether the member knows
// what is followed here, and whether all that it sent has arrived. It is
// guarded by watchTable.mu.
type hearing struct {
	incarnation uint64
	// knows is the generation of this node's interest that the member has
	// acknowledged, asked the one that it was last told, at askedMS.
	knows, asked uint64
	askedMS      int64
	// heardMS is when it last said where it is.
	heardMS int64
	// epoch and incarnation are the member's. next is the event expected, seen
	// the last that is known to have been sent, ahead those that overtook others.
	epoch, next, seen uint64
	ahead             map[uint64]struct{}
	// behindMS is since when events are missing, 0 if none is.
	behindMS int64
	// gaps counts how often something may have been missed.
	gaps uint64
	// round, digest and settled are of the member's view.
	round, digest uint64
	settled       bool
}

const (
	// behindMS is how long an event may be overtaken before it counts as lost.
	behindMS = 500
	// askAgainMS is when a member that does not answer is told again what is
	// followed, positionMS how often one that answers is asked where it is, and
	// positionSoonMS while something is known to be missing.
	askAgainMS     = 1000
	positionMS     = 2000
	positionSoonMS = 200
	// deafMS is how long the word of a member counts that all has arrived.
	deafMS = 6000
	// answerMS is how long a member may take to answer, the distance of two
	// clocks that are off in either direction included.
	answerMS = 2500
	// maxAhead bounds the events that are remembered out of order.
	maxAhead = 4096
)

// event notes that one has arrived.
func (h *hearing) event(now int64, ev *messages.UserEvent) {
	if h.epoch != ev.Epoch {
		h.begin(ev.Epoch, ev.Sent)
		return
	}
	switch {
	case ev.Sent == h.next:
		h.next++
		for {
			if _, ok := h.ahead[h.next]; !ok {
				break
			}
			delete(h.ahead, h.next)
			h.next++
		}
	case ev.Sent > h.next && len(h.ahead) < maxAhead:
		if h.ahead == nil {
			h.ahead = make(map[uint64]struct{})
		}
		h.ahead[ev.Sent] = struct{}{}
	}
	h.upTo(now, ev.Sent)
}

// upTo notes that the member has sent so many.
func (h *hearing) upTo(now int64, sent uint64) {
	h.seen = max(h.seen, sent)
	switch {
	case h.next > h.seen:
		h.behindMS = 0
	case h.behindMS == 0:
		h.behindMS = now
	}
}

// begin starts to count anew: what came before is not known.
func (h *hearing) begin(epoch, sent uint64) {
	h.epoch, h.next, h.seen, h.behindMS = epoch, sent+1, sent, 0
	clear(h.ahead)
	h.gaps++
}

// tick takes for lost what has been missing for long.
func (h *hearing) tick(now int64) {
	if h.behindMS != 0 && now >= h.behindMS+behindMS {
		h.begin(h.epoch, h.seen)
	}
}

// position takes a member's answer to the interest of a generation.
func (h *hearing) position(now int64, generation uint64, m *messages.WatchPosition) {
	h.knows, h.heardMS = max(h.knows, generation), now
	h.round, h.digest, h.settled = m.Round, m.Digest, m.Settled
	if h.epoch != m.Epoch {
		h.begin(m.Epoch, m.Sent)
		return
	}
	h.upTo(now, m.Sent)
}

// due tells whether a member should be asked where it is.
func (h *hearing) due(now int64, v *view, generation uint64) bool {
	every := int64(positionMS)
	switch {
	case h.asked != generation:
		return true
	case h.knows != generation:
		every = askAgainMS
	case !h.settled || h.digest != v.digest:
		every = positionSoonMS
	}
	return now >= h.askedMS+every
}
