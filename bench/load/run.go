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
	all                       []*endpoint // each once
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
			return nil, err
		}
		es = append(es, e)
		r.all = append(r.all, e)
	}
	return es, nil
}

func (r *run) close() {
	for _, e := range r.all {
		e.line.Close()
	}
}

func (r *run) phases(ctx context.Context) (err error) {
	cfg := r.cfg
	if cfg.Prepare && cfg.Scenario != Register && cfg.Scenario != Presence {
		w := &work{scenario: registering{base: 1}, requests: cfg.Users, slots: max(cfg.Window, 1)}
		if r.result.Prepared, err = r.phase(ctx, "prepare", crew{endpoints: r.devices, work: w}); err != nil {
			return err
		}
		if n := r.result.Prepared.Failed; n > 0 {
			return fmt.Errorf("prepare: %d of %d users could not be registered: %v", n, cfg.Users, r.result.Prepared.Codes)
		}
	}
	if cfg.Prepare && cfg.Scenario == Presence {
		w := &work{scenario: subscribing{}, requests: cfg.Users, slots: max(cfg.Window, 1)}
		p, err := r.phase(ctx, "subscribe", crew{endpoints: r.devices, work: w})
		if err != nil {
			return err
		}
		if p.Failed > 0 {
			return fmt.Errorf("subscribe: %d of %d watchers could not subscribe: %v", p.Failed, cfg.Users, p.Codes)
		}
	}
	if r.result.Measured, err = r.phase(ctx, cfg.Scenario, r.measured()...); err != nil || !cfg.Check {
		return err
	}
	nodes := cfg.everyone()
	w := &work{scenario: asking{nodes: nodes}, requests: cfg.Users * uint64(len(nodes)), slots: max(cfg.Window, 1)}
	r.result.Checked, err = r.phase(ctx, "check", crew{endpoints: r.checkers, work: w}, crew{endpoints: r.devices})
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
		w.scenario = registering{base: 1, measured: true}
	case Refresh:
		w.scenario = registering{base: 2, measured: true}
	case Storm:
		w.scenario, w.burst, w.rate = registering{base: 2, measured: true}, true, 0
	case Locate:
		w.scenario = locating{}
	case Everywhere:
		w.scenario = asking{nodes: cfg.Targets}
	case Call:
		w.scenario = calling{}
	case Presence:
		w.scenario = publishing{}
	case Mix:
		return r.mixed(w)
	}
	crews := []crew{{endpoints: r.askers, work: w}}
	if !cfg.sameSocket() {
		crews = append(crews, crew{endpoints: r.devices})
	}
	if cfg.AskAll {
		ask := &work{scenario: asking{nodes: cfg.Targets, begun: &w.begun}, slots: max(cfg.Window, 1)}
		crews = append(crews, crew{endpoints: r.checkers, work: ask, beside: true})
	}
	return crews
}

// mixed divides a work between devices and those who ask for them.
func (r *run) mixed(w *work) []crew {
	devices := &work{scenario: living{registering{base: 2}}, end: w.end, slots: w.slots}
	devices.requests = w.requests * deviceShare / 100
	devices.rate = w.rate * deviceShare / 100
	w.scenario = mixed{}
	w.requests -= devices.requests
	w.rate -= devices.rate
	return []crew{{endpoints: r.askers, work: w}, {endpoints: r.devices, work: devices}}
}

// crew is endpoints that do one work, or, if that is nil, only answer.
type crew struct {
	endpoints []*endpoint
	work      *work
	// beside tells that the work goes on as long as that of the others does, and is counted apart.
	beside bool
}

// phase lets crews do their work, while every endpoint answers until all are
// done and the time to settle is over. It merges what was counted; what a crew
// beside did is in Phase.Beside.
func (r *run) phase(ctx context.Context, name string, crews ...crew) (*Phase, error) {
	if err := r.barrier(ctx, name); err != nil {
		return nil, err
	}
	before, err := metrics.Read(ctx, r.cfg.Admins)
	if err != nil {
		return nil, err
	}
	m, err := proc.NewMeter(r.cfg.PIDs)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	stopProgress := r.watch(name, r.set(crews, start))
	p := newPhase(name)
	finish := r.accompany(ctx, p, m)
	stop := begin(ctx, crews)
	p.Took = stop.wait()
	stopProgress()
	finished := finish()
	wait(ctx, r.cfg.Settle)
	p.Window, p.Processes = time.Since(start), m.Read()
	after, err := metrics.Read(ctx, r.cfg.Admins)
	p.Counters = after.Since(before)
	atEnd := r.barrier(ctx, name+" end")
	failed := stop.end()
	p.collect(crews)
	return p, errors.Join(ctx.Err(), failed, finished, err, atEnd)
}

func (r *run) barrier(ctx context.Context, at string) error {
	if r.cfg.Barrier == nil {
		return nil
	}
	return r.cfg.Barrier(ctx, at)
}

// set readies endpoints and tally for a phase and tells how many units there will be, 0 if time ends it.
func (r *run) set(crews []crew, start time.Time) (total uint64) {
	r.tally.ok.Store(0)
	r.tally.failed.Store(0)
	r.tally.retransmissions.Store(0)
	for _, c := range crews {
		if c.work != nil {
			c.work.endpoints, c.work.start, c.work.main = r.cfg.Workers*len(c.endpoints), start, !c.beside
			if !c.beside {
				total += c.work.requests
			}
		}
		for _, e := range c.endpoints {
			e.begin(c.work)
		}
	}
	return total / uint64(r.cfg.Workers)
}

// labour is crews at work.
type labour struct {
	crews   []crew
	asking  []sync.WaitGroup // for each crew, until its endpoints have done their share
	all     sync.WaitGroup
	answers context.CancelFunc
	start   time.Time
	mu      sync.Mutex
	errs    []error
}

// begin starts all endpoints.
func begin(ctx context.Context, crews []crew) *labour {
	l := &labour{crews: crews, asking: make([]sync.WaitGroup, len(crews)), start: time.Now()}
	ctx, l.answers = context.WithCancel(ctx)
	for i, c := range crews {
		for _, e := range c.endpoints {
			l.asking[i].Add(1)
			l.all.Go(func() {
				if err := e.run(ctx, l.asking[i].Done); err != nil {
					l.mu.Lock()
					l.errs = append(l.errs, err)
					l.mu.Unlock()
				}
			})
		}
	}
	return l
}

// wait returns when all have done their work, with how long it took; who works beside is told to stop then.
func (l *labour) wait() time.Duration {
	for i, c := range l.crews {
		if !c.beside {
			l.asking[i].Wait()
		}
	}
	took := time.Since(l.start)
	for i, c := range l.crews {
		if c.beside {
			c.work.stopped.Store(true)
			l.asking[i].Wait()
		}
	}
	return took
}

// end lets nobody answer any more.
func (l *labour) end() error {
	l.answers()
	l.all.Wait()
	return errors.Join(l.errs...)
}

// accompany samples and plays events during the measured part, until the returned function is called.
func (r *run) accompany(ctx context.Context, p *Phase, m *proc.Meter) (finish func() error) {
	if p.Scenario != r.cfg.Scenario {
		return func() error { return nil }
	}
	endEvents := Play(ctx, r.cfg.Events)
	endSamples := r.sample(ctx, p, m)
	return func() (err error) {
		endSamples()
		p.Marks, err = endEvents()
		return err
	}
}

// sample looks at the measured processes and the nodes' metrics until the returned function is called.
func (r *run) sample(ctx context.Context, p *Phase, m *proc.Meter) (end func()) {
	if r.cfg.SampleEvery <= 0 {
		return func() {}
	}
	until, cancel := context.WithCancel(ctx)
	done := make(chan struct{}) // closed by the sampler when it ends
	start := time.Now()
	go func() {
		defer close(done)
		for {
			if wait(until, r.cfg.SampleEvery); until.Err() != nil {
				return
			}
			s := Sample{At: time.Since(start)}
			for _, u := range m.Read() {
				s.CPU += u.CPU
				s.RSS += u.RSS
			}
			// A node that is down just now is no reason to end the run.
			if counters, err := metrics.Read(ctx, r.cfg.Admins); err == nil {
				s.Counters = counters
				p.Samples = append(p.Samples, s)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// collect merges what crews have counted.
func (p *Phase) collect(crews []crew) {
	for _, c := range crews {
		into := p
		if c.beside {
			p.Beside = newPhase("beside")
			into = p.Beside
		}
		for _, e := range c.endpoints {
			into.add(e.phase)
		}
	}
}

// watch reports progress until the returned function is called.
func (r *run) watch(name string, total uint64) (stop func()) {
	if r.progress == nil {
		return func() {}
	}
	start := time.Now()
	look := func() {
		r.progress(Progress{
			Phase: name, OK: r.tally.ok.Load(), Failed: r.tally.failed.Load(),
			Retransmissions: r.tally.retransmissions.Load(), Total: total, Elapsed: time.Since(start),
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
