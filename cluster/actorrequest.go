package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	pcluster "github.com/asynkron/protoactor-go/cluster"
	"google.golang.org/protobuf/proto"
)

const (
	// requestTimeout is that of a Request whose context has no deadline.
	requestTimeout = 5 * time.Second
	// requestTries is how often a Request is put, if connections end meanwhile,
	// after requestPause, doubled each time.
	requestTries = 6
	requestPause = 20 * time.Millisecond
)

// losses tells who waits for an answer that a connection to a member has ended.
type losses struct {
	mu sync.Mutex
	// next is closed by happened; nil while nobody waits for it.
	next chan struct{}
}

// after is closed at the next loss.
func (l *losses) after() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(chan struct{})
	}
	return l.next
}

func (l *losses) happened() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
}

// requestResult is the end of one try.
type requestResult struct {
	reply any
	err   error
}

// Request asks the grain of that kind and identity, wherever it is, by
// proto.actor's own cluster.Request, and waits for the answer until ctx ends.
// The grain may be asked more than once: what was under way on a connection that
// has ended is lost without a word, and proto.actor waits for its answer as long
// as for all of the request. It ends more connections than fail, too: the end of
// an old one is told by its address alone, and takes down the one that has been
// made in its place, and the end of that the next.
func (a *Actors) Request(ctx context.Context, kind, identity string, msg proto.Message) (any, error) {
	select {
	case <-a.provider.started:
	case <-a.stopping:
		return nil, ErrNotStarted
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotStarted, ctx.Err())
	}
	// Each try sends one result, and there is room for all.
	results := make(chan requestResult, requestTries)
	var again <-chan time.Time
	lost := a.losses.after()
	a.try(ctx, kind, identity, msg, results)
	for tries, open := 1, 1; ; {
		select {
		case r := <-results:
			open--
			if r.reply == nil && r.err == nil {
				r.err = ErrNoActivation
			}
			if r.err == nil || open == 0 && again == nil {
				return r.reply, r.err
			}
		case <-lost:
			lost = nil
			if tries < requestTries {
				again = time.After(requestPause << (tries - 1))
			}
		case <-again:
			again, lost = nil, a.losses.after()
			a.try(ctx, kind, identity, msg, results)
			tries, open = tries+1, open+1
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-a.stopping:
			return nil, ErrNotStarted
		}
	}
}

// try puts a request once and sends what comes of it.
func (a *Actors) try(ctx context.Context, kind, identity string, msg proto.Message, results chan<- requestResult) {
	timeout := requestTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = time.Until(end)
	}
	a.requests.Add(1)
	go func() {
		defer a.requests.Add(-1)
		var r requestResult
		if err := guarded("request", func() {
			r.reply, r.err = a.cluster.Request(identity, kind, msg,
				pcluster.WithTimeout(timeout), pcluster.WithRetryAction(retryAfter(ctx, a.stopping)), pcluster.WithRetryCount(1<<20))
		}); err != nil {
			r.err = err
		}
		results <- r
	}()
}

// retryAfter is a back-off for proto.actor, whose own is in nanoseconds: 10 ms
// doubling to 320. It gives up when ctx does.
func retryAfter(ctx context.Context, stopping <-chan struct{}) func(int) int {
	return func(n int) int {
		t := time.NewTimer(10 * time.Millisecond << min(n, 5))
		defer t.Stop()
		select {
		case <-ctx.Done():
			return 1 << 20
		case <-stopping:
			return 1 << 20
		case <-t.C:
			return n + 1
		}
	}
}
