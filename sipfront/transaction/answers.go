package transaction

import (
	"time"

	"hereis/sipfront/transport"
)

// answer is all that stays of a finished non-INVITE server transaction: what a
// repeated request gets, for timer J.
type answer struct {
	key     string
	hash    uint64 // of key
	raw     []byte
	reply   transport.Flow
	expires time.Duration
	next    *answer // the next younger one
}

// answerOverhead is the memory of an answer beside its key and bytes, roughly.
const answerOverhead = 160

func (a *answer) size() int { return len(a.key) + cap(a.raw) + answerOverhead }

// answers is a queue by age, with one of gists beside it, and a bound on the bytes
// of both. It belongs to its shard's lock.
type answers struct {
	// byHash has those to be found. Of two keys with one hash, which nobody can
	// make for they do not know the seed, the later one is in here.
	byHash         map[uint64]*answer
	oldest, newest *answer
	gists          gists
	// bytes is the memory of those in the queue.
	bytes, limit int
	evicted      uint64
}

// get finds an answer, or that there will be one.
func (c *answers) get(hash uint64, key []byte) *answer {
	if a := c.byHash[hash]; a != nil && a.key == string(key) {
		return a
	}
	return nil
}

func (c *answers) add(a *answer) {
	if a.size() > c.limit {
		c.evicted++
		c.drop(c.byHash[a.hash])
		return
	}
	// A key that is still queued stays queued: its turn only finds another value.
	c.byHash[a.hash] = a
	c.bytes += a.size()
	if c.newest == nil {
		c.oldest = a
	} else {
		c.newest.next = a
	}
	c.newest = a
	c.trim()
}

// addGist is add for a request that is known by a gist, and returns its place.
func (c *answers) addGist(e gistEntry) uint32 {
	place := c.gists.add(e)
	c.trim()
	return place
}

// trim lets the oldest give way until the rest is within the bound.
func (c *answers) trim() {
	for c.bytes+c.gists.bytes() > c.limit {
		if c.gists.n > 0 && (c.oldest == nil || int32(c.gists.entry(c.gists.head).expires-gistTime(c.oldest.expires)) <= 0) {
			if !c.gists.pop() {
				continue
			}
		} else {
			c.pop()
		}
		c.evicted++
	}
}

func (c *answers) pop() {
	a := c.oldest
	c.oldest = a.next
	if c.oldest == nil {
		c.newest = nil
	}
	c.bytes -= a.size()
	c.drop(a)
}

func (c *answers) drop(a *answer) {
	if a != nil && c.byHash[a.hash] == a {
		delete(c.byHash, a.hash)
	}
}

// any tells whether there is something to be forgotten in time.
func (c *answers) any() bool { return c.oldest != nil || c.gists.n > 0 }

func (c *answers) expire(now time.Duration) {
	for c.oldest != nil && c.oldest.expires <= now {
		c.pop()
	}
	c.gists.expire(gistTime(now))
}

// gistTime is a time since the layer's epoch as gists have it.
func gistTime(t time.Duration) uint32 { return uint32(t.Milliseconds()) }
