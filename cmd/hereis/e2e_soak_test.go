package main_test

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"hereis/bench/load"
)

// soakTime is how long testSoak runs if HEREIS_SOAK does not say, as 10m.
const soakTime = 40 * time.Second

// soakRounds is how many parts it has; a node is measured after each.
const soakRounds = 40

// soakSample is what a node holds after a round: live heap in bytes (after a
// collection), goroutines (without those that wait for a question to the cluster,
// which may be as many as the busiest moment needed) and open files.
type soakSample struct{ heap, goroutines, files float64 }

// testSoak: under registrations, lookups and calls over both transports, bad
// messages, and connections that come and go, nothing that a node holds grows with
// time. The bounds of its tables are low, so that they are full early, and
// bindings end within the run. The first third of the rounds fills what is bounded;
// then the second is compared with the third.
func testSoak(t *testing.T, bin string) {
	whole(t)
	length := soakTime
	if s := os.Getenv("HEREIS_SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("HEREIS_SOAK: %v", err)
		}
	}
	nodes := startCluster(t, bin, 3, "--pprof", "--durability", "async", "--expires-min", "60s", "--max-bindings", "2", "--binding-policy", "replace-oldest",
		"--max-flows", "2000", "--answer-bytes", "1048576", "--max-sources", "100")
	samples := make([][]soakSample, len(nodes))
	began, failed := time.Now(), 0
	for round := range soakRounds {
		failed += soakRound(t, nodes, round, length/soakRounds)
		for i, n := range nodes {
			samples[i] = append(samples[i], n.sample(t))
		}
	}
	t.Logf("%d rounds in %v; %d parts in which something failed", soakRounds, time.Since(began).Round(time.Second), failed)
	// A machine that does other things too is now and then too slow; that is not judged here.
	if failed > soakRounds {
		t.Errorf("something failed in %d of %d parts", failed, 3*soakRounds)
	}
	third := soakRounds / 3
	for i, n := range nodes {
		before, after := median(samples[i][third:2*third]), median(samples[i][2*third:])
		t.Logf("%s: live heap %.1f MiB, then %.1f MiB; goroutines %.0f, then %.0f; files %.0f, then %.0f", n.name,
			before.heap/(1<<20), after.heap/(1<<20), before.goroutines, after.goroutines, before.files, after.files)
		// The slack is for what a round happens to have under way when it ends.
		if after.heap > 1.1*before.heap+2<<20 {
			t.Errorf("%s: the heap grows: %.0f, then %.0f bytes: %+v", n.name, before.heap, after.heap, samples[i])
		}
		if after.goroutines > before.goroutines+10 || after.files > before.files+10 {
			t.Errorf("%s: goroutines or files grow: %+v, then %+v", n.name, before, after)
		}
	}
}

// soakRound is a part of a soak: each kind of work for its share of the time. It
// returns the number of kinds in which something failed.
func soakRound(t *testing.T, nodes []*node, round int, length time.Duration) (failed int) {
	t.Helper()
	kinds := []string{load.Refresh, load.Locate, load.Call}
	for _, kind := range kinds {
		cfg := load.DefaultConfig()
		cfg.Scenario, cfg.Users, cfg.Sockets, cfg.Window = kind, 200, 2, 4
		cfg.Rate, cfg.Duration, cfg.Expires = 100, length/time.Duration(len(kinds)), 60
		cfg.Settle, cfg.Retry = 10*time.Millisecond, true
		if round%2 == 1 {
			cfg.Transport = load.TCP
		}
		for _, n := range nodes {
			cfg.Targets = append(cfg.Targets, netip.MustParseAddrPort(n.sip))
		}
		r, err := load.Run(t.Context(), cfg, nil)
		if err != nil {
			failed++
			t.Logf("round %d, %s: %v", round, kind, err)
		} else if m := r.Measured; m.Failed > 0 {
			failed++
			t.Logf("round %d, %s: %d ok, %d failed: %v", round, kind, m.OK, m.Failed, m.Codes)
		}
	}
	for _, n := range nodes {
		for i := range 10 {
			soakBadPeer(t, n, i)
		}
	}
	return failed
}

// soakBadPeer is a connection that breaks off within a message or sends none,
// and a datagram that is no message.
func soakBadPeer(t *testing.T, n *node, i int) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		c, err := net.Dial(network, n.sip)
		if err != nil {
			t.Fatal(err)
		}
		text := "OPTIONS sip:a@localhost SIP/2.0\r\nVia: SIP/2.0/" + network + " 127.0.0.1;branch=z9hG4bK" + fmt.Sprint(i) + "\r\nTo: <sip:"
		_, _ = c.Write([]byte(text[:len(text)*i/9])) // it may be closed already
		c.Close()
	}
}

// sample looks at a node after a collection of its garbage.
func (n *node) sample(t *testing.T) soakSample {
	t.Helper()
	if _, err := getText("http://" + n.admin + "/debug/pprof/heap?gc=1"); err != nil {
		t.Fatal(err)
	}
	s := soakSample{n.metric("go_memstats_heap_alloc_bytes"), n.metric("go_goroutines") - n.metric("hereis_sip_idle_workers"), n.metric("process_open_fds")}
	if s.heap == 0 || s.goroutines == 0 || s.files == 0 {
		t.Fatalf("%s does not tell what it holds: %+v", n.name, s)
	}
	return s
}

func median(samples []soakSample) soakSample {
	of := func(what func(soakSample) float64) float64 {
		sorted := slices.SortedFunc(slices.Values(samples), func(a, b soakSample) int { return cmp.Compare(what(a), what(b)) })
		return what(sorted[len(sorted)/2])
	}
	return soakSample{
		of(func(s soakSample) float64 { return s.heap }), of(func(s soakSample) float64 { return s.goroutines }), of(func(s soakSample) float64 { return s.files }),
	}
}
