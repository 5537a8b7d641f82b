package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestTreeCountsDescendants(t *testing.T) {
	// A shell whose child's child burns CPU until it is killed.
	cmd := exec.Command("sh", "-c", "sh -c 'while :; do :; done' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for pid := range Snapshot() {
			if pid != cmd.Process.Pid && Snapshot().descends(pid, cmd.Process.Pid) {
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill() // it may have ended by itself
				}
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	m, err := NewMeter(map[string]int{"shell": cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		use := m.Read()[0]
		if use.CPU >= 50*time.Millisecond && use.RSS > 0 && !use.Gone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child's CPU time is not counted: %+v", use)
		}
	}
}

func TestMeterOfNoProcess(t *testing.T) {
	if _, err := NewMeter(map[string]int{"none": 1 << 30}); err == nil {
		t.Error("a process that does not exist was measured")
	}
}
