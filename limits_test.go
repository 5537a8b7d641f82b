package hereis_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"hereis"
)

// limitRows are the rows of docs/limits.md by the name of the limit; a row is
// its cells: what, default, flag, metrics, answer.
func limitRows(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	flag := regexp.MustCompile("^`--([a-z-]+)`$")
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 5 {
			continue
		}
		if m := flag.FindStringSubmatch(cells[2]); m != nil {
			rows[m[1]] = cells
		}
	}
	return rows
}

// docs/limits.md has a row for each limit, with the default that the node has
// and metrics that it serves, and a test reaches it.
func TestEveryLimitHasItsRow(t *testing.T) {
	rows := limitRows(t)
	cfg := configs(t, 1)[0]
	node := start(t, cfg, nil)
	served := map[string]bool{}
	for series := range node.Stats() {
		name, _, _ := strings.Cut(series, "{")
		served["hereis_"+name] = true
	}
	// It appears with the first malformed message.
	served["hereis_transport_malformed_total"] = true
	metric := regexp.MustCompile("`(hereis_[a-z_]+)")
	reached := reachedLimits(t)
	defaults := reflect.ValueOf(hereis.DefaultConfig())
	limits := 0
	for i := range defaults.NumField() {
		f := defaults.Type().Field(i)
		name := f.Tag.Get("name")
		if f.Tag.Get("group") != "limits" && name != "max-bindings" {
			continue
		}
		limits++
		if !reached[name] {
			t.Errorf("--%s: no test reaches it", name)
		}
		cells, ok := rows[name]
		if !ok {
			t.Errorf("--%s has no row", name)
			continue
		}
		if want := fmt.Sprint(defaults.Field(i).Interface()); cells[1] != want {
			t.Errorf("--%s: the table says %s, the default is %s", name, cells[1], want)
		}
		metrics := metric.FindAllStringSubmatch(cells[3], -1)
		if len(metrics) == 0 || cells[0] == "" || cells[4] == "" {
			t.Errorf("--%s: a cell is empty: %q", name, cells)
		}
		for _, m := range metrics {
			if !served[m[1]] {
				t.Errorf("--%s: no metric %s is served", name, m[1])
			}
		}
	}
	if len(rows) != limits {
		t.Errorf("the table has %d rows for %d limits", len(rows), limits)
	}
}
