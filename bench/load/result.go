package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hereis/bench/metrics"
	"hereis/bench/proc"
)

// The histogram's range in microseconds and its significant figures.
const (
	lowestUS, highestUS, figures = 1, 120_000_000, 3
)

// Phase is what a part of a run (prepare or the measured one) came to.
type Phase struct {
	Scenario string
	// OK units ended as expected; Failed did not.
	OK, Failed uint64
	// Codes counts final answers by status code, "timeout", and "invalid: ..." by what was wrong.
	Codes map[string]uint64
	// Retransmissions of requests, answers that belong to nothing, and late
	// starts of an open loop by more than 10 ms.
	Retransmissions, Stray, Late uint64
	// Challenges answered with credentials; Paced: 503s whose Retry-After was honoured; NOTIFYs taken.
	Challenges, Paced, Notified uint64
	// Answered INVITEs, ACKs taken and BYEs of the answering side; NoACK are calls whose 200 was never acknowledged.
	Answered, ACKs, BYEs, NoACK uint64
	Took                        time.Duration
	// Window is the time in which Processes were measured: Took and the time to settle.
	Window time.Duration
	// Counters are how much the nodes' metrics (Config.Admins) grew, summed over nodes.
	Counters metrics.Sample
	// Latency by what was measured: "register", "options", "invite" (to its
	// final answer), "bye", in microseconds.
	Latency map[string]*hdrhistogram.Histogram
	// Processes are the target processes, in the order of the command line.
	Processes []proc.Measured
	// Timeline has what was due in each Config.Interval; Marks, the events; Samples, the processes meanwhile.
	Timeline []Bucket
	Marks    []Mark
	Samples  []Sample
	// Beside is what was asked beside the measured requests (Config.AskAll); nil if nothing.
	Beside *Phase
}

// Sample is a look at the measured processes and the nodes' metrics.
type Sample struct {
	At       time.Duration
	CPU      time.Duration // since the beginning of the part
	RSS      uint64
	Counters metrics.Sample // as they are, not how much they grew
}

// Result is a whole run.
type Result struct {
	Config   Config
	Prepared *Phase
	Measured *Phase
	// Checked asked every target for every user (Config.Check); nil if it was not asked for.
	Checked *Phase
}

func newPhase(scenario string) *Phase {
	return &Phase{Scenario: scenario, Codes: map[string]uint64{}, Latency: map[string]*hdrhistogram.Histogram{}}
}

func (p *Phase) record(what string, took time.Duration) {
	h := p.Latency[what]
	if h == nil {
		h = hdrhistogram.New(lowestUS, highestUS, figures)
		p.Latency[what] = h
	}
	if err := h.RecordValue(inRange(took)); err != nil {
		panic(err) // within the range by construction
	}
}

func inRange(d time.Duration) int64 { return max(lowestUS, min(d.Microseconds(), highestUS)) }

// add merges what one endpoint has counted.
func (p *Phase) add(o *Phase) {
	p.OK += o.OK
	p.Failed += o.Failed
	p.Retransmissions += o.Retransmissions
	p.Stray += o.Stray
	p.Late += o.Late
	p.Challenges += o.Challenges
	p.Paced += o.Paced
	p.Notified += o.Notified
	p.Answered += o.Answered
	p.ACKs += o.ACKs
	p.BYEs += o.BYEs
	p.NoACK += o.NoACK
	for code, n := range o.Codes {
		p.Codes[code] += n
	}
	for what, h := range o.Latency {
		if mine := p.Latency[what]; mine != nil {
			mine.Merge(h)
		} else {
			p.Latency[what] = h.Clone()
		}
	}
	for i, b := range o.Timeline {
		if i == len(p.Timeline) {
			p.Timeline = append(p.Timeline, Bucket{})
		}
		mine := &p.Timeline[i]
		mine.OK += b.OK
		mine.Failed += b.Failed
		switch {
		case b.Latency == nil:
		case mine.Latency == nil:
			mine.Latency = b.Latency.Clone()
		default:
			mine.Latency.Merge(b.Latency)
		}
	}
}

// Units is how many ended.
func (p *Phase) Units() uint64 { return p.OK + p.Failed }

// CPU is the time that all measured processes used.
func (p *Phase) CPU() (sum time.Duration) {
	for _, u := range p.Processes {
		sum += u.CPU
	}
	return sum
}

// RSS is what all measured processes have resident, at the end and at the beginning.
func (p *Phase) RSS() (after, before uint64) {
	for _, u := range p.Processes {
		after += u.RSS
		before += u.RSSBefore
	}
	return after, before
}

// Rate is units per second.
func (p *Phase) Rate() float64 {
	if p.Took <= 0 {
		return 0
	}
	return float64(p.OK+p.Failed) / p.Took.Seconds()
}
