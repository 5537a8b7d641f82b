package admin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

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
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	ln.Close()
	http.DefaultClient.CloseIdleConnections()
}
