package admin

import (
	"encoding/json"
	"net/http"
	"testing"
)

func TestWatchersOfAllNodes(t *testing.T) {
	ts := newTestServer(t, &fakeNode{})
	status, body := get(t, ts.URL+"/v1/watchers/sip:alice@example.com")
	var w Watchers
	if err := json.Unmarshal([]byte(body), &w); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v %s", status, err, body)
	}
	if len(w.Watchers) != 2 || w.Watchers[0].Package != "dialog" || w.Watchers[0].Node != "node2" || w.Watchers[0].State != "pending" ||
		w.Watchers[1].ExpiresSeconds != 60 || !w.Partial || len(w.Missing) != 1 || w.More {
		t.Errorf("%s", body)
	}
	if status, body = get(t, ts.URL+"/v1/watchers/sip:alice@example.com?limit=1"); json.Unmarshal([]byte(body), &w) != nil || !w.More || len(w.Watchers) != 1 {
		t.Errorf("%d %s", status, body)
	}
	for path, want := range map[string]int{
		"/v1/watchers/sip:bob@example.com": http.StatusNotFound, "/v1/watchers/sip:broken": http.StatusBadRequest,
		"/v1/watchers/sip:alice@example.com?limit=x": http.StatusBadRequest, "/v1/watchers/sip:alice@example.com?limit=0": http.StatusBadRequest,
		"/v1/watchers/sip:alice@example.com?limit=20001": http.StatusBadRequest,
	} {
		if status, body := get(t, ts.URL+path); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, body, want)
		}
	}
}
