package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"hereis"
)

// Exit codes, the same for every command.
const (
	exitOK = iota
	exitError
	exitPartial
	exitNotFound
)

// cli is the command line.
type cli struct {
	Output string `short:"o" enum:"table,json" default:"table" env:"HEREIS_OUTPUT" help:"Form of results: table or json (${env})."`

	Node     nodeCmd     `cmd:"" help:"Run one node."`
	Dev      devCmd      `cmd:"" help:"Run a cluster of nodes on this host, for development."`
	Where    whereCmd    `cmd:"" help:"Show where a user is: owner, backup and every lease."`
	Watchers watchersCmd `cmd:"" help:"Show who watches a user: package, watcher, state, node and expiry."`
	AoR      aorCmd      `cmd:"" name:"aor" help:"List, show, count and remove the users who are online."`
	Members  membersCmd  `cmd:"" help:"List the nodes of the cluster."`
	Drain    drainCmd    `cmd:"" help:"Make a node hand over what it holds and take nothing new."`
	Forget   forgetCmd   `cmd:"" help:"Forget a failed node that will not come back."`
	Send     sendCmd     `cmd:"" help:"Send a message of any registered type and print the replies."`
	Watch    watchCmd    `cmd:"" help:"Print users going online and offline, until stopped."`
	Allow    allowCmd    `cmd:"" help:"Say in a rules file who may watch whom."`
	User     userCmd     `cmd:"" help:"Add, change, remove and list the users of a users file."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// app is what commands know of the world around them; tests make their own.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	// exe is this binary, for dev to start nodes with.
	exe string
	// runNode runs a node until ctx ends.
	runNode func(ctx context.Context, cfg hereis.Config, log *slog.Logger) error
	// outboundIP is the address at which other hosts probably reach this one.
	outboundIP func() (netip.Addr, error)
	// json is true with --output json.
	json bool
}

// exitCodeError ends the program with a code other than 1.
type exitCodeError struct {
	code int
	err  error
}

func (e *exitCodeError) Error() string { return e.err.Error() }
func (e *exitCodeError) Unwrap() error { return e.err }

func partial(format string, args ...any) error {
	return &exitCodeError{code: exitPartial, err: fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &exitCodeError{code: exitNotFound, err: fmt.Errorf(format, args...)}
}

func main() {
	ctx := untilSignal()
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(),
		exe: exe, runNode: runNode, outboundIP: outboundIP,
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}

// exitSignal and the number of a signal are the exit code of a process that it ends.
const exitSignal = 128

// untilSignal is a context that ends with the first signal that asks to stop. The
// second one, however soon, ends the process at once.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2) // from the runtime, never closed; a third says nothing new
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		code := exitError
		if s, ok := (<-signals).(syscall.Signal); ok {
			code = exitSignal + int(s)
		}
		os.Exit(code)
	}()
	return ctx
}

// kongExit is what kong's wish to exit becomes, to unwind to run.
type kongExit int

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) (code int) {
	defer func() {
		if wish := recover(); wish != nil {
			exit, ok := wish.(kongExit)
			if !ok {
				panic(wish)
			}
			code = int(exit)
		}
	}()
	var c cli
	parser, err := newParser(a, &c)
	if err != nil {
		return a.fail(err)
	}
	line, err := parser.Parse(args)
	if err != nil {
		return a.fail(fmt.Errorf("%w (see hereis --help)", err))
	}
	a.json = c.Output == "json"
	line.BindTo(ctx, (*context.Context)(nil))
	line.Bind(a, &c.Dev)
	if err := line.Run(); err != nil {
		return a.fail(err)
	}
	return exitOK
}

func newParser(a *app, c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("hereis"),
		kong.Description("A distributed SIP registrar, proxy and presence engine."),
		kong.Writers(a.stdout, a.stderr),
		kong.Exit(func(code int) { panic(kongExit(code)) }),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(helpWithDefault()),
		kong.ExplicitGroups([]kong.Group{
			{Key: "node", Title: "The node"},
			{Key: "sip", Title: "SIP"},
			{Key: "cluster", Title: "The cluster"},
			{Key: "registrar", Title: "The registrar"},
			{Key: "presence", Title: "Presence"},
			{Key: "limits", Title: "Limits"},
			{Key: "operation", Title: "Operation"},
		}),
	)
}

func (a *app) fail(err error) int {
	fmt.Fprintln(a.stderr, "hereis:", err)
	var coded *exitCodeError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitError
}
