package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long the parts of a node's life may take.
const (
	readyPoll = 50 * time.Millisecond
	// childStop is longer than a node's own deadline.
	childStop = 12 * time.Second
	// childPipes is how long a dead node's pipes may stay open.
	childPipes = time.Second
)

// supervisor keeps the processes of a development cluster.
type supervisor struct {
	app   *app
	nodes []*devNode
	// args are those of node i, and back the command that brings it back.
	args func(i int) []string
	back func(i int) string
	log  *lineLog
	http *http.Client
	// launch has the processes to start, read by launcher alone. Unbuffered:
	// who asks waits for the start.
	launch chan launchRequest
	// busy has one token per node: who holds it may start or stop that node.
	busy []chan struct{}
	// waiting counts the goroutines that wait for a process to end.
	waiting sync.WaitGroup

	mu       sync.Mutex
	children []*child
	// up: all were ready once, so that an end is news and not a failed start.
	up, stopping bool
}

// child is one process of a node.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *prefixWriter
	// wanted: somebody asked it to end.
	wanted bool
	// done is closed, by the goroutine that waits for the process, when it has ended with err.
	done chan struct{}
	err  error
}

type launchRequest struct {
	cmd *exec.Cmd
	// started gets one value; it has room for it.
	started chan error
}

func newSupervisor(a *app, nodes []*devNode, args func(i int) []string, back func(i int) string) *supervisor {
	s := &supervisor{
		app: a, nodes: nodes, args: args, back: back, log: &lineLog{w: a.stderr},
		http:     &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second},
		launch:   make(chan launchRequest),
		children: make([]*child, len(nodes)),
	}
	for range nodes {
		s.busy = append(s.busy, make(chan struct{}, 1))
	}
	return s
}

// run starts all nodes, calls ready when they are, serves restarts, and stops
// all when ctx ends. If one does not start, all are stopped and the error says
// why. A node that ends later is reported and left down.
func (s *supervisor) run(ctx context.Context, timeout time.Duration, ctl *control, ready func() error) (err error) {
	var parts sync.WaitGroup
	launching := make(chan struct{}) // closed below, when all processes have ended
	parts.Go(func() { s.launcher(launching) })
	serving, stopServing := context.WithCancel(ctx)
	defer func() {
		stopServing()
		err = errors.Join(err, s.stopAll())
		close(launching)
		parts.Wait()
		s.waiting.Wait()
	}()
	for i := range s.nodes {
		if err := s.start(i); err != nil {
			return err
		}
	}
	if err := s.allReady(ctx, timeout); err != nil || ctx.Err() != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	return ctl.serve(serving, s)
}

// launcher starts processes from one OS thread: on Linux, a process is told of
// its parent's death when the *thread* that started it dies (prctl(2)), so
// that thread must live as long as dev.
func (s *supervisor) launcher(end <-chan struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-end:
			return
		case r := <-s.launch:
			r.started <- r.cmd.Start()
		}
	}
}

// start starts the process of node i.
func (s *supervisor) start(i int) error {
	out := &prefixWriter{log: s.log, prefix: s.nodes[i].Name + " | "}
	cmd := exec.Command(s.app.exe, s.args(i)...)
	cmd.Env = s.app.environ
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = childPipes
	// Nothing is ever written: the end of this pipe tells the node that dev is gone.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	r := launchRequest{cmd: cmd, started: make(chan error, 1)}
	s.launch <- r
	if err := <-r.started; err != nil {
		return fmt.Errorf("%s: %w", s.nodes[i].Name, err)
	}
	c := &child{cmd: cmd, stdin: stdin, out: out, done: make(chan struct{})}
	s.mu.Lock()
	s.children[i] = c
	s.mu.Unlock()
	s.waiting.Go(func() { s.wait(i, c) })
	return nil
}

// wait takes note of a process's end.
func (s *supervisor) wait(i int, c *child) {
	c.err = c.cmd.Wait()
	c.out.flush()
	close(c.done)
	s.mu.Lock()
	unexpected := s.up && !c.wanted && !s.stopping
	s.mu.Unlock()
	if unexpected {
		s.log.line(fmt.Sprintf("hereis: %s (pid %d) has ended: %s; it stays down until: %s",
			s.nodes[i].Name, c.cmd.Process.Pid, endText(c.err), s.back(i)))
	}
}

func endText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (s *supervisor) child(i int) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.children[i]
}

// pid is the process of node i.
func (s *supervisor) pid(i int) int { return s.child(i).cmd.Process.Pid }

// allReady waits until every node serves.
func (s *supervisor) allReady(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready after %s", timeout))
	defer cancel()
	for i := range s.nodes {
		if err := s.ready(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until node i serves. The end of ctx is no error unless it is a
// deadline: people stop a cluster that is still starting.
func (s *supervisor) ready(ctx context.Context, i int) error {
	c := s.child(i)
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	reason := "it does not answer"
	for {
		select {
		case <-c.done:
			return fmt.Errorf("%s did not start: %s: %s", s.nodes[i].Name, endText(c.err), c.out.lastLine())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return &notReadyError{fmt.Errorf("%s: %w: %s", s.nodes[i].Name, context.Cause(ctx), reason)}
			}
			return nil
		case <-tick.C:
		}
		if err := s.probe(ctx, i); err == nil {
			return nil
		} else if isStatus(err, http.StatusServiceUnavailable) {
			reason = err.Error()
		}
	}
}

// notReadyError is that of a node that runs and does not serve yet.
type notReadyError struct{ error }

func (s *supervisor) probe(ctx context.Context, i int) error {
	c := &client{base: "http://" + s.nodes[i].Admin, http: s.http}
	var ok struct{}
	return c.get(ctx, "/readyz", &ok)
}

// restart stops node i if it runs and starts it again. The error is a
// notReadyError if it runs now but did not become ready before ctx ended.
func (s *supervisor) restart(ctx context.Context, i int) error {
	select {
	case s.busy[i] <- struct{}{}:
		defer func() { <-s.busy[i] }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		return errors.New("dev is stopping")
	}
	if err := s.stop(i); err != nil {
		return err
	}
	if err := s.start(i); err != nil {
		return err
	}
	return s.ready(ctx, i)
}

// stopAll stops all nodes at once. Restarts that are under way come to their
// end first, and none begins afterwards.
func (s *supervisor) stopAll() error {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	errs := make([]error, len(s.nodes))
	var all sync.WaitGroup
	for i := range s.nodes {
		all.Go(func() {
			s.busy[i] <- struct{}{}
			defer func() { <-s.busy[i] }()
			errs[i] = s.stop(i)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// stop asks node i to end, and kills it if it does not. Nothing is done for
// one that does not run.
func (s *supervisor) stop(i int) error {
	c := s.child(i)
	if c == nil {
		return nil
	}
	s.mu.Lock()
	c.wanted = true
	s.mu.Unlock()
	// The end of stdin is the portable wish, the signal that of a paused reader.
	_ = c.stdin.Close()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(childStop)
	defer late.Stop()
	select {
	case <-c.done:
		return nil
	case <-late.C:
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", s.nodes[i].Name, err)
	}
	<-c.done
	return fmt.Errorf("%s (pid %d) did not stop and was killed", s.nodes[i].Name, c.cmd.Process.Pid)
}

// lineLog writes whole lines of many writers to one.
type lineLog struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineLog) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintln(l.w, text)
}

// maxLine is how long a line without an end may become before it is cut.
const maxLine = 64 << 10

// prefixWriter puts the node's name before each of its lines.
type prefixWriter struct {
	log    *lineLog
	prefix string

	mu      sync.Mutex
	pending []byte
	last    string
}

// Write implements io.Writer; it never fails.
func (p *prefixWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, b...)
	for {
		line, rest, whole := strings.Cut(string(p.pending), "\n")
		if !whole && len(line) < maxLine {
			return len(b), nil
		}
		p.emit(line)
		p.pending = []byte(rest)
	}
}

func (p *prefixWriter) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 {
		p.emit(string(p.pending))
		p.pending = nil
	}
}

func (p *prefixWriter) emit(line string) {
	if strings.TrimSpace(line) != "" {
		p.last = line
	}
	p.log.line(p.prefix + line)
}

func (p *prefixWriter) lastLine() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.TrimPrefix(p.last, "hereis: ")
}
