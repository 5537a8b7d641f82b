package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const page = `# HELP a_total x
a_total{k="1"} 2
a_total{k="2"} 3
go_gc_duration_seconds{quantile="0.5"} 0.001
go_gc_duration_seconds{quantile="1"} 0.004
hereis_stream_sent_bytes_total 1.5e+06
hereis_gc_stop_seconds_bucket{le="0.005"} 7
hereis_gc_stop_seconds_bucket{le="+Inf"} 9
`

func TestReadSumsNodesAndLabels(t *testing.T) {
	serve := func() string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) }))
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	s, err := Read(t.Context(), []string{serve(), serve()})
	if err != nil {
		t.Fatal(err)
	}
	if s["a_total"] != 10 || s[Bytes] != 3e6 || s[GCPauses] != 0.004 || s[GCShort] != 14 {
		t.Errorf("got %v", s)
	}
	if d := s.Since(Sample{"a_total": 4}); d["a_total"] != 6 {
		t.Errorf("got %v", d)
	}
}

func TestReadOfNobody(t *testing.T) {
	if _, err := Read(t.Context(), []string{"127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v, want an error with the address", err)
	}
	if s, err := Read(t.Context(), nil); err != nil || len(s) != 0 {
		t.Errorf("got %v, %v", s, err)
	}
	if err := (Sample{}).parse(strings.NewReader("a x\n")); err == nil {
		t.Error("a value that is no number was read")
	}
}
