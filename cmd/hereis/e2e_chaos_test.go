package main_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hereis/bench/load"
)

// The chaos rows break a running cluster of real processes on purpose. They
// assert that nothing is lost and no lookup fails; of times they assert ten
// times the promise, and print what they measured.

const (
	// A lookup may wait 300 ms and a REGISTER 1 s for a node that has died.
	lookupBar, registerBar = 300 * time.Millisecond, time.Second
	slack                  = 10
)

// traffic is load that runs beside a test until it is stopped.
type traffic struct {
	t     *testing.T
	what  string
	bar   time.Duration
	ok    atomic.Uint64
	phase atomic.Value // string
	stop  context.CancelFunc
	done  chan struct{} // closed when result and err are there
	res   *load.Result
	err   error
}

// startTraffic runs cfg for cfg.Duration and returns when its first units have succeeded.
func startTraffic(t *testing.T, what string, bar time.Duration, cfg load.Config) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{t: t, what: what, bar: bar, stop: cancel, done: make(chan struct{})}
	tr.phase.Store("")
	go func() {
		defer close(tr.done)
		tr.res, tr.err = load.Run(ctx, cfg, func(p load.Progress) {
			tr.ok.Store(p.OK)
			tr.phase.Store(p.Phase)
		})
	}()
	t.Cleanup(func() { cancel(); <-tr.done })
	within(t, 30*time.Second, what+" runs", func() error {
		select {
		case <-tr.done:
			return nil // check says why
		default:
		}
		if tr.phase.Load() != cfg.Scenario || tr.ok.Load() < 50 {
			return fmt.Errorf("%d in phase %v", tr.ok.Load(), tr.phase.Load())
		}
		return nil
	})
	return tr
}

// check waits for the end and asserts that nothing failed and nothing took too long.
func (tr *traffic) check() {
	tr.t.Helper()
	<-tr.done
	if tr.err != nil {
		tr.t.Fatalf("%s: %v", tr.what, tr.err)
	}
	m := tr.res.Measured
	for kind, h := range m.Latency {
		us := func(v int64) time.Duration { return time.Duration(v) * time.Microsecond }
		tr.t.Logf("%s: %d ok, %d failed %v, %d retransmissions; %s p50 %v, p99 %v, p99.9 %v, slowest %v", tr.what, m.OK, m.Failed, m.Codes,
			m.Retransmissions, kind, us(h.ValueAtQuantile(50)), us(h.ValueAtQuantile(99)), us(h.ValueAtQuantile(99.9)), us(h.Max()))
		if slowest := us(h.Max()); slowest > slack*tr.bar {
			tr.t.Errorf("%s: %s took %v, the bar is %v", tr.what, kind, slowest, tr.bar)
		}
	}
	if m.Failed > 0 || m.OK == 0 {
		tr.t.Errorf("%s: %d ok, %d failed: %v", tr.what, m.OK, m.Failed, m.Codes)
	}
}

func addrs(nodes ...*node) (out []netip.AddrPort) {
	for _, n := range nodes {
		out = append(out, netip.MustParseAddrPort(n.sip))
	}
	return out
}

// lookups asks some nodes for users that are registered at others.
func lookups(at, registered []*node, first, users uint64, rate float64, d time.Duration) load.Config {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First, cfg.Rate, cfg.Duration = load.Locate, users, first, rate, d
	cfg.Targets, cfg.Registrars, cfg.Timeout = addrs(at...), addrs(registered...), 8*time.Second
	return cfg
}

// refreshes renews registrations at some nodes.
func refreshes(at []*node, first, users uint64, rate float64, d time.Duration) load.Config {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First, cfg.Rate, cfg.Duration = load.Refresh, users, first, rate, d
	cfg.Targets, cfg.Timeout = addrs(at...), 12*time.Second
	return cfg
}

// preload registers users, one after the other at each of the nodes.
func preload(t *testing.T, at []*node, first, users uint64) {
	t.Helper()
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First, cfg.Targets, cfg.Window, cfg.Sockets = load.Register, users, first, addrs(at...), 32, 2
	r, err := load.Run(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Measured; m.Failed > 0 || m.OK != users {
		t.Fatalf("registering: %d ok, %d failed: %v", m.OK, m.Failed, m.Codes)
	}
}

// liveLeases asks a node for every user and counts those that it finds alive.
func liveLeases(t *testing.T, n *node, first, users uint64) (found uint64, missing []string) {
	t.Helper()
	const workers = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			for u := first + w; u < first+users; u += workers {
				user := fmt.Sprintf("u%d", u)
				var got whereabouts
				err := n.get("/v1/where/"+user, &got)
				mu.Lock()
				if err == nil && len(got.live()) > 0 {
					found++
				} else if len(missing) < 5 {
					missing = append(missing, fmt.Sprintf("%s (%v, %+v)", user, err, got))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return found, missing
}

func mustFindAll(t *testing.T, n *node, first, users uint64) {
	t.Helper()
	if found, missing := liveLeases(t, n, first, users); found != users {
		t.Errorf("%s finds %d of %d: %v", n.name, found, users, missing)
	}
}

// awaitAll is mustFindAll within a limit: a node that has just come back may be completing itself.
func awaitAll(t *testing.T, nodes []*node, first, users uint64, limit time.Duration) {
	t.Helper()
	began := time.Now()
	for _, n := range nodes {
		within(t, limit, n.name+" finds all", func() error {
			if found, missing := liveLeases(t, n, first, users); found != users {
				return fmt.Errorf("%d of %d: %v", found, users, missing)
			}
			return nil
		})
	}
	t.Logf("all %d users found from %d nodes after %v", users, len(nodes), time.Since(began).Round(time.Millisecond))
}

// testChaosKill: a node is killed under load, which is owner and backup of
// users and edge of others. Lookups at the others go on, also of devices at the
// killed edge that anybody can call, and so do REGISTERs; when it is back, what it acknowledged is found.
func testChaosKill(t *testing.T, bin string) {
	nodes := startCluster(t, bin, 3)
	victim, others := nodes[2], nodes[:2]
	preload(t, []*node{victim}, 100_000, 500)
	asking := startTraffic(t, "lookups", lookupBar, lookups(others, []*node{nodes[1], nodes[0]}, 0, 500, 300, 10*time.Second))
	orphans := startTraffic(t, "lookups of users of the killed edge", lookupBar, lookups(others, []*node{victim}, 20_000, 300, 100, 10*time.Second))
	renewing := startTraffic(t, "refreshes", registerBar, refreshes(others, 10_000, 500, 200, 10*time.Second))
	victim.kill()
	t.Logf("killed %s", victim.name)
	asking.check()
	orphans.check()
	renewing.check()
	victim.start()
	waitMembers(t, nodes)
	awaitAll(t, nodes, 100_000, 500, 15*time.Second)
	awaitAll(t, nodes, 10_000, 500, 15*time.Second)
}

// testChaosRollingRestart: all nodes are stopped and started in turn under
// load. No lookup of a user at another edge fails, and no binding is lost.
func testChaosRollingRestart(t *testing.T, bin string) {
	nodes := startCluster(t, bin, 3)
	preload(t, nodes, 100_000, 600)
	for i, n := range nodes {
		others := []*node{nodes[(i+1)%3], nodes[(i+2)%3]}
		first := uint64(1000 * i)
		asking := startTraffic(t, n.name+" restarts: lookups", lookupBar, lookups(others, []*node{others[1], others[0]}, first, 300, 200, 9*time.Second))
		renewing := startTraffic(t, n.name+" restarts: refreshes", registerBar, refreshes(others, 10_000+first, 300, 100, 9*time.Second))
		began := time.Now()
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := n.ended(15 * time.Second); code != 0 {
			t.Errorf("%s: exit %d, want 0", n.name, code)
		}
		stopped := time.Since(began)
		if !strings.Contains(n.output(), "msg=drained") {
			t.Errorf("%s has not drained", n.name)
		}
		began = time.Now()
		n.start()
		t.Logf("%s stopped in %v and was ready again in %v", n.name, stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		asking.check()
		renewing.check()
		waitMembers(t, nodes)
	}
	awaitAll(t, nodes, 100_000, 600, 15*time.Second)
}

// testChaosDrain: a node drains without stopping, refuses what is new, and
// takes it again.
func testChaosDrain(t *testing.T, bin string) {
	nodes := startCluster(t, bin, 3)
	preload(t, nodes, 0, 600)
	at := []string{"--admin", nodes[0].admin}
	out := must(t, bin, append([]string{"drain", "--wait"}, at...)...)
	if !strings.Contains(out, "may be stopped") {
		t.Errorf("drain --wait says %q", out)
	}
	d := newDevice(t, "late", "late")
	if status, after := d.tryRegister(nodes[0], 3600); status != 503 || after == "" {
		t.Errorf("REGISTER at a draining node: got %d, Retry-After %q, want 503 with one", status, after)
	}
	for i := 0; i < 600; i += 50 {
		var w whereabouts
		if err := nodes[1].get(fmt.Sprintf("/v1/where/u%d", i), &w); err != nil || w.Owner == "n1" || w.Backup == "n1" || len(w.live()) != 1 {
			t.Errorf("u%d: %v %+v: want it alive and not at n1", i, err, w)
		}
	}
	mustFindAll(t, nodes[0], 0, 600)
	must(t, bin, append([]string{"drain", "--undo"}, at...)...)
	within(t, 10*time.Second, "n1 takes registrations again", func() error {
		if status, _ := d.tryRegister(nodes[0], 3600); status != 200 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	if _, _, code := runHereis(t, bin, "forget", "n2", "--admin", nodes[0].admin); code != 3 {
		t.Errorf("forget of a live node: exit %d, want 3", code)
	}
	nodes[2].kill()
	within(t, 20*time.Second, "n3 is forgotten", func() error {
		if _, stderr, code := runHereis(t, bin, "forget", "n3", "--admin", nodes[0].admin); code != 0 {
			return fmt.Errorf("exit %d: %s", code, stderr)
		}
		return nil
	})
	caller := newDevice(t, "caller", "caller")
	within(t, 10*time.Second, "an unknown user is unknown again", func() error {
		if status, _ := caller.probe(nodes[1], "nobody"); status != 404 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
}

// testChaosPause: a node stands still for ten seconds, which is longer than the
// others wait, and goes on. Nobody says at any time that a user is unknown.
func testChaosPause(t *testing.T, bin string) {
	const users = 30
	nodes := startCluster(t, bin, 3)
	for i := range users {
		user := fmt.Sprintf("u%d", i)
		newDevice(t, user, user).register(nodes[i%3], 3600)
	}
	stop := make(chan struct{}) // closed by this function
	var wg sync.WaitGroup
	var tally [3]struct{ found, refused, silent, unknown atomic.Int64 }
	for i, n := range nodes {
		d := newDevice(t, "asker", fmt.Sprintf("asker%d", i))
		wg.Go(func() {
			for u := 0; ; u = (u + 1) % users {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond): // a rate, not a wait
				}
				switch status, answered := d.peek(n, fmt.Sprintf("u%d", u)); {
				case !answered:
					tally[i].silent.Add(1)
				case status == 404:
					tally[i].unknown.Add(1)
				case status == 200:
					tally[i].found.Add(1)
				default:
					tally[i].refused.Add(1)
				}
			}
		})
	}
	paused := nodes[2]
	if err := paused.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the others have it as failed", func() error {
		members, err := nodes[0].members()
		for _, m := range members {
			if m.Name == paused.name && m.State == "failed" {
				return nil
			}
		}
		return fmt.Errorf("%v %v", members, err)
	})
	time.Sleep(8 * time.Second) // the pause is the subject, not a wait for something
	began := time.Now()
	if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitMembers(t, nodes)
	t.Logf("all are members and settled %v after the pause", time.Since(began).Round(time.Millisecond))
	awaitAll(t, nodes, 0, users, 10*time.Second)
	close(stop)
	wg.Wait()
	for i, n := range nodes {
		found, unknown := tally[i].found.Load(), tally[i].unknown.Load()
		t.Logf("%s: %d lookups reached the device, %d refused, %d not answered within 500ms, %d unknown",
			n.name, found, tally[i].refused.Load(), tally[i].silent.Load(), unknown)
		if found == 0 || unknown > 0 {
			t.Errorf("%s: %d found, %d unknown, want some and none", n.name, found, unknown)
		}
	}
	if n := strings.Count(paused.output(), "did not run for a while"); n != 1 {
		t.Errorf("the gap was logged %d times, want once", n)
	}
}

// testChaosAllKilled: every node is killed at once with many bindings; all are found again.
func testChaosAllKilled(t *testing.T, bin string) {
	const users = 20_000
	nodes := startCluster(t, bin, 3)
	preload(t, nodes, 0, users)
	for _, n := range nodes {
		n.kill()
	}
	began := time.Now()
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	t.Logf("%d bindings: all nodes ready %v after the start", users, time.Since(began).Round(time.Millisecond))
	mustFindAll(t, nodes[0], 0, users)
}

// requireRoot skips a test of what only root may do.
func requireRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s needs root", what)
	}
}
