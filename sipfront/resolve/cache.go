package resolve

import (
	"sync"
	"time"
)

// cache remembers answers for as long as they may be believed. When it is full
// an expired entry gives way, or else any: a wrong guess costs one question.
type cache struct {
	limit int

	mu      sync.Mutex
	entries map[question]entry
}

// question is a name, in canonical form, and a type of record.
type question struct {
	name string
	kind uint16
}

type entry struct {
	records Records // shared by all callers, who do not change it
	expires time.Time
}

// evictTries is how many entries are looked at for an expired one.
const evictTries = 8

func newCache(limit int) cache {
	return cache{limit: limit, entries: make(map[question]entry)}
}

func (c *cache) get(q question, now time.Time) (Records, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[q]
	if !ok || !now.Before(e.expires) {
		return Records{}, false
	}
	return e.records, true
}

func (c *cache) put(q question, r Records, expires, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[q]; !ok && len(c.entries) >= c.limit {
		c.evict(now)
	}
	c.entries[q] = entry{r, expires}
}

func (c *cache) evict(now time.Time) {
	var victim question
	tries := 0
	for q, e := range c.entries {
		victim = q
		if tries++; !now.Before(e.expires) || tries == evictTries {
			break
		}
	}
	delete(c.entries, victim)
}
