package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hereis/bench/load"
	"hereis/bench/report"
	"hereis/bench/rig"
	"hereis/bench/swarm"
	"hereis/bench/trial"
)

// shape are the flags of a load; load.Config explains them.
type shape struct {
	Users     uint64        `short:"u" default:"1000" help:"Number of users; they cost no memory."`
	First     uint64        `default:"0" help:"Index of the first user."`
	Requests  uint64        `short:"n" help:"Units to measure; default: one for each user."`
	Duration  time.Duration `short:"d" help:"End after this time instead."`
	Sockets   int           `short:"s" default:"1" help:"Sockets on the asking side, and again on the answering side."`
	Window    int           `short:"w" default:"8" help:"Closed loop: units outstanding per socket."`
	Rate      float64       `short:"r" help:"Open loop: units per second over all sockets; latency counts from the intended start."`
	InFlight  int           `default:"8192" help:"Open loop and storm: most units outstanding per socket."`
	Processes int           `default:"1" help:"Processes of the generator that make the load together."`
	Transport string        `enum:"udp,tcp" default:"udp" help:"udp or tcp."`
	Password  string        `help:"Answer digest challenges with this password, for every user (see bench users)."`
	Expires   int           `default:"3600" help:"Lifetime asked for, in seconds."`
	Accept    []int         `placeholder:"CODE" help:"Status that counts as success; default 200 (locate: 200, 302)."`
	Hold      time.Duration `help:"Time from ACK to BYE of a call."`
	Prepare   bool          `default:"true" negatable:"" help:"Register the users first, where the scenario needs it."`
	Near      bool          `help:"Users register at the node that is asked for them, instead of the next (locate, call)."`
	Check     bool          `help:"Ask every node for every user in the end."`
	AskAll    bool          `help:"Ask every node for the users while they register."`
	Retry     bool          `help:"Come again when a 503 to a REGISTER says (storm, mix, soak: always)."`
	Interval  time.Duration `help:"Length of the intervals of the timeline in the report; default for what has one: 1s."`
	Settle    time.Duration `help:"Time after each part in which the servers' CPU still counts."`
	Bind      string        `default:"127.0.0.1" help:"Local address."`
	Devices   bool          `help:"Each user has a loopback address of their own, as behind a NAT (register, refresh, storm over udp)."`
	Run       string        `help:"Name of the run within Call-IDs; default: random."`
}

// place are the flags that say what is loaded: running nodes, or servers that are started for it.
type place struct {
	Target    []string `short:"t" placeholder:"HOST:PORT" help:"Node that is asked; repeat it for several, users are spread over them."`
	Registrar []string `placeholder:"HOST:PORT" help:"Node at which users register first; default: the targets, for lookups and calls the one after that which is asked."`
	Domain    string   `default:"localhost" help:"Domain of the users."`
	PID       []string `name:"pid" placeholder:"NAME=PID" help:"Target process whose CPU and memory are measured, its children included."`
	Admin     []string `placeholder:"HOST:PORT" help:"Admin address of a node of Hereis, whose metrics are read."`
	Server    string   `short:"S" placeholder:"[LABEL=]KIND[@PROGRAM]" help:"Start servers of this kind instead of --target: hereis, hereis-sync, kamailio, ..."`
	Nodes     int      `short:"N" default:"1" help:"With --server: their number."`
	Cores     int      `default:"2" help:"With --server: worker threads or processes of each node."`
}

// scenarioCmd is bench SCENARIO.
type scenarioCmd struct {
	place
	shape
	output
}

func (c *scenarioCmd) run(ctx context.Context, name string, stdout, stderr io.Writer) error {
	s, err := c.open(ctx, &c.shape, nil)
	if err != nil {
		return err
	}
	defer s.close()
	cfg, err := c.config(name, s)
	if err != nil {
		return err
	}
	return c.measure(ctx, cfg, s, stdout, stderr)
}

// measure makes the load and writes its report.
func (c *scenarioCmd) measure(ctx context.Context, cfg load.Config, s *site, stdout, stderr io.Writer) error {
	_, progress := c.voice(stderr)
	result, err := swarm.Run(ctx, cfg, c.Processes, progress)
	if result == nil || result.Measured == nil {
		return err
	}
	d := report.OfRun(result, append(facts(), s.facts...))
	if writeErr := c.write(stdout, d); writeErr != nil {
		return writeErr
	}
	if err != nil {
		return err
	}
	return failures(result)
}

// failures is an error if units failed, or users were missing.
func failures(r *load.Result) error {
	if n := r.Measured.Failed; n > 0 {
		return fmt.Errorf("%w: %d failed", errFailed, n)
	}
	if r.Checked != nil && r.Checked.Failed > 0 {
		return fmt.Errorf("%w: %d times a node did not find a user: %v", errFailed, r.Checked.Failed, r.Checked.Codes)
	}
	return nil
}

// site is what is loaded.
type site struct {
	targets, registrars []netip.AddrPort
	domain              string
	pids                map[string]int
	admins              []string
	facts               []report.Fact
	stand               *trial.Stand // nil for nodes that run anyway
	done                []func()
}

func (s *site) close() {
	for i := len(s.done) - 1; i >= 0; i-- {
		s.done[i]()
	}
}

// open finds the targets, or starts servers for a load, with further args for Hereis.
func (p *place) open(ctx context.Context, load *shape, args []string) (s *site, err error) {
	if p.Server != "" {
		return p.start(ctx, load, args)
	}
	s = &site{domain: p.Domain, pids: map[string]int{}, admins: p.Admin}
	if len(p.Target) == 0 {
		return nil, fmt.Errorf("--target or --server: one is needed")
	}
	if s.targets, err = resolve(p.Target); err != nil {
		return nil, err
	}
	if s.registrars, err = resolve(p.Registrar); err != nil {
		return nil, err
	}
	for _, one := range p.PID {
		name, id, ok := strings.Cut(one, "=")
		pid, err := strconv.Atoi(id)
		if !ok || err != nil || name == "" {
			return nil, fmt.Errorf("--pid %q is not NAME=PID", one)
		}
		s.pids[name] = pid
	}
	return s, nil
}

// spareUsers are those that a stand uses before the load, to find that nodes have converged and to warm them up.
const spareUsers = 20000

func (p *place) start(ctx context.Context, sh *shape, args []string) (*site, error) {
	s := &site{domain: p.Domain}
	spec, done, err := serverSpec(ctx, p.Server)
	s.done = append(s.done, done)
	if err != nil {
		s.close()
		return nil, err
	}
	spec.Nodes, spec.Workers, spec.Domain, spec.TCP = p.Nodes, p.Cores, p.Domain, sh.Transport == load.TCP
	if rig.IsHereis(spec.Kind) {
		spec.Args = args
		if spec.Password = sh.Password; spec.Password != "" {
			file, remove, err := temporary("users", func(w io.Writer) error {
				return load.WriteUsers(w, 0, sh.Users+spareUsers, p.Domain, spec.Password)
			})
			s.done = append(s.done, remove)
			if err != nil {
				s.close()
				return nil, err
			}
			spec.Users = file
		}
	}
	if s.stand, err = trial.Open(ctx, spec); err != nil {
		s.close()
		return nil, err
	}
	s.done = append(s.done, func() { _ = s.stand.Close() }) // what it says when it stops is no result
	s.renew()
	s.facts = []report.Fact{
		{Name: "Servers", Value: fmt.Sprintf("%s, %d node(s) with %d worker(s) each, started for this run", spec.Name(), p.Nodes, p.Cores)},
		{Name: "Idle", Value: fmt.Sprintf("%.2f %% of a core, all nodes together", 100*s.stand.Idle)},
	}
	return s, nil
}

// renew takes addresses and processes of the servers that were started, as they are now.
func (s *site) renew() {
	c := s.stand.Cluster
	s.targets, s.pids, s.admins = c.Targets(), c.PIDs(), c.Admins()
}

// serverSpec reads [LABEL=]KIND[@PROGRAM], and builds Hereis if it has no program; done removes that.
func serverSpec(ctx context.Context, s string) (spec rig.Spec, done func(), err error) {
	done = func() {}
	if label, rest, ok := strings.Cut(s, "="); ok {
		spec.Label, s = label, rest
	}
	spec.Kind, spec.Binary, _ = strings.Cut(s, "@")
	switch {
	case spec.Binary != "":
		spec.Binary, err = filepath.Abs(spec.Binary) // a node runs in a folder of its own
	case rig.IsHereis(spec.Kind):
		spec.Binary, done, err = buildHereis(ctx)
	}
	return spec, done, err
}

// config is the load that the flags describe.
func (c *shape) config(scenario string, s *site) (load.Config, error) {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First, cfg.Transport, cfg.Password = scenario, c.Users, c.First, c.Transport, c.Password
	cfg.Requests, cfg.Duration, cfg.Sockets, cfg.Window = c.Requests, c.Duration, c.Sockets, c.Window
	cfg.Rate, cfg.MaxInFlight, cfg.Expires, cfg.Accept = c.Rate, c.InFlight, c.Expires, c.Accept
	cfg.Hold, cfg.Prepare, cfg.Run, cfg.Check, cfg.AskAll = c.Hold, c.Prepare, c.Run, c.Check, c.AskAll
	cfg.Near, cfg.Devices, cfg.Domain = c.Near, c.Devices, s.domain
	cfg.Retry = c.Retry || scenario == load.Storm || scenario == load.Mix
	cfg.Interval, cfg.Settle = c.Interval, c.Settle
	if cfg.Interval == 0 && (c.Rate > 0 || scenario == load.Storm) {
		cfg.Interval = time.Second
	}
	cfg.Targets, cfg.Registrars, cfg.PIDs, cfg.Admins = s.targets, s.registrars, s.pids, s.admins
	if s.stand != nil {
		cfg.First = s.stand.Take(c.Users)
	}
	if c.Processes < 1 {
		return cfg, fmt.Errorf("--processes: must be above 0")
	}
	var err error
	if cfg.Bind, err = netip.ParseAddr(c.Bind); err != nil {
		return cfg, err
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

// temporary writes a file that done removes.
func temporary(name string, write func(io.Writer) error) (path string, done func(), err error) {
	dir, err := os.MkdirTemp("", "hereis-bench-")
	if err != nil {
		return "", func() {}, err
	}
	done = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return "", done, err
	}
	if err := write(f); err != nil {
		f.Close()
		return "", done, err
	}
	return path, done, f.Close()
}
