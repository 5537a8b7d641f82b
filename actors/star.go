package actors

import "hereis/messages"

// star processes "Contact: *" (RFC 3261 10.3 step 6, rule 6).
func (t *update) star() error {
	rec, floor := t.q.Record, t.q.Record.GetFloor()
	if floor != nil && floor.Stamp.Compare(t.r.Stamp) == 0 {
		t.keptFloor = floor
		return nil
	}
	for _, l := range rec.GetLeases() {
		if isBinding(l) && l.CallId == t.r.CallId && l.Cseq >= t.r.Cseq {
			return ErrStaleCSeq
		}
	}
	if floor != nil && floor.CallId == t.r.CallId && t.r.Cseq <= floor.Cseq {
		if t.r.Cseq < floor.Cseq {
			return ErrStaleCSeq
		}
		t.keptFloor = floor
		return nil
	}
	stamp := t.orderStar()
	if t.behind || floor != nil && stamp.Compare(floor.Stamp) <= 0 {
		return nil
	}
	t.floor = &messages.Floor{
		Stamp:      stamp,
		CallId:     t.r.CallId,
		Cseq:       t.r.Cseq,
		Edge:       t.r.Edge,
		LifetimeMs: t.cfg.lifetimeMS(),
	}
	t.all = true
	for _, l := range rec.GetLeases() {
		if isBinding(l) && rec.Alive(l, t.q.NowMS) && l.Stamp.Compare(stamp) <= 0 {
			t.tellEdge(l.Edge)
		}
	}
	return nil
}

// orderStar finds the stamp of a floor: order, over every key of the user. A
// floor that took effect before some binding still ends those below it.
func (t *update) orderStar() *messages.Stamp {
	rec, stamp, foreign := t.q.Record, t.r.Stamp, false
	var future *messages.Stamp // the highest
	raise := func(key []byte, winner *messages.Stamp, callID string) {
		if t.r.Stamp.Compare(winner) > 0 {
			return
		}
		if t.q.future(winner) {
			if winner.Compare(future) > 0 {
				future = winner
			}
			return
		}
		t.behind = t.behind || t.arrivedAfter(key, winner)
		foreign = foreign || callID != t.r.CallId
		stamp = nil
	}
	if rec.GetFloor() != nil {
		raise(nil, rec.Floor.Stamp, rec.Floor.CallId)
	}
	for _, l := range rec.GetLeases() {
		if isBinding(l) {
			raise(l.Key, l.Stamp, l.CallId)
		}
	}
	switch {
	case future != nil && !t.behind:
		return t.q.above(future)
	case stamp != nil || foreign || t.behind:
		return t.r.Stamp
	}
	return t.q.NewStamp()
}
