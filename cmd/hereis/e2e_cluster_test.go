package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hereis/bench/ports"
)

// binary builds the command once for all tests below t.
func binary(t *testing.T) string {
	t.Helper()
	return build(t, filepath.Join(t.TempDir(), "hereis"))
}

func build(t *testing.T, bin string, flags ...string) string {
	t.Helper()
	args := slices.Concat([]string{"build", "-o", bin}, flags, []string{"."})
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// process is a child of the test: its output is in a file, and it ends with the test.
type process struct {
	t    *testing.T
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed by the goroutine that waits, when the process has ended
}

func start(t *testing.T, name string, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, log: filepath.Join(t.TempDir(), name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HEREIS_") })
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the state is in cmd.ProcessState
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.tail())
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// ended waits for the end and returns the exit code.
func (p *process) ended(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %v\n%s", p.name, within, p.tail())
		return -1
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *process) tail() string {
	out := p.output()
	return out[max(0, len(out)-6000):]
}

// node is one "hereis node" with its addresses and data folder, which outlive its process.
type node struct {
	*process
	t                               *testing.T
	bin, name                       string
	sip, gossip, admin, data, joins string
	// wrap stands before the command, args after it; env is added to the environment.
	wrap, args, env []string
}

// port reserves one port until the test ends, and the eight after it.
func port(t *testing.T) int {
	t.Helper()
	return ports.Rows(t, 1)
}

// startCluster runs n nodes, with further flags, and waits until each knows all.
func startCluster(t *testing.T, bin string, n int, flags ...string) []*node {
	t.Helper()
	nodes := newCluster(t, bin, n, flags...)
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	return nodes
}

// newCluster makes n nodes that do not run yet; all join the first.
func newCluster(t *testing.T, bin string, n int, flags ...string) []*node {
	t.Helper()
	nodes := make([]*node, n)
	dir := t.TempDir()
	for i := range nodes {
		base := port(t)
		nodes[i] = &node{
			t: t, bin: bin, name: fmt.Sprintf("n%d", i+1), data: filepath.Join(dir, fmt.Sprint(i+1)),
			sip: local(base), gossip: local(base + 1), admin: local(base + 4), joins: local(base + 1), args: flags,
		}
		if i > 0 {
			nodes[i].joins = nodes[0].gossip
		}
	}
	return nodes
}

func local(port int) string { return ports.Local(port) }

// start starts the node and waits until it serves.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.waitReady()
}

func (n *node) launch() {
	n.t.Helper()
	line := slices.Concat(n.wrap, []string{n.bin, "node", "--name", n.name, "--data", n.data, "--sip", n.sip,
		"--cluster", n.gossip, "--join", n.joins, "--admin", n.admin, "--domain", "localhost=127.0.0.1"}, n.args)
	n.process = start(n.t, n.name, exec.Command(line[0], line[1:]...), n.env...)
}

func (n *node) waitReady() {
	n.t.Helper()
	within(n.t, 20*time.Second, n.name+" serves", func() error {
		if !n.running() {
			n.t.Fatalf("%s ended:\n%s", n.name, n.tail())
		}
		return n.get("/readyz", nil)
	})
}

func (n *node) addr() netip.AddrPort { return netip.MustParseAddrPort(n.sip) }

// get asks the node's admin address.
func (n *node) get(path string, into any) error { return getJSON("http://"+n.admin+path, into) }

func getJSON(url string, into any) error {
	body, err := getText(url)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

func getText(url string) (string, error) {
	client := http.Client{Timeout: 3 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, res.Status, body)
	}
	return string(body), err
}

// within polls until f returns nil; the time is a bound, not a wait.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// waitMembers waits until every node has all of them as live.
func waitMembers(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		n.waitReady()
		within(t, 30*time.Second, n.name+" knows every node", func() error {
			live := 0
			members, err := n.members()
			for _, m := range members {
				if m.State == "live" {
					live++
				}
			}
			if err == nil && live != len(nodes) {
				err = fmt.Errorf("%d of %d are live: %+v", live, len(nodes), members)
			}
			return err
		})
	}
}

type member struct{ Name, State string }

func (n *node) members() ([]member, error) {
	var got struct{ Members []member }
	err := n.get("/v1/members", &got)
	return got.Members, err
}

// whereabouts is what the tests read of hereis where --output json.
type whereabouts struct {
	Owner, Backup, Node string
	Settled             bool
	Leases              []struct{ Kind, State, Edge, Contact string }
}

// live is the edges of the live leases.
func (w *whereabouts) live() (edges []string) {
	for _, l := range w.Leases {
		if l.State == "live" {
			edges = append(edges, l.Edge)
		}
	}
	return edges
}

// waitLive waits until a node finds a user with one live binding at an edge ("": any).
func (n *node) waitLive(user, edge string) {
	n.t.Helper()
	within(n.t, 30*time.Second, fmt.Sprintf("%s finds %s at %q", n.name, user, edge), func() error {
		var w whereabouts
		if err := n.get("/v1/where/"+user, &w); err != nil {
			return err
		}
		if live := w.live(); len(live) != 1 || edge != "" && live[0] != edge {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
}

// runHereis runs a client command and returns its output and exit code.
func runHereis(t *testing.T, bin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is runHereis for a command that succeeds.
func must(t *testing.T, bin string, args ...string) string {
	t.Helper()
	stdout, stderr, code := runHereis(t, bin, args...)
	if code != 0 {
		t.Fatalf("hereis %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}
