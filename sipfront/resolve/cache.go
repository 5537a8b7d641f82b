package resolve

import (
	"sync"
	"time"
)

// cache remembers answers for a while. When it is full an expired entry gives
// way, or else any: a wrong guess costs one lookup.
type cache struct {
	limit int

	mu      sync.Mutex
	entries map[Target]entry
}

type entry struct {
	hops    []Hop // shared by all callers, who do not change it
	err     error
	expires time.Time
}

// evictTries is how many entries are looked at for an expired one.
const evictTries = 8

func newCache(limit int) cache {
	return cache{limit: limit, entries: make(map[Target]entry)}
}

func (c *cache) get(t Target, now time.Time) (hops []Hop, known error, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[t]
	if !ok || !now.Before(e.expires) {
		return nil, nil, false
	}
	return e.hops, e.err, true
}

func (c *cache) put(t Target, hops []Hop, err error, expires, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[t]; !ok && len(c.entries) >= c.limit {
		c.evict(now)
	}
	c.entries[t] = entry{hops, err, expires}
}

func (c *cache) evict(now time.Time) {
	var victim Target
	tries := 0
	for t, e := range c.entries {
		victim = t
		if tries++; !now.Before(e.expires) || tries == evictTries {
			break
		}
	}
	delete(c.entries, victim)
}
