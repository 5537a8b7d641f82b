package hereis_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"hereis"
	"hereis/admin"
)

// metered is a node's metrics behind the API.
type metered struct {
	admin.Node
	node *hereis.Node
}

func (m metered) Stats() map[string]float64 { return m.node.Stats() }
func (m metered) Ready() error              { return m.node.Ready() }

func scrape(t *testing.T, n *hereis.Node) []byte {
	t.Helper()
	s, err := admin.New(admin.Config{Addr: "127.0.0.1:0", Collectors: n.Collectors()}, metered{node: n}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Handler(false).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	return body
}

func TestMetricsHaveProperNamesAndBoundedLabels(t *testing.T) {
	nodes := startAll(t, configs(t, 2), nil)
	p := newPhone(t)
	if res := p.send(nodes[0], "REGISTER", "sip:example.com", "secretuser", "Contact: <sip:secretuser@"+p.addr()+">"); !strings.HasPrefix(res, "SIP/2.0 200") {
		t.Fatal(res)
	}
	p.send(nodes[0], "OPTIONS", "sip:nobody@example.com", "secretuser")
	p.send(nodes[0], "FOO", "sip:nobody@example.com", "secretuser")
	body := scrape(t, nodes[0].Node)
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "hereis_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
	if bytes.Contains(body, []byte("secretuser")) || bytes.Contains(body, []byte("FOO")) {
		t.Error("what a client sends has become a label")
	}
	text := string(body)
	for _, want := range []string{
		`hereis_sip_request_duration_seconds_count{method="REGISTER"} 1`,
		`hereis_sip_request_duration_seconds_count{method="OPTIONS"} 1`,
		`hereis_sip_request_duration_seconds_count{method="other"} 1`,
		`hereis_ask_duration_seconds_count{type="register"} 1`,
		`hereis_ask_duration_seconds_count{type="locate"} 2`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	// A name that counts ends in _total, and no other does.
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (hereis_\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		if counter := strings.HasSuffix(m[1], "_total"); counter != (m[2] == "counter") {
			t.Errorf("%s is a %s", m[1], m[2])
		}
	}
}

// One Call-ID leads through the logs of all nodes.
func TestACallIDIsInTheLogsOfEdgeAndHolders(t *testing.T) {
	var logs lockedBuffer
	cfgs := configs(t, 3)
	var nodes []*member
	for _, cfg := range cfgs {
		nodes = append(nodes, startLogging(t, cfg, slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", cfg.Name)))
	}
	settled(t, nodes)
	p := newPhone(t)
	if res := p.send(nodes[0], "REGISTER", "sip:example.com", "traced", "Contact: <sip:traced@"+p.addr()+">"); !strings.HasPrefix(res, "SIP/2.0 200") {
		t.Fatal(res)
	}
	p.send(nodes[1], "OPTIONS", "sip:nobody@example.com", "caller")
	eventually(t, "the logs are there", func() error {
		text := logs.String()
		for _, want := range []string{
			`msg=request call_id=traced-\S+ cseq=1 method=REGISTER`, `msg=answer at=\S+ call_id=traced-\S+ cseq=1 method=REGISTER status=200`,
			`msg="question answered" at=\S+ kind=hereis.Register aor=sip:traced@example.com node=n1 call_id=traced-\S+ cseq=1`,
			`msg="lease taken in" at=\S+ aor=sip:traced@example.com call_id=traced-\S+`,
			`msg="question answered" at=\S+ kind=hereis.Locate aor=sip:nobody@example.com node=n2 call_id=caller-`,
		} {
			want = strings.Replace(want, "msg=request ", `msg=request at=\S+ `, 1)
			if !regexp.MustCompile(want).MatchString(text) {
				return errNoLine(want)
			}
		}
		holders := map[string]bool{}
		for _, m := range regexp.MustCompile(`msg="lease taken in" at=(\S+) aor=sip:traced@`).FindAllStringSubmatch(text, -1) {
			holders[m[1]] = true
		}
		if len(holders) < 2 {
			return errNoLine("a lease at two nodes at least")
		}
		return nil
	})
}
