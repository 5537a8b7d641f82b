package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hereis/bench/load"
	"hereis/bench/proc"
)

func sample(t *testing.T) *load.Result {
	t.Helper()
	h := hdrhistogram.New(1, 120_000_000, 3)
	for us := int64(1); us <= 1000; us++ {
		if err := h.RecordValue(us); err != nil {
			t.Fatal(err)
		}
	}
	cfg := load.DefaultConfig()
	cfg.Targets = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5060")}
	return &load.Result{Config: cfg, Measured: &load.Phase{
		Scenario: load.Register, OK: 990, Failed: 10, Took: 2 * time.Second,
		Codes:     map[string]uint64{"200": 990, "timeout": 10},
		Latency:   map[string]*hdrhistogram.Histogram{"register": h},
		Processes: []proc.Measured{{Name: "n1", PID: 7, CPU: 50 * time.Millisecond, RSS: 30e6, RSSBefore: 20e6}},
	}}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	report(&b, "table", sample(t))
	for _, want := range []string{"500/s", "990 ok, 10 failed", "timeout      10", "CPU 50.0 us per unit", "(+10.0 MB)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	report(&b, "json", sample(t))
	var got jsonReport
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.OK != 990 || got.Latency["register"].P50 != 500 || got.Processes[0].CPUus != 50 {
		t.Errorf("got %+v", got)
	}
}

// The format is https://go.dev/design/14313-benchmark-format: a name that begins with Benchmark, the count, then pairs of value and unit.
func TestGoFormat(t *testing.T) {
	var b bytes.Buffer
	report(&b, "go", sample(t))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if !strings.HasPrefix(fields[0], "BenchmarkRegister/nodes=1/users=1000/sockets=1/window=8-") || fields[1] != "1000" || len(fields)%2 != 0 {
		t.Errorf("got %q", fields)
	}
	if !strings.Contains(b.String(), "50.00 cpu-us/op") || !strings.Contains(b.String(), "500000 ns/op") {
		t.Errorf("got %s", b.String())
	}
}

func TestReportWithoutAnAnswer(t *testing.T) {
	r := sample(t)
	r.Measured.Latency = nil
	for _, format := range []string{"table", "json", "go"} {
		report(&bytes.Buffer{}, format, r)
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, args := range [][]string{
		{}, {"register"}, {"dance", "-t", "127.0.0.1:1"},
		{"register", "-t", "127.0.0.1:1", "--pid", "n1"},
		{"register", "-t", "127.0.0.1:1", "--users", "0"},
	} {
		var errs bytes.Buffer
		if code := run(t.Context(), args, &bytes.Buffer{}, &errs); code != 1 || errs.Len() == 0 {
			t.Errorf("%q: exit %d and %q, want 1 and a reason", args, code, errs.String())
		}
	}
}
