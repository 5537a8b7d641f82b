// Package swarm makes one load from several processes of the generator, for
// loads that one cannot make: each worker has its share of the users and of
// the rate, all begin and end each part together, and the coordinator merges
// what they have counted, histograms value by value.
//
// The coordinator speaks with a worker in lines of JSON over its standard
// input and output: first the load, then, at each barrier, an empty line when
// all have come there.
package swarm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"hereis/bench/load"
)

// Command is the argument with which a program becomes a worker.
const Command = "worker"

// said is one line of a worker.
type said struct {
	// At is a barrier that it has come to.
	At       string         `json:",omitempty"`
	Progress *load.Progress `json:",omitempty"`
	Result   *load.Result   `json:",omitempty"`
	Err      string         `json:",omitempty"`
}

// Worker does what a coordinator tells it.
func Worker(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no load to make: %w", err)
	}
	var cfg load.Config
	if err := json.Unmarshal(first, &cfg); err != nil {
		return err
	}
	var mu sync.Mutex // progress comes from another goroutine
	encoder := json.NewEncoder(out)
	say := func(s said) error {
		mu.Lock()
		defer mu.Unlock()
		return encoder.Encode(s)
	}
	cfg.Barrier = func(_ context.Context, at string) error {
		if err := say(said{At: at}); err != nil {
			return err
		}
		_, err := lines.ReadBytes('\n')
		return err
	}
	result, err := load.Run(ctx, cfg, func(p load.Progress) { _ = say(said{Progress: &p}) }) // a coordinator that is gone is told by the next barrier
	last := said{Result: result}
	if err != nil {
		last.Err = err.Error()
	}
	return say(last)
}

// worker is one process as the coordinator sees it.
type worker struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *json.Decoder
	progress load.Progress
	result   *load.Result
}

// event is a line of one worker; err if there are no more.
type event struct {
	from int
	said said
	err  error
}

// Run makes a load from n processes of this program.
func Run(ctx context.Context, cfg load.Config, n int, progress func(load.Progress)) (*load.Result, error) {
	if n <= 1 {
		return load.Run(ctx, cfg, progress)
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &coordinator{ctx: ctx, cfg: cfg, progress: progress, events: make(chan event)} // every worker's reader sends; run receives until all have ended
	defer c.stop()
	defer cancel()
	for i := range n {
		if err := c.start(i, n); err != nil {
			return nil, err
		}
	}
	return c.run()
}

type coordinator struct {
	ctx      context.Context // of the one call of Run
	cfg      load.Config
	workers  []*worker
	events   chan event
	progress func(load.Progress)
	play     func() ([]load.Mark, error) // ends the events of the measured part
	marks    []load.Mark
	failed   error
}

func (c *coordinator) start(i, n int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := c.cfg
	cfg.Worker, cfg.Workers, cfg.Events = i, n, nil
	if cfg.Run == "" {
		cfg.Run = fmt.Sprintf("w%x", time.Now().UnixNano()&0xffffffffff)
		c.cfg.Run = cfg.Run
	}
	if i > 0 { // one of them measures the servers
		cfg.PIDs, cfg.Admins, cfg.SampleEvery = nil, nil, 0
	}
	first, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	w := &worker{cmd: exec.CommandContext(c.ctx, program, Command)}
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	w.out = json.NewDecoder(out)
	c.workers = append(c.workers, w)
	go c.listen(i, w)
	_, err = w.in.Write(append(first, '\n'))
	return err
}

func (c *coordinator) listen(i int, w *worker) {
	for {
		var s said
		err := w.out.Decode(&s)
		select {
		case c.events <- event{i, s, err}:
		case <-c.ctx.Done():
			return
		}
		if err != nil || s.Result != nil { // a result is a worker's last word
			return
		}
	}
}

// run lets workers pass barriers together until each has its result.
func (c *coordinator) run() (*load.Result, error) {
	waiting := map[string]int{}
	for results := 0; results < len(c.workers); {
		var ev event
		select {
		case ev = <-c.events:
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
		s := ev.said
		switch {
		case ev.err != nil:
			return nil, fmt.Errorf("worker %d has ended: %w", ev.from, ev.err)
		case s.Err != "":
			return nil, fmt.Errorf("worker %d: %s", ev.from, s.Err)
		case s.Result != nil:
			c.workers[ev.from].result = s.Result
			results++
		case s.Progress != nil:
			c.workers[ev.from].progress = *s.Progress
			c.report()
		default:
			if waiting[s.At]++; waiting[s.At] == len(c.workers) {
				if err := c.release(s.At); err != nil {
					return nil, err
				}
			}
		}
	}
	return c.merge()
}

func (c *coordinator) release(at string) error {
	switch at {
	case c.cfg.Scenario:
		c.play = load.Play(c.ctx, c.cfg.Events)
	case c.cfg.Scenario + " end":
		c.marks, c.failed = c.play()
	}
	for _, w := range c.workers {
		if _, err := w.in.Write([]byte{'\n'}); err != nil {
			return err
		}
	}
	return nil
}

// report sums what workers have last said of the same part.
func (c *coordinator) report() {
	if c.progress == nil {
		return
	}
	sum := c.workers[0].progress
	for _, w := range c.workers[1:] {
		if p := w.progress; p.Phase == sum.Phase {
			sum.OK += p.OK
			sum.Failed += p.Failed
			sum.Retransmissions += p.Retransmissions
			sum.Total += p.Total
			sum.Elapsed = max(sum.Elapsed, p.Elapsed)
		}
	}
	c.progress(sum)
}

func (c *coordinator) merge() (*load.Result, error) {
	first := c.workers[0].result
	for _, w := range c.workers[1:] {
		for _, pair := range [][2]*load.Phase{{first.Prepared, w.result.Prepared}, {first.Measured, w.result.Measured}, {first.Checked, w.result.Checked}} {
			if pair[0] != nil && pair[1] != nil {
				pair[0].Merge(pair[1])
			}
		}
	}
	first.Measured.Marks = slices.Clone(c.marks)
	first.Config = c.cfg
	first.Config.Workers = len(c.workers)
	return first, c.failed
}

// stop ends what is left of the workers.
func (c *coordinator) stop() {
	for _, w := range c.workers {
		if err := w.cmd.Wait(); err != nil && c.ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "worker:", err)
		}
	}
}
