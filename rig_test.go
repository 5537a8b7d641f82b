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
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hereis"
	"hereis/bench/ports"
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
