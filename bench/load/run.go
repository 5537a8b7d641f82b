package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hereis/bench/metrics"
	"hereis/bench/proc"
)

// tally is what a run has done so far, for a progress line.
type tally struct{ ok, failed, retransmissions atomic.Uint64 }

// Progress is a look at a run under way.
type Progress struct {
	// Phase is "prepare" or the scenario.
	Phase                       string
	OK, Failed, Retransmissions uint64
	// Total is how many units there will be, 0 if time ends the run.
	Total   uint64
	Elapsed time.Duration
}

// Run makes the run that cfg describes. progress is called about every half
// second and may be nil. A run that ctx ends returns what it has, and ctx's error.
func Run(ctx context.Context, cfg Config, progress func(Progress)) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Run == "" {
		cfg.Run = strings.ToLower(rand.Text()[:8])
	}
	r := &run{cfg: &cfg, progress: progress, result: &Result{}}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, err
	}
	err := r.phases(ctx)
	r.result.Config = cfg
	return r.result, err
}

// run is one run's endpoints: askers measure, devices register and answer,
// checkers ask every node for every user.
type run struct {
	cfg                       *Config
	askers, devices, checkers []*endpoint
	tally                     tally
	progress                  func(Progress)
	result                    *Result
}

func (r *run) open() (err error) {
	if r.askers, err = r.endpoints(); err != nil {
		return err
	}
	r.devices = r.askers // the same socket renews its own registrations
	if !r.cfg.sameSocket() {
		if r.devices, err = r.endpoints(); err != nil {
			return err
		}
	}
	if r.cfg.Check || r.cfg.AskAll {
		r.checkers, err = r.endpoints()
	}
	return err
}

func (r *run) endpoints() (es []*endpoint, err error) {
	for i := range r.cfg.Sockets {
		e, err := newEndpoint(r.cfg, i, &r.tally)
		if err != nil {
			for _, e := range es {
				e.conn.Close()
			}
			return nil, err
		}
		es = append(es, e)
	}
	return es, nil
}

func (r *run) close() {
	for _, e := range slices.Concat(r.askers, r.devices, r.checkers) {
		e.conn.Close()
	}
}

func (r *run) phases(ctx context.Context) (err error) {
	cfg := r.cfg
	if cfg.Prepare && cfg.Scenario != Register {
		w := &work{scenario: registering{cseq: 1}, requests: cfg.Users, slots: max(cfg.Window, 1)}
		if r.result.Prepared, err = r.phase(ctx, "prepare", crew{r.devices, w}); err != nil {
			return err
		}
		if n := r.result.Prepared.Failed; n > 0 {
			return fmt.Errorf("prepare: %d of %d users could not be registered: %v", n, cfg.Users, r.result.Prepared.Codes)
		}
	}
	if r.result.Measured, err = r.phase(ctx, cfg.Scenario, r.measured()...); err != nil || !cfg.Check {
		return err
	}
	w := &work{scenario: asking{}, requests: cfg.Users * uint64(len(cfg.Targets)), slots: max(cfg.Window, 1)}
	r.result.Checked, err = r.phase(ctx, "check", crew{r.checkers, w}, crew{r.devices, nil})
	return err
}

// measured is who works in the measured part.
func (r *run) measured() []crew {
	cfg := r.cfg
	w := &work{requests: cfg.Requests, rate: cfg.Rate, slots: cfg.slots()}
	if w.requests == 0 && cfg.Duration == 0 {
		w.requests = cfg.Users
		if cfg.Scenario == Everywhere {
			w.requests *= uint64(len(cfg.Targets))
		}
	}
	if cfg.Duration > 0 {
		w.end = time.Now().Add(cfg.Duration)
	}
	switch cfg.Scenario {
	case Register:
		w.scenario = registering{cseq: 1, measured: true}
	case Refresh:
		w.scenario = registering{cseq: 2, measured: true}
	case Locate:
		w.scenario = locating{}
	case Everywhere:
		w.scenario = asking{}
	case Call:
		w.scenario = calling{}
	}
	crews := []crew{{r.askers, w}}
	if !cfg.sameSocket() {
		crews = append(crews, crew{r.devices, nil})
	}
	if cfg.AskAll {
		ask := &work{scenario: asking{begun: &w.begun}, slots: max(cfg.Window, 1)}
		crews = append(crews, crew{r.checkers, ask})
	}
	return crews
}

// crew is endpoints that do one work, or, if that is nil, only answer.
type crew struct {
	endpoints []*endpoint
	work      *work
}

// phase lets the first crew do its work; the others work beside it as long as
// it does, and every endpoint answers until all are done. It merges what was
// counted; what other crews than the first did is in Phase.Beside.
func (r *run) phase(ctx context.Context, name string, crews ...crew) (*Phase, error) {
	before, err := metrics.Read(ctx, r.cfg.Admins)
	if err != nil {
		return nil, err
	}
	m, err := proc.NewMeter(r.cfg.PIDs)
	if err != nil {
		return nil, err
	}
	r.tally.ok.Store(0)
	r.tally.failed.Store(0)
	r.tally.retransmissions.Store(0)
	start := time.Now()
	for i, c := range crews {
		if c.work != nil {
			c.work.endpoints, c.work.start, c.work.main = len(c.endpoints), start, i == 0
		}
		for _, e := range c.endpoints {
			e.begin(c.work)
		}
	}
	stopProgress := r.watch(name, crews[0].work)
	answerCtx, stopAnswering := context.WithCancel(ctx)
	defer stopAnswering()
	var all sync.WaitGroup
	asking := make([]sync.WaitGroup, len(crews))
	failed := make(chan error, 1+len(crews)*r.cfg.Sockets) // one for each endpoint, read at the end
	for i, c := range crews {
		for _, e := range c.endpoints {
			asking[i].Add(1)
			all.Go(func() { failed <- e.run(answerCtx, asking[i].Done) })
		}
	}
	asking[0].Wait()
	took := time.Since(start)
	for i, c := range crews[1:] {
		if c.work != nil {
			c.work.stopped.Store(true)
		}
		asking[1+i].Wait()
	}
	stopProgress()
	wait(ctx, r.cfg.Settle)
	p := newPhase(name)
	p.Took, p.Window, p.Processes = took, time.Since(start), m.Read()
	stopAnswering()
	all.Wait()
	close(failed)
	after, err := metrics.Read(ctx, r.cfg.Admins)
	p.Counters = after.Since(before)
	p.collect(crews)
	errs := []error{ctx.Err(), err}
	for err := range failed {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// collect merges what crews have counted.
func (p *Phase) collect(crews []crew) {
	for i, c := range crews {
		into := p
		if i > 0 && c.work != nil {
			p.Beside = newPhase("beside")
			into = p.Beside
		}
		for _, e := range c.endpoints {
			into.add(e.phase)
		}
	}
}

// watch reports progress until the returned function is called.
func (r *run) watch(name string, w *work) (stop func()) {
	if r.progress == nil {
		return func() {}
	}
	look := func() {
		r.progress(Progress{
			Phase: name, OK: r.tally.ok.Load(), Failed: r.tally.failed.Load(),
			Retransmissions: r.tally.retransmissions.Load(), Total: w.requests, Elapsed: time.Since(w.start),
		})
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(500 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				look()
			case <-done:
				look()
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
