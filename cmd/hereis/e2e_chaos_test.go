package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
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
	lookupBar, registerBar, callBar = 300 * time.Millisecond, time.Second, time.Second
	// A write is seen this long after its 200 (docs/consistency.md, what is promised).
	visibleBar = time.Second
	slack      = 10
)

// traffic is load that runs beside a test until it is stopped.
type traffic struct {
	t     *testing.T
	row   *chaosRow
	what  string
	bar   time.Duration
	began time.Time
	ok    atomic.Uint64
	phase atomic.Value // string
	stop  context.CancelFunc
	done  chan struct{} // closed when result and err are there
	res   *load.Result
	err   error
}

// startTraffic runs cfg for cfg.Duration and returns when its first units have succeeded.
func startTraffic(t *testing.T, row *chaosRow, what string, bar time.Duration, cfg load.Config) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{t: t, row: row, began: time.Now(), what: what, bar: bar, stop: cancel, done: make(chan struct{})}
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
		kinds := map[string]string{"options": "lookups", "register": "REGISTERs", "invite": "calls"}
		if name := kinds[kind]; name != "" {
			tr.row.count(name, m.OK+m.Failed, m.Failed, us(h.Max()))
		}
		if slowest := us(h.Max()); slowest > slack*tr.bar {
			tr.row.late(tr.t, tr.began, "%s: %s took %v, the bar is %v", tr.what, kind, slowest, tr.bar)
		}
	}
	if m.OK == 0 {
		tr.t.Errorf("%s: none of %d succeeded: %v", tr.what, m.Failed, m.Codes)
	}
	if m.Failed > 0 {
		tr.row.late(tr.t, tr.began, "%s: %d ok, %d failed: %v", tr.what, m.OK, m.Failed, m.Codes)
	}
}

// refusals waits for the end of refreshes at a node with a broken disk: all are
// answered, some with 503, and the node lives.
func (tr *traffic) refusals(n *node) {
	tr.t.Helper()
	<-tr.done
	if !n.running() {
		tr.t.Fatalf("%s has ended:\n%s", n.name, n.tail())
	}
	if tr.err != nil {
		tr.t.Fatalf("%s: %v", tr.what, tr.err)
	}
	m := tr.res.Measured
	refused := m.Codes["503"]
	tr.row.count("REGISTERs", m.OK+m.Failed, m.Failed-refused, 0)
	tr.row.note(tr.t, "%s: %d with 200, %d with 503, %d otherwise: %v", tr.what, m.OK, refused, m.Failed-refused, m.Codes)
	if m.Failed > refused {
		tr.row.late(tr.t, tr.began, "%s: %v", tr.what, m.Codes)
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

// calls places calls through some nodes to users that are registered at others.
func calls(at, registered []*node, first, users uint64, rate float64, d time.Duration) load.Config {
	cfg := lookups(at, registered, first, users, rate, d)
	cfg.Scenario, cfg.Timeout = load.Call, 12*time.Second
	return cfg
}

// preload registers users, one after the other at each of the nodes. What is
// refused, as when the machine stands still, is registered again.
func preload(t *testing.T, at []*node, first, users uint64) {
	t.Helper()
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.First, cfg.Targets, cfg.Window, cfg.Sockets = load.Register, users, first, addrs(at...), 32, 2
	for try := 1; ; try++ {
		r, err := load.Run(t.Context(), cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := r.Measured
		if m.Failed == 0 && m.OK == users {
			return
		}
		t.Logf("registering: %d ok, %d failed: %v", m.OK, m.Failed, m.Codes)
		if try == 3 {
			t.Fatal("not all users can be registered")
		}
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

// awaitAll waits until each node finds all users, for a node that has just come
// back may be completing itself, and counts them in the report.
func awaitAll(t *testing.T, row *chaosRow, nodes []*node, first, users uint64, limit time.Duration) {
	t.Helper()
	began := time.Now()
	var lost uint64
	for _, n := range nodes {
		deadline := time.Now().Add(limit)
		for {
			found, missing := liveLeases(t, n, first, users)
			if found == users {
				break
			}
			if time.Now().After(deadline) {
				lost = max(lost, users-found)
				t.Errorf("%s finds %d of %d: %v", n.name, found, users, missing)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	row.bindings(users, lost)
	t.Logf("all %d users found from %d nodes after %v", users, len(nodes), time.Since(began).Round(time.Millisecond))
}

// testChaosKill: a node is killed under load, which is owner and backup of
// users and edge of others. Lookups at the others go on, also of devices at the
// killed edge that anybody can call, and so do REGISTERs; when it is back, what it acknowledged is found.
func testChaosKill(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	victim, others := nodes[2], nodes[:2]
	moved := row.traffic(nodes)
	preload(t, []*node{victim}, 100_000, 500)
	hist := startHistory(t, row, others, 12)
	hist.moved()
	asking := startTraffic(t, row, "lookups", lookupBar, lookups(others, []*node{nodes[1], nodes[0]}, 0, 500, 300, 10*time.Second))
	orphans := startTraffic(t, row, "lookups of users of the killed edge", lookupBar, lookups(others, []*node{victim}, 20_000, 300, 100, 10*time.Second))
	renewing := startTraffic(t, row, "refreshes", registerBar, refreshes(others, 10_000, 500, 200, 10*time.Second))
	victim.kill()
	detected(t, row, others, victim, time.Now(), 30*time.Second)
	asking.check()
	orphans.check()
	renewing.check()
	victim.start()
	waitMembers(t, nodes)
	hist.finish(visibleBar)
	awaitAll(t, row, nodes, 100_000, 500, 15*time.Second)
	awaitAll(t, row, nodes, 10_000, 500, 15*time.Second)
	moved()
}

// detected waits until all of some nodes have another as failed.
func detected(t *testing.T, row *chaosRow, at []*node, gone *node, since time.Time, limit time.Duration) {
	t.Helper()
	for _, n := range at {
		within(t, limit, n.name+" has "+gone.name+" as failed", func() error {
			members, err := n.members()
			for _, m := range members {
				if m.Name == gone.name && m.State == "failed" {
					return nil
				}
			}
			return fmt.Errorf("%v %v", members, err)
		})
	}
	row.note(t, "%s was taken for failed by all after %v", gone.name, time.Since(since).Round(10*time.Millisecond))
}

// testChaosWAN: the timers for regions that are far apart. A killed node is
// found later than at one site, and no lookup waits for that.
func testChaosWAN(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3, "--profile", "wan")
	victim, others := nodes[2], nodes[:2]
	asking := startTraffic(t, row, "lookups", lookupBar, lookups(others, []*node{nodes[1], nodes[0]}, 0, 300, 100, 15*time.Second))
	victim.kill()
	detected(t, row, others, victim, time.Now(), 2*time.Minute)
	asking.check()
	began := time.Now()
	victim.start()
	waitMembers(t, nodes)
	row.note(t, "it was back and all were settled %v after its start", time.Since(began).Round(10*time.Millisecond))
}

// testChaosRollingRestart: five nodes are stopped and started in turn under
// load of lookups, registrations and calls. None fails at the nodes that stay,
// whatever node holds the user, and no binding is lost.
func testChaosRollingRestart(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 5)
	moved := row.traffic(nodes)
	preload(t, nodes, 100_000, 1000)
	hist := startHistory(t, row, nodes, 10)
	for i, n := range nodes {
		others := slices.Concat(nodes[i+1:], nodes[:i])
		hist.only(others)
		hist.moved()
		away := slices.Concat(others[1:], others[:1]) // each user is registered at the node after the one that is asked
		first := uint64(1000 * i)
		load := []*traffic{
			startTraffic(t, row, n.name+" restarts: lookups", lookupBar, lookups(others, away, first, 300, 150, 8*time.Second)),
			startTraffic(t, row, n.name+" restarts: refreshes", registerBar, refreshes(others, 10_000+first, 300, 80, 8*time.Second)),
			startTraffic(t, row, n.name+" restarts: calls", callBar, calls(others, away, 20_000+first, 100, 15, 8*time.Second)),
		}
		began := time.Now()
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := n.ended(20 * time.Second); code != 0 {
			row.late(t, began, "%s: exit %d, want 0", n.name, code)
		}
		stopped := time.Since(began)
		if out := n.output(); !strings.Contains(out, "msg=drained") {
			row.late(t, began, "%s has not drained:\n%s", n.name, n.tail())
		}
		began = time.Now()
		n.start()
		row.note(t, "%s stopped in %v and was ready again in %v", n.name, stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		for _, l := range load {
			l.check()
		}
		waitMembers(t, nodes)
		hist.only(nodes)
	}
	hist.finish(visibleBar)
	awaitAll(t, row, nodes, 100_000, 1000, 15*time.Second)
	moved()
}

// testChaosDrain: a node drains without stopping, refuses what is new, and
// takes it again.
func testChaosDrain(t *testing.T, c *chaosSuite) {
	bin, row := c.bin, c.row(t)
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
	awaitAll(t, row, nodes[:1], 0, 600, 10*time.Second)
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

// testChaosPause: a node stands still for fifteen seconds, which is longer than
// the others wait, and goes on. Nobody says at any time that a user is unknown,
// and what the devices have done meanwhile counts.
func testChaosPause(t *testing.T, c *chaosSuite) {
	const users = 30
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	moved := row.traffic(nodes)
	for i := range users {
		user := fmt.Sprintf("u%d", i)
		newDevice(t, user, user).register(nodes[i%3], 3600)
	}
	paused := nodes[2]
	hist := startHistory(t, row, nodes[:2], 8)
	hist.moved()
	ask := startTally(t, nodes, users)
	if err := paused.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	detected(t, row, nodes[:2], paused, stopped, 20*time.Second)
	time.Sleep(time.Until(stopped.Add(15 * time.Second))) // the pause is the subject, not a wait for something
	began := time.Now()
	if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitMembers(t, nodes)
	row.note(t, "all are members and settled %v after the pause", time.Since(began).Round(time.Millisecond))
	awaitAll(t, row, nodes, 0, users, 10*time.Second)
	ask.finish(row, paused)
	hist.finish(visibleBar)
	if n := strings.Count(paused.output(), "did not run for a while"); n != 1 {
		t.Errorf("the gap was logged %d times, want once", n)
	}
	moved()
}

// tally is lookups at each node that count what kinds of answers come.
type tally struct {
	t     *testing.T
	nodes []*node
	stop  chan struct{} // closed by finish
	wg    sync.WaitGroup
	// by node
	found, refused, silent, unknown []atomic.Int64
}

// startTally asks every node for the users u0 to u(n-1), about 500 times a second at most.
func startTally(t *testing.T, nodes []*node, users int) *tally {
	n := len(nodes)
	a := &tally{t: t, nodes: nodes, stop: make(chan struct{}), found: make([]atomic.Int64, n), refused: make([]atomic.Int64, n),
		silent: make([]atomic.Int64, n), unknown: make([]atomic.Int64, n)}
	for i, n := range nodes {
		d := newDevice(t, "asker", fmt.Sprintf("asker%d", i))
		a.wg.Go(func() {
			for u := 0; ; u = (u + 1) % users {
				select {
				case <-a.stop:
					return
				case <-time.After(2 * time.Millisecond): // a rate, not a wait
				}
				switch status, answered := d.peek(n, fmt.Sprintf("u%d", u)); {
				case !answered:
					a.silent[i].Add(1)
				case status == 404:
					a.unknown[i].Add(1)
				case status == 200:
					a.found[i].Add(1)
				default:
					a.refused[i].Add(1)
				}
			}
		})
	}
	t.Cleanup(a.end)
	return a
}

func (a *tally) end() {
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	a.wg.Wait()
}

// finish asserts that nobody was said to be unknown; the silence of absent (nil: of none) counts as none.
func (a *tally) finish(row *chaosRow, absent *node) {
	a.t.Helper()
	a.end()
	for i, n := range a.nodes {
		found, refused, silent, unknown := a.found[i].Load(), a.refused[i].Load(), a.silent[i].Load(), a.unknown[i].Load()
		row.note(a.t, "%s: %d lookups reached the device, %d refused, %d not answered within 500ms, %d unknown", n.name, found, refused, silent, unknown)
		if found == 0 || unknown > 0 {
			a.t.Errorf("%s: %d found, %d unknown, want some and none", n.name, found, unknown)
		}
		if n != absent {
			row.count("lookups", uint64(found+refused+silent+unknown), uint64(unknown), 0)
		}
	}
}

// testChaosAllKilled: every node is killed at once with many bindings; all are found again.
func testChaosAllKilled(t *testing.T, c *chaosSuite) {
	const users = 100_000
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	moved := row.traffic(nodes)
	began := time.Now()
	preload(t, nodes, 0, users)
	row.note(t, "%d bindings registered in %v", users, time.Since(began).Round(time.Millisecond))
	moved()
	for _, n := range nodes {
		n.kill()
	}
	began = time.Now()
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	row.note(t, "all nodes killed: ready %v after the start", time.Since(began).Round(time.Millisecond))
	row.traffic(nodes)()
	for _, n := range nodes {
		listed, partial, err := n.list()
		if err != nil || partial {
			t.Errorf("%s lists in part (%v): %v", n.name, partial, err)
		}
		var missing []string
		for u := range users {
			if user := fmt.Sprintf("sip:u%d@localhost", u); !listed[user] {
				missing = append(missing, user)
			}
		}
		row.bindings(0, uint64(len(missing)))
		if len(missing) > 0 {
			t.Errorf("%s lists %d users, and not %d of those registered: %v", n.name, len(listed), len(missing), missing[:min(5, len(missing))])
		}
	}
	row.bindings(users, 0)
	awaitAll(t, row, nodes, users/2, 500, 15*time.Second)
}

// list is the users that a node lists as online, from all nodes.
func (n *node) list() (users map[string]bool, partial bool, err error) {
	client := http.Client{Timeout: time.Minute}
	res, err := client.Get("http://" + n.admin + "/v1/aors?pattern=@localhost")
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	users = map[string]bool{}
	for lines := json.NewDecoder(res.Body); ; {
		var line struct {
			AoR string
			End *struct {
				Partial bool
				Error   string
			}
		}
		if err := lines.Decode(&line); err != nil {
			return users, false, fmt.Errorf("a list without an end: %w", err)
		}
		if line.End != nil {
			return users, line.End.Partial || line.End.Error != "", nil
		}
		users[line.AoR] = true
	}
}

// requireRoot skips a test of what only root may do.
func requireRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s needs root", what)
	}
}
