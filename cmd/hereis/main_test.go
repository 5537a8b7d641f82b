package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/admin"
	"hereis/messages"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// beHereis makes the test binary behave as hereis with fake nodes.
const beHereis = "TEST_BE_HEREIS"

func TestMain(m *testing.M) {
	if os.Getenv(beHereis) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		a := &app{
			stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(),
			exe: os.Args[0], runNode: runFakeNode, outboundIP: documentationIP,
		}
		code := a.run(ctx, os.Args[1:])
		stop()
		os.Exit(code)
	}
	// A connection that is kept for later is a goroutine that is left over.
	http.DefaultTransport.(*http.Transport).DisableKeepAlives = true
	goleak.VerifyTestMain(m,
		// memberlist cannot be waited for: its last probe ends by itself within a second.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

func documentationIP() (netip.Addr, error) { return netip.MustParseAddr("192.0.2.7"), nil }

// runFakeNode takes a node's ports and serves its admin API with a fakeNode behind.
func runFakeNode(ctx context.Context, cfg hereis.Config, log *slog.Logger) error {
	log.Info("fake node", "name", cfg.Name)
	_, at, err := hereis.ParseSIPListen(cfg.SIP[0])
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", at.String())
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	defer conn.Close()
	srv, err := admin.New(admin.Config{Addr: cfg.Admin}, &fakeNode{name: cfg.Name}, log)
	if err != nil {
		return err
	}
	err = srv.Run(ctx)
	log.Info("fake node has stopped")
	return err
}

// fakeNode knows alice, who is online, and says what it was asked.
type fakeNode struct{ name string }

func (f *fakeNode) Where(_ context.Context, aor string) (*messages.Whereabouts, error) {
	if !strings.Contains(aor, ":") {
		aor = "sip:" + aor
	}
	if !strings.Contains(aor, "@") {
		aor += "@localhost"
	}
	w := &messages.Whereabouts{
		Record: &messages.Record{Aor: aor}, Owner: "node2", Backup: "node3", Node: f.name,
		NowMs: 1_700_000_100_000, Settled: true, View: []string{"node1", "node2", "node3"},
	}
	switch {
	case strings.HasPrefix(aor, "sip:alice@"):
		payload, err := proto.Marshal(&messages.Binding{Contact: "sip:alice@192.0.2.1:40000", Q: 1000, Transport: "udp", Remote: "192.0.2.1:40000"})
		if err != nil {
			return nil, err
		}
		lease := &messages.Lease{
			Key: []byte("sip:alice@192.0.2.1:40000"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "node1",
			Flow: &messages.FlowID{Incarnation: 16, Counter: 3}, Stamp: &messages.Stamp{Ms: 1_700_000_090_000, Incarnation: 16},
			ExpiresMs: 1_700_003_690_000, Payload: payload,
		}
		dead := proto.CloneOf(lease)
		dead.Key, dead.Dead, dead.ExpiresMs = []byte("sip:alice@192.0.2.2"), true, 0
		dead.Payload = nil
		w.Record.Leases = []*messages.Lease{dead, lease}
	case strings.HasPrefix(aor, "sip:unsettled@"):
		w.Settled = false
	case strings.HasPrefix(aor, "sip:broken@"):
		return nil, errors.New("boom")
	}
	return w, nil
}

func (f *fakeNode) Members() []admin.Member {
	return []admin.Member{
		{Name: "node1", State: admin.MemberLive, Incarnation: 16, Gossip: "127.0.0.1:7060", SIP: []string{"udp:127.0.0.1:5060"}, Admin: "127.0.0.1:8060", Version: "1.0", Self: true},
		{Name: "node2", State: admin.MemberFailed, Incarnation: 17, Gossip: "127.0.0.1:7070", Region: "eu", Zone: "a", FailedMS: 1_700_000_000_000},
	}
}

func (f *fakeNode) Send(_ context.Context, to string, _ proto.Message) ([]admin.Reply, error) {
	pong := admin.Reply{Node: "node1", Answer: &messages.Pong{}}
	lost := admin.Reply{Node: "node2", Err: errors.New("no answer")}
	switch to {
	case "all":
		return []admin.Reply{pong, lost}, nil
	case "node1":
		return []admin.Reply{pong}, nil
	case "node2":
		return []admin.Reply{lost}, nil
	case "sip:bob@localhost":
		return []admin.Reply{{Node: "node1", Err: admin.ErrNotFound}}, nil
	}
	return nil, fmt.Errorf("%w: node %s", admin.ErrNotFound, to)
}

func (f *fakeNode) Watch(_ context.Context, q admin.WatchQuery) (admin.Watcher, error) {
	if q.Pattern == "@refused" {
		return nil, fmt.Errorf("%w: pattern", admin.ErrBadRequest)
	}
	return &fakeWatcher{from: q.From}, nil
}

// fakeWatcher has one event after where it is asked to go on, then the end: a
// watcher must come again for more.
type fakeWatcher struct {
	from string
	told bool
}

func (w *fakeWatcher) Next(context.Context) (*admin.UserEvent, error) {
	if w.told {
		return nil, errors.New("ended")
	}
	w.told = true
	e := &admin.UserEvent{
		ID: w.from + "+", Kind: "online", AoR: "sip:alice@localhost", Online: true, Reason: "registered",
		MS: 1_700_000_000_000, Device: &messages.Lease{Edge: "node1"},
	}
	if strings.Count(w.from, "+")%2 == 1 {
		e.Kind, e.Online, e.Reason = "offline", false, "expired"
	}
	return e, nil
}

func (w *fakeWatcher) Position() string { return "" }

func (w *fakeWatcher) Close() {}

func (f *fakeNode) Ready() error { return nil }

func (f *fakeNode) Drain(bool) error { return nil }

func (f *fakeNode) DrainStatus() admin.Drain {
	return admin.Drain{Node: f.name, Draining: true, Done: true}
}

func (f *fakeNode) Forget(name string) error {
	if name != "node2" {
		return admin.ErrNotFound
	}
	return nil
}

func (f *fakeNode) Info() admin.Info {
	return admin.Info{Name: f.name, Version: "1.0", Go: "go1", Domains: []string{"localhost"}}
}

func (f *fakeNode) Stats() map[string]float64 { return nil }

// output is a writer that a test may read while others write.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// call runs one command line in this process.
func call(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs output
	a := &app{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: environ,
		exe: "hereis", runNode: runFakeNode, outboundIP: documentationIP,
	}
	code = a.run(t.Context(), args)
	return code, out.String(), errs.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if got == "" {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: got nothing", name)
		}
		return
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}
