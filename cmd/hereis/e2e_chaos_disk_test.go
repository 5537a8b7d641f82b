package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testChaosDisk: the data folder of a node has no room any more. It refuses
// registrations, says so, and goes on answering lookups; with room again it
// takes them. What it acknowledged survives its end.
func testChaosDisk(t *testing.T, c *chaosSuite) {
	requireRoot(t, "a file system of its own")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	row := c.row(t)
	nodes := newCluster(t, c.bin, 2)
	small := nodes[1]
	small.data = filepath.Join(dir, "data")
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	preload(t, nodes, 0, 200)

	hog := filepath.Join(dir, "hog")
	fill(t, hog)
	d := newDevice(t, "d", "d")
	within(t, 10*time.Second, "a full disk refuses registrations", func() error {
		if status, after := d.tryRegister(small, 3600); status != 503 || after == "" {
			return errors.New("status " + strings.TrimSpace(string(rune('0'+status/100))+"xx"))
		}
		return nil
	})
	within(t, 5*time.Second, "health shows it", func() error {
		if err := small.get("/readyz", nil); err == nil || !strings.Contains(err.Error(), "disk") {
			return errors.New("readyz says nothing of the disk")
		}
		return nil
	})
	awaitAll(t, row, nodes[1:], 0, 200, 10*time.Second)
	d.register(nodes[0], 3600)
	if status, by := d.probe(small, "d"); status != 200 || by != "d" {
		t.Errorf("lookup at the node with the full disk: got %d by %q, want 200 by d", status, by)
	}
	if !small.running() {
		t.Fatal("the node has ended")
	}
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
	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	awaitAll(t, row, nodes, 0, 200, 10*time.Second)
	nodes[0].waitLive("e", small.name)
}

// fill makes a file as large as there is room, but for a little.
func fill(t *testing.T, path string) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(fs.Bavail)*fs.Bsize - 8<<20
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		t.Fatal(err)
	}
}
