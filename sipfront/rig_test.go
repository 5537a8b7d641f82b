package sipfront

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hereis/actors"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

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
	// passing: datagrams are shown to Plain first, as the transport does.
	passing bool
}

func testKeys() Keys {
	return Keys{FlowToken: []byte("flow-token-key-for-tests"), Mark: []byte("mark-key-for-tests......")}
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	return newNode(t, "n1", "192.0.2.1:5060", change...)
}

func newNode(t testing.TB, name, addr string, change ...func(*Config)) *rig {
	t.Helper()
	return newNodeWith(t, name, addr, func(*rig, *Parts) {}, change...)
}

// newNodeWith is newNode with more parts.
func newNodeWith(t testing.TB, name, addr string, more func(*rig, *Parts), change ...func(*Config)) *rig {
	t.Helper()
	domains, err := actors.NewDomains(actors.Domain{Name: "example.com", Aliases: []string{"sip.example.com"}},
		actors.Domain{Name: "example.org"})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cfg: DefaultConfig(), peers: map[string]string{}, lastReq: map[string]string{}, lastRes: map[string]string{}}
	r.cfg.Domains = domains
	r.cfg.Addresses = []Address{{"udp", netip.MustParseAddrPort(addr)}}
	for _, f := range change {
		f(&r.cfg)
	}
	r.net = &memNet{flows: map[string]*memFlow{}, byID: map[string]*memFlow{}, local: r.cfg.Addresses[0].Addr}
	r.zone = &memCluster{self: name, nodes: map[string]netip.AddrPort{name: r.cfg.Addresses[0].Addr}, start: time.Now()}
	r.reg = &memRegistrar{zone: r.zone}
	r.loc = &memLocator{zone: r.zone, answers: map[string][]locateAnswer{}}
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
	more(r, &parts)
	if r.srv, err = New(r.cfg, parts); err != nil {
		t.Fatal(err)
	}
	r.srv.spoils = true
	lcfg := transaction.DefaultConfig()
	lcfg.Seed, lcfg.Carry, lcfg.Passable = 1, MarkHeader, IsNodeBranch
	layer := transaction.New(lcfg, r.srv) // a test may put another in its place
	r.layer = layer
	r.srv.Use(layer)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = layer.Run(ctx)
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
	r.recvOver("udp", from, body)
}

func (r *rig) recvOver(network, from, body string) {
	r.t.Helper()
	addr, ok := r.peers[from]
	if !ok {
		addr = from
	}
	body = strings.ReplaceAll(body, "{uac-route}\n", routeSet(r.lastRes[addr], true))
	body = strings.ReplaceAll(body, "{uas-route}\n", routeSet(r.lastReq[addr], false))
	raw := []byte(strings.ReplaceAll(body, "\n", "\r\n"))
	msg, err := transport.NewParser(transport.DefaultLimits()).Message(raw)
	if err != nil {
		r.t.Fatalf("message from %s: %v\n%s", from, err, body)
	}
	f := r.net.flow(netip.MustParseAddrPort(addr))
	if network == "tcp" {
		f = r.net.stream(netip.MustParseAddrPort(addr))
	} else if r.passing && r.srv.Plain(&transport.Message{Raw: raw, Flow: f, Reply: f, At: time.Now()}) {
		clear(raw) // the socket's buffer is used again
		return
	}
	msg.Flow, msg.At = f, time.Now()
	r.layer.Receive(msg)
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
