package admin

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
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
