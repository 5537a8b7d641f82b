package hereis_test

import (
	"bytes"
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

const module = "hereis"

// outside are libraries that stop at a boundary: only files that match one of
// the patterns import them. A pattern that ends in / is a folder and all below it.
var outside = map[string][]string{
	"github.com/emiago/sipgo":           {"sipfront/"},
	"github.com/dgraph-io/badger":       {"cluster/store/"},
	"github.com/asynkron/protoactor-go": {"cluster/", "actors/user*.go"},
	"github.com/hashicorp/memberlist":   {"cluster/"},
	"github.com/alecthomas/kong":        {"cmd/", "bench/"},
	"github.com/knadh/koanf":            {"cmd/"},
	"github.com/miekg/dns":              {"sipfront/resolve/"},
}

// allowed are the packages of ours that a package (or any below it) imports;
// packages of the same part may always import each other. Tests see all parts,
// and so does bench.
var allowed = map[string][]string{
	"messages": {},
	"actors":   {"messages"},
	"cluster":  {"messages"},
	"sipfront": {"actors", "messages"},
	"":         {"actors", "cluster", "messages", "sipfront", "admin"},
	"admin":    {"", "messages"},
	// AoR and the errors of package actors are part of the root package's API.
	"cmd":   {"", "admin", "actors", "messages"},
	"tools": {},
}

// Inside sipfront, arrows point down: core, transaction, transport (RFC 3261 clause 5).
var layers = map[string][]string{
	"sipfront/transport":   {},
	"sipfront/resolve":     {},
	"sipfront/transaction": {"sipfront/transport"},
}

type sourceFile struct {
	path    string // slash-separated, from the root
	test    bool
	imports []string
}

// sources parses the import clauses of every Go file of the module.
func sources(t *testing.T) (files []sourceFile) {
	t.Helper()
	err := walk(func(p string, _ fs.DirEntry) error {
		if path.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		src := sourceFile{path: p, test: strings.HasSuffix(p, "_test.go")}
		for _, i := range f.Imports {
			src.imports = append(src.imports, importPath(i))
		}
		files = append(files, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// walk visits the files of the repository, without those that tools keep.
func walk(visit func(p string, d fs.DirEntry) error) error {
	return fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") && name != ".ci" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		return visit(p, d)
	})
}

func importPath(i *ast.ImportSpec) string {
	p, err := strconv.Unquote(i.Path.Value)
	if err != nil {
		panic(err) // the parser has accepted it
	}
	return p
}

// TestArchImportArrows enforces the picture in the package documentation.
func TestArchImportArrows(t *testing.T) {
	for _, f := range sources(t) {
		dir := path.Dir(f.path)
		for _, imported := range f.imports {
			if lib, ok := library(imported); ok && !matches(outside[lib], f.path) && !freeTest(f, dir) {
				t.Errorf("%s imports %s, which only %s may", f.path, imported, strings.Join(outside[lib], ", "))
			}
			ours, ok := ourPackage(imported)
			if ok && !f.test && part(dir) != "bench" && !mayImport(dir, ours) {
				t.Errorf("%s imports %s: %s may import %q only", f.path, imported, part(dir), allowed[part(dir)])
			}
		}
	}
}

// freeTest tells that no library stops before a file: those of bench, and
// tests in the root and in cmd, which join all parts.
func freeTest(f sourceFile, dir string) bool {
	return part(dir) == "bench" || f.test && (dir == "." || part(dir) == "cmd")
}

func mayImport(dir, ours string) bool {
	if below, layered := layers[dir]; layered && part(ours) == "sipfront" {
		return ours == dir || slices.Contains(below, ours)
	}
	return part(dir) == part(ours) || slices.Contains(allowed[part(dir)], part(ours))
}

// library is the key of outside that an import path belongs to.
func library(imported string) (key string, ok bool) {
	for lib := range outside {
		if imported == lib || strings.HasPrefix(imported, lib+"/") {
			return lib, true
		}
	}
	return "", false
}

func matches(patterns []string, file string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if strings.HasSuffix(p, "/") {
			return strings.HasPrefix(file, p)
		}
		ok, _ := path.Match(p, file) // the patterns are well-formed
		return ok
	})
}

func ourPackage(imported string) (dir string, ok bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// part is the top-level folder of a package, "" for the root.
func part(dir string) string {
	if dir == "." {
		return ""
	}
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// TestArchMessagesImportProtobufOnly: whoever reads our messages gets nothing else with them.
func TestArchMessagesImportProtobufOnly(t *testing.T) {
	for _, f := range sources(t) {
		if part(path.Dir(f.path)) != "messages" || f.test {
			continue
		}
		for _, i := range f.imports {
			first, _, _ := strings.Cut(i, "/")
			if strings.Contains(first, ".") && !strings.HasPrefix(i, "google.golang.org/protobuf/") {
				t.Errorf("%s imports %s", f.path, i)
			}
		}
	}
}

// TestArchPackagesAreDocumented: each package says what it is, in doc.go or
// (for a command) in main.go.
func TestArchPackagesAreDocumented(t *testing.T) {
	documented, seen := map[string]bool{}, map[string]bool{}
	err := walk(func(p string, _ fs.DirEntry) error {
		if path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") || strings.HasSuffix(p, ".pb.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(p)
		seen[dir] = true
		documented[dir] = documented[dir] || f.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range seen {
		if !documented[dir] {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// machine matches what only makes sense on one machine, and marks of unfinished work.
var machine = regexp.MustCompile(`(?:^|[\s"'=(` + "`" + `])/(?:home|root|work|Users)/\w|\bTO` + `DO\b|\bFIX` + `ME\b`)

// TestArchTextHasNoMachinePaths: the repository reads the same everywhere.
func TestArchTextHasNoMachinePaths(t *testing.T) {
	text := []string{".go", ".md", ".proto", ".yaml", ".yml", ".xml", ".sh", ".txt", ""}
	err := walk(func(p string, _ fs.DirEntry) error {
		if !slices.Contains(text, path.Ext(p)) || p == "LICENSE" || strings.Contains(p, "/testdata/fuzz/") {
			return nil
		}
		b, err := os.ReadFile(filepath.FromSlash(p))
		if err != nil {
			return err
		}
		if bytes.IndexByte(b, 0) >= 0 { // a binary
			return nil
		}
		for n, line := range strings.Split(string(b), "\n") {
			if machine.MatchString(line) {
				t.Errorf("%s:%d: %s", p, n+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
