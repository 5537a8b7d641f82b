// Command bench loads SIP registrars and proxies and measures them: Hereis, or
// any other. See README.md beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"hereis/bench/load"
	"hereis/bench/swarm"
)

// cli is the command line.
type cli struct {
	Register   scenarioCmd `cmd:"" help:"Register users that are not registered yet (with more requests than users: refresh them then)."`
	Refresh    scenarioCmd `cmd:"" help:"Register the users, then measure registering them again."`
	Locate     scenarioCmd `cmd:"" help:"Register the users, then look them up with OPTIONS that their devices answer."`
	Everywhere scenarioCmd `cmd:"" help:"Register the users, then ask every node for every user."`
	Call       scenarioCmd `cmd:"" help:"Register the users, then call them: INVITE, 180, 200, ACK, BYE, 200."`
	Presence   scenarioCmd `cmd:"" help:"Subscribe to every user, then publish, and wait for the NOTIFY at another node."`
	Mix        scenarioCmd `cmd:"" help:"A day's profile: registrations, users who move and who come and go, lookups and calls."`
	Storm      scenarioCmd `cmd:"" help:"Register the users, then all again at once, waiting as long as a 503 says."`

	Failover    failoverCmd    `cmd:"" help:"Kill a node under load, start it again, and tell what failed and how slow it was."`
	Join        joinCmd        `cmd:"" help:"Start a further node under load, and tell what it moved and how slow it was meanwhile."`
	Soak        soakCmd        `cmd:"" help:"A mix for hours, with memory, goroutines and files over time."`
	Connections connectionsCmd `cmd:"" help:"A TCP connection for each user: register, keep alive, and be reached by it."`

	Compare  compareCmd  `cmd:"" help:"Start Hereis and its peers, load them in turn, and print ratios."`
	Scale    scaleCmd    `cmd:"" help:"The cost of a REGISTER as nodes are added."`
	Fill     fillCmd     `cmd:"" help:"Memory, latency and idle cost as users become many, and a restart with them."`
	Simulate simulateCmd `cmd:"" help:"Placement and hand-over on paper, for clusters larger than a machine."`
	Users    usersCmd    `cmd:"" help:"Print a users file of Hereis for the users of a load with --password."`
	Worker   workerCmd   `cmd:"" hidden:""`
}

// command is what every command of cli is. name is as on the command line.
type command interface {
	run(ctx context.Context, name string, stdout, stderr io.Writer) error
}

// errFailed: the run ended, and some of what it did failed.
var errFailed = errors.New("not everything went as expected")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 all units ended as expected, 1 error, 2 some units failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Load and comparisons for SIP registrars and proxies."), kong.Writers(stdout, stderr))
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	parsed, err := parser.Parse(args)
	if err == nil {
		node := parsed.Selected()
		err = node.Target.Addr().Interface().(command).run(ctx, node.Name, stdout, stderr) // each of cli is one
	}
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

// workerCmd is a process of a load that several make; package swarm starts it.
type workerCmd struct{}

func (*workerCmd) run(ctx context.Context, _ string, stdout, _ io.Writer) error {
	return swarm.Worker(ctx, os.Stdin, stdout)
}

// usersCmd writes a users file.
type usersCmd struct {
	Users    uint64 `short:"u" default:"1000" help:"Number of users."`
	First    uint64 `default:"0" help:"Index of the first."`
	Domain   string `default:"localhost" help:"Domain, which is the realm."`
	Password string `required:"" help:"Password of all of them."`
}

func (c *usersCmd) run(_ context.Context, _ string, stdout, _ io.Writer) error {
	return load.WriteUsers(stdout, c.First, c.Users, c.Domain, c.Password)
}
