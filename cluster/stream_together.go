package cluster

import "sync"

// What comes of messages that are handled one after the other leaves together,
// once for each node that it goes to, and who has handled them writes it: to
// wake another goroutine for it costs more than many a write.

// mostTogether is how many frames of one stream are handled before what came of
// them leaves: it bounds how long an answer waits for company.
const mostTogether = 32

// company are those who handle messages, and the connections to which something
// must be written when one of them is through with its batch. Nothing waits
// here while nobody handles any.
type company struct {
	mu   sync.Mutex
	open int
	// waiting are the connections, each once; spare is room for others.
	waiting, spare []*streamConn
}

// take has c written to at the end of a batch, if there is one.
func (k *company) take(c *streamConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == 0 {
		return false
	}
	if !c.listed {
		c.listed = true
		k.waiting = append(k.waiting, c)
	}
	return true
}

// Begin has what is sent from now on wait for End, if it goes at once; several may
// handle messages at a time, and the first to be through sends what all of them have.
func (s *Streams) Begin() {
	s.company.mu.Lock()
	s.company.open++
	s.company.mu.Unlock()
}

// End sends what has waited. It does not wait itself.
func (s *Streams) End() {
	k := &s.company
	k.mu.Lock()
	k.open--
	if len(k.waiting) == 0 {
		k.mu.Unlock()
		return
	}
	list := k.waiting
	k.waiting, k.spare = k.spare, nil
	for _, c := range list {
		c.listed = false
	}
	k.mu.Unlock()
	for _, c := range list {
		c.flush()
	}
	clear(list)
	k.mu.Lock()
	k.spare = list[:0]
	k.mu.Unlock()
}

// enter counts a frame that is to be handled, and leave ends the batch that it
// began, if there is one.
func (s *Streams) enter(handled *int) {
	if *handled == 0 {
		s.Begin()
	}
	*handled++
}

func (s *Streams) leave(handled *int) {
	if *handled > 0 {
		*handled = 0
		s.End()
	}
}

// flush writes what is queued, or leaves it to the writer if that would have to
// wait.
func (c *streamConn) flush() {
	if c.direct == nil {
		c.wakeWriter()
		return
	}
	c.mu.Lock()
	if c.writing || len(c.buf) == 0 {
		c.again = c.writing
		c.mu.Unlock()
		return
	}
	c.writing = true
	out := c.takeQueued()
	c.mu.Unlock()
	n := 0
	if c.mayWrite() == nil {
		// The writer meets the error again, and ends the connection for it.
		n, _ = c.direct.tryWrite(out)
		c.wrote(n)
	}
	if n < len(out) {
		c.mu.Lock()
		c.rest = out[n:]
		c.mu.Unlock()
		c.wakeWriter()
		return
	}
	c.release(out)
}

// takeQueued takes out what is queued. c is locked.
func (c *streamConn) takeQueued() []byte {
	out := c.buf
	c.buf, c.spare, c.due = c.spare[:0], nil, false
	if c.armed {
		c.armed = false
		c.ride.Stop()
	}
	return out
}

// claim makes the caller, who is the writer, the one who writes, and gives it what
// is to be written; false: another writes, and will wake it.
func (c *streamConn) claim() ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rest := c.rest; rest != nil {
		c.rest = nil
		return rest, true
	}
	if c.writing {
		c.again = true
		return nil, false
	}
	c.writing = true
	return c.takeQueued(), true
}

// release ends the writing of out.
func (c *streamConn) release(out []byte) {
	c.mu.Lock()
	c.writing = false
	if cap(out) <= keepBuffer {
		c.spare = out[:0]
	}
	again := c.again
	c.again = false
	c.mu.Unlock()
	if again {
		c.wakeWriter()
	}
}
