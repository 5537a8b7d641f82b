// Package report writes what a command of bench has found: a Document of facts,
// tables and charts, as text, as JSON, in Go's benchmark format (for
// benchstat), and as one HTML file that needs nothing else. It knows nothing
// of SIP or of servers; run.go makes the parts that every load has.
package report
