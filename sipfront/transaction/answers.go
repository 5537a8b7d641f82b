package transaction

import (
	"time"

	"hereis/sipfront/transport"
)

// answer is all that stays of a finished non-INVITE server transaction: what a
// repeated request gets, for timer J. Of one that began as Plain it is all that
// there ever was.
type answer struct {
	key  string
	hash uint64 // of key
	// raw is nil as long as there is no answer: a repeat is ignored then.
	raw     []byte
	reply   transport.Flow
	expires time.Duration
	next    *answer // the next younger one
}

// answerOverhead is the memory of an answer beside its key and bytes, roughly.
const answerOverhead = 160

func (a *answer) size() int { return len(a.key) + cap(a.raw) + answerOverhead }

// answers is a queue by age with a bound on its bytes. It belongs to its shard's lock.
type answers struct {
	// byHash has those to be found. Of two keys with one hash, which nobody can
	// make for they do not know the seed, the later one is in here.
	byHash         map[uint64]*answer
	oldest, newest *answer
	bytes, limit   int
	evicted        uint64
}

// get finds an answer, or that there will be one.
func (c *answers) get(hash uint64, key []byte) *answer {
	if a := c.byHash[hash]; a != nil && a.key == string(key) {
		return a
	}
	return nil
}

func (c *answers) add(a *answer) {
	// A key that is still queued stays queued: its turn only finds another value.
	c.byHash[a.hash] = a
	c.queue(a)
}

// queue is add for what is in byHash already.
func (c *answers) queue(a *answer) {
	if a.size() > c.limit {
		c.evicted++
		c.drop(a)
		return
	}
	c.bytes += a.size()
	if c.newest == nil {
		c.oldest = a
	} else {
		c.newest.next = a
	}
	c.newest = a
	for c.bytes > c.limit {
		c.pop()
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
	if c.byHash[a.hash] == a {
		delete(c.byHash, a.hash)
	}
}

func (c *answers) expire(now time.Duration) {
	for c.oldest != nil && c.oldest.expires <= now {
		c.pop()
	}
}
