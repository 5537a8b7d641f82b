package cluster

import (
	"slices"
	"sync"
	"sync/atomic"

	"hereis/messages"
)

// What a disk has not taken (rule 4). Everything else in this package holds
// though a write fails: a REGISTER is refused, and copies are in memory at three
// nodes. But the disk still has what it had before, and brings it back in the
// node's next life: a lease that was removed meanwhile, of which all have
// forgotten that it was, as this node had acknowledged the removal. So what was not
// written is written again as soon as the disk takes it, and until then nobody
// forgets a removal before its time.

const (
	// rewriteMS is the time between attempts to write them again, of rewriteChunk each.
	rewriteMS, rewriteChunk = 100, 1000
	// unstoredMS is how often it is said that there are some.
	unstoredMS = 10_000
)

// unstored are the AoRs whose last write failed.
type unstored struct {
	mu sync.Mutex
	// aors are true while they are being written again.
	aors map[string]bool
	// lost: there were more than Config.MaxUnstored.
	lost bool

	// some: there are any here. nearby: here or at another node of the view.
	some, nearby atomic.Bool
	// said is what the others were told last, at saidMS; triedMS is of the last
	// attempt. Only Tick has them.
	said            bool
	saidMS, triedMS int64
}

func (u *unstored) any() bool { return u.some.Load() }

// written takes note of how a write of an AoR ended.
func (c *Core) written(aor string, err error) {
	if err == nil {
		return
	}
	c.stats.DiskErrors.Add(1)
	c.parts.Log.Debug("lease not stored", "aor", aor, "err", err)
	u := &c.unstored
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.some.Load() {
		c.parts.Log.Warn("a lease was not stored; what is not is written later", "aor", aor, "err", err)
	}
	if u.aors == nil {
		u.aors = make(map[string]bool)
	}
	if _, known := u.aors[aor]; known || len(u.aors) < c.cfg.MaxUnstored {
		u.aors[aor] = false
	} else {
		u.lost = true
		c.stats.UnstoredLost.Add(1)
	}
	c.countUnstored()
	c.stir()
}

// countUnstored tells how many there are. u.mu is held.
func (c *Core) countUnstored() {
	u := &c.unstored
	c.stats.Unstored.Store(int64(len(u.aors)))
	u.some.Store(u.lost || len(u.aors) > 0)
}

// tickUnstored writes again what the disk did not take, once it takes writes, and
// tells the others whether there is any.
func (c *Core) tickUnstored(now int64) {
	u := &c.unstored
	some := u.some.Load()
	if some && now >= u.triedMS+rewriteMS && c.parts.Store.Err() == nil {
		u.triedMS = now
		c.rewrite()
	}
	v := c.view.Load()
	tell := some != u.said || some && now >= u.saidMS+unstoredMS
	if tell {
		u.said, u.saidMS = some, now
	}
	nearby := some
	for i := range v.nodes {
		p := v.nodes[i].peer
		if p == nil {
			continue
		}
		nearby = nearby || p.unstored.Load()
		if tell {
			c.event(p, c.newAck(v))
		}
	}
	u.nearby.Store(nearby)
}

// rewrite puts some of what was not written to disk as it is by now.
func (c *Core) rewrite() {
	u := &c.unstored
	var aors []string
	u.mu.Lock()
	for aor, underWay := range u.aors {
		if len(aors) == rewriteChunk {
			break
		}
		if !underWay {
			u.aors[aor] = true
			aors = append(aors, aor)
		}
	}
	u.mu.Unlock()
	slices.Sort(aors) // so that a simulation replays
	for _, aor := range aors {
		s := c.shard(aor)
		s.mu.Lock()
		mine := &messages.Record{Aor: aor}
		if e := s.entry(aor); e != nil {
			mine = part(e.rec, c.cfg.Name)
		}
		// With the shard locked, as any write of a key.
		c.parts.Store.Put(mine, func(err error) { c.rewritten(aor, err) })
		s.mu.Unlock()
	}
}

// rewritten forgets what is on disk now, unless a later write of it has failed.
func (c *Core) rewritten(aor string, err error) {
	if err != nil {
		c.written(aor, err)
		return
	}
	u := &c.unstored
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.aors[aor] {
		delete(u.aors, aor)
	}
	if c.countUnstored(); !u.some.Load() {
		c.parts.Log.Info("all leases are stored again")
	}
}
