package main_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testChaosStop: a node is told to stop when nobody can take what it holds, for
// the others stand still. It goes when its time is over, and at a second signal at
// once; neither loses anything. One that is alone has nobody to wait for.
func testChaosStop(t *testing.T, c *chaosSuite) {
	const users = 100
	row := c.row(t)
	nodes := newCluster(t, c.bin, 3)
	patience := map[*node]time.Duration{nodes[0]: 1500 * time.Millisecond, nodes[1]: time.Minute, nodes[2]: 10 * time.Second}
	for n, d := range patience {
		n.args = []string{"--stop-timeout", d.String()}
	}
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	preload(t, nodes, 0, users)

	hurried, impatient := nodes[0], nodes[1]
	signal(t, syscall.SIGSTOP, nodes[1:]...)
	began := time.Now()
	signal(t, syscall.SIGTERM, hurried)
	if code := hurried.ended(slack * patience[hurried]); code > 1 {
		t.Errorf("SIGTERM with nobody to take over: exit %d\n%s", code, hurried.tail())
	}
	row.note(t, "told to stop within %v while the others stand still, it ended after %v", patience[hurried], time.Since(began).Round(time.Millisecond))
	if !strings.Contains(hurried.output(), "not everything was handed over") {
		row.late(t, began, "it does not say what it could not do:\n%s", hurried.tail())
	}
	signal(t, syscall.SIGCONT, nodes[1:]...)
	hurried.start()
	waitMembers(t, nodes)
	awaitAll(t, row, nodes, 0, users, 15*time.Second)

	signal(t, syscall.SIGSTOP, nodes[0], nodes[2])
	began = time.Now()
	signal(t, syscall.SIGTERM, impatient)
	within(t, 5*time.Second, "it drains", func() error {
		var d struct{ Draining bool }
		if err := impatient.get("/v1/drain", &d); err != nil {
			return err
		}
		if !d.Draining {
			return errors.New("not yet")
		}
		return nil
	})
	again := time.Now()
	signal(t, syscall.SIGTERM, impatient)
	if code := impatient.ended(20 * time.Second); code != 128+int(syscall.SIGTERM) {
		// Unless it had found out meanwhile that the others do not answer, and was done.
		row.late(t, began, "the second signal: exit %d after %v, want that of SIGTERM\n%s", code, time.Since(again), impatient.tail())
	}
	row.note(t, "a second signal ended it after %v", time.Since(again).Round(time.Millisecond))
	signal(t, syscall.SIGCONT, nodes[0], nodes[2])
	impatient.start()
	waitMembers(t, nodes)
	awaitAll(t, row, nodes, 0, users, 15*time.Second)

	for i, n := range nodes[:2] {
		signal(t, syscall.SIGTERM, n)
		if code := n.ended(slack * 10 * time.Second); code != 0 {
			t.Errorf("%s: exit %d, want 0", n.name, code)
		}
		within(t, 20*time.Second, "the others have let it go", func() error {
			members, err := nodes[2].members()
			if err == nil && len(members) != 2-i {
				err = fmt.Errorf("%v", members)
			}
			return err
		})
	}
	out := must(t, c.bin, "drain", "--wait", "--admin", nodes[2].admin)
	if !strings.Contains(out, "may be stopped") {
		t.Errorf("drain --wait of a node that is alone says %q", out)
	}
	began = time.Now()
	signal(t, syscall.SIGTERM, nodes[2])
	if code := nodes[2].ended(20 * time.Second); code != 0 {
		t.Errorf("alone: exit %d, want 0", code)
	}
	row.note(t, "alone it stopped within %v", time.Since(began).Round(time.Millisecond))
}
