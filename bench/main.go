// Command bench loads a SIP registrar and proxy and measures it: Hereis, or
// any other. See README.md beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"hereis/bench/load"
)

// options are the flags of every scenario; load.Config explains them.
type options struct {
	Target    []string      `short:"t" required:"" placeholder:"HOST:PORT" help:"Node that is asked; repeat it for several, users are spread over them."`
	Registrar []string      `placeholder:"HOST:PORT" help:"Node at which users register first (refresh, locate, call); default: the target after the one that is asked."`
	Domain    string        `default:"localhost" help:"Domain of the users."`
	Users     uint64        `short:"u" default:"1000" help:"Number of users; they cost no memory."`
	First     uint64        `default:"0" help:"Index of the first user, so that several processes can share a population."`
	Requests  uint64        `short:"n" help:"Units to measure; default: one for each user."`
	Duration  time.Duration `short:"d" help:"End after this time instead."`
	Sockets   int           `short:"s" default:"1" help:"Sockets on the asking side, and again on the answering side."`
	Window    int           `short:"w" default:"8" help:"Closed loop: units outstanding per socket."`
	Rate      float64       `short:"r" help:"Open loop: units per second over all sockets; latency counts from the intended start."`
	InFlight  int           `default:"8192" help:"Open loop: most units outstanding per socket."`
	Expires   int           `default:"3600" help:"Lifetime asked for, in seconds."`
	Accept    []int         `placeholder:"CODE" help:"Status that counts as success; default 200 (locate: 200, 302)."`
	Hold      time.Duration `help:"Time from ACK to BYE of a call."`
	Prepare   bool          `default:"true" negatable:"" help:"Register the users first (refresh, locate, call)."`
	Bind      string        `default:"127.0.0.1" help:"Local address."`
	Run       string        `help:"Name of the run within Call-IDs; default: random."`
	PID       []string      `name:"pid" placeholder:"NAME=PID" help:"Target process whose CPU and memory are measured, its children included; repeat it for several."`
	common
}

// common are the flags of every command.
type common struct {
	Output string `short:"o" enum:"table,json,go" default:"table" help:"table, json, or go (for benchstat)."`
	Quiet  bool   `short:"q" help:"No progress."`
}

// voice is how a command tells what it does: lines, and a progress line that is drawn over itself.
func (c *common) voice(w io.Writer) (say func(string, ...any), progress func(load.Progress)) {
	if c.Quiet {
		return func(string, ...any) {}, nil
	}
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }, progressLine(w)
}

// cli is the command line.
type cli struct {
	Register options `cmd:"" help:"Register users that are not registered yet (with more requests than users: refresh them then)."`
	Refresh  options `cmd:"" help:"Register the users, then measure registering them again."`
	Locate   options `cmd:"" help:"Register the users, then look them up with OPTIONS that their devices answer."`
	Call     options `cmd:"" help:"Register the users, then call them: INVITE, 180, 200, ACK, BYE, 200."`

	Compare compareCmd `cmd:"" help:"Start Hereis and its peers, load them in turn, and print ratios."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 all units ended as expected, 1 error, 2 some units failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("A SIP load generator with closed and open loop."), kong.Writers(stdout, stderr))
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if command, ok := parsed.Selected().Target.Addr().Interface().(interface {
		run(context.Context, io.Writer, io.Writer) error
	}); ok {
		return exit(command.run(ctx, stdout, stderr), stderr)
	}
	scenario := parsed.Command()
	o := map[string]*options{load.Register: &c.Register, load.Refresh: &c.Refresh, load.Locate: &c.Locate, load.Call: &c.Call}[scenario]
	cfg, err := o.config(scenario)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	_, progress := o.voice(stderr)
	result, err := load.Run(ctx, cfg, progress)
	if result != nil && result.Measured != nil {
		report(stdout, o.Output, result)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	case result.Measured.Failed > 0:
		return 2
	}
	return 0
}

// exit is the exit code of an error, which it tells.
func exit(err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFailed):
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

func (o *options) config(scenario string) (load.Config, error) {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Domain, cfg.Users, cfg.First = scenario, o.Domain, o.Users, o.First
	cfg.Requests, cfg.Duration, cfg.Sockets, cfg.Window = o.Requests, o.Duration, o.Sockets, o.Window
	cfg.Rate, cfg.MaxInFlight, cfg.Expires, cfg.Accept = o.Rate, o.InFlight, o.Expires, o.Accept
	cfg.Hold, cfg.Prepare, cfg.Run = o.Hold, o.Prepare, o.Run
	var err error
	if cfg.Targets, err = resolve(o.Target); err != nil {
		return cfg, err
	}
	if cfg.Registrars, err = resolve(o.Registrar); err != nil {
		return cfg, err
	}
	if cfg.Bind, err = netip.ParseAddr(o.Bind); err != nil {
		return cfg, err
	}
	cfg.PIDs = map[string]int{}
	for _, p := range o.PID {
		name, id, ok := strings.Cut(p, "=")
		pid, err := strconv.Atoi(id)
		if !ok || err != nil || name == "" {
			return cfg, fmt.Errorf("--pid %q is not NAME=PID", p)
		}
		cfg.PIDs[name] = pid
	}
	return cfg, cfg.Validate()
}

func resolve(hosts []string) (addrs []netip.AddrPort, err error) {
	for _, h := range hosts {
		a, err := net.ResolveUDPAddr("udp", h)
		if err != nil {
			return nil, err
		}
		ap := a.AddrPort()
		addrs = append(addrs, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	return addrs, nil
}
