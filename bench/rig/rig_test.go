package rig

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, spec Spec) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestTemplatesStartRealServers gives each peer that is installed its
// configuration, alone and as a cluster, and one node more.
func TestTemplatesStartRealServers(t *testing.T) {
	for _, kind := range []string{Kamailio, KamailioFM, OpenSIPS} {
		for _, nodes := range []int{1, 2} {
			t.Run(kind+"/"+strings.Repeat("n", nodes), func(t *testing.T) {
				if err := Installed(kind); err != nil {
					t.Skip(err)
				}
				c := start(t, Spec{Kind: kind, Nodes: nodes, Workers: 2, TCP: true})
				if len(c.Targets()) != nodes || len(c.PIDs()) != nodes || c.Admins() != nil {
					t.Errorf("got %v, %v, %v", c.Targets(), c.PIDs(), c.Admins())
				}
			})
		}
	}
}

func TestNodesAreKilledRestartedAndAdded(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hereis")
	if out, err := exec.Command("go", "build", "-o", binary, "hereis/cmd/hereis").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := start(t, Spec{Kind: Hereis, Binary: binary, Nodes: 2, Workers: 2})
	was := c.Nodes[1].PID()
	c.Nodes[1].Kill()
	if err := c.Restart(t.Context(), c.Nodes[1]); err != nil {
		t.Fatal(err)
	}
	if c.Nodes[1].PID() == was {
		t.Error("the same process after a restart")
	}
	if _, err := c.Add(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.Targets()) != 3 || len(c.Admins()) != 3 {
		t.Errorf("got %v", c.Targets())
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	for want, spec := range map[string]Spec{
		"none of":      {Kind: "asterisk"},
		"not given":    {Kind: Hereis},
		"has ended":    {Kind: Hereis, Binary: "/bin/false"},
		"no such file": {Kind: Kamailio, Binary: "/nonexistent/kamailio"},
		"--name n1":    {Kind: Hereis, Binary: "/bin/echo"}, // its output is in the error
	} {
		_, err := Start(t.Context(), spec)
		if err == nil {
			t.Fatalf("%+v was started", spec)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestInstalled(t *testing.T) {
	if err := Installed("nothing"); err == nil {
		t.Error("an unknown server is installed")
	}
	for _, kind := range Kinds() {
		if IsHereis(kind) != strings.HasPrefix(kind, "hereis") {
			t.Errorf("%s: wrong side", kind)
		}
	}
}
