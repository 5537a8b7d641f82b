package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
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
	// Answered INVITEs, ACKs taken and BYEs of the answering side; NoACK are calls whose 200 was never acknowledged.
	Answered, ACKs, BYEs, NoACK uint64
	Took                        time.Duration
	// Latency by what was measured: "register", "options", "invite" (to its
	// final answer), "bye", in microseconds.
	Latency map[string]*hdrhistogram.Histogram
	// Processes are the target processes, in the order of the command line.
	Processes []ProcessUse
}

// Result is a whole run.
type Result struct {
	Config   Config
	Prepared *Phase
	Measured *Phase
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
	us := max(lowestUS, min(took.Microseconds(), highestUS))
	if err := h.RecordValue(us); err != nil {
		panic(err) // within the range by construction
	}
}

// add merges what one endpoint has counted.
func (p *Phase) add(o *Phase) {
	p.OK += o.OK
	p.Failed += o.Failed
	p.Retransmissions += o.Retransmissions
	p.Stray += o.Stray
	p.Late += o.Late
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
			p.Latency[what] = hdrhistogram.Import(h.Export())
		}
	}
}

// Rate is units per second.
func (p *Phase) Rate() float64 {
	if p.Took <= 0 {
		return 0
	}
	return float64(p.OK+p.Failed) / p.Took.Seconds()
}
