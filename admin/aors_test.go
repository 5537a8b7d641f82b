package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"hereis/messages"
)

func onlineUser(i int) *messages.Record {
	return &messages.Record{Aor: fmt.Sprintf("sip:u%d@example.com", i), Leases: []*messages.Lease{
		{Key: []byte("k"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "node1", Stamp: &messages.Stamp{Ms: 1000}, ExpiresMs: 5000},
		{Key: []byte("away"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "node2", Stamp: &messages.Stamp{Ms: 1000}, ExpiresMs: 5000},
		{Key: []byte("gone"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "node1", Stamp: &messages.Stamp{Ms: 1000}, Dead: true},
	}}
}

func TestListStreamsUsersAndSaysHowItEnded(t *testing.T) {
	const users = 5000
	var asked ListQuery
	ts := newTestServer(t, &fakeNode{list: func(q ListQuery, each func(*messages.Record, int64) error) (ListEnd, error) {
		asked = q
		for i := range users {
			if err := each(onlineUser(i), 2000); err != nil {
				return ListEnd{}, err
			}
		}
		return ListEnd{Cursor: "sip:u4999@example.com", Settled: true, Missing: []Reply{{Node: "node3", Err: errors.New("silent")}}}, nil
	}})
	status, body := get(t, ts.URL+"/v1/aors?pattern=example.com&cursor=sip:a@example.com&limit=5000")
	if want := (ListQuery{Pattern: "@example.com", Cursor: "sip:a@example.com", Limit: 5000}); status != http.StatusOK || asked != want {
		t.Fatalf("%d, asked %v, want %v", status, asked, want)
	}
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if len(lines) != users+1 {
		t.Fatalf("%d lines, want %d", len(lines), users+1)
	}
	var first, last UserLine
	if json.Unmarshal([]byte(lines[0]), &first) != nil || len(first.Bindings) != 2 ||
		first.Bindings[0].State != LeaseLive || first.Bindings[1].State != LeaseEdgeAway {
		t.Errorf("first line: %s", lines[0])
	}
	if json.Unmarshal([]byte(lines[users]), &last) != nil || last.End == nil || !last.End.Partial ||
		last.End.Users != users || last.End.Cursor == "" || last.End.Missing[0].Node != "node3" {
		t.Errorf("last line: %s", lines[users])
	}
}

func TestListThatBreaksSaysSo(t *testing.T) {
	after := 0
	ts := newTestServer(t, &fakeNode{list: func(_ ListQuery, each func(*messages.Record, int64) error) (ListEnd, error) {
		for i := range after {
			if err := each(onlineUser(i), 2000); err != nil {
				return ListEnd{}, err
			}
		}
		return ListEnd{}, ErrUnavailable
	}})
	if status, _ := get(t, ts.URL+"/v1/aors"); status != http.StatusServiceUnavailable {
		t.Errorf("before the first line: %d, want 503", status)
	}
	after = 2
	status, body := get(t, ts.URL+"/v1/aors")
	if status != http.StatusOK || !strings.Contains(body, `"partial":true`) || !strings.Contains(body, "unavailable") {
		t.Errorf("after two lines: %d %s", status, body)
	}
	if status, _ := get(t, ts.URL+"/v1/aors?limit=-1"); status != http.StatusBadRequest {
		t.Errorf("limit -1: %d, want 400", status)
	}
}

func TestCountSumsUpAndIsPartial(t *testing.T) {
	ts := newTestServer(t, &fakeNode{})
	status, body := get(t, ts.URL+"/v1/count?pattern=@example.com")
	var c Count
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != http.StatusOK || c.Users != 2 || c.Bindings != 3 || !c.Partial || len(c.Nodes) != 2 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, ts.URL+"/v1/count?pattern=@elsewhere"); status != http.StatusBadRequest {
		t.Errorf("a foreign domain: %d, want 400", status)
	}
}

func TestShowPutsDevicesInOrder(t *testing.T) {
	target := func(contact string, q, reg uint32, instance string) *messages.Target {
		return &messages.Target{Contact: contact, Q: q, InstanceId: instance, RegId: reg, Edge: "node1", EdgeLive: true, FlowBound: reg > 0}
	}
	f := &fakeNode{plan: &CallPlan{Final: true, Targets: []*messages.Target{
		target("sip:a1", 1000, 1, "urn:a"), target("sip:a2", 500, 2, "urn:a"), target("sip:b", 1000, 0, ""), target("sip:c", 300, 0, ""),
	}}}
	call := newCall(f.plan)
	var got []string
	for _, t := range call.Targets {
		got = append(got, fmt.Sprint(t.Step, t.Device, t.Contact, t.Way))
	}
	want := "1 1 sip:a1 flow,1 1 sip:a2 flow,1 2 sip:b contact,2 3 sip:c contact"
	if s := strings.Join(got, ","); strings.ReplaceAll(s, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got %s, want %s", s, want)
	}
	f.where = func(aor string) (*messages.Whereabouts, error) {
		return &messages.Whereabouts{Record: &messages.Record{Aor: aor}, Settled: true}, nil
	}
	f.plan = &CallPlan{Status: 404, Reason: "Not Found"}
	ts := newTestServer(t, f)
	if status, body := get(t, ts.URL+"/v1/aor/sip:x@example.com"); status != http.StatusNotFound || !strings.Contains(body, `"status":404`) {
		t.Errorf("nobody: %d %s", status, body)
	}
}

func TestRemoveIsOneBindingOrAll(t *testing.T) {
	var got []string
	ts := newTestServer(t, &fakeNode{remove: func(aor, binding string) (*messages.Removed, error) {
		if aor == "nobody" {
			return nil, fmt.Errorf("aor: %w", ErrNotFound)
		}
		got = append(got, aor+" "+binding)
		return &messages.Removed{Removed: onlineUser(1).Leases[:1], Copied: true}, nil
	}})
	del := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, ts.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return do(t, req)
	}
	for path, want := range map[string]int{
		"/v1/aor/alice": 200, "/v1/aor/alice?binding=sip:a%40h": 200, "/v1/aor/nobody": 404, "/v1/aor/alice?binding=": 400,
	} {
		if status, body := del(path); status != want || want == 200 && !strings.Contains(body, `"state":"removed"`) {
			t.Errorf("%s: %d %s, want %d", path, status, body, want)
		}
	}
	if len(got) != 2 {
		t.Errorf("removed %q", got)
	}
}

func TestHealthIsShownAndNeverFatal(t *testing.T) {
	f := &fakeNode{}
	ts := newTestServer(t, f)
	if status, body := get(t, ts.URL+"/healthz"); status != http.StatusOK || body != "{\"ok\":true}\n" {
		t.Errorf("healthy: %d %s", status, body)
	}
	f.sick, f.ready = errors.New("disk is full"), errors.New("disk is full")
	if status, body := get(t, ts.URL+"/healthz"); status != http.StatusOK || !strings.Contains(body, "disk is full") {
		t.Errorf("a disk that fails: %d %s", status, body)
	}
	if status, _ := get(t, ts.URL+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d, want 503", status)
	}
}
