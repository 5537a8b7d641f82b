package main_test

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testBaresip: a soft phone registers at node 1, over UDP and over TCP, and is
// called by SIPp through nodes 2 and 3, over both.
func testBaresip(t *testing.T, nodes []*node) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			user := "bare" + transport
			phone := baresip(t, user, "none", nodes[0].sip, transport)
			s := newSIPp(t, user)
			for _, n := range nodes[1:] {
				n.waitLive(user, nodes[0].name)
				for _, s.transport = range []string{"u1", "t1"} {
					s.all("uac_call", n.sip, 1)
				}
			}
			if out := phone.output(); strings.Count(out, "Call established") != 4 {
				t.Errorf("baresip does not speak of four calls:\n%s", out)
			}
		})
	}
}

// testRedirect: a device that has moved, over each transport. The caller hears
// of it; a cluster that follows redirections calls the other user instead, a
// device at another node, and the caller hears nothing of it.
func testRedirect(t *testing.T, nodes []*node, follow bool) {
	answerer := newSIPp(t, "answerer")
	answerer.answer()
	answerer.all("register", nodes[len(nodes)-1].sip, 1)
	for _, transport := range []string{"u1", "t1"} {
		users := userNames(10)
		for i := range users {
			users[i] = "moved" + transport + users[i]
		}
		s := newSIPp(t, users...)
		s.transport = transport
		d := s.device("uas_redirect", transport, nodes[0])
		if follow {
			s.all("uac_call", nodes[1].sip, 50)
		} else {
			s.all("uac_redirect", nodes[1].sip, 50)
		}
		well(t, d)
	}
}

// sipsak runs sipsak against a node and returns its exit code and what it says.
func sipsak(t *testing.T, n *node, args ...string) (code int, out string) {
	t.Helper()
	p := start(t, "sipsak", exec.Command(tool(t, "sipsak", "sipsak"), append(args, "-p", n.sip, "-vv")...))
	return p.ended(30 * time.Second), p.output()
}

// testSipsak: what operators look with. It asks a node, registers, goes along
// the way of a request, and throws broken messages at a node, which stays as it was.
func testSipsak(t *testing.T, nodes []*node) {
	for _, transport := range []string{"udp", "tcp"} {
		user := "sak" + transport
		for what, args := range map[string][]string{
			"OPTIONS": {"-s", "sip:localhost", "-E", transport, "--search", "SIP/2.0 200"},
			"REGISTER": {"-U", "-C", "sip:" + user + "@127.0.0.1:9", "-x", "3600", "-s", "sip:" + user + "@localhost", "-E", transport,
				"--search", "SIP/2.0 200"},
		} {
			if code, out := sipsak(t, nodes[0], args...); code != 0 {
				t.Errorf("%s over %s: exit %d\n%s", what, transport, code, out)
			}
		}
		nodes[1].waitLive(user, nodes[0].name)
	}
	// A request for a user of whom nobody knows, and one that may go no further: the
	// node answers it in the user's place (RFC 3261 16.3 step 3), as traceroute wants.
	if code, out := sipsak(t, nodes[2], "-s", "sip:nobodysak@localhost"); code == 0 || !strings.Contains(out, "SIP/2.0 404") && !strings.Contains(out, "SIP/2.0 480") {
		t.Errorf("nobody: exit %d\n%s", code, out)
	}
	if code, out := sipsak(t, nodes[2], "-m", "0", "-s", "sip:sakudp@localhost"); code != 0 || !strings.Contains(out, "tag=hereis-") {
		t.Errorf("Max-Forwards 0: exit %d\n%s", code, out)
	}
	t.Run("Random", func(t *testing.T) {
		// It goes on until it is stopped, or until an answer is not what it expects.
		p := start(t, "sipsak-random", exec.Command(tool(t, "sipsak", "sipsak"), "-R", "-t", "40", "-s", "sip:localhost", "-p", nodes[2].sip))
		select {
		case <-p.done:
		case <-time.After(3 * time.Second):
			_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
			p.ended(10 * time.Second)
		}
		if code, out := sipsak(t, nodes[2], "-s", "sip:localhost"); code != 0 {
			t.Errorf("after messages of chance: exit %d\n%s", code, out)
		}
	})
}

// testIPv6: a cluster that serves SIP at ::1 alone; devices register at one node
// and are called through the other, over both transports.
func testIPv6(t *testing.T, bin string) {
	nodes := newCluster(t, bin, 2)
	for _, n := range nodes {
		n.sip = strings.Replace(n.sip, "127.0.0.1", "[::1]", 1)
		n.launch()
	}
	waitMembers(t, nodes)
	for _, transport := range []string{"u1", "t1"} {
		phones := func(name string) *sipp {
			users := userNames(10)
			for i := range users {
				users[i] = name + transport + users[i]
			}
			s := newSIPp(t, users...)
			s.ip, s.transport = "::1", transport
			return s
		}
		s := phones("six")
		s.all("options", nodes[1].sip, 50)
		d := s.device("uas", transport, nodes[0])
		s.all("uac_call", nodes[1].sip, 50)
		well(t, d)
		s = phones("sixbusy")
		busy := s.device("uas_busy", transport, nodes[1])
		s.all("uac_busy", nodes[0].sip, 50)
		well(t, busy)
	}
}

// raceReport is how the race detector begins to speak.
var raceReport = regexp.MustCompile(`(?s)WARNING: DATA RACE.*`)

// testRace runs nodes that look for data races under calls, cancelled and
// refused ones, redirections, registrations with and without digest, over both
// transports, while a node leaves and comes back.
func testRace(t *testing.T, dir string) {
	whole(t)
	bin := build(t, dir+"/hereis-race", "-race")
	// A node ends at once when it has been asked to.
	nodes := newCluster(t, bin, 3, "--follow-redirects")
	for _, n := range nodes {
		n.env = []string{"GORACE=atexit_sleep_ms=0"}
		n.launch()
	}
	waitMembers(t, nodes)
	quiet := func(n *node) {
		t.Helper()
		if report := raceReport.FindString(n.output()); report != "" {
			t.Errorf("%s: %s", n.name, report[:min(len(report), 8000)])
		}
	}
	for _, transport := range []string{"u1", "t1"} {
		t.Run("Scenarios/"+transport, func(t *testing.T) { testScenarios(t, nodes, transport) })
		// Users of their own: a phone of the other round would answer as well.
		users := userNames(100)
		for i := range users {
			users[i] = "race" + transport + users[i]
		}
		s := newSIPp(t, users...)
		s.answer()
		s.transport = transport
		for i, n := range nodes {
			s.all("register", n.sip, 100)
			s.all("uac_call", nodes[(i+1)%len(nodes)].sip, 30)
		}
	}
	t.Run("Redirect", func(t *testing.T) { testRedirect(t, nodes, true) })
	t.Run("Sipsak", func(t *testing.T) { testSipsak(t, nodes) })
	last := nodes[len(nodes)-1]
	for _, n := range nodes {
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := n.ended(30 * time.Second); code != 0 {
			t.Errorf("%s: exit %s", n.name, strconv.Itoa(code))
		}
		quiet(n)
		if n != last {
			n.start()
			waitMembers(t, nodes)
		}
	}
	for _, n := range nodes {
		quiet(n)
	}
}
