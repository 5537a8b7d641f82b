package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

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
