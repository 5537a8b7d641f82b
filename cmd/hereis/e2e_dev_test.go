package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hereis/bench/ports"
)

// testDev: three nodes by one command; a killed one stays down until it is
// restarted; Ctrl-C ends all; and so does the death of dev itself.
func testDev(t *testing.T, bin string) {
	gossip := ports.Rows(t, 3) // a row for each node
	sip, admin := gossip+5, gossip+7
	data := filepath.Join(t.TempDir(), "data")
	args := []string{"dev", "-n", "3", "--base-sip", strconv.Itoa(sip), "--base-cluster", strconv.Itoa(gossip), "--base-admin", strconv.Itoa(admin), "--data", data}
	serve := func(i int) error { return getJSON(fmt.Sprintf("http://%s/readyz", local(admin+10*i)), nil) }
	allServe := func() error { return errors.Join(serve(0), serve(1), serve(2)) }

	dev := start(t, "dev", exec.Command(bin, args...))
	within(t, 30*time.Second, "dev serves", allServe)
	pids := children(t, dev.cmd.Process.Pid)
	if len(pids) != 3 {
		t.Fatalf("dev has %d children, want 3", len(pids))
	}
	within(t, 10*time.Second, "dev says where its nodes are", func() error {
		out := dev.output()
		for i := range 3 {
			for _, want := range []int{sip + 10*i, admin + 10*i, pids[i]} {
				if !strings.Contains(out, strconv.Itoa(want)) {
					return fmt.Errorf("no %d of node %d in\n%s", want, i+1, out)
				}
			}
		}
		return nil
	})
	must(t, bin, "members", "--admin", local(admin))
	if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the killed node is down", func() error {
		if serve(1) == nil {
			return errors.New("it serves")
		}
		return nil
	})
	must(t, bin, "dev", "restart", "2", "--base-admin", strconv.Itoa(admin))
	within(t, 20*time.Second, "the restarted node serves", allServe)

	if err := dev.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := dev.ended(20 * time.Second); code != 0 {
		t.Errorf("dev ended by Ctrl-C: exit %d, want 0", code)
	}
	for i := range 3 {
		if serve(i) == nil {
			t.Errorf("node %d outlives dev", i+1)
		}
	}

	dev = start(t, "dev-again", exec.Command(bin, args...))
	within(t, 30*time.Second, "dev serves again", allServe)
	dev.kill()
	within(t, 20*time.Second, "the nodes of a killed dev end", func() error {
		for i := range 3 {
			if serve(i) == nil {
				return fmt.Errorf("node %d serves", i+1)
			}
		}
		return nil
	})
}

// children lists the child processes of pid, oldest first.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, s := range strings.Fields(string(b)) {
			id, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, id)
		}
	}
	slices.Sort(pids)
	return pids
}
