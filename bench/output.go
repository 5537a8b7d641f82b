package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hereis/bench/load"
	"hereis/bench/report"
)

// output are the flags of every command that measures.
type output struct {
	Output string `short:"o" enum:"table,json,go" default:"table" help:"table, json, or go (for benchstat)."`
	HTML   string `name:"html" placeholder:"FILE" help:"Write a report with charts into this file, too; it opens offline."`
	Quiet  bool   `short:"q" help:"No progress."`
}

// write writes a report as it was asked for.
func (o *output) write(w io.Writer, d *report.Document) error {
	if o.HTML != "" {
		f, err := os.Create(o.HTML)
		if err != nil {
			return err
		}
		if err := report.HTML(f, d); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return report.Write(w, o.Output, d)
}

// facts are of this command line, now.
func facts() []report.Fact {
	return report.Facts("bench "+strings.Join(os.Args[1:], " "), time.Now())
}

// voice is how a command tells what it does: lines, and, on a terminal, a bar
// that is drawn over itself.
func (o *output) voice(w io.Writer) (say func(string, ...any), progress func(load.Progress)) {
	if o.Quiet {
		return func(string, ...any) {}, nil
	}
	say = func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	if !terminal(w) {
		return say, nil
	}
	return func(format string, args ...any) { fmt.Fprintf(w, "\r\x1b[K"+format+"\n", args...) }, progressBar(w)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const barWidth = 30

// progressBar draws one line over itself, and leaves nothing when a part is done.
func progressBar(w io.Writer) func(load.Progress) {
	return func(p load.Progress) {
		done := p.OK + p.Failed
		rate := float64(done) / max(p.Elapsed.Seconds(), 0.001)
		bar, share := strings.Repeat("·", barWidth), "     "
		if p.Total > 0 {
			full := int(min(done, p.Total) * barWidth / p.Total)
			bar = strings.Repeat("█", full) + strings.Repeat("░", barWidth-full)
			share = fmt.Sprintf("%3d %%", 100*min(done, p.Total)/p.Total)
		}
		trouble := ""
		if p.Failed > 0 {
			trouble = fmt.Sprintf(", %d failed", p.Failed)
		}
		if p.Retransmissions > 0 {
			trouble += fmt.Sprintf(", %d repeated", p.Retransmissions)
		}
		fmt.Fprintf(w, "\r\x1b[K%-10s %s %s  %d, %.0f/s%s, %s", p.Phase, bar, share, done, rate, trouble, p.Elapsed.Round(time.Second/10))
		if p.Total > 0 && done >= p.Total {
			fmt.Fprint(w, "\r\x1b[K")
		}
	}
}
