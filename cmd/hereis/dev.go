package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hereis"
)

// devCmd is a cluster on 127.0.0.1, a process for each node.
type devCmd struct {
	devFlags

	Up      devUpCmd      `cmd:"" default:"1" help:"Start the cluster and keep it until stopped; what dev does by itself."`
	Restart devRestartCmd `cmd:"" help:"Start nodes again that were killed, or restart running ones."`
}

// devFlags lay out the cluster.
type devFlags struct {
	N           int      `name:"nodes" short:"n" default:"3" placeholder:"N" help:"Number of nodes (default ${default})."`
	BaseSIP     int      `name:"base-sip" default:"5060" placeholder:"PORT" env:"HEREIS_BASE_SIP" help:"SIP port of node 1; node i is at +10(i-1) (default ${default})."`
	BaseCluster int      `name:"base-cluster" default:"7060" placeholder:"PORT" env:"HEREIS_BASE_CLUSTER" help:"Gossip port of node 1; streams at +1, proto.actor's remote at +2 (default ${default})."`
	BaseAdmin   int      `name:"base-admin" default:"8060" placeholder:"PORT" env:"HEREIS_BASE_ADMIN" help:"Admin port of node 1 (default ${default})."`
	Domain      []string `name:"domain" sep:"none" placeholder:"D" help:"Domain to serve besides localhost, with aliases as a=b,c; repeatable."`
	Users       string   `name:"users" placeholder:"FILE" env:"HEREIS_USERS" help:"File of those who may register and call (see hereis user); none: everybody may."`
	Data        string   `name:"data" placeholder:"DIR" help:"Folder for the secret and the nodes' data, kept; none: a temporary one."`
	Durability  string   `name:"durability" default:"sync" placeholder:"LEVEL" env:"HEREIS_DURABILITY" help:"memory, async or sync (default ${default})."`
	LogLevel    string   `name:"log-level" default:"info" placeholder:"LEVEL" env:"HEREIS_LOG_LEVEL" help:"Lowest level that the nodes log (default ${default})."`

	Timeout time.Duration `name:"timeout" default:"30s" placeholder:"T" help:"How long nodes may take to become ready (default ${default})."`
}

// devUpCmd starts the cluster.
type devUpCmd struct{}

// Ports of one node are this far from those of the next.
const devStride = 10

// localDomain is what a development cluster serves always: three names of one place.
const localDomain = "localhost=127.0.0.1,::1"

// devNode is one node of a development cluster.
type devNode struct {
	Name    string `json:"name"`
	SIP     string `json:"sip"`
	Cluster string `json:"cluster"`
	Stream  string `json:"stream"`
	Remote  string `json:"remote"`
	Admin   string `json:"admin"`
	Data    string `json:"data"`
}

// args are those of hereis node.
func (n *devNode) args(c *devFlags, secretFile string, others []string) []string {
	args := []string{
		"node", "--stop-with-stdin",
		"--name=" + n.Name, "--data=" + n.Data, "--durability=" + c.Durability,
		"--sip=" + n.SIP, "--advertise=" + n.SIP,
		"--cluster=" + n.Cluster, "--cluster-stream=" + n.Stream, "--cluster-remote=" + n.Remote,
		"--secret-file=" + secretFile, "--admin=" + n.Admin,
		"--domain=" + localDomain, "--log-level=" + c.LogLevel,
	}
	for _, d := range c.Domain {
		args = append(args, "--domain="+d)
	}
	if c.Users != "" {
		args = append(args, "--users="+c.Users)
	}
	for _, o := range others {
		args = append(args, "--join="+o)
	}
	return args
}

// plan lays out the nodes.
func (c *devFlags) plan(data string) ([]*devNode, error) {
	if c.N < 1 || c.N > 100 {
		return nil, fmt.Errorf("nodes: %d is not within 1 and 100", c.N)
	}
	for _, base := range []struct {
		flag string
		port int
	}{{"base-sip", c.BaseSIP}, {"base-cluster", c.BaseCluster}, {"base-admin", c.BaseAdmin}} {
		if last := base.port + devStride*(c.N-1) + 2; base.port < 1 || last > 65535 {
			return nil, fmt.Errorf("%s: ports %d to %d are not within 1 and 65535", base.flag, base.port, last)
		}
	}
	at := func(base, i, plus int) string {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(base+devStride*i+plus)).String()
	}
	nodes := make([]*devNode, c.N)
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		nodes[i] = &devNode{
			Name: name, Data: filepath.Join(data, name), SIP: at(c.BaseSIP, i, 0), Admin: at(c.BaseAdmin, i, 0),
			Cluster: at(c.BaseCluster, i, 0), Stream: at(c.BaseCluster, i, 1), Remote: at(c.BaseCluster, i, 2),
		}
	}
	return nodes, nil
}

// Run starts the nodes, tells of them when all are ready, and keeps them until
// ctx ends.
func (*devUpCmd) Run(ctx context.Context, a *app, dev *devCmd) (err error) {
	c := &dev.devFlags
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	data, temporary, err := c.folder()
	if err != nil {
		return err
	}
	if temporary {
		defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	}
	nodes, err := c.plan(data)
	if err != nil {
		return err
	}
	secret := filepath.Join(data, "secret")
	if err := hereis.MakeSecret(secret); err != nil {
		return err
	}
	ctl, err := openControl(ctx, c.BaseAdmin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctl.close()) }()
	if err := portsFree(ctx, nodes); err != nil {
		return err
	}
	orphaned, stopWatching := watchGoRun(a.exe, cancel)
	defer stopWatching()
	sup := newSupervisor(a, nodes,
		func(i int) []string { return nodes[i].args(c, secret, gossipOfOthers(nodes, i)) },
		func(i int) string { return c.restartCommand(a, i+1) })
	err = sup.run(ctx, c.Timeout, ctl, func() error { return c.announce(a, sup, data, temporary) })
	if orphaned() {
		fmt.Fprintln(a.stderr, "hereis: go run is gone, and so are the nodes")
	}
	return err
}

// folder is where everything is kept, made if it is missing.
func (c *devFlags) folder() (path string, temporary bool, err error) {
	if c.Data == "" {
		path, err = os.MkdirTemp("", "hereis-dev-")
		return path, true, err
	}
	path, err = filepath.Abs(c.Data)
	if err != nil {
		return "", false, err
	}
	return path, false, os.MkdirAll(path, 0o700)
}

func gossipOfOthers(nodes []*devNode, i int) (others []string) {
	for j, n := range nodes {
		if j != i {
			others = append(others, n.Cluster)
		}
	}
	return others
}

// portsFree finds a taken port before any node trips over it.
func portsFree(ctx context.Context, nodes []*devNode) error {
	var lc net.ListenConfig
	for _, n := range nodes {
		for _, p := range []struct{ network, addr, what, flag string }{
			{"udp", n.SIP, "SIP", "base-sip"},
			{"tcp", n.Cluster, "gossip", "base-cluster"}, {"udp", n.Cluster, "gossip", "base-cluster"},
			{"tcp", n.Stream, "streams", "base-cluster"}, {"tcp", n.Remote, "remote", "base-cluster"},
			{"tcp", n.Admin, "admin", "base-admin"},
		} {
			var taken error
			if p.network == "udp" {
				conn, err := lc.ListenPacket(ctx, p.network, p.addr)
				if taken = err; err == nil {
					taken = conn.Close()
				}
			} else {
				ln, err := lc.Listen(ctx, p.network, p.addr)
				if taken = err; err == nil {
					taken = ln.Close()
				}
			}
			if taken != nil {
				return fmt.Errorf("%s cannot have its %s port (another with --%s?): %w", n.Name, p.what, p.flag, taken)
			}
		}
	}
	return nil
}

// announce tells how to use each node.
func (c *devFlags) announce(a *app, sup *supervisor, data string, temporary bool) error {
	type ready struct {
		devNode
		PID      int    `json:"pid"`
		Register string `json:"register"`
		Where    string `json:"where"`
	}
	self := a.selfCommand()
	all := make([]ready, len(sup.nodes))
	for i, n := range sup.nodes {
		all[i] = ready{
			devNode: *n, PID: sup.pid(i), Register: "sip:" + n.SIP,
			Where: fmt.Sprintf("%s where alice@localhost --admin %s", self, n.Admin),
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"nodes": all, "data": data, "temporary": temporary})
	}
	kept := "kept"
	if temporary {
		kept = "removed at the end"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nHereis is ready: %d nodes; data in %s (%s)\n", len(all), data, kept)
	for _, r := range all {
		fmt.Fprintf(&b, "\n  %s  pid %d\n    register at  %s  (user@localhost)\n    look up      %s\n", r.Name, r.PID, r.Register, r.Where)
	}
	if c.Users == "" {
		fmt.Fprintf(&b, "\n  No passwords: everybody may register and call; --users FILE asks for them.\n")
	}
	fmt.Fprintf(&b, "\n  A node that is killed stays down until: %s\n  Ctrl-C stops all.\n\n", c.restartCommand(a, 2))
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

// restartCommand is what people call to have a node back.
func (c *devFlags) restartCommand(a *app, node int) string {
	command := fmt.Sprintf("%s dev restart %d", a.selfCommand(), node)
	if c.BaseAdmin != defaultBaseAdmin {
		command += fmt.Sprintf(" --base-admin %d", c.BaseAdmin)
	}
	return command
}

// selfCommand is how this binary was called, for people to repeat.
func (a *app) selfCommand() string {
	if builtByGoRun(a.exe) {
		return "go run ./cmd/hereis"
	}
	return filepath.Base(a.exe)
}

// builtByGoRun tells whether a binary is go run's temporary one.
func builtByGoRun(exe string) bool {
	return strings.Contains(filepath.ToSlash(exe), "/go-build")
}

// watchGoRun calls stop when dev was started by go run and go run dies: it
// passes Ctrl-C on (to the whole process group) but no SIGTERM, and a cluster
// that nobody can stop would stay behind. The parent changes then.
func watchGoRun(exe string, stop func()) (orphaned func() bool, end func()) {
	if !builtByGoRun(exe) {
		return func() bool { return false }, func() {}
	}
	quit := make(chan struct{})  // closed by end
	ended := make(chan struct{}) // closed by the goroutine
	gone := false
	go func() {
		defer close(ended)
		parent := os.Getppid()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if os.Getppid() != parent {
					gone = true
					stop()
					return
				}
			}
		}
	}()
	end = func() {
		select {
		case <-quit:
		default:
			close(quit)
		}
		<-ended
	}
	return func() bool { end(); return gone }, end
}
