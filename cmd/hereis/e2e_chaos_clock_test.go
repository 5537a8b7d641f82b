package main_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testChaosClock: the wall clock of one node jumps by an hour, ahead and back,
// while it runs and between two of its lives. Its bindings live as long as they
// were granted, and it neither erases what is newer nor is erased by it.
func testChaosClock(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	bin := buildWith(t, "hereis_clockjump")
	nodes := startCluster(t, bin, 3, "--expires-min", "1s")
	moved := row.traffic(nodes)
	odd, other := nodes[2], nodes[0]
	const users = 60
	preload(t, []*node{odd}, 0, users)

	set := func(signal syscall.Signal, jumps float64) {
		if err := odd.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, "the jump is logged and counted", func() error {
			if n := odd.metric("hereis_clock_jumps_total"); n != jumps || strings.Count(odd.output(), "the wall clock jumped") != int(jumps) {
				return fmt.Errorf("%v jumps", n)
			}
			return nil
		})
	}
	sound := func(when string) {
		t.Helper()
		run := strings.ReplaceAll(when, " ", "-")
		awaitAll(t, row, nodes, 0, users, 10*time.Second)
		short := newDevice(t, run+"-short", run+"-short")
		short.register(odd, 3)
		began := time.Now()
		mover, again := newDevice(t, run+"-mover", run+"-old"), newDevice(t, run+"-mover", run+"-new")
		mover.instance = "urn:uuid:00000000-0000-4000-8000-0000000000aa"
		again.instance = mover.instance
		for i, to := range []*node{odd, other, odd, other} {
			d := []*device{mover, again}[i%2]
			d.cseq = i
			d.register(to, 3600)
			for _, n := range nodes {
				n.waitLive(mover.user, to.name)
			}
		}
		gone := newDevice(t, run+"-gone", run+"-gone")
		gone.register(odd, 3600)
		gone.register(odd, 0)
		for _, n := range nodes {
			within(t, 10*time.Second, "what was granted for 3 s is over", func() error { return n.finds(short.user, "") })
			within(t, 10*time.Second, "what was removed stays so", func() error { return n.finds(gone.user, "") })
		}
		row.note(t, "%s: a binding of 3 s ended everywhere %v after it was granted", when, time.Since(began).Round(100*time.Millisecond))
	}
	sound("before")
	set(syscall.SIGUSR1, 1)
	sound("an hour ahead")
	set(syscall.SIGUSR2, 2)
	set(syscall.SIGUSR2, 3)
	sound("an hour back")

	// The next life begins with a clock that is an hour behind: it steps to that of the others.
	odd.kill()
	odd.env = []string{"WALL_CLOCK_IS_OFF=-3600"}
	odd.start()
	waitMembers(t, nodes)
	sound("started an hour behind")
	if n := odd.metric("hereis_clock_steps_total"); n == 0 {
		t.Error("the first step is not counted")
	}

	// And one that is an hour ahead: it must not decide, and says why.
	odd.kill()
	odd.env = []string{"WALL_CLOCK_IS_OFF=3600"}
	odd.launch()
	within(t, 20*time.Second, "health names the clock", func() error {
		if err := odd.get("/readyz", nil); err == nil || !strings.Contains(err.Error(), "clock") {
			return fmt.Errorf("readyz: %v", err)
		}
		return nil
	})
	for _, n := range nodes[:2] {
		within(t, 20*time.Second, "it holds nothing", func() error {
			for u := range users {
				if w := mustWhere(t, n, fmt.Sprintf("u%d", u)); w.Owner == odd.name || w.Backup == odd.name {
					return errors.New("it holds " + w.Owner)
				}
			}
			return nil
		})
	}
	d := newDevice(t, "ahead", "ahead")
	if status, after := d.tryRegister(odd, 3600); status != 503 || after == "" {
		t.Errorf("REGISTER at a node an hour ahead: got %d, Retry-After %q, want 503 with one", status, after)
	}
	// Its own bindings are over for it, and for nobody else: they wait until it is right.
	for u := range users {
		if w := mustWhere(t, other, fmt.Sprintf("u%d", u)); len(w.Leases) != 1 || w.Leases[0].State == "expired" {
			t.Errorf("u%d: %+v", u, w)
		}
	}

	odd.kill()
	odd.env = nil
	odd.start()
	waitMembers(t, nodes)
	sound("set right")
	moved()

	// All were wrong, and are set right between two lives: their disks are of the future.
	for _, n := range nodes {
		n.kill()
		n.env = []string{"WALL_CLOCK_IS_OFF=-3600"}
	}
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	sound("all an hour back")
}

// buildWith builds the command with a build tag.
func buildWith(t *testing.T, tag string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hereis-"+tag)
	return build(t, bin, "-tags", tag)
}
