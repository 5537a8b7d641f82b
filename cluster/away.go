package cluster

// awayMS is how long a member that went is remembered: longer than anything
// that its disk may bring back can live (the longest registration is 30 days).
const awayMS = 31 * 24 * 3600 * 1000

// Away is a member that left or was forgotten, and has not come back. Its disk
// may hold leases that others have buried (rule 4).
type Away struct {
	Name string
	// SinceMS is the node time at which it went.
	SinceMS int64
}

// Away takes the members that are known to have left or to have been
// forgotten, before Members takes the list that they are not in any more.
func (c *Core) Away(now int64, list []Away) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	v := c.view.Load()
	for _, a := range list {
		if !v.live(a.Name) {
			c.away[a.Name] = max(c.away[a.Name], a.SinceMS)
		}
	}
	c.sumAway(now)
}

// noteAway keeps when members went that were in an earlier list. viewMu is held.
func (c *Core) noteAway(now int64, list []Member) {
	listed := make(map[string]bool, len(list))
	for _, m := range list {
		listed[m.Name] = true
		if m.FailedMS == 0 {
			delete(c.away, m.Name)
		}
	}
	for name := range c.lastState {
		if _, noted := c.away[name]; !listed[name] && !noted {
			c.away[name] = now
		}
	}
	c.sumAway(now)
}

func (c *Core) sumAway(now int64) {
	var last int64
	for name, since := range c.away {
		if since+awayMS < now {
			delete(c.away, name)
			continue
		}
		last = max(last, since)
	}
	c.goneMS.Store(last)
}
