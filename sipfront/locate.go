package sipfront

import (
	"sync/atomic"

	"hereis/actors"
	"hereis/messages"
)

// What a fork asks the cluster, and what it makes of the answers.

// locate asks the cluster where the user is. It waits for nobody: whoever brings
// the cluster's word goes on with the request.
func (f *fork) locate() {
	f.s.locate(f.plan.aor, f.r.callID, func(res *messages.Located, forget func()) {
		f.do(func() { f.locatedInPart(res, forget) })
	}, func(res *messages.Located, err error) {
		f.do(func() { f.located(res, err) })
	})
}

// relocate asks the cluster once more, when all that it named has failed.
func (f *fork) relocate() {
	s := f.s
	s.count.relocated.Add(1)
	done := func(res *messages.Located, err error) {
		f.do(func() { f.relocated(res, err) })
	}
	if !s.begin() {
		done(nil, actors.ErrOverloaded)
		return
	}
	s.parts.Locator.RelocateThen(f.plan.aor, s.loggedID(f.r.callID), s.lookupDeadline(), func(res *messages.Located, err error) {
		defer s.end()
		done(res, err)
	})
}

// loggedID is the Call-ID that the other nodes log, if this one does.
func (s *Server) loggedID(callID string) string {
	if s.debug {
		return callID
	}
	return ""
}

// lookupDeadline is the node time up to which an answer is waited for.
func (s *Server) lookupDeadline() int64 {
	return s.parts.Cluster.NowMS() + s.cfg.LookupTimeout.Milliseconds()
}

// locate is the question of where a user is, within the limit on questions. One
// that has been answered in part counts no more: what it is about goes on.
func (s *Server) locate(aor actors.AoR, callID string, part func(*messages.Located, func()), done func(*messages.Located, error)) {
	if !s.begin() {
		done(nil, actors.ErrOverloaded)
		return
	}
	var ended atomic.Bool
	end := func() {
		if !ended.Swap(true) {
			s.end()
		}
	}
	taken := part
	if part != nil {
		taken = func(res *messages.Located, forget func()) {
			defer end()
			part(res, forget)
		}
	}
	s.parts.Locator.LocateThen(aor, s.loggedID(callID), s.lookupDeadline(), taken, func(res *messages.Located, err error) {
		defer end()
		done(res, err)
	})
}

// located takes in what the cluster says: all that it will.
func (f *fork) located(res *messages.Located, err error) {
	if f.tried != nil && f.forgetRest == nil {
		return // it has crossed the word that nobody waits for it
	}
	f.heard()
	f.forgetRest = nil
	switch {
	case f.final:
	case f.cancelled:
		f.next()
	case err != nil && f.tried == nil:
		f.unlocated(status(err, f.s.cfg.RetryAfter))
	case err != nil:
		f.next()
	default:
		f.mayRelocate = !res.GetFinal()
		f.take(res)
	}
}

// locatedInPart takes in what the stand-in of the user's owner knows, or an owner
// that does not know all. Its devices are called at once, and others join them.
func (f *fork) locatedInPart(res *messages.Located, forget func()) {
	if f.tried != nil && f.forgetRest == nil {
		return
	}
	f.heard()
	f.mayRelocate, f.forgetRest = true, forget
	if f.final || f.cancelled {
		f.complete()
		f.next()
		return
	}
	f.take(res)
}

// heard: the cluster has answered for the first time. Later it may be something
// else that is asked: to keep the message.
func (f *fork) heard() {
	if f.forgetRest == nil {
		f.asking = false
	}
}

// relocated takes in what the cluster says to the second question.
func (f *fork) relocated(res *messages.Located, err error) {
	f.asking = false
	if err == nil && !f.final && !f.cancelled {
		f.take(res)
		return
	}
	f.next()
}

// take goes on with the devices that are located and have not been tried.
func (f *fork) take(res *messages.Located) {
	devices, insecure := f.s.devices(res, f.r)
	f.best.insecure = f.best.insecure || insecure
	f.add(devices)
	sortByQ(f.waiting)
	f.next()
}

// complete: nothing that the cluster has yet to say is of use.
func (f *fork) complete() {
	if f.forgetRest != nil {
		f.forgetRest()
		f.forgetRest = nil
	}
}
