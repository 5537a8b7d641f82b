package admin

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestDrainAndForget(t *testing.T) {
	ts := newTestServer(t, &fakeNode{})
	post := func(path, body string) (int, string) {
		t.Helper()
		res, err := http.Post(ts.URL+path, "application/json", strings.NewReader(body))
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
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/drain", `{}`, 200, `"draining":true,"done":false,"left":3,"waiting":["node2"]`},
		{"/v1/drain", `{"undo":true}`, 200, `"draining":false`},
		{"/v1/drain", `no JSON`, 400, "body"},
		{"/v1/forget", `{"node":"node2"}`, 200, "true"},
		{"/v1/forget", `{"node":"node3"}`, 404, "not found"},
		{"/v1/forget", `{}`, 400, "node is missing"},
	} {
		if status, body := post(c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("POST %s %s: got %d %s, want %d with %s", c.path, c.body, status, body, c.status, c.want)
		}
	}
	if status, body := get(t, ts.URL+"/v1/drain"); status != 200 || !strings.Contains(body, `"node":"node1"`) {
		t.Errorf("GET /v1/drain: %d %s", status, body)
	}
}
