package load

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bucket is what was due in one interval of the measured part.
type Bucket struct {
	OK, Failed uint64
	// Latency of its main requests, in microseconds; nil if none ended.
	Latency *hdrhistogram.Histogram `json:"-"`
}

// timelineFigures is the precision of the histograms of intervals, which are many.
const timelineFigures = 2

// maxBuckets bounds a timeline; what is later counts in the last.
const maxBuckets = 4096

// bucket is the interval in which a unit was due; nil without a timeline.
func (e *endpoint) bucket(u *unit) *Bucket {
	if e.cfg.Interval <= 0 || e.work == nil || !e.work.main {
		return nil
	}
	i := min(int(u.due.Sub(e.work.start)/e.cfg.Interval), maxBuckets-1)
	for len(e.phase.Timeline) <= i {
		e.phase.Timeline = append(e.phase.Timeline, Bucket{})
	}
	return &e.phase.Timeline[i]
}

// record takes a latency from the time at which the unit was due.
func (e *endpoint) record(what string, u *unit, now time.Time) {
	took := now.Sub(u.due)
	e.phase.record(what, took)
	if b := e.bucket(u); b != nil {
		if b.Latency == nil {
			b.Latency = hdrhistogram.New(lowestUS, highestUS, timelineFigures)
		}
		if err := b.Latency.RecordValue(inRange(took)); err != nil {
			panic(err) // within the range by construction
		}
	}
}

// Event is something that is done to the servers while they are measured.
type Event struct {
	// At is the time since the beginning of the measured part.
	At   time.Duration
	Name string
	Do   func(context.Context) error
}

// Mark is an event that has happened.
type Mark struct {
	Name        string
	Began, Took time.Duration
	Err         string `json:",omitempty"`
}

// Play does events in order, beside what goes on; end lets the one that has
// begun go on to its end, leaves the others out, and tells how each went.
func Play(ctx context.Context, events []Event) (end func() ([]Mark, error)) {
	until, stop := context.WithCancel(ctx)
	done := make(chan struct{}) // closed by the goroutine when it has nothing more to do
	var marks []Mark
	var err error
	go func() {
		defer close(done)
		marks, err = play(ctx, until, events)
	}()
	return func() ([]Mark, error) {
		stop()
		<-done
		return marks, err
	}
}

// play does events in order until until ends, and says how each went. One that
// has begun is let go on.
func play(ctx, until context.Context, events []Event) (marks []Mark, err error) {
	start := time.Now()
	for _, ev := range events {
		wait(until, time.Until(start.Add(ev.At)))
		if until.Err() != nil {
			return marks, nil
		}
		began := time.Now()
		m := Mark{Name: ev.Name, Began: began.Sub(start)}
		if failed := ev.Do(ctx); failed != nil {
			m.Err = failed.Error()
			err = fmt.Errorf("%s: %w", ev.Name, failed)
		}
		m.Took = time.Since(began)
		marks = append(marks, m)
	}
	return marks, err
}

// Between is what was due between two times of the timeline, whose intervals are that long.
func (p *Phase) Between(from, to, interval time.Duration) (latency *hdrhistogram.Histogram, failed uint64) {
	for i, b := range p.Timeline {
		if at := time.Duration(i) * interval; at+interval <= from || at >= to {
			continue
		}
		failed += b.Failed
		switch {
		case b.Latency == nil:
		case latency == nil:
			latency = b.Latency.Clone()
		default:
			latency.Merge(b.Latency)
		}
	}
	return latency, failed
}
