package report

import (
	"embed"
	"html/template"
	"io"
)

// palette is the number of colours of series; the style sheet has them as f0, s0 and so on.
const palette = 6

//go:embed report.html
var pageFile embed.FS

var page = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"svg": func(c Chart) template.HTML { return template.HTML(c.svg()) }, // its texts are escaped where it is drawn
	"mod": func(i int) int { return i % palette },
}).ParseFS(pageFile, "report.html"))

// HTML writes the document as one file: no script, no font, no picture from elsewhere.
func HTML(w io.Writer, d *Document) error { return page.Execute(w, d) }
