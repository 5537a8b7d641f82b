package sipfront

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden plays testdata/**/*.txtar: messages in, messages out, byte for
// byte after CRLF. A file begins with setup lines (see rig.setup); then come in order
//
//	-- recv PEER --           a message that PEER sends; {uac-route} and
//	                          {uas-route} stand for its route set as caller or callee
//	-- answer PEER STATUS --  PEER answers the last INVITE or other request that it
//	                          got; the body has further header lines
//	-- send PEER --           what the node sends
//	-- wait DURATION --
func TestGolden(t *testing.T) {
	err := filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".txtar") {
			t.Run(strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".txtar"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { playGolden(t, path) })
			})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func playGolden(t *testing.T, path string) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	setup, sections := splitArchive(string(raw))
	r := newRig(t)
	for line := range strings.Lines(setup) {
		r.setup(strings.TrimSpace(line))
	}
	var got strings.Builder
	got.WriteString(setup)
	for _, s := range sections {
		verb, arg, _ := strings.Cut(s.name, " ")
		switch verb {
		case "recv":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			r.recv(arg, s.body)
		case "answer":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			peer, status, _ := strings.Cut(arg, " ")
			r.answer(peer, status, s.body)
		case "wait":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			d, err := time.ParseDuration(arg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(d)
		case "send":
			continue
		default:
			t.Fatalf("%s: unknown section %q", path, s.name)
		}
		synctest.Wait()
		for _, m := range r.take() {
			fmt.Fprintf(&got, "-- send %s --\n%s", r.peer(m.to), strings.ReplaceAll(string(m.raw), "\r\n", "\n"))
			if !bytes.HasSuffix(m.raw, []byte("\n")) {
				got.WriteString("\n")
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(raw) {
		t.Errorf("%s differs; got:\n%s", path, firstDifference(got.String(), string(raw)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			end := min(i+25, len(g))
			wantLine := ""
			if i < len(w) {
				wantLine = w[i]
			}
			return fmt.Sprintf("line %d, want: %s\n%s", i+1, wantLine, strings.Join(g[i:end], "\n"))
		}
	}
	return "(shorter)"
}

type section struct{ name, body string }

func splitArchive(s string) (head string, list []section) {
	cur := &head
	for line := range strings.Lines(s) {
		if name, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(name, " --\n") {
			list = append(list, section{name: strings.TrimSuffix(name, " --\n")})
			cur = &list[len(list)-1].body
			continue
		}
		*cur += line
	}
	return head, list
}

// rig is a node's core above the real transaction layer and below scripted
// answers of the cluster, on flows that only write down what is sent.
type rig struct {
	t     testing.TB
	cfg   Config
	net   *memNet
	zone  *memCluster
	reg   *memRegistrar
	loc   *memLocator
	srv   *Server
	layer *transaction.Layer
	peers map[string]string
	// last has what was sent to each address: the newest request and response.
	lastReq, lastRes map[string]string
}

func testKeys() Keys {
	return Keys{FlowToken: []byte("flow-token-key-for-tests"), Mark: []byte("mark-key-for-tests......")}
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	domains, err := actors.NewDomains(actors.Domain{Name: "example.com", Aliases: []string{"sip.example.com"}},
		actors.Domain{Name: "example.org"})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cfg: DefaultConfig(), peers: map[string]string{}, lastReq: map[string]string{}, lastRes: map[string]string{}}
	r.cfg.Domains = domains
	r.cfg.Addresses = []Address{{"udp", netip.MustParseAddrPort("192.0.2.1:5060")}}
	for _, f := range change {
		f(&r.cfg)
	}
	r.net = &memNet{flows: map[string]*memFlow{}, byID: map[string]*memFlow{}, local: r.cfg.Addresses[0].Addr}
	r.zone = &memCluster{self: "n1", nodes: map[string]netip.AddrPort{"n1": r.cfg.Addresses[0].Addr}, start: time.Now()}
	r.reg = &memRegistrar{zone: r.zone}
	r.loc = &memLocator{answers: map[string][]locateAnswer{}}
	var n uint64
	var mu sync.Mutex
	parts := Parts{
		Registrar: r.reg, Locator: r.loc, Cluster: r.zone, Transport: r.net, Keys: testKeys(),
		Rand: func() uint64 {
			mu.Lock()
			defer mu.Unlock()
			n++
			return 1_000_000*36 + n
		},
	}
	if r.srv, err = New(r.cfg, parts); err != nil {
		t.Fatal(err)
	}
	lcfg := transaction.DefaultConfig()
	lcfg.Seed = 1
	r.layer = transaction.New(lcfg, r.srv)
	r.srv.Use(r.layer)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.layer.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = r.srv.Run(ctx)
	})
	return r
}

// setup reads one line before the first section:
//
//	peer NAME ADDR            a peer and its address
//	node NAME ADDR            a node of the cluster
//	locate AOR JSON           an answer to Locate; the last one is repeated
//	locate AOR ERROR          an error: not-found, unavailable, retry
//	# anything                a comment
func (r *rig) setup(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	name, arg, _ := strings.Cut(rest, " ")
	switch verb {
	case "", "#":
	case "peer":
		r.peers[name] = arg
	case "node":
		r.peers[name] = arg
		r.zone.nodes[name] = netip.MustParseAddrPort(arg)
	case "locate":
		r.loc.set(name, arg, r.t)
	default:
		r.t.Fatalf("unknown setup line %q", line)
	}
}

func (r *rig) peer(addr string) string {
	for name, a := range r.peers {
		if a == addr {
			return name
		}
	}
	return addr
}

// recv lets a message come in from a peer.
func (r *rig) recv(from, body string) {
	r.t.Helper()
	addr, ok := r.peers[from]
	if !ok {
		addr = from
	}
	body = strings.ReplaceAll(body, "{uac-route}\n", routeSet(r.lastRes[addr], true))
	body = strings.ReplaceAll(body, "{uas-route}\n", routeSet(r.lastReq[addr], false))
	raw := []byte(strings.ReplaceAll(body, "\n", "\r\n"))
	req, res, err := transport.NewParser(transport.DefaultLimits()).Parse(raw)
	if err != nil {
		r.t.Fatalf("message from %s: %v\n%s", from, err, body)
	}
	f := r.net.flow(netip.MustParseAddrPort(addr))
	r.layer.Receive(&transport.Message{Request: req, Response: res, Raw: raw, Flow: f, At: time.Now()})
}

// take returns what the node has sent, and remembers it for answer and the route sets.
func (r *rig) take() []sent {
	out := r.net.take()
	for _, m := range out {
		if strings.HasPrefix(string(m.raw), "SIP/2.0") {
			r.lastRes[m.to] = string(m.raw)
		} else if !strings.HasPrefix(string(m.raw), "CANCEL ") && !strings.HasPrefix(string(m.raw), "ACK ") {
			r.lastReq[m.to] = string(m.raw)
		}
	}
	return out
}

// answer lets a peer answer the last request that it got, but for ACK and CANCEL.
func (r *rig) answer(peer, status, lines string) {
	r.t.Helper()
	addr, ok := r.peers[peer]
	if !ok {
		addr = peer
	}
	_, headers, _, err := splitMessage(r.lastReq[addr])
	if err != nil {
		r.t.Fatalf("%s got no request", peer)
	}
	var b strings.Builder
	b.WriteString("SIP/2.0 " + status + " Whatever\n")
	for _, h := range headers {
		switch h.name {
		case "To":
			if !strings.Contains(h.value, "tag=") && status != "100" {
				h.value += ";tag=" + peer
			}
			fallthrough
		case "Via", "From", "Call-ID", "CSeq", "Record-Route":
			b.WriteString(h.name + ": " + h.value + "\n")
		}
	}
	r.recv(peer, b.String()+strings.TrimSuffix(lines, "\n\n")+trailing(lines)+"Content-Length: 0\n\n")
}

func trailing(lines string) string {
	if strings.HasSuffix(lines, "\n\n") {
		return "\n"
	}
	return ""
}

// routeSet is the Route header lines that a UA makes of the Record-Routes of a message.
func routeSet(raw string, reverse bool) string {
	_, headers, _, err := splitMessage(raw)
	if err != nil {
		return ""
	}
	var set []string
	for _, h := range headers {
		if h.name == "Record-Route" {
			set = splitValues(set, h.value)
		}
	}
	if reverse {
		slices.Reverse(set)
	}
	out := ""
	for _, v := range set {
		out += "Route: " + v + "\n"
	}
	return out
}

type sent struct {
	to  string
	raw []byte
}

// memNet is a transport whose flows keep what is sent.
type memNet struct {
	local netip.AddrPort

	mu    sync.Mutex
	flows map[string]*memFlow
	byID  map[string]*memFlow
	next  uint64
	out   []sent
	quiet bool
}

type memFlow struct {
	n       *memNet
	network string
	remote  netip.AddrPort
	id      *messages.FlowID
	closed  bool
}

func (n *memNet) flow(remote netip.AddrPort) *memFlow {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.flows[remote.String()]
	if f == nil {
		f = &memFlow{n: n, network: "udp", remote: remote}
		n.flows[remote.String()] = f
	}
	return f
}

func (n *memNet) Flow(network string, remote netip.AddrPort) (transport.Flow, error) {
	if network != "udp" {
		return nil, transport.ErrNoListener
	}
	return n.flow(remote), nil
}

func (n *memNet) Restore(id *messages.FlowID, network string, local, remote netip.AddrPort) (transport.Flow, error) {
	f := n.flow(remote)
	if id.GetStream() || f.closed {
		return nil, transport.ErrFlowClosed
	}
	return f, nil
}

func (n *memNet) ByID(id *messages.FlowID) (transport.Flow, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.byID[fmt.Sprint(id.GetIncarnation(), id.GetCounter())]
	if !ok || f.closed {
		return nil, false
	}
	return f, true
}

func (n *memNet) Pin(f transport.Flow) *messages.FlowID { return f.ID() }

func (n *memNet) take() []sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.out
	n.out = nil
	return out
}

func (f *memFlow) ID() *messages.FlowID {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.id == nil {
		f.n.next++
		f.id = &messages.FlowID{Incarnation: 7, Counter: f.n.next, Stream: f.network != "udp"}
		f.n.byID[fmt.Sprint(f.id.Incarnation, f.id.Counter)] = f
	}
	return f.id
}
func (f *memFlow) Transport() string      { return f.network }
func (f *memFlow) Reliable() bool         { return f.network != "udp" }
func (f *memFlow) Local() netip.AddrPort  { return f.n.local }
func (f *memFlow) Remote() netip.AddrPort { return f.remote }
func (f *memFlow) Send(b []byte) error {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.closed {
		return transport.ErrFlowClosed
	}
	if !f.n.quiet {
		f.n.out = append(f.n.out, sent{f.remote.String(), bytes.Clone(b)})
	}
	return nil
}

// memCluster is a view that a test sets.
type memCluster struct {
	self  string
	start time.Time
	mu    sync.Mutex
	nodes map[string]netip.AddrPort
}

func (c *memCluster) Self() string { return c.self }
func (c *memCluster) SIPAddr(node, network string) (netip.AddrPort, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.nodes[node]
	return a, ok && network == "udp"
}
func (c *memCluster) IsNode(addr netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.nodes {
		if a == addr {
			return true
		}
	}
	return false
}

// NowMS begins on 1 November 2026.
func (c *memCluster) NowMS() int64 { return 1_793_491_200_000 + time.Since(c.start).Milliseconds() }

// memRegistrar keeps bindings as naively as can be: by Contact, one user.
type memRegistrar struct {
	zone *memCluster
	mu   sync.Mutex
	last *messages.Register
	err  error
	list []*messages.Lease
}

func (m *memRegistrar) Register(_ context.Context, q *messages.Register) (*messages.Registered, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = q
	if m.err != nil {
		return nil, m.err
	}
	now := m.zone.NowMS()
	if q.Star {
		m.list = nil
	}
	for _, c := range q.Contacts {
		expires := uint32(3600)
		if q.HasExpires {
			expires = q.ExpiresS
		}
		if c.HasExpires {
			expires = c.ExpiresS
		}
		kept := m.list[:0:0]
		for _, l := range m.list {
			if string(l.Key) != c.Uri {
				kept = append(kept, l)
			}
		}
		if m.list = kept; expires == 0 {
			continue
		}
		b := &messages.Binding{Contact: c.Uri, Params: c.Params, Q: c.Q, InstanceId: c.InstanceId, RegId: c.RegId, Path: q.Path}
		m.list = append(m.list, &messages.Lease{Key: []byte(c.Uri), ExpiresMs: now + int64(expires)*1000, Payload: mustMarshal(b)})
	}
	return &messages.Registered{Bindings: m.list, NowMs: now}, nil
}

type locateAnswer struct {
	res *messages.Located
	err error
}

// memLocator gives scripted answers, in turn.
type memLocator struct {
	mu      sync.Mutex
	answers map[string][]locateAnswer
	asked   int
}

func (m *memLocator) set(aor, arg string, t testing.TB) {
	a := locateAnswer{}
	switch arg {
	case "not-found":
		a.err = actors.ErrNotFound
	case "unavailable":
		a.err = actors.ErrUnavailable
	case "retry":
		a.err = actors.ErrRetry
	default:
		if !json.Valid([]byte(arg)) {
			t.Fatalf("locate %s: not JSON: %s", aor, arg)
		}
		a.res = &messages.Located{}
		if err := protojson.Unmarshal([]byte(arg), a.res); err != nil {
			t.Fatal(err)
		}
	}
	m.answers[aor] = append(m.answers[aor], a)
}

func (m *memLocator) Locate(_ context.Context, aor actors.AoR) (*messages.Located, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	list := m.answers[string(aor)]
	if len(list) == 0 {
		return nil, actors.ErrNotFound
	}
	if len(list) > 1 {
		m.answers[string(aor)] = list[1:]
	}
	return list[0].res, list[0].err
}
