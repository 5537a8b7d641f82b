package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

// run is one run's endpoints: askers measure, devices register and answer.
type run struct {
	cfg             *Config
	askers, devices []*endpoint
	tally           tally
	progress        func(Progress)
	result          *Result
}

func (r *run) open() error {
	for i := range r.cfg.Sockets {
		e, err := newEndpoint(r.cfg, i, &r.tally)
		if err != nil {
			return err
		}
		r.askers = append(r.askers, e)
	}
	if r.cfg.Scenario == Register || r.cfg.Scenario == Refresh {
		r.devices = r.askers // the same socket renews its own registrations
		return nil
	}
	for i := range r.cfg.Sockets {
		e, err := newEndpoint(r.cfg, i, &r.tally)
		if err != nil {
			return err
		}
		r.devices = append(r.devices, e)
	}
	return nil
}

func (r *run) close() {
	for _, e := range append(r.askers, r.devices...) {
		e.conn.Close()
	}
}

func (r *run) phases(ctx context.Context) (err error) {
	cfg := r.cfg
	if cfg.Prepare && cfg.Scenario != Register {
		w := &work{scenario: registering{cseq: 1}, requests: cfg.Users, slots: max(cfg.Window, 1)}
		if r.result.Prepared, err = r.phase(ctx, "prepare", r.devices, nil, w); err != nil {
			return err
		}
		if n := r.result.Prepared.Failed; n > 0 {
			return fmt.Errorf("prepare: %d of %d users could not be registered: %v", n, cfg.Users, r.result.Prepared.Codes)
		}
	}
	w := &work{requests: cfg.Requests, rate: cfg.Rate, slots: cfg.slots()}
	if w.requests == 0 && cfg.Duration == 0 {
		w.requests = cfg.Users
	}
	if cfg.Duration > 0 {
		w.end = time.Now().Add(cfg.Duration)
	}
	var answering []*endpoint
	switch cfg.Scenario {
	case Register:
		w.scenario = registering{cseq: 1, measured: true}
	case Refresh:
		w.scenario = registering{cseq: 2, measured: true}
	case Locate:
		w.scenario, answering = locating{}, r.devices
	case Call:
		w.scenario, answering = calling{}, r.devices
	}
	r.result.Measured, err = r.phase(ctx, cfg.Scenario, r.askers, answering, w)
	return err
}

// phase lets askers do their work while answering endpoints answer, and merges what they counted.
func (r *run) phase(ctx context.Context, name string, askers, answering []*endpoint, w *work) (*Phase, error) {
	m, err := newMeter(r.cfg.PIDs)
	if err != nil {
		return nil, err
	}
	r.tally.ok.Store(0)
	r.tally.failed.Store(0)
	r.tally.retransmissions.Store(0)
	w.endpoints, w.start = len(askers), time.Now()
	stopProgress := r.watch(name, w)
	answerCtx, stopAnswering := context.WithCancel(ctx)
	defer stopAnswering()
	var asking, rest sync.WaitGroup
	errs := make([]error, len(askers)+len(answering))
	for i, e := range answering {
		e.work, e.phase = nil, newPhase("")
		rest.Go(func() { errs[len(askers)+i] = e.run(answerCtx) })
	}
	for i, e := range askers {
		e.begin(w)
		asking.Go(func() { errs[i] = e.run(ctx) })
	}
	asking.Wait()
	p := newPhase(name)
	p.Took = time.Since(w.start)
	stopAnswering()
	rest.Wait()
	p.Processes = m.read()
	stopProgress()
	for _, e := range append(append([]*endpoint(nil), askers...), answering...) {
		p.add(e.phase)
	}
	return p, errors.Join(append(errs, ctx.Err())...)
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
