package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is a Node that says what a test tells it to.
type fakeNode struct {
	where  func(aor string) (*messages.Whereabouts, error)
	send   func(to string, question proto.Message) ([]Reply, error)
	events chan *UserEvent
	asked  chan WatchQuery // what Watch was asked, read by the test
	ready  error
	stats  map[string]float64
	list   func(q ListQuery, each func(*messages.Record, int64) error) (ListEnd, error)
	remove func(aor, binding string) (*messages.Removed, error)
	plan   *CallPlan
	sick   error

	draining atomic.Bool
}

func (f *fakeNode) Where(_ context.Context, aor string) (*messages.Whereabouts, error) {
	return f.where(aor)
}

func (f *fakeNode) Members() []Member {
	return []Member{
		{Name: "node1", State: MemberLive, Incarnation: 17, Gossip: "127.0.0.1:7060", Stream: "127.0.0.1:7061", Remote: "127.0.0.1:7062", Self: true},
		{Name: "node2", State: MemberFailed, Incarnation: 18, Gossip: "127.0.0.1:7070", Stream: "127.0.0.1:7071", Remote: "127.0.0.1:7072", FailedMS: 1700000000000},
	}
}

func (f *fakeNode) Send(_ context.Context, to string, question proto.Message) ([]Reply, error) {
	return f.send(to, question)
}

func (f *fakeNode) Watch(_ context.Context, q WatchQuery) (Watcher, error) {
	if f.asked != nil {
		f.asked <- q
	}
	return fakeWatcher{f.events}, nil
}

// fakeWatcher gives what comes by a channel, until that is closed.
type fakeWatcher struct{ events chan *UserEvent }

func (w fakeWatcher) Next(ctx context.Context) (*UserEvent, error) {
	select {
	case e, open := <-w.events:
		if !open {
			return nil, errors.New("ended")
		}
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w fakeWatcher) Position() string { return "here" }

func (w fakeWatcher) Close() {}

func (f *fakeNode) Ready() error { return f.ready }

func (f *fakeNode) Drain(undo bool) error {
	f.draining.Store(!undo)
	return nil
}

func (f *fakeNode) DrainStatus() Drain {
	return Drain{Node: "node1", Draining: f.draining.Load(), Left: 3, Waiting: []string{"node2"}}
}

func (f *fakeNode) Forget(name string) error {
	if name != "node2" {
		return ErrNotFound
	}
	return nil
}

func (f *fakeNode) Info() Info {
	return Info{Name: "node1", Incarnation: 17, Version: "1.2.3", Go: "go1", SIP: []string{"udp:127.0.0.1:5060"}, Domains: []string{"example.com"}}
}

func (f *fakeNode) Stats() map[string]float64 { return f.stats }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newTestServer(t *testing.T, node Node) *httptest.Server {
	t.Helper()
	s, err := New(Config{Addr: "127.0.0.1:0", Heartbeat: 20 * time.Millisecond, Pprof: true}, node, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler(true))
	t.Cleanup(func() {
		ts.CloseClientConnections()
		ts.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return ts
}

func do(t *testing.T, req *http.Request) (status int, body string) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

func post(t *testing.T, url, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return do(t, req)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
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
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func indent(t *testing.T, body string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// aliceEverywhere has a lease in every state.
func aliceEverywhere(t *testing.T) *messages.Whereabouts {
	t.Helper()
	const now = 1_700_000_100_000
	lease := func(key, edge string, ms int64, change func(*messages.Lease)) *messages.Lease {
		payload, err := proto.Marshal(&messages.Binding{Contact: key, Q: 500, FlowBound: true, Transport: "udp", Local: "127.0.0.1:5060", Remote: "127.0.0.1:40000", UserAgent: "test"})
		if err != nil {
			t.Fatal(err)
		}
		l := &messages.Lease{
			Key: []byte(key), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: edge,
			Flow:  &messages.FlowID{Incarnation: 16, Counter: uint64(ms % 100)},
			Stamp: &messages.Stamp{Ms: ms, Counter: 1, Incarnation: 17}, Vouch: 17,
			CallId: "c", Cseq: 2, ExpiresMs: now + 60_000, LifetimeMs: 7_200_000, Payload: payload,
		}
		change(l)
		return l
	}
	keep := func(*messages.Lease) {}
	return &messages.Whereabouts{
		Owner: "node1", Backup: "node3", Node: "node1", NowMs: now, Settled: true, View: []string{"node1", "node3"},
		Record: &messages.Record{
			Aor: "sip:alice@example.com",
			Leases: []*messages.Lease{
				lease("sip:live@192.0.2.1", "node1", now-10_001, keep),
				lease("sip:suspended@192.0.2.1", "node1", now-10_002, func(l *messages.Lease) { l.Vouch = 3 }),
				lease("sip:away@192.0.2.1", "node2", now-10_003, keep),
				lease("sip:lost@192.0.2.1", "node3", now-10_004, keep),
				lease("sip:expired@192.0.2.1", "node1", now-10_005, func(l *messages.Lease) { l.ExpiresMs = now }),
				lease("sip:removed@192.0.2.1", "node1", now-10_006, func(l *messages.Lease) { l.Dead = true }),
				lease("\x00key", "node1", now-90_000, keep),
			},
			Floor: &messages.Floor{Stamp: &messages.Stamp{Ms: now - 80_000}},
			Ended: []*messages.Ended{{Edge: "node3", Flow: &messages.FlowID{Incarnation: 16, Counter: (now - 10_004) % 100}}},
		},
	}
}

func TestWhereShowsEveryLeaseWithItsState(t *testing.T) {
	ts := newTestServer(t, &fakeNode{where: func(aor string) (*messages.Whereabouts, error) {
		if aor == "" {
			return nil, ErrBadRequest
		}
		if aor != "sip:alice@example.com" {
			t.Errorf("asked for %q", aor)
		}
		return aliceEverywhere(t), nil
	}})
	for _, form := range []string{"sip:alice@example.com", "sip:alice%40example.com", "%73ip:alice@example.com"} {
		status, body := get(t, ts.URL+"/v1/where/"+form)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", form, status, body)
		}
		golden(t, "where.json", indent(t, body))
	}
}

func TestWhereOfNobodyIs404WithTheOwner(t *testing.T) {
	ts := newTestServer(t, &fakeNode{where: func(aor string) (*messages.Whereabouts, error) {
		return &messages.Whereabouts{Record: &messages.Record{Aor: aor}, Owner: "node2", Settled: true}, nil
	}})
	status, body := get(t, ts.URL+"/v1/where/bob")
	if status != http.StatusNotFound || !strings.Contains(body, `"owner":"node2"`) {
		t.Errorf("%d %s", status, body)
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	var say error
	ts := newTestServer(t, &fakeNode{where: func(string) (*messages.Whereabouts, error) { return nil, say }})
	for _, c := range []struct {
		err  error
		want int
	}{
		{ErrBadRequest, 400}, {ErrNotFound, 404}, {ErrUnavailable, 503},
		{context.DeadlineExceeded, 504}, {context.Canceled, 503}, {errors.New("boom"), 500},
	} {
		say = c.err
		status, body := get(t, ts.URL+"/v1/where/alice")
		var e Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.want || e.Error == "" {
			t.Errorf("%v: %d %q %v, want %d", c.err, status, body, err, c.want)
		}
	}
	for path, want := range map[string]int{"/v1/nothing": 404, "/": 404} {
		if status, body := get(t, ts.URL+path); status != want || !strings.Contains(body, "error") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestSend(t *testing.T) {
	ts := newTestServer(t, &fakeNode{send: func(to string, q proto.Message) ([]Reply, error) {
		ping, isPing := q.(*messages.Ping)
		if !isPing {
			return nil, ErrNotFound
		}
		ok := Reply{Node: "node1", Answer: &messages.Pong{SentMs: ping.GetSentMs(), NowMs: 2}}
		if to == "all" {
			return []Reply{ok, {Node: "node2", Err: errors.New("no answer")}}, nil
		}
		return []Reply{ok}, nil
	}})
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"one", `{"to":"node1","type":"hereis.Ping","message":{"sentMs":7}}`, 200, `{"replies":[{"node":"node1","type":"hereis.Pong","answer":{"sentMs":"7","nowMs":"2"}}],"partial":false}`},
		{"short name, no message", `{"to":"node1","type":"Ping"}`, 200, `{"replies":[{"node":"node1","type":"hereis.Pong","answer":{"nowMs":"2"}}],"partial":false}`},
		{"partial", `{"to":"all","type":"Ping","timeout_ms":100}`, 200, `"error":"no answer"}],"partial":true}`},
		{"unknown type", `{"to":"all","type":"Nope"}`, 400, `no message type \"Nope\" is registered`},
		{"unknown field of the message", `{"to":"all","type":"Ping","message":{"x":1}}`, 400, `hereis.Ping`},
		{"unknown field of the body", `{"to":"all","typ":"Ping"}`, 400, `typ`},
		{"nobody", `{"type":"Ping"}`, 400, `to is missing`},
		{"two values", `{"to":"a","type":"Ping"}{}`, 400, `more than one`},
		{"no JSON", `hello`, 400, `body`},
		{"unknown node", `{"to":"x","type":"Pong"}`, 404, `not found`},
		{"too large", `{"to":"` + strings.Repeat("x", maxBody) + `"}`, 413, `too large`},
	} {
		status, body := post(t, ts.URL+"/v1/send", c.body)
		// protojson varies its blanks on purpose.
		flat := strings.ReplaceAll(body, ", ", ",")
		flat = strings.ReplaceAll(flat, `": `, `":`)
		if status != c.status || !strings.Contains(flat, c.want) && !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.name, status, body, c.status, c.want)
		}
	}
}

func TestBrowsersAreRefused(t *testing.T) {
	ts := newTestServer(t, &fakeNode{send: func(string, proto.Message) ([]Reply, error) { return nil, nil }})
	for _, c := range []struct {
		name, method, host, header, value string
		want                              int
	}{
		{"rebound name", "GET", "evil.example:8060", "", "", 403},
		{"localhost", "GET", "localhost:8060", "", "", 200},
		{"IPv6", "GET", "[::1]:8060", "", "", 200},
		{"foreign origin", "GET", "localhost:8060", "Origin", "http://evil.example", 403},
		{"null origin", "GET", "localhost:8060", "Origin", "null", 403},
		{"own origin", "GET", "localhost:8060", "Origin", "http://localhost:8060", 200},
		{"fetch metadata", "GET", "localhost:8060", "Sec-Fetch-Site", "cross-site", 403},
		{"form", "POST", "localhost:8060", "Content-Type", "text/plain", 415},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, ts.URL+"/v1/members", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.header != "" {
			req.Header.Set(c.header, c.value)
		}
		if status, body := do(t, req); status != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, status, body, c.want)
		}
	}
}

func TestReadyHealthMetricsVersion(t *testing.T) {
	node := &fakeNode{ready: errors.New("the view is not settled"), stats: map[string]float64{
		`requests_total{method="REGISTER"}`: 3, "leases": 2, "bad name": 1,
	}}
	ts := newTestServer(t, node)
	if status, body := get(t, ts.URL+"/readyz"); status != 503 || !strings.Contains(body, "not settled") {
		t.Errorf("%d %s", status, body)
	}
	node.ready = nil
	for path, want := range map[string]string{
		"/readyz": "ok", "/healthz": "ok", "/v1/version": `"incarnation":"17"`, "/v1/members": `"state":"failed"`, "/debug/pprof/": "goroutine",
	} {
		if status, body := get(t, ts.URL+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	status, body := get(t, ts.URL+"/metrics")
	for _, want := range []string{
		"# TYPE hereis_requests_total counter", `hereis_requests_total{method="REGISTER"} 3`,
		"# TYPE hereis_leases gauge", "hereis_leases 2", "hereis_ready 1", "go_goroutines",
	} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("%d: no %q in metrics", status, want)
		}
	}
}

func TestWatchStreams(t *testing.T) {
	for _, c := range []struct{ accept, line, silence string }{
		{"", `{"at":"2023-11-14T22:13:20Z","aor":"sip:alice@example.com","event":"online"`, ""},
		{"text/event-stream", `data: {"at":"2023-11-14T22:13:20Z","aor":"sip:alice@example.com","event":"online"`, ":"},
	} {
		node := &fakeNode{events: make(chan *UserEvent, 2), asked: make(chan WatchQuery, 1)}
		ts := newTestServer(t, node)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ts.URL+"/v1/watch?pattern=example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", c.accept)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-node.asked; got.Pattern != "@example.com" {
			t.Errorf("watched %v", got)
		}
		node.events <- &UserEvent{ID: "x", AoR: "sip:alice@example.com", Online: true, Kind: "online", MS: 1_700_000_000_000}
		lines := bufio.NewScanner(res.Body)
		silence, event := false, false
		for !(silence && event) && lines.Scan() {
			silence = silence || lines.Text() == c.silence
			event = event || strings.HasPrefix(lines.Text(), c.line)
		}
		if !silence || !event {
			t.Errorf("%s: heartbeat %v, event %v", c.accept, silence, event)
		}
		close(node.events)
		for lines.Scan() {
		}
		res.Body.Close()
	}
}

// What a browser's EventSource sends and understands.
func TestWatchAsServerSentEvents(t *testing.T) {
	node := &fakeNode{events: make(chan *UserEvent, 4), asked: make(chan WatchQuery, 1)}
	ts := newTestServer(t, node)
	stream := func(query, last, origin string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ts.URL+"/v1/watch"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	for _, c := range []struct {
		query, last string
		want        WatchQuery
	}{
		{"?snapshot=1&damp=5s", "", WatchQuery{Pattern: "*", Snapshot: true, Damp: 5 * time.Second}},
		{"?from=a", "", WatchQuery{Pattern: "*", From: "a"}},
		// A browser comes back with its first URL: where it is by now counts.
		{"?from=a&pattern=example.com", "b", WatchQuery{Pattern: "@example.com", From: "b"}},
	} {
		res := stream(c.query, c.last, ts.URL)
		if got := <-node.asked; res.StatusCode != 200 || got != c.want {
			t.Errorf("%s: %d, asked %+v, want %+v", c.query, res.StatusCode, got, c.want)
		}
	}
	for _, query := range []string{"?snapshot=maybe", "?damp=5", "?damp=-1s", "?damp=2h"} {
		if res := stream(query, "", ""); res.StatusCode != 400 {
			t.Errorf("%s: %d, want 400", query, res.StatusCode)
		}
	}
	if res := stream("", "", "http://evil.example"); res.StatusCode != 403 {
		t.Errorf("of another origin: %d, want 403", res.StatusCode)
	}

	node = &fakeNode{events: make(chan *UserEvent, 4)}
	ts = newTestServer(t, node)
	res := stream("", "", "")
	node.events <- &UserEvent{Kind: "sync-begin"}
	node.events <- &UserEvent{ID: "7", Kind: "offline", AoR: "sip:a@b", Reason: "edge-lost"}
	close(node.events)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	for _, want := range []string{
		"retry: 1000\n\n", ":\nid: here\n\n", "\n\ndata: {\"at\":\"1970-01-01T00:00:00Z\",\"event\":\"sync-begin\"",
		"\n\nid: 7\ndata: {", `"reason":"edge-lost"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %s", got)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	node := &fakeNode{events: make(chan *UserEvent)}
	ts := newTestServer(t, node)
	for range maxWatchers {
		res, err := http.Get(ts.URL + "/v1/watch")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	if status, body := get(t, ts.URL+"/v1/watch"); status != 503 {
		t.Errorf("%d %s", status, body)
	}
	close(node.events)
}

func TestRunEndsStreamsAndFreesThePort(t *testing.T) {
	node := &fakeNode{events: make(chan *UserEvent)}
	s, err := New(Config{Addr: "127.0.0.1:0"}, node, quiet())
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(Config{Addr: addr.String()}, node, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a taken port: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	res, err := http.Get("http://" + addr.String() + "/v1/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not end")
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	ln.Close()
	http.DefaultClient.CloseIdleConnections()
}

func (f *fakeNode) List(_ context.Context, q ListQuery, each func(*messages.Record, int64) error) (ListEnd, error) {
	return f.list(q, each)
}

func (f *fakeNode) Count(_ context.Context, pattern string) ([]NodeCount, error) {
	if pattern != "@example.com" {
		return nil, ErrBadRequest
	}
	return []NodeCount{{Node: "node1", Users: 2, Bindings: 3}, {Node: "node2", Err: errors.New("no answer")}}, nil
}

func (f *fakeNode) Watchers(_ context.Context, aor string, limit int) (string, []NodeWatchers, error) {
	if aor == "sip:broken" {
		return "", nil, ErrBadRequest
	}
	if aor != "sip:alice@example.com" {
		return aor, nil, nil
	}
	return aor, []NodeWatchers{
		{Node: "node1", NowMS: 1000, Watchers: []*messages.ServedWatcher{{Id: 1, Event: "presence", Watcher: "sip:b", State: "active", ExpiresMs: 61_000}}},
		{Node: "node2", NowMS: 1000, Watchers: []*messages.ServedWatcher{{Id: 1, Event: "dialog", Watcher: "sip:a", State: "pending", ExpiresMs: 2000}}},
		{Node: "node3", Err: errors.New("no answer")},
	}, nil
}

func (f *fakeNode) Remove(_ context.Context, aor, binding string) (*messages.Removed, error) {
	return f.remove(aor, binding)
}

func (f *fakeNode) PlanCall(_ context.Context, aor string) (*CallPlan, error) { return f.plan, nil }

func (f *fakeNode) Healthy() error { return f.sick }
