package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// healBar is the time after which all nodes agree again when a cut is healed,
// by one site's timers (CONSISTENCY, what is promised).
const healBar = 10 * time.Second

// netCluster is a cluster whose nodes live in network namespaces of their own,
// on one bridge. A cut is a route: what one node sends to another goes nowhere.
type netCluster struct {
	t     *testing.T
	row   *chaosRow
	id    string
	net   string // the first three bytes of all addresses
	nodes []*node
}

// newNetCluster makes n nodes that do not run yet, or skips the test.
func newNetCluster(t *testing.T, suite *chaosSuite, n int) *netCluster {
	t.Helper()
	bin := suite.bin
	requireRoot(t, "a network namespace")
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip is not installed (Debian package iproute2)")
	}
	c := &netCluster{t: t, row: suite.row(t), id: fmt.Sprintf("hc%04x", rand.IntN(1<<16)), net: fmt.Sprintf("10.%d.%d", 200+rand.IntN(50), rand.IntN(250))}
	if out, err := c.ip("link", "add", c.id, "type", "bridge"); err != nil {
		t.Skipf("no bridge can be made: %s", out)
	}
	t.Cleanup(func() { c.ip("link", "del", c.id) })
	c.must("addr", "add", c.net+".254/24", "dev", c.id)
	c.must("link", "set", c.id, "up")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of this test, long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range n {
		ns, host := c.namespace(i), c.host(i)
		if out, err := c.ip("netns", "add", ns); err != nil {
			t.Skipf("no namespace can be made: %s", out)
		}
		t.Cleanup(func() { c.ip("netns", "del", ns) })
		outer := fmt.Sprintf("%s-%d", c.id, i)
		c.must("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", ns)
		c.must("link", "set", outer, "master", c.id, "up")
		c.must("-n", ns, "addr", "add", host+"/24", "dev", "eth0")
		c.must("-n", ns, "link", "set", "lo", "up")
		c.must("-n", ns, "link", "set", "eth0", "up")
		c.nodes = append(c.nodes, &node{
			t: t, bin: bin, name: fmt.Sprintf("n%d", i+1), data: filepath.Join(dir, fmt.Sprint(i+1)),
			sip: host + ":5060", gossip: host + ":7060", admin: host + ":8060", joins: c.host(0) + ":7060",
			wrap: []string{"ip", "netns", "exec", ns}, args: []string{"--secret-file", secret},
		})
	}
	return c
}

func (c *netCluster) namespace(i int) string { return fmt.Sprintf("%s-%d", c.id, i) }
func (c *netCluster) host(i int) string      { return fmt.Sprintf("%s.%d", c.net, i+1) }

func (c *netCluster) ip(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (c *netCluster) must(args ...string) {
	c.t.Helper()
	if out, err := c.ip(args...); err != nil {
		c.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// drop lets nothing that from sends reach to any more; heal undoes it.
func (c *netCluster) drop(from, to int) {
	c.must("-n", c.namespace(from), "route", "add", "blackhole", c.host(to)+"/32")
}

func (c *netCluster) heal(from, to int) {
	c.must("-n", c.namespace(from), "route", "del", "blackhole", c.host(to)+"/32")
}

// cut parts two groups, in both directions.
func (c *netCluster) cut(a, b []int) (heal func()) {
	for _, i := range a {
		for _, j := range b {
			c.drop(i, j)
			c.drop(j, i)
		}
	}
	return func() {
		for _, i := range a {
			for _, j := range b {
				c.heal(i, j)
				c.heal(j, i)
			}
		}
	}
}

// state waits until a node has another in a state.
func (c *netCluster) state(at, of int, want string, limit time.Duration) {
	c.t.Helper()
	within(c.t, limit, fmt.Sprintf("n%d has n%d as %s", at+1, of+1, want), func() error {
		members, err := c.nodes[at].members()
		for _, m := range members {
			if m.Name == c.nodes[of].name && m.State == want {
				return nil
			}
		}
		return fmt.Errorf("%v %v", members, err)
	})
}

// agree waits until every node says of each user what is wanted: the edges of
// its live leases, "" for none. It prints how long that took.
func (c *netCluster) agree(what string, since time.Time, want map[string]string) {
	c.t.Helper()
	c.agreeWithin(what, slack*healBar/4, since, want)
}

func (c *netCluster) agreeWithin(what string, limit time.Duration, since time.Time, want map[string]string) {
	c.t.Helper()
	within(c.t, limit, "all agree", func() error {
		var mu sync.Mutex
		var wrong error
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			wg.Go(func() {
				err := n.get("/readyz", nil)
				for user, edge := range want {
					if err != nil {
						break
					}
					err = n.finds(user, edge)
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					wrong = err
				}
			})
		}
		wg.Wait()
		return wrong
	})
	took := time.Since(since)
	c.row.note(c.t, "%s: all nodes agree after %v (bar %v)", what, took.Round(time.Millisecond), healBar)
}

// finds tells whether a node finds a user alive at an edge, "" for nowhere.
func (n *node) finds(user, edge string) error {
	var w whereabouts
	err := n.get("/v1/where/"+user, &w)
	if err != nil && !strings.Contains(err.Error(), "404") {
		return err
	}
	if got := strings.Join(w.live(), " "); got != edge {
		return fmt.Errorf("%s finds %s at %q, want %q", n.name, user, got, edge)
	}
	return nil
}

// testChaosPartition parts a running cluster in two ways and heals it.
func testChaosPartition(t *testing.T, suite *chaosSuite) {
	c := newNetCluster(t, suite, 4)
	for _, n := range c.nodes {
		n.launch()
	}
	waitMembers(t, c.nodes)
	t.Run("OneNode", func(t *testing.T) { c.part(t, []int{3}, []int{0, 1, 2}) })
	t.Run("TwoHalves", func(t *testing.T) { c.part(t, []int{0, 1}, []int{2, 3}) })
}

// device is a phone beside the bridge.
func (c *netCluster) device(t *testing.T, name string) *device {
	t.Helper()
	return newDeviceAt(t, c.net+".254", name, name)
}

// movers are the phones of one run: each has an instance, so that it moves.
func (c *netCluster) movers(t *testing.T, run string, users ...string) map[string]*device {
	t.Helper()
	all := map[string]*device{}
	for i, user := range users {
		d := c.device(t, run+user)
		d.instance = fmt.Sprintf("urn:uuid:00000000-0000-4000-8000-%012d", rand.IntN(1_000_000)+1_000_000*i)
		all[user] = d
	}
	return all
}

// part cuts a from b. Under the cut users come, move and go on both sides, as
// each side sees fit; both serve what their edges hold. When it is healed, all
// is merged: the later word counts, nothing comes back and nothing is lost.
func (c *netCluster) part(t *testing.T, a, b []int) {
	c.t = t
	run := fmt.Sprintf("r%d-", rand.IntN(1_000_000))
	na, nb := c.nodes[a[0]], c.nodes[b[0]]
	d := c.movers(t, run, "stay-a", "stay-b", "move", "gone-a", "gone-b", "new-a", "new-b", "moved-then-gone")
	d["stay-a"].register(na, 3600)
	d["gone-a"].register(na, 3600)
	d["move"].register(na, 3600)
	d["moved-then-gone"].register(na, 3600)
	d["stay-b"].register(nb, 3600)
	d["gone-b"].register(nb, 3600)
	c.agree("before", time.Now(), map[string]string{run + "stay-a": na.name, run + "stay-b": nb.name, run + "move": na.name})

	heal := c.cut(a, b)
	for _, i := range a {
		c.state(i, b[0], "failed", 30*time.Second)
	}
	for _, i := range b {
		c.state(i, a[0], "failed", 30*time.Second)
	}
	d["new-a"].register(na, 3600)
	d["new-b"].register(nb, 3600)
	d["gone-a"].register(na, 0)
	d["gone-b"].register(nb, 0)
	d["move"].register(nb, 3600)            // its old edge is on the other side
	d["stay-a"].register(na, 3600)          // a refresh
	d["moved-then-gone"].register(nb, 3600) // and removed there
	d["moved-then-gone"].register(nb, 0)
	caller := c.device(t, run+"caller")
	for _, i := range a {
		for _, user := range []string{"stay-a", "new-a"} {
			if status, by := caller.probe(c.nodes[i], run+user); status != 200 || by != run+user {
				t.Errorf("under the cut, %s from n%d: got %d by %q", user, i+1, status, by)
			}
		}
	}
	for _, i := range b {
		for _, user := range []string{"stay-b", "new-b", "move"} {
			if status, by := caller.probe(c.nodes[i], run+user); status != 200 || by != run+user {
				t.Errorf("under the cut, %s from n%d: got %d by %q", user, i+1, status, by)
			}
		}
	}
	for _, side := range []struct {
		at   *node
		far  []int
		user string
		edge string
	}{{na, b, "stay-b", nb.name}, {nb, a, "stay-a", na.name}} {
		c.shown(side.at, side.far, run+side.user, side.edge)
	}
	heal()
	c.agree(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]+" healed", time.Now(), map[string]string{
		run + "stay-a": na.name, run + "new-a": na.name, run + "gone-a": "",
		run + "stay-b": nb.name, run + "new-b": nb.name, run + "gone-b": "",
		run + "move": nb.name, run + "moved-then-gone": "",
	})
}

// shown expects what people are told of a cut at a node: who is on the other side,
// and that a user there is not unknown but cannot be reached.
func (c *netCluster) shown(at *node, far []int, user, edge string) {
	c.t.Helper()
	within(c.t, 30*time.Second, "hereis members shows the cut", func() error {
		out := must(c.t, at.bin, "members", "--admin", at.admin)
		for i, n := range c.nodes {
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) > 1 && f[0] == n.name && slices.Contains(f, "failed") != slices.Contains(far, i) {
					return fmt.Errorf("at %s:\n%s", at.name, out)
				}
			}
		}
		if strings.Count(out, "failed") != len(far) {
			return fmt.Errorf("at %s there are not %d failed ones:\n%s", at.name, len(far), out)
		}
		return nil
	})
	out, _, code := runHereis(c.t, at.bin, "where", user, "--admin", at.admin)
	// A side that held no copy knows nothing of them (3), and one that is not settled, as alone it is not, says so (2).
	known := strings.Contains(out, "edge-away") && strings.Contains(out, edge)
	if code == 1 || code == 0 && !known || strings.Contains(out, "binding") && !known {
		c.t.Errorf("hereis where %s at %s: exit %d\n%s", user, at.name, code, out)
	}
	if status, _ := c.device(c.t, user+"caller"+at.name).probe(at, user); status != 480 {
		c.t.Errorf("%s is on the other side of the cut: got %d, want 480", user, status)
	}
}

// testChaosOneWay: what node 1 sends to node 3 is lost, and nothing else: they
// stay members by way of the others. All users are found from everywhere and
// may register everywhere; when it is healed all agree.
func testChaosOneWay(t *testing.T, suite *chaosSuite) {
	c := newNetCluster(t, suite, 4)
	for _, n := range c.nodes {
		n.launch()
	}
	waitMembers(t, c.nodes)
	const users = 12 // enough that each pair of nodes holds some
	run := fmt.Sprintf("r%d-", rand.IntN(1_000_000))
	want := map[string]string{}
	var late []*device
	for i := range users {
		d := c.device(t, fmt.Sprintf("%se%d", run, i))
		d.register(c.nodes[i%4], 3600)
		want[d.user] = c.nodes[i%4].name
		late = append(late, c.device(t, fmt.Sprintf("%sl%d", run, i)))
	}
	gone := c.device(t, run+"gone")
	gone.register(c.nodes[2], 3600)
	want[gone.user] = "n3"
	c.agree("before", time.Now(), want)

	c.drop(0, 2)
	caller := c.device(t, run+"caller")
	var answered, slowest = 0, time.Duration(0)
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		for i, n := range c.nodes {
			user := fmt.Sprintf("%se%d", run, rand.IntN(users))
			began := time.Now()
			if status, by := caller.probe(n, user); status != 200 || by != user {
				t.Errorf("under the cut, %s from n%d: got %d by %q", user, i+1, status, by)
			}
			answered, slowest = answered+1, max(slowest, time.Since(began))
		}
	}
	for i, d := range late {
		began := time.Now()
		d.register(c.nodes[i%4], 3600)
		want[d.user] = c.nodes[i%4].name
		if took := time.Since(began); took > slack*registerBar {
			t.Errorf("under the cut, a REGISTER at n%d took %v", i%4+1, took)
		}
	}
	gone.register(c.nodes[2], 0)
	want[gone.user] = ""
	c.row.count("lookups", uint64(answered), 0, slowest)

	// Now a third restarts, so that all must report anew: also the two whom no
	// stream connects. They do by way of another.
	c.nodes[3].kill()
	c.nodes[3].start()
	began := time.Now()
	for _, n := range c.nodes {
		n.waitReady()
	}
	c.row.note(t, "under the cut, a node restarts: all are settled %v after it serves", time.Since(began).Round(time.Millisecond))
	relayed := 0.0
	for i, n := range c.nodes {
		relayed += n.metric("hereis_cluster_relayed_total")
		for u := range users {
			began := time.Now()
			user := fmt.Sprintf("%sl%d", run, u)
			if status, by := caller.probe(n, user); status != 200 || by != user {
				t.Errorf("under the cut and a restart, %s from n%d: got %d by %q", user, i+1, status, by)
			}
			if status, _ := caller.probe(n, fmt.Sprintf("%snobody%d", run, u)); status != 404 && status != 480 {
				t.Errorf("under the cut and a restart, nobody%d from n%d: got %d, want 404 or 480", u, i+1, status)
			}
			c.row.count("lookups", 2, 0, time.Since(began))
		}
	}
	if relayed == 0 {
		t.Error("nothing was relayed")
	}
	c.row.note(t, "%.0f messages went by a third node", relayed)
	c.heal(0, 2)
	c.agree("healed", time.Now(), want)
}

// testChaosLongPartition: two halves, of which one alone has the node that all
// were told to join, are cut for three times as long as memberlist remembers
// the dead. Each goes on dialling the other (rule 19).
func testChaosLongPartition(t *testing.T, suite *chaosSuite) {
	const (
		// memberlist forgets the dead of one site after 30 s, and so does a node's back-off end there.
		forgets = 30 * time.Second
		redial  = 30 * time.Second
	)
	c := newNetCluster(t, suite, 4)
	for _, n := range c.nodes {
		n.launch()
	}
	waitMembers(t, c.nodes)
	d := c.movers(t, "", "east", "west", "moves", "goes")
	d["east"].register(c.nodes[0], 3600)
	d["west"].register(c.nodes[2], 3600)
	d["moves"].register(c.nodes[0], 3600)
	d["goes"].register(c.nodes[2], 3600)
	heal := c.cut([]int{0, 1}, []int{2, 3})
	cut := time.Now()
	for _, i := range []int{0, 1} {
		c.state(i, 2, "failed", 30*time.Second)
	}
	c.row.note(t, "the cut was noticed after %v", time.Since(cut).Round(time.Millisecond))
	c.state(3, 0, "failed", 30*time.Second)
	d["moves"].register(c.nodes[3], 3600)
	d["goes"].register(c.nodes[2], 0)
	time.Sleep(time.Until(cut.Add(3*forgets + 5*time.Second))) // the cut is the subject, not a wait for something
	caller := c.device(t, "caller")
	for i, users := range map[int][]string{0: {"east"}, 1: {"east"}, 2: {"west", "moves"}, 3: {"west", "moves"}} {
		for _, user := range users {
			if status, by := caller.probe(c.nodes[i], user); status != 200 || by != user {
				t.Errorf("after a long cut, %s from n%d: got %d by %q", user, i+1, status, by)
			}
		}
	}
	if out := must(t, suite.bin, "members", "--admin", c.nodes[0].admin); !strings.Contains(out, "failed") {
		t.Errorf("hereis members does not show the cut:\n%s", out)
	}
	heal()
	c.agreeWithin("healed", redial+slack*healBar/4, time.Now(), map[string]string{"east": "n1", "west": "n3", "moves": "n4", "goes": ""})
}
