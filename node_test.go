package hereis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/actors"
	"hereis/bench/ports"
	"hereis/cluster/store"
	"hereis/messages"
	"hereis/messages/messagestest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// opencensus and glog come with Badger's and proto.actor's dependencies and start at import.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		// memberlist cannot be waited for: its last probe ends by itself within a second.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// member is a node that runs in this process.
type member struct {
	*hereis.Node
	cfg  hereis.Config
	stop func() error
}

// configs makes the configurations of n nodes of one cluster on free ports.
func configs(t testing.TB, n int) []hereis.Config {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of this test, long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := make([]hereis.Config, n)
	var join []string
	addrs := ports.Addrs(t, 3*n)
	for i := range out {
		free := addrs[3*i:]
		c := hereis.DefaultConfig()
		c.Name, c.Data = fmt.Sprintf("n%d", i+1), filepath.Join(t.TempDir(), "data")
		c.SIP = []string{"udp:" + free[0]}
		// proto.actor's remote sets a logger of the whole process each time that
		// it starts: of several nodes in one process none has it here.
		c.Cluster, c.ClusterStream, c.ClusterRemote = free[1], free[2], "none"
		c.Domains = []string{"example.com=127.0.0.1"}
		c.SecretFile, c.Admin, c.Durability = secret, "", "async"
		c.Region = []string{"east", "west"}[i%2]
		join = append(join, c.Cluster)
		out[i] = c
	}
	for i := range out {
		out[i].Join = join
	}
	return out
}

// start runs a node; prepare may add handlers.
func start(t testing.TB, cfg hereis.Config, prepare func(*hereis.Node)) *member {
	t.Helper()
	n, err := hereis.New(cfg, slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	m := &member{Node: n, cfg: cfg}
	m.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the node did not stop")
		}
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Errorf("%s: stop: %v", cfg.Name, err)
		}
	})
	return m
}

// startAll runs one node for each configuration and waits until all of them
// are settled in one view.
func startAll(t *testing.T, cfgs []hereis.Config, prepare func(*hereis.Node)) []*member {
	t.Helper()
	var out []*member
	for _, c := range cfgs {
		out = append(out, start(t, c, prepare))
	}
	settled(t, out)
	return out
}

func settled(t testing.TB, nodes []*member) {
	t.Helper()
	eventually(t, "all nodes are settled in one view", func() error {
		for _, n := range nodes {
			live := 0
			for _, m := range n.Members() {
				if m.FailedMS == 0 {
					live++
				}
			}
			if live != len(nodes) {
				return fmt.Errorf("%s sees %d of %d members", n.Name(), live, len(nodes))
			}
			if err := n.Ready(); err != nil {
				return fmt.Errorf("%s: %w", n.Name(), err)
			}
		}
		return nil
	})
}

func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	// A late line of a node that is stopping must not panic a finished test.
	defer func() { _ = recover() }()
	w.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// phone is a UDP socket that speaks just enough SIP to register.
type phone struct {
	t    *testing.T
	conn *net.UDPConn
	cseq int
}

func newPhone(t *testing.T) *phone { return newPhoneAt(t, "127.0.0.1") }

func newPhoneAt(t *testing.T, ip string) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &phone{t: t, conn: conn}
}

func (p *phone) addr() string { return p.conn.LocalAddr().String() }

// send puts a request to a node and returns the final answer.
func (p *phone) send(n *member, method, uri, user string, extra ...string) string {
	p.t.Helper()
	return p.exchange(n, p.text(method, uri, user, extra...))
}

// text is the next request.
func (p *phone) text(method, uri, user string, extra ...string) string {
	p.cseq++
	lines := append([]string{
		fmt.Sprintf("%s %s SIP/2.0", method, uri),
		fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d;rport", p.addr(), strings.ReplaceAll(p.addr(), ":", "-"), p.cseq),
		fmt.Sprintf("From: <sip:%s@example.com>;tag=f%d", user, p.cseq),
		fmt.Sprintf("To: <sip:%s@example.com>", user),
		"Call-ID: " + user + "-" + p.addr(),
		fmt.Sprintf("CSeq: %d %s", p.cseq, method),
		"Max-Forwards: 70",
	}, extra...)
	return strings.Join(lines, "\r\n") + "\r\nContent-Length: 0\r\n\r\n"
}

// fire sends a message and waits for nothing.
func (p *phone) fire(n *member, msg string) {
	p.t.Helper()
	_, at, _ := strings.Cut(n.SIPAddrs()[0], ":")
	if _, err := p.conn.WriteTo([]byte(msg), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))); err != nil {
		p.t.Fatal(err)
	}
}

// exchange sends a request until there is a final answer.
func (p *phone) exchange(n *member, msg string) string {
	p.t.Helper()
	method, _, _ := strings.Cut(msg, " ")
	_, at, _ := strings.Cut(n.SIPAddrs()[0], ":")
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))
	buf := make([]byte, 8192)
	for range 40 {
		if _, err := p.conn.WriteTo([]byte(msg), to); err != nil {
			p.t.Fatal(err)
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			size, err := p.conn.Read(buf)
			if err != nil {
				break
			}
			answer := string(buf[:size])
			if strings.HasPrefix(answer, "SIP/2.0 ") && !strings.HasPrefix(answer, "SIP/2.0 1") &&
				strings.Contains(answer, fmt.Sprintf("CSeq: %d %s", p.cseq, method)) {
				return answer
			}
		}
	}
	p.t.Fatalf("%s at %s: no answer", method, n.Name())
	return ""
}

func (p *phone) register(n *member, user string, expires int) string {
	p.t.Helper()
	return p.send(n, "REGISTER", "sip:example.com", user,
		fmt.Sprintf("Contact: <sip:%s@%s>", user, p.addr()), fmt.Sprintf("Expires: %d", expires))
}

func TestHandleAndAsk_TypeOfAUser(t *testing.T) {
	nodes := startAll(t, configs(t, 3), func(n *hereis.Node) {
		hereis.Handle(n, func(ctx context.Context, q *messagestest.Greet) (*messagestest.Greeting, error) {
			if q.Name == "panic" {
				panic("as asked")
			}
			asked := hereis.AskedFrom(ctx)
			return &messagestest.Greeting{Text: "hello " + q.Name + " " + string(asked.AoR) + " from " + asked.From, Node: n.Name()}, nil
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()

	for _, to := range nodes {
		got, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode(to.Name()), &messagestest.Greet{Name: "x"})
		if err != nil || got.Node != to.Name() {
			t.Errorf("ask %s: got %v, %v", to.Name(), got, err)
		}
	}
	owners := map[string]bool{}
	for i := range 30 {
		aor := actors.AoR(fmt.Sprintf("sip:u%d@example.com", i))
		var first string
		for _, n := range nodes {
			got, err := hereis.Ask[*messagestest.Greeting](ctx, n.Node, hereis.ToUser(aor), &messagestest.Greet{Name: "x"})
			if err != nil {
				t.Fatalf("ask %s: %v", aor, err)
			}
			if want := "hello x " + string(aor) + " from " + n.Name(); got.Text != want {
				t.Errorf("got %q, want %q", got.Text, want)
			}
			if first == "" {
				first = got.Node
			}
			if got.Node != first {
				t.Errorf("%s is answered by %s and by %s", aor, first, got.Node)
			}
		}
		owners[first] = true
	}
	if len(owners) != 3 {
		t.Errorf("30 users live at %d nodes, want 3", len(owners))
	}
	count := func(to hereis.To) (names []string) {
		for _, r := range hereis.AskAll[*messagestest.Greeting](ctx, nodes[1].Node, to, &messagestest.Greet{Name: "all"}) {
			if r.Err != nil || r.Answer.Node != r.Node {
				t.Errorf("%s: got %v, %v", r.Node, r.Answer, r.Err)
			}
			names = append(names, r.Node)
		}
		slices.Sort(names)
		return names
	}
	if got, want := count(hereis.Everybody()), []string{"n1", "n2", "n3"}; !slices.Equal(got, want) {
		t.Errorf("everybody: got %v, want %v", got, want)
	}
	if got, want := count(hereis.ToRegion("east")), []string{"n1", "n3"}; !slices.Equal(got, want) {
		t.Errorf("region east: got %v, want %v", got, want)
	}

	// A panic and a type without a handler are answers, and nobody is harmed.
	for _, q := range []proto.Message{&messagestest.Greet{Name: "panic"}, &messagestest.Unheard{Text: "?"}} {
		if _, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode("n2"), q); err == nil {
			t.Errorf("%T: no error", q)
		}
	}
	_, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.ToNode("n2"), &messagestest.Unheard{})
	if got, want := hereis.Code(err), messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE; got != want {
		t.Errorf("unknown type: got %v (%v), want %v", got, err, want)
	}
	if _, err := hereis.Ask[*messagestest.Greeting](ctx, nodes[0].Node, hereis.Everybody(), &messagestest.Greet{}); !errors.Is(err, hereis.ErrManyReplies) {
		t.Errorf("one answer of everybody: got %v, want %v", err, hereis.ErrManyReplies)
	}

	// A node that is gone is one reply with an error among the others.
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[:2])
	if got := len(hereis.AskAll[*messagestest.Greeting](ctx, nodes[0].Node, hereis.Everybody(), &messagestest.Greet{})); got != 2 {
		t.Errorf("after a node left: %d replies, want 2", got)
	}
}

func TestRegisterMoveAndRestart(t *testing.T) {
	cfgs := configs(t, 3)
	for i := range cfgs {
		cfgs[i].Durability = "sync"
	}
	nodes := startAll(t, cfgs, nil)
	w, err := nodes[1].Watch(t.Context(), "*", hereis.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := newPhone(t)
	if got := p.register(nodes[0], "alice", 600); !strings.HasPrefix(got, "SIP/2.0 200 ") || !strings.Contains(got, p.addr()) {
		t.Fatalf("REGISTER: got %s", got)
	}
	expect := func(online bool, edge string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for {
			e, err := w.Next(ctx)
			if err != nil {
				t.Fatalf("no event: online %v at %s: %v", online, edge, err)
			}
			if e.AoR == "sip:alice@example.com" && e.Online == online && (edge == "" || e.Device.GetEdge() == edge) {
				return
			}
		}
	}
	expect(true, "n1")
	edges := func(n *member) (out []string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		got, err := n.Locate(ctx, "sip:alice@example.com")
		if err != nil {
			return []string{err.Error()}
		}
		for _, target := range got.Targets {
			out = append(out, target.Edge)
		}
		return out
	}
	at := func(edge string, from ...*member) {
		t.Helper()
		eventually(t, "alice is found at "+edge, func() error {
			for _, n := range from {
				if got := edges(n); !slices.Equal(got, []string{edge}) {
					return fmt.Errorf("%s says %v", n.Name(), got)
				}
			}
			return nil
		})
	}
	at("n1", nodes...)
	// The same device, the same contact, at another node: it has moved.
	p.register(nodes[2], "alice", 600)
	at("n3", nodes...)

	// The node of the device goes and comes back with what it had.
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	settled(t, nodes[:2])
	nodes[2] = start(t, cfgs[2], nil)
	settled(t, nodes)
	at("n3", nodes...)

	p.register(nodes[0], "alice", 0)
	expect(false, "")
	eventually(t, "alice is gone everywhere", func() error {
		for _, n := range nodes {
			if got := edges(n); len(got) != 1 || !strings.Contains(got[0], "user") {
				return fmt.Errorf("%s says %v", n.Name(), got)
			}
		}
		return nil
	})
}

// TestPeers1_6_3_UnknownUserIsSaidAtOnce: the experiment waits 5 s for silence.
func TestPeers1_6_3_UnknownUserIsSaidAtOnce(t *testing.T) {
	nodes := startAll(t, configs(t, 3), nil)
	p := newPhone(t)
	for _, n := range nodes {
		began := time.Now()
		got := p.send(n, "INVITE", "sip:nobody@example.com", "nobody", "Contact: <sip:c@"+p.addr()+">")
		if !strings.HasPrefix(got, "SIP/2.0 404 ") {
			t.Errorf("%s: got %.40s, want 404", n.Name(), got)
		}
		// What the experiment waits: only a hang crosses it, on a slow machine too.
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", n.Name(), took)
		}
	}
}

func TestNew_TakenPortsAreClearErrors(t *testing.T) {
	cfg := configs(t, 1)[0]
	start(t, cfg, nil)
	for _, field := range []string{"sip", "cluster", "cluster-stream"} {
		other := configs(t, 1)[0]
		taken := cfg.Cluster
		switch field {
		case "sip":
			other.SIP, taken = cfg.SIP, cfg.SIP[0]
		case "cluster":
			other.Cluster = cfg.Cluster
		case "cluster-stream":
			other.ClusterStream, taken = cfg.ClusterStream, cfg.ClusterStream
		}
		n, err := hereis.New(other, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = n.Close()
			t.Errorf("%s: no error for a taken port", field)
			continue
		}
		if _, port, _ := strings.Cut(strings.TrimPrefix(taken, "udp:"), ":"); !strings.Contains(err.Error(), port) {
			t.Errorf("%s: the error does not name the port: %v", field, err)
		}
	}
}

func TestNew_SameDataFolderTwice(t *testing.T) {
	cfg := configs(t, 1)[0]
	start(t, cfg, nil)
	other := configs(t, 1)[0]
	other.Data = cfg.Data
	if n, err := hereis.New(other, slog.New(slog.DiscardHandler)); err == nil {
		_ = n.Close()
		t.Error("no error for a data folder in use")
	}
}

// A node whose disk was lost and whose clock is behind finds that its peers
// know a later incarnation of its name: it ends, and starts above it.
func TestRun_AnIncarnationBelowWhatPeersRememberIsRaisedForTheNextStart(t *testing.T) {
	cfgs := configs(t, 2)
	nodes := startAll(t, cfgs, nil)
	var known uint64
	for _, m := range nodes[0].Members() {
		if m.Name == nodes[1].Name() {
			known = m.Incarnation
		}
	}
	if err := nodes[1].stop(); err != nil {
		t.Fatal(err)
	}
	// A start in a time to come, so that any other is behind it.
	late := cfgs[1]
	late.Data = t.TempDir()
	st, err := store.Open(store.Config{Dir: late.Data, Name: late.Name}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Start(0, known+1<<40); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	n := start(t, late, nil)
	eventually(t, "the node is known with its high incarnation", func() error {
		for _, m := range nodes[0].Members() {
			if m.Name == n.Name() && m.Incarnation == n.Incarnation() && m.FailedMS == 0 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	high := n.Incarnation()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	lost := cfgs[1]
	lost.Data = t.TempDir()
	again, err := hereis.New(lost, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if again.Incarnation() >= high {
		t.Fatalf("the start is at %d, not below %d", again.Incarnation(), high)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := again.Run(ctx); !errors.Is(err, hereis.ErrStartAgain) {
		t.Fatalf("got %v, want ErrStartAgain", err)
	}
	second := start(t, lost, nil)
	if second.Incarnation() <= high {
		t.Errorf("the second start is at %d, not above %d", second.Incarnation(), high)
	}
	settled(t, []*member{nodes[0], second})
}
