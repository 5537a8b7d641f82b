package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Chart is bars, one group for each label, or, without labels, lines over X.
type Chart struct {
	Title  string   `json:"title"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	Labels []string `json:"labels,omitempty"`
	Series []Series `json:"series"`
	// Ticks are the places and texts on the x axis of lines; none: chosen.
	Ticks []Tick `json:"ticks,omitempty"`
	// LogX and LogY have the logarithm as the scale.
	LogX bool   `json:"log_x,omitempty"`
	LogY bool   `json:"log_y,omitempty"`
	Note string `json:"note,omitempty"`
	// Marks are events on the x axis of lines.
	Marks []Tick `json:"marks,omitempty"`
}

// Tick is a place on an axis with its text.
type Tick struct {
	At   float64 `json:"at"`
	Text string  `json:"text"`
}

// Series is one line, or one bar of each group. Low and High, if there, are
// what each value varied between.
type Series struct {
	Name string    `json:"name"`
	X    []float64 `json:"xs,omitempty"`
	Y    []float64 `json:"ys"`
	Low  []float64 `json:"low,omitempty"`
	High []float64 `json:"high,omitempty"`
}

// The drawing's size and its margins, in units of the view box.
const (
	chartW, chartH         = 720.0, 340.0
	left, right, top, foot = 64.0, 28.0, 16.0, 52.0
)

// axis maps values to places.
type axis struct {
	low, high, from, to float64
	log                 bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(max(v, a.low)), math.Log10(low), math.Log10(high)
	}
	if high == low {
		return a.from
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// ticks are round values, about n of them; on a logarithmic axis the powers of ten.
func (a axis) ticks(n int) (ts []Tick) {
	if a.log {
		for e := math.Ceil(math.Log10(a.low) - 1e-9); e <= math.Log10(a.high)+1e-9; e++ {
			ts = append(ts, Tick{math.Pow(10, e), short(math.Pow(10, e))})
		}
		return ts
	}
	if !(a.high > a.low) {
		return []Tick{{a.low, short(a.low)}}
	}
	step := math.Pow(10, math.Floor(math.Log10((a.high-a.low)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (a.high-a.low)/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	for k := math.Ceil(a.low/step-1e-9) + 0; k*step <= a.high*1.0000001; k++ {
		ts = append(ts, Tick{k * step, short(k * step)})
	}
	return ts
}

// short writes 12000 as 12k.
func short(v float64) string {
	switch {
	case math.Abs(v) >= 1e9:
		return trim(v/1e9) + "G"
	case math.Abs(v) >= 1e6:
		return trim(v/1e6) + "M"
	case math.Abs(v) >= 1e4:
		return trim(v/1e3) + "k"
	}
	return trim(v)
}

func trim(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// bounds are the least and largest value of a chart, spread included.
func (c *Chart) bounds() (xLow, xHigh, yLow, yHigh float64) {
	xLow, yLow, xHigh, yHigh = math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, s := range c.Series {
		for _, x := range s.X {
			xLow, xHigh = min(xLow, x), max(xHigh, x)
		}
		for _, ys := range [][]float64{s.Y, s.Low, s.High} {
			for _, y := range ys {
				if !c.LogY || y > 0 {
					yLow, yHigh = min(yLow, y), max(yHigh, y)
				}
			}
		}
	}
	if math.IsInf(yLow, 1) {
		yLow, yHigh = 0.1, 1
	}
	if math.IsInf(xLow, 1) || c.LogX && xLow <= 0 {
		xLow, xHigh = 1, 10
	}
	if c.LogY {
		yLow = math.Pow(10, math.Floor(math.Log10(yLow)))
		yHigh = max(math.Pow(10, math.Ceil(math.Log10(yHigh))), yLow*10)
	} else {
		yLow, yHigh = min(0, yLow), max(yHigh*1.08, yLow+1e-9)
	}
	return xLow, xHigh, yLow, yHigh
}

// svg draws the chart.
func (c *Chart) svg() string {
	var b strings.Builder
	xLow, xHigh, yLow, yHigh := c.bounds()
	y := axis{yLow, yHigh, chartH - foot, top, c.LogY}
	x := axis{xLow, xHigh, left, chartW - right, c.LogX}
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartW, chartH, html.EscapeString(c.Title))
	for _, t := range y.ticks(6) {
		at := y.at(t.At)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			left, chartW-right, at, at, left-8, at+4, html.EscapeString(t.Text))
	}
	if len(c.Labels) > 0 {
		c.bars(&b, y)
	} else {
		c.lines(&b, x, y)
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="%g" y2="%g"/>`, left, chartW-right, chartH-foot, chartH-foot)
	fmt.Fprintf(&b, `<text class="label" x="%g" y="%g" text-anchor="middle">%s</text>`, (left+chartW-right)/2, chartH-10, html.EscapeString(c.X))
	fmt.Fprintf(&b, `<text class="label" transform="translate(14 %g) rotate(-90)" text-anchor="middle">%s</text></svg>`, (chartH-foot+top)/2, html.EscapeString(c.Y))
	return b.String()
}

func (c *Chart) bars(b *strings.Builder, y axis) {
	group := (chartW - left - right) / float64(len(c.Labels))
	width := min(group*0.8/float64(len(c.Series)), 64)
	for g, label := range c.Labels {
		middle := left + group*(float64(g)+0.5)
		fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, middle, chartH-foot+18, html.EscapeString(label))
		for i, s := range c.Series {
			if g >= len(s.Y) {
				continue
			}
			from := middle + width*(float64(i)-float64(len(c.Series))/2)
			upper := y.at(s.Y[g])
			fmt.Fprintf(b, `<rect class="f%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"><title>%s, %s: %s</title></rect>`,
				i%palette, from+1, upper, width-2, max(0, chartH-foot-upper), html.EscapeString(s.Name), html.EscapeString(label), Number(s.Y[g]))
			at := upper
			if g < len(s.Low) && g < len(s.High) {
				at = y.at(s.High[g])
				fmt.Fprintf(b, `<path class="spread" d="M%.1f %.1fV%.1f"/>`, from+width/2, at, y.at(s.Low[g]))
			}
			fmt.Fprintf(b, `<text class="value" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, from+width/2, at-4, Number(s.Y[g]))
		}
	}
}

func (c *Chart) lines(b *strings.Builder, x, y axis) {
	ticks := c.Ticks
	if ticks == nil {
		ticks = x.ticks(10)
	}
	for _, t := range ticks {
		at := x.at(t.At)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`,
			at, at, top, chartH-foot, at, chartH-foot+18, html.EscapeString(t.Text))
	}
	for _, m := range c.Marks {
		at := x.at(m.At)
		beside, anchor := at+4, "start"
		if at > chartW-right-80 { // no room to the right of it
			beside, anchor = at-4, "end"
		}
		fmt.Fprintf(b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="marked" x="%.1f" y="%g" text-anchor="%s">%s</text>`,
			at, at, top, chartH-foot, beside, top+10, anchor, html.EscapeString(m.Text))
	}
	for i, s := range c.Series {
		var path, band strings.Builder
		for n := range s.X {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], x.at(s.X[n]), y.at(s.Y[n]))
		}
		if len(s.Low) == len(s.X) && len(s.High) == len(s.X) && len(s.X) > 0 {
			for n := range s.X {
				fmt.Fprintf(&band, "%c%.1f %.1f", "ML"[min(n, 1)], x.at(s.X[n]), y.at(s.High[n]))
			}
			for n := len(s.X) - 1; n >= 0; n-- {
				fmt.Fprintf(&band, "L%.1f %.1f", x.at(s.X[n]), y.at(s.Low[n]))
			}
			fmt.Fprintf(b, `<path class="band f%d" d="%sZ"/>`, i%palette, band.String())
		}
		fmt.Fprintf(b, `<path class="line s%d" d="%s"/>`, i%palette, path.String())
		if len(s.X) <= 40 {
			for n := range s.X {
				fmt.Fprintf(b, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3"><title>%s: %s at %s</title></circle>`,
					i%palette, x.at(s.X[n]), y.at(s.Y[n]), html.EscapeString(s.Name), Number(s.Y[n]), Number(s.X[n]))
			}
		}
	}
}
