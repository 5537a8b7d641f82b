package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hereis/bench/load"
)

func TestBadCommandLines(t *testing.T) {
	for _, args := range [][]string{
		{}, {"register"}, {"dance", "-t", "127.0.0.1:1"},
		{"register", "-t", "127.0.0.1:1", "--pid", "n1"},
		{"register", "-t", "127.0.0.1:1", "--users", "0"},
		{"register", "-t", "127.0.0.1:1", "--processes", "0"},
		{"register", "--server", "asterisk"},
		{"register", "-t", "127.0.0.1:1", "--bind", "here"},
		{"failover", "-t", "127.0.0.1:1"},
		{"join", "-t", "127.0.0.1:1"},
		{"connections", "-t", "127.0.0.1:1", "--users", "100000000"},
		{"compare", "--server", "nothing"},
		{"simulate", "-N", "1"},
	} {
		var errs bytes.Buffer
		if code := run(t.Context(), args, &bytes.Buffer{}, &errs); code != 1 || errs.Len() == 0 {
			t.Errorf("%q: exit %d and %q, want 1 and a reason", args, code, errs.String())
		}
	}
}

func TestSimulateWritesItsReports(t *testing.T) {
	page := filepath.Join(t.TempDir(), "report.html")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"simulate", "-N", "20", "-u", "10000", "--html", page}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	b, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(b), "On paper: 20 nodes") || !strings.Contains(out.String(), "variance / chance") {
		t.Errorf("got %v\n%s", err, out.String())
	}
}

func TestUsersFile(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"users", "-u", "2", "--first", "5", "--password", "p"}, &out, &bytes.Buffer{}); code != 0 || strings.Count(out.String(), "\n") != 2 || !strings.HasPrefix(out.String(), "u5@localhost MD5=") {
		t.Errorf("exit %d: %s", code, out.String())
	}
}

// A bar is for eyes: what is not a terminal gets none.
func TestProgressIsQuietWithoutATerminal(t *testing.T) {
	if _, progress := (&output{}).voice(&bytes.Buffer{}); progress != nil {
		t.Error("a buffer was taken for a terminal")
	}
	var b bytes.Buffer
	progressBar(&b)(load.Progress{Phase: "register", OK: 50, Failed: 1, Total: 102})
	if got := b.String(); !strings.Contains(got, "50 %") || !strings.Contains(got, "1 failed") || strings.Count(got, "█") != 15 {
		t.Errorf("got %q", got)
	}
	b.Reset()
	progressBar(&b)(load.Progress{Phase: "soak", OK: 5})
	if !strings.Contains(b.String(), "5,") {
		t.Errorf("got %q", b.String())
	}
}

func TestServerSpecs(t *testing.T) {
	spec, _, err := serverSpec(t.Context(), "old=hereis@/tmp/x")
	if err != nil || spec.Label != "old" || spec.Kind != "hereis" || spec.Binary != "/tmp/x" || spec.Name() != "old" {
		t.Errorf("got %+v, %v", spec, err)
	}
}
