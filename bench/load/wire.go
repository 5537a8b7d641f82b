package load

import (
	"encoding/json"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Phases go from worker processes to their coordinator as JSON, with
// histograms in HdrHistogram's own compressed encoding (V2), so that they are
// merged value by value, and not averaged.

type plainPhase Phase

type wirePhase struct {
	plainPhase
	Encoded  map[string][]byte
	Timeline []wireBucket
	Beside   *wirePhase
}

type wireBucket struct {
	OK, Failed uint64
	Encoded    []byte `json:",omitempty"`
}

// MarshalJSON has the whole phase.
func (p *Phase) MarshalJSON() ([]byte, error) {
	w, err := p.wire()
	if err != nil {
		return nil, err
	}
	return json.Marshal(w)
}

func (p *Phase) wire() (w *wirePhase, err error) {
	w = &wirePhase{plainPhase: plainPhase(*p), Encoded: map[string][]byte{}}
	w.plainPhase.Latency, w.plainPhase.Timeline, w.plainPhase.Beside = nil, nil, nil
	for what, h := range p.Latency {
		if w.Encoded[what], err = h.EncodeV2(); err != nil {
			return nil, err
		}
	}
	for _, b := range p.Timeline {
		one := wireBucket{OK: b.OK, Failed: b.Failed}
		if b.Latency != nil {
			if one.Encoded, err = b.Latency.EncodeV2(); err != nil {
				return nil, err
			}
		}
		w.Timeline = append(w.Timeline, one)
	}
	if p.Beside != nil {
		if w.Beside, err = p.Beside.wire(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Phase) UnmarshalJSON(b []byte) error {
	var w wirePhase
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	got, err := w.phase()
	if err != nil {
		return err
	}
	*p = *got
	return nil
}

func (w *wirePhase) phase() (p *Phase, err error) {
	p = (*Phase)(&w.plainPhase)
	p.Latency = map[string]*hdrhistogram.Histogram{}
	for what, encoded := range w.Encoded {
		if p.Latency[what], err = hdrhistogram.Decode(encoded); err != nil {
			return nil, err
		}
	}
	for _, b := range w.Timeline {
		one := Bucket{OK: b.OK, Failed: b.Failed}
		if b.Encoded != nil {
			if one.Latency, err = hdrhistogram.Decode(b.Encoded); err != nil {
				return nil, err
			}
		}
		p.Timeline = append(p.Timeline, one)
	}
	if w.Beside != nil {
		p.Beside, err = w.Beside.phase()
	}
	return p, err
}

// Merge adds what another worker counted in the same part: counts and
// histograms are summed, the longest time is taken.
func (p *Phase) Merge(o *Phase) {
	p.add(o)
	p.Took, p.Window = max(p.Took, o.Took), max(p.Window, o.Window)
	switch {
	case o.Beside == nil:
	case p.Beside == nil:
		p.Beside = o.Beside
	default:
		p.Beside.Merge(o.Beside)
	}
}
