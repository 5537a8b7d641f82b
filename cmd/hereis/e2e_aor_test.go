package main_test

import (
	"strings"
	"syscall"
	"testing"
)

// testAoR: users are listed, counted and removed from any node; with a node
// that does not answer the result is partial.
func testAoR(t *testing.T, bin string, nodes []*node) {
	at := func(n *node, args ...string) []string {
		return append([]string{"aor"}, append(args, "--admin", n.admin)...)
	}
	first, second := newDevice(t, "olga", "one"), newDevice(t, "olga", "two")
	first.register(nodes[0], 3600)
	second.register(nodes[2], 3600)
	for _, n := range nodes {
		out := must(t, bin, at(n, "list", "@localhost")...)
		if !strings.Contains(out, first.addr) || !strings.Contains(out, second.addr) {
			t.Errorf("list at %s has not both devices:\n%s", n.name, out)
		}
		if out = must(t, bin, at(n, "show", "olga")...); strings.Count(out, "sip:olga@127.0.0.1") < 4 {
			t.Errorf("show at %s has not both devices as leases and as targets:\n%s", n.name, out)
		}
	}
	if out := must(t, bin, at(nodes[1], "kick", "olga", "sip:olga@"+first.addr)...); !strings.Contains(out, first.addr) {
		t.Errorf("kick: %s", out)
	}
	if out := must(t, bin, at(nodes[0], "show", "olga")...); !strings.Contains(out, second.addr) || strings.Contains(out, "live     sip:olga@"+first.addr) {
		t.Errorf("after kick: %s", out)
	}
	must(t, bin, at(nodes[1], "rm", "olga")...)
	for _, n := range nodes {
		if out := must(t, bin, at(n, "show", "olga")...); !strings.Contains(out, "404 Not Found") {
			t.Errorf("after rm, a call through %s: %s", n.name, out)
		}
	}
	if _, _, code := runHereis(t, bin, at(nodes[0], "rm", "olga")...); code != 3 {
		t.Errorf("rm again: exit %d, want 3", code)
	}
	var c struct {
		Nodes []struct{ Node string }
	}
	parse(t, must(t, bin, at(nodes[0], "count", "-o", "json")...), &c)
	if len(c.Nodes) != 3 {
		t.Errorf("count: %+v, want three nodes", c)
	}

	silent := nodes[2].cmd.Process
	if err := silent.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := runHereis(t, bin, at(nodes[0], "count")...)
	if err := silent.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code != 2 || !strings.Contains(stderr, nodes[2].name) {
		t.Errorf("count without %s: exit %d, want 2: %s", nodes[2].name, code, stderr)
	}
	waitMembers(t, nodes)
}
