package main_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hereis/bench/load"
)

// testChaosOverload: twice the REGISTERs that the cluster can take, for a while
// (HEREIS_OVERLOAD, 15s if it is not set). No member is taken for failed, what
// is in progress goes on, what is refused is told when to come again, and when
// the load is gone all is as before.
func testChaosOverload(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	moved := row.traffic(nodes)
	lasts, err := time.ParseDuration(os.Getenv("HEREIS_OVERLOAD"))
	if err != nil {
		lasts = 15 * time.Second
	}
	bob := newDevice(t, "bob", "bob")
	bob.register(nodes[2], 3600)
	call := newCall(t, "alice", bob)
	if status := call.send(nodes[0], "INVITE", false); status != 200 {
		t.Fatalf("INVITE: %d", status)
	}

	cfg := load.DefaultConfig()
	cfg.Users, cfg.Targets, cfg.Window, cfg.Sockets, cfg.Duration = 20_000, addrs(nodes...), 16, 8, 3*time.Second
	cfg.Scenario, cfg.Prepare = load.Refresh, false
	r, err := load.Run(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	maximum := float64(r.Measured.OK) / r.Measured.Took.Seconds()

	cfg.Rate, cfg.Duration, cfg.Timeout = 2*maximum, lasts, 8*time.Second
	began := time.Now()
	done := make(chan struct{}) // closed when the load has ended
	go func() {
		defer close(done)
		r, err = load.Run(context.Background(), cfg, nil)
	}()
	failures, requests, answered := 0, uint64(0), uint64(0)
	for loading := true; loading; {
		select {
		case <-done:
			loading = false
		case <-time.After(300 * time.Millisecond): // a rate, not a wait
		}
		for _, n := range nodes {
			members, err := n.members()
			for _, m := range members {
				if err == nil && m.State == "failed" {
					failures++
				}
			}
		}
		requests++
		if call.send(nodes[0], "INFO", true) == 200 {
			answered++
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	m := r.Measured
	refused := m.Codes["503"]
	row.count("REGISTERs", m.OK+m.Failed, m.Failed-refused, 0)
	row.count("calls", requests, requests-answered, 0)
	row.note(t, "the maximum is %.0f REGISTERs/s; at twice that for %v: %d with 200, %d with 503, %d without an answer within %v", maximum, lasts, m.OK, refused, m.Failed-refused, cfg.Timeout)
	if failures > 0 {
		row.late(t, began, "members were seen as failed %d times", failures)
	}
	if answered < requests {
		row.late(t, began, "of %d requests within a call %d were answered", requests, answered)
	}
	if m.OK == 0 {
		t.Errorf("nothing was served: %v", m.Codes)
	}

	ended := time.Now()
	within(t, 20*time.Second, "all is as before", func() error {
		after := load.DefaultConfig()
		after.Scenario, after.Users, after.Requests, after.Targets, after.Timeout = load.Refresh, 300, 300, addrs(nodes...), 2*time.Second
		r, err := load.Run(t.Context(), after, nil)
		if err == nil && r.Measured.Failed > 0 {
			err = fmt.Errorf("%v", r.Measured.Codes)
		}
		return err
	})
	row.note(t, "300 REGISTERs in a row succeeded %v after the overload", time.Since(ended).Round(time.Millisecond))
	for _, n := range nodes {
		n.waitReady()
		if strings.Contains(n.output(), "panic") {
			t.Errorf("%s:\n%s", n.name, n.tail())
		}
	}
	moved()
}

// testChaosSlowPeer: one node gets a tenth of the time that it needs. The others
// serve their users as before: what they ask of it goes elsewhere meanwhile.
func testChaosSlowPeer(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	moved := row.traffic(nodes)
	slow, others := nodes[2], nodes[:2]
	asking := startTraffic(t, row, "lookups", lookupBar, lookups(others, []*node{nodes[1], nodes[0]}, 0, 300, 200, 9*time.Second))
	renewing := startTraffic(t, row, "refreshes", registerBar, refreshes(others, 10_000, 300, 100, 9*time.Second))
	stop := make(chan struct{}) // closed when the load has ended
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() { _ = slow.cmd.Process.Signal(syscall.SIGCONT) }() // or it has ended
		for {
			for _, phase := range []struct {
				signal syscall.Signal
				lasts  time.Duration
			}{{syscall.SIGSTOP, 180 * time.Millisecond}, {syscall.SIGCONT, 20 * time.Millisecond}} {
				if slow.cmd.Process.Signal(phase.signal) != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-time.After(phase.lasts):
				}
			}
		}
	})
	asking.check()
	renewing.check()
	close(stop)
	wg.Wait()
	waitMembers(t, nodes)
	awaitAll(t, row, nodes, 10_000, 300, 15*time.Second)
	moved()
}

// testChaosJoin: a node joins three that have users. It answers rightly at
// once, and only its share moves.
func testChaosJoin(t *testing.T, c *chaosSuite) {
	const users = 12_000
	row := c.row(t)
	nodes := newCluster(t, c.bin, 4)
	old, joiner := nodes[:3], nodes[3]
	for _, n := range old {
		n.launch()
	}
	waitMembers(t, old)
	preload(t, old, 100_000, users)
	before := startTraffic(t, row, "lookups before", lookupBar, lookups(old, []*node{old[1], old[2], old[0]}, 0, 500, 200, 5*time.Second))
	before.check()
	during := startTraffic(t, row, "lookups while a node joins", lookupBar, lookups(old, []*node{old[1], old[2], old[0]}, 0, 500, 200, 8*time.Second))
	caller := newDevice(t, "caller", "caller")
	cost := func() (sum [5]float64) {
		for _, n := range nodes {
			for i, name := range []string{"pulls", "broadcasts", "hedges", "ask_retries", "relayed"} {
				sum[i] += n.metric("hereis_cluster_" + name + "_total")
			}
		}
		return sum
	}
	spent := cost()
	began := time.Now()
	joiner.launch()
	// From its first answer on it must be right, settled or not.
	d := newDevice(t, "joined", "joined")
	d.register(old[0], 3600)
	within(t, 20*time.Second, "the joiner answers", func() error {
		status, by, ok := caller.probeOnce(joiner, "joined", time.Second)
		if ok && status == 404 {
			t.Fatal("the joiner says that a user is unknown who is registered")
		}
		if !ok || status != 200 || by != "joined" {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	answers := time.Since(began)
	waitMembers(t, nodes)
	ready := time.Since(began)
	during.check()
	within(t, 20*time.Second, "all is handed over", func() error {
		for _, n := range nodes {
			if left := n.metric("hereis_table_former") + n.metric("hereis_table_unacknowledged"); left > 0 {
				return fmt.Errorf("%s: %v records are left", n.name, left)
			}
		}
		return nil
	})
	now := cost()
	row.note(t, "of %d lookups during the join %.0f were completed from holders, %.0f asked of all nodes, %.0f hedged, %.0f asked again; %.0f messages went by a third node",
		during.res.Measured.OK, now[0]-spent[0], now[1]-spent[1], now[2]-spent[2], now[3]-spent[3], now[4]-spent[4])
	held := joiner.metric("hereis_table_owned") + joiner.metric("hereis_table_backup")
	bytes := joiner.metric("hereis_stream_received_bytes_total")
	share := float64(2*(users+500)) / 4
	p99 := func(tr *traffic) time.Duration {
		return time.Duration(tr.res.Measured.Latency["options"].ValueAtQuantile(99)) * time.Microsecond
	}
	row.note(t, "the joiner answered after %v and was settled after %v; it holds %.0f records (its share of copies is %.0f) for %.1f MB received; p99 of lookups at the others %v before, %v meanwhile",
		answers.Round(time.Millisecond), ready.Round(time.Millisecond), held, share, bytes/1e6, p99(before).Round(100*time.Microsecond), p99(during).Round(100*time.Microsecond))
	if held < 0.7*share || held > 1.3*share {
		t.Errorf("the joiner holds %.0f records, its share is %.0f", held, share)
	}
	// A copy is less than a kilobyte, and each moves once, from one of its holders or both.
	if bytes > held*2048+2e6 {
		t.Errorf("%.1f MB moved for %.0f records", bytes/1e6, held)
	}
	awaitAll(t, row, []*node{joiner, old[0]}, 100_000, 2000, 15*time.Second)
}
