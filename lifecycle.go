package hereis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// part is one long-lived piece of a node. Run blocks until its context ends
// and leaves nothing running.
type part struct {
	name string
	run  func(context.Context) error
	// before is called when it is this part's turn to stop, ahead of ending its
	// context: to say good-bye while everything below still works.
	before func(context.Context) error
	// patience is how long before may take; 0: as long as any part may take to end.
	patience time.Duration
}

// runParts runs all parts until ctx ends or one of them fails, then stops them
// in reverse order, and joins their errors. Saying good-bye and ending are each
// bounded by stopTimeout, the former by its part's patience if it has one.
func runParts(ctx context.Context, parts []part, stopTimeout time.Duration, log *slog.Logger) error {
	type running struct {
		part
		cancel context.CancelFunc
		done   chan struct{} // closed by the part's goroutine when run has returned
	}
	var (
		mu   sync.Mutex
		errs []error
	)
	fail := func(name string, err error) {
		if err == nil || errors.Is(err, context.Canceled) {
			return
		}
		mu.Lock()
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
		mu.Unlock()
	}
	// ended has a slot for each part, so that no goroutine waits to report.
	ended := make(chan string, len(parts))
	started := make([]running, 0, len(parts))
	for _, p := range parts {
		// A part outlives ctx until its turn to stop has come.
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{part: p, cancel: cancel, done: make(chan struct{})}
		started = append(started, r)
		go func() {
			defer close(r.done)
			fail(p.name, p.run(pctx))
			ended <- p.name
		}()
	}
	select {
	case <-ctx.Done():
	case name := <-ended:
		log.Error("part of the node ended; stopping", "part", name)
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		if r.before != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(r.patience, stopTimeout))
			fail(r.name, r.before(stop))
			cancel()
		}
		r.cancel()
		late := time.NewTimer(stopTimeout)
		select {
		case <-r.done:
		case <-late.C:
			fail(r.name, errors.New("did not stop in time"))
		}
		late.Stop()
	}
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(errs...)
}
