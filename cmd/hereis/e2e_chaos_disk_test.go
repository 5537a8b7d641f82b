package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountSmall mounts a file system of its own for a node, or skips the test.
func mountSmall(t *testing.T, what, fs, options string) (dir string) {
	t.Helper()
	requireRoot(t, "a file system of its own")
	dir = t.TempDir()
	if err := syscall.Mount(what, dir, fs, 0, options); err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// twoNodes runs a cluster of two whose second node has its data in dir.
func twoNodes(t *testing.T, c *chaosSuite, dir string) (nodes []*node) {
	t.Helper()
	nodes = newCluster(t, c.bin, 2)
	nodes[1].data = filepath.Join(dir, "data")
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	return nodes
}

// refusesButServes expects of a node whose disk takes nothing that it refuses a
// registration, says so in its health, and answers lookups all the same.
func refusesButServes(t *testing.T, row *chaosRow, broken, whole *node, users uint64) {
	t.Helper()
	d := newDevice(t, "d", "d")
	within(t, 10*time.Second, "it refuses registrations", func() error {
		if status, after := d.tryRegister(broken, 3600); status != 503 || after == "" {
			return fmt.Errorf("status %d, Retry-After %q", status, after)
		}
		return nil
	})
	within(t, 5*time.Second, "health shows it", func() error {
		if err := broken.get("/readyz", nil); err == nil || !strings.Contains(err.Error(), "disk") {
			return fmt.Errorf("readyz says nothing of the disk: %v", err)
		}
		return nil
	})
	w := newWatcher(t)
	if status, _ := w.publish(broken, "d", "x", ""); status != 503 {
		t.Errorf("PUBLISH at the node with the broken disk: %d, want 503", status)
	}
	if m := w.trySubscribe(broken, "d", "refused-"+row.name); m.Status != 503 || len(m.Get("Retry-After")) == 0 {
		t.Errorf("SUBSCRIBE at the node with the broken disk: %d, Retry-After %q, want 503 with one", m.Status, m.Get("Retry-After"))
	}
	awaitAll(t, row, []*node{broken}, 0, users, 10*time.Second)
	d.register(whole, 3600)
	if status, by := d.probe(broken, "d"); status != 200 || by != "d" {
		t.Errorf("lookup at the node with the broken disk: got %d by %q, want 200 by d", status, by)
	}
	if !broken.running() {
		t.Fatal("the node has ended")
	}
}

// testChaosDisk: the data folder of a node has no room any more, from one
// moment to the next and again and again. It refuses registrations, says so,
// and goes on answering lookups; with room again it takes them. What it
// acknowledged survives its end, which is in order on a full disk too.
func testChaosDisk(t *testing.T, c *chaosSuite) {
	dir := mountSmall(t, "tmpfs", "tmpfs", "size=224m")
	row := c.row(t)
	nodes := twoNodes(t, c, dir)
	small := nodes[1]
	preload(t, nodes, 0, 200)

	// Filled between two looks, under load: some are refused, and that is all.
	hog := filepath.Join(dir, "hog")
	cfg := refreshes([]*node{small}, 1000, 300, 300, 6*time.Second)
	renewing := startTraffic(t, row, "refreshes while the disk fills", 12*time.Second, cfg)
	for range 10 {
		fill(t, hog, 0)
		time.Sleep(200 * time.Millisecond) // that long it is full
		if err := os.Remove(hog); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // and that long it is not
	}
	renewing.refusals(small)

	leaver := newDevice(t, "leaver", "leaver")
	leaver.instance = "urn:uuid:00000000-0000-4000-8000-00000000000d"
	leaver.register(small, 3600)
	fill(t, hog, 0)
	refusesButServes(t, row, small, nodes[0], 200)
	leaver.register(nodes[0], 0) // of which the full disk hears nothing
	unstored := func(some bool) {
		t.Helper()
		within(t, 10*time.Second, fmt.Sprintf("something is still to be written: %v", some), func() error {
			if n := small.metric("hereis_cluster_unstored"); n > 0 != some {
				return fmt.Errorf("%v users", n)
			}
			return nil
		})
	}
	unstored(true)
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	e := newDevice(t, "e", "e")
	within(t, 10*time.Second, "with room again it registers", func() error {
		if status, _ := e.tryRegister(small, 3600); status != 200 {
			return errors.New("still refused")
		}
		return nil
	})
	small.waitReady()
	unstored(false)
	w := newWatcher(t)
	if status, _ := w.publish(small, "f", "x", ""); status != 200 {
		t.Errorf("PUBLISH with room again: %d", status)
	}
	w.subscribe(small, "f", "again")

	fill(t, hog, 0)
	if err := small.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := small.ended(20 * time.Second); code != 0 {
		t.Errorf("SIGTERM on a full disk: exit %d, want 0\n%s", code, small.tail())
	}
	nodes[0].kill()
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	awaitAll(t, row, nodes, 0, 200, 10*time.Second)
	nodes[0].waitLive("e", small.name)
	for _, n := range nodes {
		if err := n.finds("leaver", ""); err != nil {
			t.Errorf("after all: %v", err)
		}
	}
}

// testChaosReadOnlyDisk: the file system of a node turns read-only, as one does
// that has found an error in itself.
func testChaosReadOnlyDisk(t *testing.T, c *chaosSuite) {
	requireRoot(t, "a file system of its own")
	row := c.row(t)
	image := filepath.Join(t.TempDir(), "disk")
	sh := func(format string, args ...any) (string, error) {
		out, err := exec.Command("sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := sh("truncate -s 300M %s && mkfs.ext4 -q -F %s", image, image); err != nil {
		t.Skipf("no file system can be made: %s", out)
	}
	dev, err := sh("losetup -f --show %s", image)
	if err != nil {
		t.Skipf("no loop device can be had: %s", dev)
	}
	t.Cleanup(func() {
		if out, err := sh("losetup -d %s", dev); err != nil {
			t.Error(out)
		}
	})
	dir := mountSmall(t, dev, "ext4", "")
	nodes := twoNodes(t, c, dir)
	preload(t, nodes, 0, 200)
	cfg := refreshes(nodes[1:], 1000, 200, 100, 4*time.Second)
	renewing := startTraffic(t, row, "refreshes when the disk turns read-only", 12*time.Second, cfg)
	if err := syscall.Mount("", dir, "ext4", syscall.MS_REMOUNT, "abort"); err != nil {
		t.Skipf("the file system cannot be made to fail: %v", err)
	}
	renewing.refusals(nodes[1])
	refusesButServes(t, row, nodes[1], nodes[0], 200)
	nodes[1].kill()
	within(t, 20*time.Second, "the users of the broken node are known", func() error {
		if n := len(mustWhere(t, nodes[0], "u1").Leases); n != 1 {
			return fmt.Errorf("%d leases", n)
		}
		return nil
	})
}

func mustWhere(t *testing.T, n *node, user string) *whereabouts {
	t.Helper()
	w := &whereabouts{}
	if err := n.get("/v1/where/"+user, w); err != nil {
		t.Fatal(err)
	}
	return w
}

// testChaosLevels: what each level of durability is worth. One node killed
// costs nothing at any of them; all killed cost everything at "memory".
func testChaosLevels(t *testing.T, c *chaosSuite) {
	const users = 3000
	row := c.row(t)
	for _, level := range []string{"memory", "async", "sync"} {
		nodes := startCluster(t, c.bin, 3, "--durability", level)
		preload(t, nodes, 0, users)
		nodes[2].kill()
		nodes[2].start()
		waitMembers(t, nodes)
		awaitAll(t, row, nodes, 0, users, 15*time.Second)
		for _, n := range nodes {
			within(t, 10*time.Second, "what waits is written", func() error {
				if waiting := n.metric("hereis_store_waiting"); waiting > 0 {
					return fmt.Errorf("%v records wait", waiting)
				}
				return nil
			})
		}
		for _, n := range nodes {
			n.kill()
		}
		for _, n := range nodes {
			n.launch()
		}
		waitMembers(t, nodes)
		listed, partial, err := nodes[0].list()
		if err != nil || partial {
			t.Errorf("%s: listed in part (%v): %v", level, partial, err)
		}
		row.note(t, "%s: one of three killed: all of %d are found; all killed: %d are found", level, users, len(listed))
		want := users
		if level == "memory" {
			want = 0
		}
		if len(listed) != want {
			t.Errorf("%s: all killed: %d found, want %d", level, len(listed), want)
		}
		for _, n := range nodes {
			n.kill()
		}
	}
}

// testChaosLostDisk: a node loses its disk and comes back empty, under its
// name. No lookup fails that its peers can answer, and what its peers hold of
// its users it has again: they need not register anew.
func testChaosLostDisk(t *testing.T, c *chaosSuite) {
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3)
	moved := row.traffic(nodes)
	victim, others := nodes[2], nodes[:2]
	preload(t, []*node{victim}, 100_000, 500)
	preload(t, others, 0, 500)
	hist := startHistory(t, row, others, 8)
	hist.moved()
	// Not of those that were registered above: their sockets are closed, and
	// whoever gets such a port next would answer for them.
	asking := startTraffic(t, row, "lookups", lookupBar, lookups(others, []*node{nodes[1], nodes[0]}, 10_000, 500, 150, 10*time.Second))
	ofVictim := startTraffic(t, row, "lookups of users of the node that lost its disk", lookupBar, lookups(others, []*node{victim}, 20_000, 300, 100, 10*time.Second))
	victim.kill()
	if err := os.RemoveAll(victim.data); err != nil {
		t.Fatal(err)
	}
	victim.start()
	asking.check()
	ofVictim.check()
	waitMembers(t, nodes)
	hist.finish(visibleBar)
	awaitAll(t, row, nodes, 100_000, 500, 15*time.Second)
	awaitAll(t, row, nodes, 0, 500, 15*time.Second)
	within(t, 20*time.Second, "it has its users on its new disk", func() error {
		if own := victim.metric("hereis_table_own"); own < 500 {
			return fmt.Errorf("%v leases of its own", own)
		}
		return nil
	})
	moved()
}

// fill makes a file as large as there is room, but for leave bytes.
func fill(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The node takes and gives room meanwhile: what was free may not be.
	for size := int64(0); ; {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
			t.Fatal(err)
		}
		more := int64(fs.Bavail)*fs.Bsize - leave
		if more <= 0 {
			return
		}
		err := syscall.Fallocate(int(f.Fd()), 0, size, more)
		if errors.Is(err, syscall.ENOSPC) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		size += more
	}
}
