package sipfront

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// backlog has work that waits for the cluster, each piece of it once: what is
// ready now, and what is to be done later. Its workers are all that ever waits;
// who pushes does not.
type backlog struct {
	workers int

	mu sync.Mutex
	// ready is first in first out, later a heap by due.
	ready []*piece
	later laterPieces
	// more is sent to, and never closed, when ready has grown; one deep for each
	// worker, as one that is awake takes all that there is. sooner, one deep, says
	// that the first of later is another.
	more, sooner chan struct{}
}

// piece is one piece of work in a backlog, guarded by its mutex.
type piece struct {
	// do does it, with no lock of the backlog held and never twice at a time. It
	// returns when it is to be done again, zero for not before it is pushed.
	do func(ctx context.Context) time.Time
	// queued: it stands in ready; running: a worker is at it; again: it was pushed meanwhile.
	queued, running, again bool
	// due is when it is moved to ready, at its place in later; place is -1 if it is not there.
	due   time.Time
	place int
}

// backlogBatch is how many pieces are moved while the mutex is held.
const backlogBatch = 256

func newBacklog(workers int) *backlog {
	return &backlog{workers: workers, more: make(chan struct{}, workers), sooner: make(chan struct{}, 1)}
}

func newPiece(do func(ctx context.Context) time.Time) piece { return piece{do: do, place: -1} }

// push has a piece done as soon as a worker is free, whatever it was to wait for.
func (b *backlog) push(p *piece) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pushLocked(p)
}

func (b *backlog) pushLocked(p *piece) {
	if p.place >= 0 {
		heap.Remove(&b.later, p.place)
	}
	switch {
	case p.running:
		p.again = true
	case !p.queued:
		p.queued = true
		b.ready = append(b.ready, p)
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
}

// run works until ctx ends.
func (b *backlog) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range b.workers {
		workers.Go(func() { b.work(ctx) })
	}
	for {
		var ripe <-chan time.Time
		if wait, some := b.ripen(time.Now()); some {
			ripe = time.After(wait)
		}
		select {
		case <-ctx.Done():
			workers.Wait()
			return
		case <-ripe:
		case <-b.sooner:
		}
	}
}

// ripen moves what is due to ready, a batch of it, and returns when there is
// more to move, if there is any.
func (b *backlog) ripen(now time.Time) (wait time.Duration, some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range backlogBatch {
		if len(b.later) == 0 {
			return 0, false
		}
		if wait := b.later[0].due.Sub(now); wait > 0 {
			return wait, true
		}
		b.pushLocked(b.later[0])
	}
	return 0, true
}

func (b *backlog) work(ctx context.Context) {
	for {
		p := b.next()
		if p == nil {
			select {
			case <-ctx.Done():
				return
			case <-b.more:
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		b.done(p, p.do(ctx))
	}
}

func (b *backlog) next() *piece {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ready) == 0 {
		b.ready = nil
		return nil
	}
	p := b.ready[0]
	b.ready[0] = nil
	b.ready = b.ready[1:]
	p.queued, p.running = false, true
	return p
}

// done puts a piece where it waits for its next turn.
func (b *backlog) done(p *piece, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.running = false
	switch {
	case p.again:
		p.again = false
		b.pushLocked(p)
	case !due.IsZero():
		p.due = due
		heap.Push(&b.later, p)
		if p.place == 0 {
			select {
			case b.sooner <- struct{}{}:
			default:
			}
		}
	}
}

// laterPieces implements heap.Interface.
type laterPieces []*piece

func (l laterPieces) Len() int           { return len(l) }
func (l laterPieces) Less(i, j int) bool { return l[i].due.Before(l[j].due) }
func (l laterPieces) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

// Push implements heap.Interface.
func (l *laterPieces) Push(x any) {
	p := x.(*piece)
	p.place = len(*l)
	*l = append(*l, p)
}

// Pop implements heap.Interface.
func (l *laterPieces) Pop() any {
	last := len(*l) - 1
	p := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	p.place = -1
	return p
}

// backoff is how long a piece waits after its tries-th failure in a row.
func backoff(tries int) time.Duration {
	return min(time.Second<<min(tries-1, 6), time.Minute)
}
