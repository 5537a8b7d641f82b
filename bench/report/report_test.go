package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hereis/bench/load"
	"hereis/bench/metrics"
	"hereis/bench/proc"
)

var update = flag.Bool("update", false, "rewrite testdata")

func histogram(t *testing.T, n int64) *hdrhistogram.Histogram {
	t.Helper()
	h := hdrhistogram.New(1, 120_000_000, 3)
	for us := int64(1); us <= n; us++ {
		if err := h.RecordValue(us); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func sample(t *testing.T) *load.Result {
	t.Helper()
	cfg := load.DefaultConfig()
	cfg.Targets = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5060")}
	cfg.Interval, cfg.Rate = time.Second, 500
	return &load.Result{Config: cfg, Checked: &load.Phase{OK: 999, Failed: 1}, Measured: &load.Phase{
		Scenario: load.Register, OK: 990, Failed: 10, Took: 2 * time.Second,
		Codes:     map[string]uint64{"200": 990, "timeout": 10},
		Latency:   map[string]*hdrhistogram.Histogram{"register": histogram(t, 1000)},
		Processes: []proc.Measured{{Name: "n1", PID: 7, CPU: 50 * time.Millisecond, RSS: 30e6, RSSBefore: 20e6}},
		Counters:  metrics.Sample{metrics.Frames: 2000, metrics.Bytes: 300000},
		Timeline:  []load.Bucket{{OK: 500, Latency: histogram(t, 500)}, {OK: 490, Failed: 10, Latency: histogram(t, 900)}, {}},
		Marks:     []load.Mark{{Name: "kill", Began: time.Second, Took: time.Millisecond}},
		Samples:   []load.Sample{{At: time.Second, RSS: 20e6, Counters: metrics.Sample{metrics.Goroutines: 50}}, {At: 2 * time.Second, RSS: 30e6, Counters: metrics.Sample{metrics.Goroutines: 51}}},
	}}
}

var someFacts = []Fact{{"Command", "bench register"}, {"Commit", "abc <&>"}}

func write(t *testing.T, format string, r *load.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, format, OfRun(r, someFacts)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	text := write(t, "table", sample(t))
	for _, want := range []string{"open loop at 500/s over udp", "1 of 1000 missing", `timeout +10`, `n1 \(7\) +50 +0.05 +30 +10`, `register +0.5 +0.5 +0.9 +0.99 +0.999 +1`, "2 messages and 300 bytes per unit", "kill"} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestJSON(t *testing.T) {
	var got struct {
		Title string
		Data  Run
	}
	if err := json.Unmarshal([]byte(write(t, "json", sample(t))), &got); err != nil {
		t.Fatal(err)
	}
	if d := got.Data; d.OK != 990 || d.Latency["register"].P50 != 500 || d.Processes[0].CPUus != 50 || *d.Missing != 1 || d.Frames != 2 {
		t.Errorf("got %+v", got)
	}
}

// The format is https://go.dev/design/14313-benchmark-format: a name that begins with Benchmark, the count, then pairs of value and unit.
func TestGoFormat(t *testing.T) {
	text := write(t, "go", sample(t))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if !strings.HasPrefix(fields[0], "BenchmarkRegister/nodes=1/users=1000/sockets=1/rate=500-") || fields[1] != "1000" || len(fields)%2 != 0 {
		t.Errorf("got %q", fields)
	}
	if !strings.Contains(text, "\t50 cpu-us/op") || !strings.Contains(text, "500000 ns/op") {
		t.Errorf("got %s", text)
	}
}

func TestReportWithoutAnAnswer(t *testing.T) {
	r := sample(t)
	r.Measured.Latency, r.Measured.Timeline, r.Measured.Marks, r.Measured.Processes = nil, nil, nil, nil
	for _, format := range []string{"table", "json", "go"} {
		write(t, format, r)
	}
	if err := HTML(io.Discard, OfRun(r, nil)); err != nil {
		t.Error(err)
	}
}

// The page is one file that asks nobody for anything, and well-formed where that can be checked.
func TestHTML(t *testing.T) {
	d := OfRun(sample(t), someFacts)
	d.Charts = append(d.Charts, Chart{Title: "CPU", Y: "microseconds", Labels: []string{"register", "<call>"}, Series: []Series{
		{Name: "hereis", Y: []float64{20, 90}, Low: []float64{18, 80}, High: []float64{25, 120}}, {Name: "kamailio", Y: []float64{60, 300}},
	}})
	var b bytes.Buffer
	if err := HTML(&b, d); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.html"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Error("the page differs from testdata/report.html; look at it in a browser and run with -update")
	}
	for _, outside := range []string{"http:", "https:", "<script", "<link", "url(", "@import", "abc <&>", "<call>", "NaN", "Inf"} {
		if strings.Contains(b.String(), outside) {
			t.Errorf("%q is in the page", outside)
		}
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(b.String(), -1) {
		x := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAxis(t *testing.T) {
	a := axis{low: 0, high: 37, from: 0, to: 100}
	if ts := a.ticks(6); len(ts) < 3 || len(ts) > 8 || ts[1].At != 10 {
		t.Errorf("got %v", ts)
	}
	l := axis{low: 0.1, high: 100, from: 0, to: 3, log: true}
	if at := l.at(10); at < 1.999 || at > 2.001 || len(l.ticks(0)) != 4 {
		t.Errorf("10 is at %v, ticks %v", at, l.ticks(0))
	}
}
