package trial

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hereis/bench/load"
	"hereis/bench/report"
	"hereis/bench/rig"
)

func TestMain(m *testing.M) {
	quietTime, idleTime = 50*time.Millisecond, 200*time.Millisecond
	os.Exit(m.Run())
}

// product builds Hereis for a test.
func product(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hereis")
	if out, err := exec.Command("go", "build", "-o", binary, "hereis/cmd/hereis").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func silent(string, ...any) {}

// text checks that a report has what it should, in all forms.
func text(t *testing.T, d *report.Document, want ...string) {
	t.Helper()
	var b strings.Builder
	for _, format := range []string{"table", "json", "go"} {
		if err := report.Write(&b, format, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := report.HTML(&b, d); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(b.String(), w) {
			t.Errorf("no %q in the report", w)
		}
	}
}

// Hereis against itself, and against Kamailio where that is installed.
func TestCompare(t *testing.T) {
	binary := product(t)
	c := Comparison{
		Servers:   []rig.Spec{{Label: "a", Kind: rig.Hereis, Binary: binary, Workers: 2}, {Label: "b", Kind: rig.Hereis, Binary: binary, Workers: 2}},
		Scenarios: []string{load.Register, load.Call}, Rounds: 2, Shape: load.DefaultConfig(), Settle: time.Millisecond, Check: true,
	}
	c.Shape.Users = 300
	if err := rig.Installed(rig.KamailioFM); err != nil {
		t.Log("without Kamailio:", err)
	} else {
		c.Servers = append(c.Servers, rig.Spec{Kind: rig.KamailioFM, Workers: 2})
	}
	got, err := Compare(limited(t), c, silent, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Err(); err != nil {
		t.Error(err)
	}
	if want := 2 * 2 * len(c.Servers); len(got.Runs) != want {
		t.Errorf("%d runs, want %d", len(got.Runs), want)
	}
	if got.Runs[0].Server != "a" || got.Runs[len(c.Servers)].Server != "b" {
		t.Error("rounds do not begin with another server each")
	}
	if r := got.Of(load.Register, "a"); len(r) != 2 || r[1].Missing != 0 || r[0].Missing != -1 {
		t.Errorf("checked %v", r)
	}
	text(t, got.Report(nil), "a / b", "BenchmarkRegister/server=a/nodes=1", "CPU per request")
}

func TestScale(t *testing.T) {
	sc := Scaling{Server: rig.Spec{Kind: rig.Hereis, Binary: product(t), Workers: 2}, Counts: []int{1, 3}, Rounds: 1, Shape: load.DefaultConfig()}
	sc.Shape.Users = 300
	got, err := Scale(limited(t), sc, silent, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Err(); err != nil {
		t.Error(err)
	}
	one, three := got.Points[0].Runs[0], got.Points[1].Runs[0]
	if one.Frames > 0.01 || three.Frames < 0.5 || three.Bytes < 50 || three.Missing != 0 {
		t.Errorf("one node: %v messages; three: %v messages, %v bytes, %d missing", one.Frames, three.Frames, three.Bytes, three.Missing)
	}
	text(t, got.Report(nil), "CPU us per REGISTER", "BenchmarkRegister/server=hereis/nodes=3")
}

func TestFill(t *testing.T) {
	f := Filling{
		Server: rig.Spec{Kind: rig.HereisAsync, Binary: product(t), Nodes: 2, Workers: 2}, Steps: []uint64{2000, 4000}, Shape: load.DefaultConfig(),
		Processes: 1, ProbeRate: 500, ProbeTime: time.Second, Restart: true,
	}
	got, err := Fill(limited(t), f, silent, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Err(); err != nil {
		t.Error(err)
	}
	if len(got.Levels) != 2 || got.Whole < got.Back || got.Own < 2000 {
		t.Errorf("%d levels, back after %v, whole after %v with %v", len(got.Levels), got.Back, got.Whole, got.Own)
	}
	text(t, got.Report(nil), "B per contact and copy", "Restart of a node")
}

func TestSpreadAndRatios(t *testing.T) {
	run := func(server string, cpu float64) *Run {
		return &Run{Server: server, CPU: cpu, Result: &load.Result{Measured: &load.Phase{Scenario: load.Register}}}
	}
	c := &Compared{Runs: []*Run{run("a", 10), run("b", 20), run("b", 100), run("a", 20), run("a", 30), run("b", 30)}}
	if got := c.Ratio(load.Register, "a", "b", cpu); got != (Spread{0.5, 0.2, 1}) {
		t.Errorf("ratios round by round: %v", got)
	}
	if got := spread([]float64{4, 1, 2, 3}); got.Median != 2.5 || spread(nil) != (Spread{}) {
		t.Errorf("got %v", got)
	}
}
