package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Ports of every node, on its own address.
const (
	sipPort, gossipPort, adminPort, binPort = 5060, 7060, 8060, 5566
)

// stopTimeout is how long a server may take to stop before it is killed.
const stopTimeout = 15 * time.Second

// Spec says what to start.
type Spec struct {
	// Label names the server in reports; empty: its kind.
	Label string
	// Kind is one of Kinds.
	Kind string
	// Binary is the program; empty: as found in PATH. Hereis needs it.
	Binary string
	// Nodes is their number.
	Nodes int
	// Workers are the processes or threads that each node works with.
	Workers int
	// TCP lets peers listen on TCP as well; Hereis always does.
	TCP bool
	// Domain is served by every node.
	Domain string
	// Users is a file of Hereis' users; with it, Hereis asks for passwords.
	Users string
	// Password is that of all of them.
	Password string
	// Args are further arguments of every node.
	Args []string
	// Env are further environment variables of every node, NAME=VALUE.
	Env []string
}

// Name is how the server is called in reports.
func (s *Spec) Name() string {
	if s.Label != "" {
		return s.Label
	}
	return s.Kind
}

// Node is one server of a cluster.
type Node struct {
	// Name is n1, n2, …
	Name string
	// Host is the node's own loopback address.
	Host netip.Addr
	// Dir holds its configuration, log and data.
	Dir string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; valid when done is closed
	log  *os.File
}

// SIP is where the node serves SIP.
func (n *Node) SIP() netip.AddrPort { return netip.AddrPortFrom(n.Host, sipPort) }

// Admin is where a node of Hereis serves HTTP.
func (n *Node) Admin() string { return netip.AddrPortFrom(n.Host, adminPort).String() }

// PID is the first process of the node.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Cluster is the nodes of one server that run together.
type Cluster struct {
	Spec  Spec
	Nodes []*Node

	kind kind
	net  [2]byte
	dir  string
}

// Start starts a cluster and returns when every node answers SIP. A cluster
// that cannot be started leaves nothing behind.
func Start(ctx context.Context, spec Spec) (*Cluster, error) {
	k, ok := kinds[spec.Kind]
	if !ok {
		return nil, fmt.Errorf("server %q is none of %s", spec.Kind, strings.Join(Kinds(), ", "))
	}
	if spec.Binary == "" {
		path, err := k.find()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec.Name(), err)
		}
		spec.Binary = path
	}
	spec.Workers, spec.Nodes = max(spec.Workers, 1), max(spec.Nodes, 1)
	if spec.Domain == "" {
		spec.Domain = "localhost"
	}
	dir, err := os.MkdirTemp("", "hereis-bench-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Spec: spec, kind: k, dir: dir, net: freeNet()}
	for range spec.Nodes {
		if _, err := c.Add(ctx); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	return c, nil
}

// freeNet finds a 127.x.y.0/24 whose first address nobody uses for SIP.
func freeNet() (n [2]byte) {
	for range 100 {
		n = [2]byte{byte(32 + rand.IntN(200)), byte(rand.IntN(256))}
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, n[0], n[1], 1), Port: sipPort})
		if err == nil {
			conn.Close()
			return n
		}
	}
	return n
}

// Add starts one further node and returns when it answers SIP.
func (c *Cluster) Add(ctx context.Context) (*Node, error) {
	i := len(c.Nodes) + 1
	n := &Node{Name: fmt.Sprintf("n%d", i), Host: netip.AddrFrom4([4]byte{127, c.net[0], c.net[1], byte(i)})}
	n.Dir = filepath.Join(c.dir, n.Name)
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, c.start(ctx, n)
}

// start runs a node's process and waits until it answers.
func (c *Cluster) start(ctx context.Context, n *Node) error {
	args, err := c.kind.args(c, n)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	n.log = log
	n.cmd = exec.Command(c.Spec.Binary, append(args, c.Spec.Args...)...)
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = n.Dir, log, log
	n.cmd.Env = append(append(os.Environ(), c.kind.env(c)...), c.Spec.Env...)
	// A group of its own, so that servers of many processes are ended as a whole;
	// and no orphans if the generator is killed.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := startProcess(n.cmd); err != nil {
		return errors.Join(err, log.Close())
	}
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		n.err = cmd.Wait()
		log.Close()
		close(done)
	}(n.cmd, n.done)
	if err := c.answers(ctx, n); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", c.Spec.Name(), n.Name, err, n.tail())
	}
	return nil
}

// starter is the one thread that starts processes: Linux sends Pdeathsig when
// the parent's thread ends, and Go ends threads.
var starter struct {
	once sync.Once
	jobs chan func()
}

func startProcess(cmd *exec.Cmd) error {
	starter.once.Do(func() {
		starter.jobs = make(chan func()) // a starter's caller waits for the answer
		go runStarter(starter.jobs)
	})
	err := make(chan error, 1)
	starter.jobs <- func() { err <- cmd.Start() }
	return <-err
}

// answers waits until a node answers an OPTIONS, whatever the status.
func (c *Cluster) answers(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	for try := 0; ; try++ {
		fmt.Fprintf(writerTo{conn, n.SIP()}, "OPTIONS sip:nobody@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKr%d\r\nMax-Forwards: 10\r\n"+
			"From: <sip:rig@%[1]s>;tag=1\r\nTo: <sip:nobody@%[1]s>\r\nCall-ID: rig-%[3]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
			c.Spec.Domain, conn.LocalAddr(), try)
		if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		// A request to an address without a socket comes back as an error at once.
		if m, _, err := conn.ReadFromUDP(buf); err == nil && m > 8 && string(buf[:8]) == "SIP/2.0 " {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("does not answer SIP")
		case <-n.done:
			return fmt.Errorf("has ended before it answered: %v", n.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

type writerTo struct {
	conn *net.UDPConn
	to   netip.AddrPort
}

func (w writerTo) Write(b []byte) (int, error) { return w.conn.WriteToUDPAddrPort(b, w.to) }

// tail is the end of a node's log.
func (n *Node) tail() string {
	b, err := os.ReadFile(filepath.Join(n.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Kill ends a node's processes without warning.
func (n *Node) Kill() {
	if n.done == nil {
		return
	}
	_ = syscall.Kill(-n.PID(), syscall.SIGKILL) // the group may have ended
	<-n.done
}

// Restart starts a killed node again, with what it has on disk.
func (c *Cluster) Restart(ctx context.Context, n *Node) error { return c.start(ctx, n) }

// Stop ends all nodes and removes their folder.
func (c *Cluster) Stop() error {
	var wait sync.WaitGroup
	for _, n := range slices.Backward(c.Nodes) {
		if n.done != nil {
			wait.Go(n.stop)
		}
	}
	wait.Wait()
	return os.RemoveAll(c.dir)
}

func (n *Node) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-n.done:
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(-n.PID(), syscall.SIGKILL) // what is left of the group
	<-n.done
}

// Targets are where the nodes serve SIP.
func (c *Cluster) Targets() (addrs []netip.AddrPort) {
	for _, n := range c.Nodes {
		addrs = append(addrs, n.SIP())
	}
	return addrs
}

// PIDs are the nodes' first processes by name.
func (c *Cluster) PIDs() map[string]int {
	pids := map[string]int{}
	for _, n := range c.Nodes {
		pids[n.Name] = n.PID()
	}
	return pids
}

// Admins are where the nodes serve metrics; nil for servers that have none of ours.
func (c *Cluster) Admins() (addrs []string) {
	if !c.kind.admin {
		return nil
	}
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Admin())
	}
	return addrs
}

// Logs copies the end of every node's log.
func (c *Cluster) Logs(w io.Writer) {
	for _, n := range c.Nodes {
		fmt.Fprintf(w, "%s %s:\n%s\n", c.Spec.Name(), n.Name, n.tail())
	}
}
