package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hereis/bench/load"
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

// tally is lookups at each node that count what kinds of answers come.
type tally struct {
	t     *testing.T
	nodes []*node
	users int
	stop  chan struct{} // closed by finish
	wg    sync.WaitGroup
	// by node
	found, refused, silent, unknown []atomic.Int64
}

// startTally asks every node for the users u0 to u(n-1), about 500 times a second at most.
func startTally(t *testing.T, nodes []*node, users int) *tally {
	n := len(nodes)
	a := &tally{t: t, nodes: nodes, users: users, stop: make(chan struct{}), found: make([]atomic.Int64, n), refused: make([]atomic.Int64, n),
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

// finish asserts that nobody was said to be unknown, once each node has found as
// many as there are users: one that was absent a moment ago too. The silence of
// absent (nil: of none) counts as none.
func (a *tally) finish(row *chaosRow, absent *node) {
	a.t.Helper()
	within(a.t, 20*time.Second, "each node finds users", func() error {
		for i, n := range a.nodes {
			if found := a.found[i].Load(); found < int64(a.users) {
				return fmt.Errorf("%s: %d found", n.name, found)
			}
		}
		return nil
	})
	a.end()
	for i, n := range a.nodes {
		found, refused, silent, unknown := a.found[i].Load(), a.refused[i].Load(), a.silent[i].Load(), a.unknown[i].Load()
		row.note(a.t, "%s: %d lookups reached the device, %d refused, %d not answered within 500ms, %d unknown", n.name, found, refused, silent, unknown)
		if unknown > 0 {
			a.t.Errorf("%s: %d found, %d unknown, want none of these", n.name, found, unknown)
		}
		if n != absent {
			row.count("lookups", uint64(found+refused+silent+unknown), uint64(unknown), 0)
		}
	}
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
