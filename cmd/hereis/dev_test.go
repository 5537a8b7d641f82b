//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hereis/bench/ports"
)

// becomesTrue polls until ok, for a while.
func becomesTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never came true that %s", what)
}

// freeBases reserves three bases of ports for n nodes, a row for each node.
func freeBases(t *testing.T, n int) *devFlags {
	t.Helper()
	at := ports.Rows(t, n)
	return &devFlags{N: n, BaseSIP: at + 5, BaseCluster: at, BaseAdmin: at + 7}
}

func (f *devFlags) flags() []string {
	return []string{
		"-n", strconv.Itoa(f.N), "--base-sip", strconv.Itoa(f.BaseSIP),
		"--base-cluster", strconv.Itoa(f.BaseCluster), "--base-admin", strconv.Itoa(f.BaseAdmin),
	}
}

// devProcess is a dev that runs as a process of its own.
type devProcess struct {
	t        *testing.T
	ports    *devFlags
	cmd      *exec.Cmd
	out, err output
	done     chan struct{} // closed when the process has ended
	nodes    []struct {
		PID              int
		Admin, Name, SIP string
	}
	data string
}

// startDev starts one in a process group of its own, as a shell does.
func startDev(t *testing.T, ports *devFlags, args ...string) *devProcess {
	t.Helper()
	d := &devProcess{t: t, ports: ports, done: make(chan struct{})}
	d.cmd = exec.Command(os.Args[0], append(append([]string{"dev", "-o", "json"}, ports.flags()...), args...)...)
	// The race detector would have every process linger for a second at its end.
	d.cmd.Env = append(os.Environ(), beHereis+"=1", "GORACE=atexit_sleep_ms=0")
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.err
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.WaitDelay = 15 * time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
	})
	return d
}

// ready waits until dev has told of its nodes.
func (d *devProcess) ready() *devProcess {
	d.t.Helper()
	var told struct {
		Nodes any
		Data  string
	}
	told.Nodes = &d.nodes
	becomesTrue(d.t, "the nodes are ready", func() bool {
		select {
		case <-d.done:
			d.t.Fatalf("dev ended: %s", d.err.String())
		default:
		}
		return json.Unmarshal([]byte(d.out.String()), &told) == nil
	})
	d.data = told.Data
	return d
}

// exit waits for the end and returns the exit code.
func (d *devProcess) exit() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		d.t.Fatalf("dev does not end: %s", d.err.String())
	}
	return d.cmd.ProcessState.ExitCode()
}

func (d *devProcess) serves(i int) bool {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	res, err := c.Get("http://" + d.nodes[i].Admin + "/readyz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// restart runs dev restart in this process.
func (d *devProcess) restart(nodes ...string) (code int, answers []restarted, stderr string) {
	d.t.Helper()
	args := append([]string{"dev", "restart", "-o", "json", "--base-admin", strconv.Itoa(d.ports.BaseAdmin)}, nodes...)
	code, out, stderr := call(d.t, nil, args...)
	if out != "" {
		if err := json.Unmarshal([]byte(out), &answers); err != nil {
			d.t.Fatal(err)
		}
	}
	return code, answers, stderr
}

// ownCache keeps control files of tests apart from those of people.
func ownCache(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
}

func TestDevKeepsItsNodes(t *testing.T) {
	ownCache(t)
	d := startDev(t, freeBases(t, 3)).ready()
	if len(d.nodes) != 3 || d.nodes[1].Name != "node2" || d.nodes[1].SIP != fmt.Sprintf("127.0.0.1:%d", d.ports.BaseSIP+10) {
		t.Errorf("%+v", d.nodes)
	}
	for i := range d.nodes {
		if !d.serves(i) {
			t.Errorf("node %d was told of before it was ready", i+1)
		}
	}
	// A second one with the same ports is refused, and does no harm.
	second := startDev(t, d.ports)
	if code := second.exit(); code != exitError || !strings.Contains(second.err.String(), "runs already") {
		t.Errorf("a second dev: %d %s", code, second.err.String())
	}

	// One that is killed stays down.
	if err := syscall.Kill(d.nodes[1].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	becomesTrue(t, "dev tells of the death", func() bool {
		return strings.Contains(d.err.String(), "node2 (pid "+strconv.Itoa(d.nodes[1].PID)+") has ended: signal: killed")
	})
	if d.serves(1) || !d.serves(0) || !d.serves(2) {
		t.Error("node 2 alone must be down")
	}

	// Until somebody wants it back; a running one is restarted.
	code, answers, errs := d.restart("2", "3")
	if code != exitOK || len(answers) != 2 || !answers[0].Ready || answers[0].PID == d.nodes[1].PID || answers[1].PID == d.nodes[2].PID {
		t.Errorf("restart: %d %+v %s", code, answers, errs)
	}
	for i := range d.nodes {
		if !d.serves(i) {
			t.Errorf("node %d is down", i+1)
		}
	}
	if code, _, errs := d.restart("4"); code != exitNotFound || !strings.Contains(errs, "no node 4 of 3") {
		t.Errorf("restart 4: %d %s", code, errs)
	}

	// SIGTERM ends all in order, and nothing is left.
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(); code != exitOK {
		t.Errorf("dev ended with %d: %s", code, d.err.String())
	}
	for _, n := range []string{"node1", "node2", "node3"} {
		if !strings.Contains(d.err.String(), n+" | ") || strings.Count(d.err.String(), "fake node has stopped") < 3 {
			t.Errorf("%s did not stop in order: %s", n, d.err.String())
		}
	}
	if _, err := os.Stat(d.data); !os.IsNotExist(err) {
		t.Errorf("the temporary folder is left: %v", err)
	}
	if code, _, errs := d.restart("1"); code != exitNotFound || !strings.Contains(errs, "no hereis dev runs") {
		t.Errorf("restart after the end: %d %s", code, errs)
	}
}

func TestDevCtrlCReachesTheWholeGroup(t *testing.T) {
	ownCache(t)
	d := startDev(t, freeBases(t, 2)).ready()
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(); code != exitOK || strings.Count(d.err.String(), "fake node has stopped") != 2 {
		t.Errorf("%d %s", code, d.err.String())
	}
}

func TestDevKilledEndsItsNodes(t *testing.T) {
	ownCache(t)
	d := startDev(t, freeBases(t, 2)).ready()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	becomesTrue(t, "the nodes are gone", func() bool { return !d.serves(0) && !d.serves(1) })
	if _, _, errs := d.restart("1"); !strings.Contains(errs, "does not answer") {
		t.Errorf("restart: %s", errs)
	}
	// What the killed one left does not hinder the next.
	next := startDev(t, d.ports).ready()
	_ = next.cmd.Process.Signal(syscall.SIGTERM)
	if code := next.exit(); code != exitOK {
		t.Errorf("%d %s", code, next.err.String())
	}
	_ = os.RemoveAll(d.data)
}

func TestDevNamedDataIsKept(t *testing.T) {
	ownCache(t)
	data := filepath.Join(t.TempDir(), "deep", "data")
	var secrets []string
	for range 2 {
		d := startDev(t, freeBases(t, 1), "--data", data).ready()
		secret, err := os.ReadFile(filepath.Join(data, "secret"))
		if err != nil || len(secret) < 64 {
			t.Fatalf("%v %s", err, secret)
		}
		secrets = append(secrets, string(secret))
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		if code := d.exit(); code != exitOK {
			t.Fatalf("%d %s", code, d.err.String())
		}
	}
	if secrets[0] != secrets[1] {
		t.Error("the secret has changed")
	}
}

func TestDevTakenPort(t *testing.T) {
	ownCache(t)
	ports := freeBases(t, 2)
	conn, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", ports.BaseSIP+10))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := startDev(t, ports)
	if code := d.exit(); code != exitError || !strings.Contains(d.err.String(), "node2 cannot have its SIP port (another with --base-sip?)") {
		t.Errorf("%d %s", code, d.err.String())
	}
}

func TestDevNodeThatDoesNotStartStopsAll(t *testing.T) {
	ownCache(t)
	// Nodes refuse the level; dev passes it on.
	d := startDev(t, freeBases(t, 2), "--durability", "eternal")
	if code := d.exit(); code != exitError || !strings.Contains(d.err.String(), `did not start: exit status 1: durability: "eternal"`) {
		t.Errorf("%d %s", code, d.err.String())
	}
}

func TestNodeEndsWithStdin(t *testing.T) {
	ports := freeBases(t, 1)
	// call's stdin is at its end from the beginning.
	code, _, errs := call(t, nil, "node", "--stop-with-stdin", "--data", t.TempDir(),
		"--sip", fmt.Sprintf("127.0.0.1:%d", ports.BaseSIP), "--admin", fmt.Sprintf("127.0.0.1:%d", ports.BaseAdmin))
	if code != exitOK || !strings.Contains(errs, "fake node has stopped") || !strings.Contains(errs, "no domain is given") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestNodeTakenPort(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	code, _, errs := call(t, nil, "node", "--data", t.TempDir(), "--sip", conn.LocalAddr().String(), "--admin", "127.0.0.1:0")
	if code != exitError || !strings.Contains(errs, "address already in use") {
		t.Errorf("%d %s", code, errs)
	}
}
