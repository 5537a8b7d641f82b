package hereis_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var updateDocs = flag.Bool("update", false, "rewrite docs/conformance.md")

const conformanceFile = "docs/conformance.md"

// clauseTest is a test that names the clause of an RFC that it is about:
// TestRFC3261_16_7_Name. Its clause is "" if it is about the whole.
type clauseTest struct {
	rfc    int
	clause string
	name   string
	dir    string
	// skips: it may say that it did not run, and so proves less.
	skips bool
}

// missing is what a clause, or "-" for a whole RFC, asks for and the node does
// not do, and what it does instead. partly: tests of the clause show the rest;
// whether there are any is compared.
type missing struct {
	rfc    int
	clause string
	partly bool
	remark string
}

// notThere is written by hand: no test can show what is absent.
func notThere() []missing {
	return []missing{
		{2782, "-", true, "additional records are not used: each target is asked for"},
		{3261, "16.9", true, "a flow that breaks counts as 430 (RFC 5626 5.3), not as 503: the next server or flow is tried all the same, and the caller hears 480"},
		{3261, "16.10", true, "a CANCEL that matches no INVITE is answered 481, not passed on: no INVITE passes here without state but between nodes of ours, whose CANCEL goes the same way"},
		{3261, "18.1.1", true, "multicast: not sent, not listened for; a datagram above `--max-datagram`, 8 KiB unless set, is answered 513"},
		{3261, "18.2.1", true, "an address given as `udp:` serves UDP alone, as was asked; one without is both"},
		{3261, "18.2.2", true, "a maddr in Via is not followed: it would aim answers at others by one datagram"},
		{3261, "18.4", false, "ICMP errors of UDP are not read: a silent peer ends by its timer, or by its share of the time (RFC 3263 4.3)"},
		{3261, "26.2", false, "TLS: no transport; a sips URI is answered 480"},
		{3263, "5", false, "a sent-by that is a name is answered at its received address; its SRV records are not asked for"},
		{3903, "-", true, "a PUBLISH is composed at each watcher's node; there is no separate compositor"},
		{5393, "5.3.3", true, "a group whose time to ring is over gives its breadth back with its CANCEL, not with the 487 that follows"},
		{5626, "5.1", false, "no Path is added: this node is the registrar, and refuses a REGISTER for other domains"},
		{5630, "5.3", true, "without TLS no sips URI is carried at all: 480 with Warning 380 or 381"},
		{5627, "-", false, "GRUU: not made"},
		{6026, "7.3", true, "a 2xx of an INVITE that matches no transaction is passed on if its branch proves that this node made it for this call and caller: a call taken while the node restarted is not lost"},
		{7118, "-", false, "WebSocket: no transport"},
	}
}

var clauseName = regexp.MustCompile(`^TestRFC(\d+)((?:_\d+)*)(?:_([A-Za-z0-9_]+))?$`)

// clauseTests reads the names of the tests of every package.
func clauseTests(t *testing.T) (list []clauseTest) {
	t.Helper()
	err := walk(func(p string, _ fs.DirEntry) error {
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			m := clauseName.FindStringSubmatch(fn.Name.Name)
			if m == nil {
				if strings.HasPrefix(fn.Name.Name, "TestRFC") {
					t.Errorf("%s: %s names no clause", p, fn.Name.Name)
				}
				continue
			}
			rfc, _ := strconv.Atoi(m[1])
			clause := strings.ReplaceAll(strings.TrimPrefix(m[2], "_"), "_", ".")
			list = append(list, clauseTest{rfc, clause, fn.Name.Name, path.Dir(p), mentionsSkip(fn)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b clauseTest) int {
		return cmp.Or(cmp.Compare(a.rfc, b.rfc), compareClauses(a.clause, b.clause), cmp.Compare(a.name, b.name), cmp.Compare(a.dir, b.dir))
	})
	return list
}

// mentionsSkip tells whether a test has a way out.
func mentionsSkip(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Skip") {
			found = true
		}
		return !found
	})
	return found
}

// compareClauses sorts 9.2 before 10.3.
func compareClauses(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		return cmp.Compare(m, n)
	})
}

// table writes the page.
func table(tests []clauseTest, absent []missing) []byte {
	var b bytes.Buffer
	b.WriteString("# Conformance\n\n" +
		"Written by `go test . -run Conformance -update` from the names of the tests, and compared with them by every test run: a row says *tested* because\n" +
		"a test with that name exists, and the gate runs it. *tested, may skip* has a way out where a tool or right is missing. What is not done stands in the\n" +
		"second table; a test of a clause that is said to be not done fails the comparison.\n\n" +
		"| RFC | clause | status | test |\n|---|---|---|---|\n")
	for _, c := range tests {
		status := "tested"
		if c.skips {
			status = "tested, may skip"
		}
		fmt.Fprintf(&b, "| %d | %s | %s | `%s` in `%s` |\n", c.rfc, cmp.Or(c.clause, "-"), status, c.name, c.dir)
	}
	b.WriteString("\n## What is not done\n\n| RFC | clause | status | what happens instead |\n|---|---|---|---|\n")
	for _, m := range absent {
		status := "not done"
		if m.partly {
			status = "partly done"
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", m.rfc, m.clause, status, m.remark)
	}
	return b.Bytes()
}

// docs/conformance.md is what the names of the tests say.
func TestConformanceTableIsFresh(t *testing.T) {
	tests, absent := clauseTests(t), notThere()
	for _, m := range absent {
		shown := slices.ContainsFunc(tests, func(c clauseTest) bool {
			return c.rfc == m.rfc && (m.clause == "-" || c.clause == m.clause)
		})
		if shown != m.partly {
			t.Errorf("RFC %d clause %s: partly done is %v, but a test of it exists is %v", m.rfc, m.clause, m.partly, shown)
		}
	}
	want := table(tests, absent)
	if *updateDocs {
		if err := os.WriteFile(conformanceFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(conformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: go test . -run Conformance -update", conformanceFile)
	}
}
