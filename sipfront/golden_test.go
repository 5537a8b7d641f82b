package sipfront

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden plays testdata/**/*.txtar: messages in, messages out, byte for
// byte after CRLF. A file begins with setup lines (see rig.setup); then come in order
//
//	-- recv PEER --           a message that PEER sends; {uac-route} and
//	                          {uas-route} stand for its route set as caller or callee
//	-- answer PEER STATUS --  PEER answers the last INVITE or other request that it
//	                          got; the body has further header lines
//	-- send PEER --           what the node sends
//	-- wait DURATION --
func TestGolden(t *testing.T) {
	err := filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".txtar") {
			t.Run(strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".txtar"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { playGolden(t, path) })
			})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func playGolden(t *testing.T, path string) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	setup, sections := splitArchive(string(raw))
	r := newRig(t)
	for line := range strings.Lines(setup) {
		r.setup(strings.TrimSpace(line))
	}
	var got strings.Builder
	got.WriteString(setup)
	for _, s := range sections {
		verb, arg, _ := strings.Cut(s.name, " ")
		switch verb {
		case "recv":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			r.recv(arg, s.body)
		case "answer":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			peer, status, _ := strings.Cut(arg, " ")
			r.answer(peer, status, s.body)
		case "wait":
			fmt.Fprintf(&got, "-- %s --\n%s", s.name, s.body)
			d, err := time.ParseDuration(arg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(d)
		case "send":
			continue
		default:
			t.Fatalf("%s: unknown section %q", path, s.name)
		}
		synctest.Wait()
		for _, m := range r.take() {
			fmt.Fprintf(&got, "-- send %s --\n%s", r.peer(m.to), strings.ReplaceAll(string(m.raw), "\r\n", "\n"))
			if !bytes.HasSuffix(m.raw, []byte("\n")) {
				got.WriteString("\n")
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(raw) {
		t.Errorf("%s differs; got:\n%s", path, firstDifference(got.String(), string(raw)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			end := min(i+25, len(g))
			wantLine := ""
			if i < len(w) {
				wantLine = w[i]
			}
			return fmt.Sprintf("line %d, want: %s\n%s", i+1, wantLine, strings.Join(g[i:end], "\n"))
		}
	}
	return "(shorter)"
}

type section struct{ name, body string }

func splitArchive(s string) (head string, list []section) {
	cur := &head
	for line := range strings.Lines(s) {
		if name, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(name, " --\n") {
			list = append(list, section{name: strings.TrimSuffix(name, " --\n")})
			cur = &list[len(list)-1].body
			continue
		}
		*cur += line
	}
	return head, list
}
