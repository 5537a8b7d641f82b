package report

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"unicode/utf8"
)

// Document is one report.
type Document struct {
	Title string `json:"title"`
	// Facts say on what machine, of what commit, by what command.
	Facts  []Fact  `json:"facts"`
	Tables []Table `json:"tables"`
	Charts []Chart `json:"charts,omitempty"`
	// Bench are the lines in Go's benchmark format.
	Bench []Bench `json:"-"`
	// Data is what the command found, for programs.
	Data any `json:"data"`
}

// Fact is a name and its value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Table has columns; all but the first are aligned to the right.
type Table struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	Note    string     `json:"note,omitempty"`
}

// Bench is one line of Go's benchmark format.
type Bench struct {
	Name   string
	N      uint64
	Values []Value
}

// Value is a measurement with its unit.
type Value struct {
	Value float64
	Unit  string
}

// Write writes the document as "table", "json" or "go".
func Write(w io.Writer, format string, d *Document) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(d)
	case "go":
		return writeBench(w, d)
	}
	return writeText(w, d)
}

// writeBench: https://go.dev/design/14313-benchmark-format.
func writeBench(w io.Writer, d *Document) error {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: hereis/bench\n", runtime.GOOS, runtime.GOARCH)
	for _, f := range d.Facts {
		fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(strings.ReplaceAll(f.Name, " ", "-")), f.Value)
	}
	for _, line := range d.Bench {
		fmt.Fprintf(&b, "Benchmark%s-%d\t%d", line.Name, runtime.NumCPU(), line.N)
		for _, v := range line.Values {
			fmt.Fprintf(&b, "\t%.6g %s", v.Value, v.Unit)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeText(w io.Writer, d *Document) error {
	var b strings.Builder
	fmt.Fprintln(&b, d.Title)
	for _, f := range d.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	for _, t := range d.Tables {
		b.WriteByte('\n')
		t.text(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) text(b *strings.Builder) {
	if t.Title != "" {
		fmt.Fprintln(b, t.Title)
	}
	width := make([]int, len(t.Columns))
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range append([][]string{t.Columns}, t.Rows...) {
		if n == 0 && strings.Join(row, "") == "" {
			continue
		}
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString("  " + cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(b, strings.TrimRight(line.String(), " "))
	}
	if t.Note != "" {
		fmt.Fprintf(b, "  %s\n", t.Note)
	}
}

// Add appends a row of formatted cells.
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if f, ok := c.(float64); ok {
			row[i] = Number(f)
		} else {
			row[i] = fmt.Sprint(c)
		}
	}
	t.Rows = append(t.Rows, row)
}

// Number is a value with three significant figures, and all digits of what is larger.
func Number(f float64) string {
	if f >= 1000 || f <= -1000 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3g", f)
}
