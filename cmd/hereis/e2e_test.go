package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hereis/bench/load"
)

// TestE2E runs the built binary as its users do, with tools that share no code
// with it: SIPp, baresip, and the load generator's own SIP.
func TestE2E(t *testing.T) {
	bin := binary(t)
	t.Run("PortTaken", func(t *testing.T) { testPortTaken(t, bin) })
	t.Run("Cluster", func(t *testing.T) {
		nodes := startCluster(t, bin, 3)
		t.Run("CommandLine", func(t *testing.T) { testCommandLine(t, bin, nodes) })
		t.Run("Options", func(t *testing.T) { newSIPp(t, "any").all("options", nodes[1].sip, 10) })
		t.Run("DeviceMoves", func(t *testing.T) { testDeviceMoves(t, nodes) })
		t.Run("Watch", func(t *testing.T) { testWatch(t, bin, nodes) })
		t.Run("Baresip", func(t *testing.T) { testBaresip(t, nodes) })
		t.Run("LoadGenerator", func(t *testing.T) { testLoadGenerator(t, nodes) })
		t.Run("TCP", func(t *testing.T) { testTCP(t, nodes) })
		for _, transport := range []string{"u1", "t1"} {
			t.Run("Scenarios/"+transport, func(t *testing.T) { testScenarios(t, nodes, transport) })
		}
		t.Run("Presence", func(t *testing.T) { testPresence(t, nodes) })
		t.Run("Redirect", func(t *testing.T) { testRedirect(t, nodes, false) })
		t.Run("Sipsak", func(t *testing.T) { testSipsak(t, nodes) })
		t.Run("AoR", func(t *testing.T) { testAoR(t, bin, nodes) })
		t.Run("GracefulStop", func(t *testing.T) { testGracefulStop(t, nodes) })
	})
	t.Run("FollowRedirects", func(t *testing.T) { testRedirect(t, startCluster(t, bin, 2, "--follow-redirects"), true) })
	t.Run("IPv6", func(t *testing.T) { testIPv6(t, bin) })
	t.Run("Race", func(t *testing.T) { testRace(t, t.TempDir()) })
	t.Run("Digest", func(t *testing.T) { testDigest(t, bin) })
	t.Run("OwnerKilledBetweenChanges", func(t *testing.T) { testOwnerKilledBetweenChanges(t, bin) })
	t.Run("Messages", func(t *testing.T) { testMessages(t, bin) })
	t.Run("KilledInTheMiddle", func(t *testing.T) { testKilledInTheMiddle(t, bin) })
	t.Run("OwnerKilledUnderLoad", func(t *testing.T) { testOwnerKilledUnderLoad(t, bin) })
	t.Run("Chaos", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes minutes")
		}
		c := &chaosSuite{bin: bin}
		c.watchMachine(t)
		t.Cleanup(func() { c.publish(t) })
		// Alone, as it takes the whole machine.
		t.Run("Overload", func(t *testing.T) { testChaosOverload(t, c) })
		for name, row := range map[string]func(*testing.T, *chaosSuite){
			"Kill": testChaosKill, "Drain": testChaosDrain, "RollingRestart": testChaosRollingRestart, "Pause": testChaosPause,
			"Partition": testChaosPartition, "OneWay": testChaosOneWay, "AllKilled": testChaosAllKilled, "Disk": testChaosDisk,
			"ReadOnlyDisk": testChaosReadOnlyDisk, "LostDisk": testChaosLostDisk, "Clock": testChaosClock,
			"LongPartition": testChaosLongPartition, "CallOutlivesItsNode": testChaosCallOutlivesItsNode,
			"SlowPeer": testChaosSlowPeer, "Join": testChaosJoin, "WAN": testChaosWAN,
			"Levels": testChaosLevels, "Stop": testChaosStop,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				row(t, c)
			})
		}
	})
	t.Run("Dev", func(t *testing.T) { testDev(t, bin) })
	t.Run("Soak", func(t *testing.T) { testSoak(t, bin) })
	t.Run("ThousandUsers", func(t *testing.T) { testThousandUsers(t, bin) })
}

// testThousandUsers is the main job: users register at one node, are called
// through the others, and are found again after one node, then all nodes, were
// killed.
func testThousandUsers(t *testing.T, bin string) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	users := userNames(1000)
	s := newSIPp(t, users...)
	nodes := startCluster(t, bin, 3)
	s.answer()
	s.all("register", nodes[0].sip, 200)
	s.all("uac_call", nodes[1].sip, 125)
	s.all("uac_call", nodes[2].sip, 125)

	nodes[1].kill()
	nodes[1].start()
	waitMembers(t, nodes)
	waitAll(nodes, users)
	s.all("uac_call", nodes[1].sip, 125)
	s.all("uac_call", nodes[2].sip, 125)

	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		n.launch()
	}
	waitMembers(t, nodes)
	waitAll(nodes, users)
	s.all("uac_call", nodes[1].sip, 125)
	s.all("uac_call", nodes[2].sip, 125)
}

// waitAll waits until some of the users are found from each node; that all are, the calls show.
func waitAll(nodes []*node, users []string) {
	for _, n := range nodes {
		for i := 0; i < len(users); i += 100 {
			n.waitLive(users[i], nodes[0].name)
		}
	}
}

// testDeviceMoves: one phone (one instance) changes from node 1 to node 3 and
// to another port. It is called where it is, also after node 1 has come back
// with what it had on disk.
func testDeviceMoves(t *testing.T, nodes []*node) {
	const instance = "urn:uuid:00000000-0000-4000-8000-000000000001"
	old, moved := newDevice(t, "mover", "old"), newDevice(t, "mover", "moved")
	old.instance, moved.instance = instance, instance
	caller := newDevice(t, "caller", "caller")

	old.register(nodes[0], 3600)
	if status, by := caller.probe(nodes[1], "mover"); status != 200 || by != "old" {
		t.Fatalf("before the move: got %d by %q, want 200 by old", status, by)
	}
	nodes[0].kill()
	moved.cseq = old.cseq
	moved.register(nodes[2], 3600)
	if status, by := caller.probe(nodes[1], "mover"); status != 200 || by != "moved" {
		t.Errorf("after the move: got %d by %q, want 200 by moved", status, by)
	}
	nodes[0].start()
	waitMembers(t, nodes)
	for _, n := range nodes {
		n.waitLive("mover", nodes[2].name)
		if status, by := caller.probe(n, "mover"); status != 200 || by != "moved" {
			t.Errorf("through %s, node 1 being back with its old lease: got %d by %q, want 200 by moved", n.name, status, by)
		}
	}
	moved.register(nodes[2], 0)
	for _, n := range nodes {
		if status, _ := caller.probe(n, "mover"); status != 404 && status != 480 {
			t.Errorf("through %s, after its removal: got %d, want 404 or 480", n.name, status)
		}
	}
}

// testWatch: whoever watches one node sees users of all.
func testWatch(t *testing.T, bin string, nodes []*node) {
	cmd := exec.Command(bin, "watch", "*", "--output", "json", "--admin", nodes[1].admin)
	watch := start(t, "watch", cmd)
	d := newDevice(t, "walker", "walker")
	// The user comes and goes until both are seen: nobody knows when the watcher began.
	within(t, 20*time.Second, "online and offline of walker are seen", func() error {
		d.register(nodes[0], 3600)
		d.register(nodes[2], 0)
		return seen(watch.output(), "sip:walker@localhost", map[string]bool{"online": true, "offline": true})
	})
	watch.cmd.Process.Signal(syscall.SIGINT)
	if code := watch.ended(5 * time.Second); code != 0 {
		t.Errorf("watch ended by Ctrl-C: exit %d, want 0", code)
	}
}

func seen(out, aor string, want map[string]bool) error {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var e struct{ AoR, Event string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.AoR == aor {
			delete(want, e.Event)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("not seen: %v in\n%s", want, out)
	}
	return nil
}

// testTCP: callers and registrations over TCP. The connection that a
// registration came by is closed by then, and its Contact is called all the same.
func testTCP(t *testing.T, nodes []*node) {
	s := newSIPp(t, "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9")
	s.answer()
	s.transport = "t1"
	s.all("register", nodes[0].sip, 50)
	s.all("uac_call", nodes[1].sip, 50)
	s.all("options", nodes[2].sip, 50)
	s.transport = "u1"
	s.all("uac_call", nodes[2].sip, 50)
}

// testScenarios: what becomes of a call that is not simply answered, the
// devices being at other nodes than the caller, and the life of a registration.
func testScenarios(t *testing.T, nodes []*node, transport string) {
	users := func(t *testing.T, name string) *sipp {
		names := userNames(10)
		for i := range names {
			names[i] = name + transport + names[i]
		}
		s := newSIPp(t, names...)
		s.transport, s.contact = transport, "127.0.0.1:9"
		return s
	}
	t.Run("Reregister", func(t *testing.T) { users(t, "reg").all("reregister", nodes[2].sip, 50) })
	t.Run("Cancel", func(t *testing.T) {
		s := users(t, "cancel")
		d := s.device("uas_cancelled", transport, nodes[0])
		s.all("uac_cancel", nodes[1].sip, 50)
		well(t, d)
	})
	t.Run("Busy", func(t *testing.T) {
		s := users(t, "busy")
		d := []*process{s.device("uas_busy", transport, nodes[0]), s.device("uas_noanswer", "u1", nodes[1])}
		s.all("uac_busy", nodes[2].sip, 50)
		well(t, d...)
	})
	t.Run("NoAnswer", func(t *testing.T) {
		s := users(t, "noanswer")
		d := s.device("uas_noanswer", transport, nodes[2])
		s.all("uac_noanswer", nodes[0].sip, 50)
		well(t, d)
	})
	// Three devices at three nodes: one answers, the others hear why they stop ringing.
	t.Run("Fork", func(t *testing.T) {
		s := users(t, "fork")
		d := []*process{s.device("uas_elsewhere", transport, nodes[0]), s.device("uas", "u1", nodes[1]), s.device("uas_elsewhere", "u1", nodes[2])}
		s.all("uac_call", nodes[0].sip, 50)
		well(t, d...)
	})
}

// testLoadGenerator: every answer of a call between nodes is as the RFC has it.
func testLoadGenerator(t *testing.T, nodes []*node) {
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.Requests, cfg.Sockets, cfg.Window = load.Call, 200, 600, 2, 4
	for _, n := range nodes {
		cfg.Targets = append(cfg.Targets, netip.MustParseAddrPort(n.sip))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	for _, scenario := range []string{load.Call, load.Locate, load.Refresh} {
		cfg.Scenario = scenario
		r, err := load.Run(ctx, cfg, nil)
		if err != nil {
			t.Fatalf("%s: %v", scenario, err)
		}
		if m := r.Measured; m.Failed > 0 || m.OK != 600 || m.NoACK > 0 {
			t.Errorf("%s: %d ok, %d failed, %d never acknowledged: %v", scenario, m.OK, m.Failed, m.NoACK, m.Codes)
		}
	}
}

// testOwnerKilledUnderLoad: node 1, owner or backup of two users in three, is
// killed while nodes 2 and 3 are asked for users of theirs. No lookup fails,
// and none waits for the failure to be detected.
func testOwnerKilledUnderLoad(t *testing.T, bin string) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	nodes := startCluster(t, bin, 3)
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Users, cfg.Sockets = load.Locate, 500, 2
	cfg.Rate, cfg.Duration = 300, 6*time.Second
	for _, n := range nodes[1:] {
		cfg.Targets = append(cfg.Targets, netip.MustParseAddrPort(n.sip))
	}
	killed := false
	r, err := load.Run(t.Context(), cfg, func(p load.Progress) {
		if p.Phase == load.Locate && p.OK >= 300 && !killed {
			killed = true
			nodes[0].kill()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Measured
	if !killed || m.Failed > 0 || m.OK < 1700 {
		t.Errorf("killed %v, %d ok, %d failed: %v", killed, m.OK, m.Failed, m.Codes)
	}
	// Ten times the promise, 300 ms: only a hang crosses it.
	if got := time.Duration(m.Latency["options"].Max()) * time.Microsecond; got > 3*time.Second {
		t.Errorf("a lookup took %v", got)
	} else {
		t.Logf("slowest lookup %v, p99 %v", got, time.Duration(m.Latency["options"].ValueAtQuantile(99))*time.Microsecond)
	}
}

// testCommandLine: where, members, send and version, and their exit codes.
func testCommandLine(t *testing.T, bin string, nodes []*node) {
	d := newDevice(t, "alice", "alice")
	d.register(nodes[0], 3600)
	at := func(n *node, args ...string) []string { return append(args, "--admin", n.admin) }

	var w whereabouts
	parse(t, must(t, bin, at(nodes[1], "where", "alice@localhost", "--output", "json")...), &w)
	if live := w.live(); len(live) != 1 || live[0] != "n1" || w.Owner == "" || w.Backup == "" || w.Owner == w.Backup {
		t.Errorf("where: got %+v, want one live lease at n1, an owner and a backup", w)
	}
	if out := must(t, bin, at(nodes[2], "where", "alice@localhost")...); !strings.Contains(out, d.addr) || !strings.Contains(out, "n1") {
		t.Errorf("where as a table has no edge or contact:\n%s", out)
	}
	if _, _, code := runHereis(t, bin, at(nodes[1], "where", "nobody@localhost")...); code != 3 {
		t.Errorf("where of an unknown user: exit %d, want 3", code)
	}
	var m struct{ Members []member }
	parse(t, must(t, bin, at(nodes[1], "members", "--output", "json")...), &m)
	if len(m.Members) != 3 {
		t.Errorf("members: got %+v, want three", m)
	}
	out := must(t, bin, at(nodes[1], "send", "--to", "sip:alice@localhost", "Locate", `{"aor":"sip:alice@localhost"}`)...)
	if !strings.Contains(out, d.addr) {
		t.Errorf("send Locate to a user: no contact in\n%s", out)
	}
	out = must(t, bin, at(nodes[1], "send", "--to", "all", "--output", "json", "Ping", `{}`)...)
	for _, n := range nodes {
		if !strings.Contains(out, n.name) {
			t.Errorf("send Ping to all: no reply of %s in\n%s", n.name, out)
		}
	}
	must(t, bin, "version")
	if _, stderr, code := runHereis(t, bin, "members", "--admin", local(port(t))); code != 1 || stderr == "" {
		t.Errorf("members of no node: exit %d and %q, want 1 and a reason", code, stderr)
	}
}

func parse(t *testing.T, out string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
}

// testPortTaken: a node does not share its port with another process by accident.
func testPortTaken(t *testing.T, bin string) {
	base := port(t)
	taken, err := net.ListenPacket("udp", local(base))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := start(t, "taken", exec.Command(bin, "node", "--data", t.TempDir(), "--sip", local(base), "--cluster", local(base+1), "--admin", local(base+4)))
	if code := p.ended(20 * time.Second); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	out := p.output()
	if !strings.Contains(out, strconv.Itoa(base)) || !strings.Contains(out, "in use") {
		t.Errorf("the message does not say which port is taken:\n%s", out)
	}
	if strings.Contains(out, "goroutine ") {
		t.Errorf("a stack trace is no clear error:\n%s", out)
	}
}

// testGracefulStop: SIGTERM ends a node well, and the others know that it left.
func testGracefulStop(t *testing.T, nodes []*node) {
	last := nodes[len(nodes)-1]
	if err := last.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := last.ended(15 * time.Second); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	within(t, 10*time.Second, "the others have let it go", func() error {
		members, err := nodes[0].members()
		if slices.ContainsFunc(members, func(m member) bool { return m.Name == last.name && m.State == "live" }) {
			err = errors.New("it is still live")
		}
		return err
	})
}
