package transport

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Sources bound the requests of one source: an IPv4 address, or the /64 of an
// IPv6 one, which a single host has to itself. Responses are what we asked for
// and not bounded, and neither are requests of our own nodes.
type Sources struct {
	// PerSecond is how many requests a source may send for long; 0: any number.
	PerSecond int
	// Burst is how many it may send at once.
	Burst int
	// Table is how many sources are remembered; the one that was quiet for
	// longest among a few gives way, and begins anew.
	Table int
	// Answers is how many requests above the bound are answered 503 within one
	// second; the others are dropped unread, so that nobody is flooded in turn
	// by answers to requests in their name.
	Answers int
	// Exempt tells which senders are not bounded: our own nodes. Nil: none.
	Exempt func(netip.AddrPort) bool
}

// DefaultSources bound nothing: a trunk and a NAT are one source each.
func DefaultSources() Sources { return Sources{Burst: 100, Table: 65536, Answers: 5} }

// verdict is what becomes of a request.
type verdict int

const (
	admitted verdict = iota
	answered
	dropped
)

const (
	sourceShards = 16
	// sourceSample is how many sources are compared when one must give way.
	sourceSample = 8
)

// sources counts the requests of each source by a token bucket.
type sources struct {
	cfg    Sources
	seed   maphash.Seed
	epoch  time.Time
	shards [sourceShards]sourceShard
}

type sourceShard struct {
	mu      sync.Mutex
	buckets map[netip.Addr]*bucket
}

// bucket is what one source may still send, and may still be told.
type bucket struct {
	tokens float64
	// at is when tokens was true, since the epoch.
	at time.Duration
	// second is the one in which answers were given.
	second  int64
	answers int
}

// newSources is nil if nothing is bounded.
func newSources(cfg Sources, now time.Time) *sources {
	if cfg.PerSecond == 0 {
		return nil
	}
	s := &sources{cfg: cfg, seed: maphash.MakeSeed(), epoch: now}
	for i := range s.shards {
		s.shards[i].buckets = make(map[netip.Addr]*bucket)
	}
	return s
}

// take decides on one request of from.
func (s *sources) take(from netip.AddrPort, now time.Time) verdict {
	if s == nil || s.cfg.Exempt != nil && s.cfg.Exempt(from) {
		return admitted
	}
	source, at := sourceOf(from.Addr()), now.Sub(s.epoch)
	h := &s.shards[maphash.Comparable(s.seed, source)%sourceShards]
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.buckets[source]
	if b == nil {
		if len(h.buckets) >= max(s.cfg.Table/sourceShards, 1) {
			h.evict()
		}
		b = &bucket{tokens: float64(s.cfg.Burst), at: at}
		h.buckets[source] = b
	}
	if at > b.at {
		b.tokens = min(float64(s.cfg.Burst), b.tokens+(at-b.at).Seconds()*float64(s.cfg.PerSecond))
		b.at = at
	}
	if b.tokens >= 1 {
		b.tokens--
		return admitted
	}
	if second := int64(at / time.Second); second != b.second {
		b.second, b.answers = second, 0
	}
	if b.answers++; b.answers > s.cfg.Answers {
		b.answers = s.cfg.Answers
		return dropped
	}
	return answered
}

// evict lets the quietest of a few sources go. h is locked.
func (h *sourceShard) evict() {
	var oldest netip.Addr
	n, at := 0, time.Duration(0)
	for source, b := range h.buckets {
		if n == 0 || b.at < at {
			oldest, at = source, b.at
		}
		if n++; n == sourceSample {
			break
		}
	}
	delete(h.buckets, oldest)
}

// len is how many sources are remembered.
func (s *sources) len() (n int) {
	if s == nil {
		return 0
	}
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].buckets)
		s.shards[i].mu.Unlock()
	}
	return n
}

func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// admits applies the bound to a message that came as raw bytes, of which only
// a request counts. False: it is dropped. h has what was read of it, nil if that
// is yet to be done.
func (t *Transport) admits(m *Message, h *head) bool {
	if t.sources == nil || isResponse(m.Raw) {
		return true
	}
	switch t.sources.take(m.Flow.Remote(), m.At) {
	case answered:
		if h == nil {
			h = &head{}
			if t.parser.guard(m.Raw, h) != nil {
				t.count.limitedDropped.Add(1)
				return false
			}
		}
		t.count.limited.Add(1)
		if answer := refusal(h, m.Flow.Remote(), 503); answer != nil {
			t.answerTo(m, h, answer)
		}
		return false
	case dropped:
		t.count.limitedDropped.Add(1)
		return false
	}
	return true
}

// isResponse looks at the first bytes of a message.
func isResponse(raw []byte) bool {
	for len(raw) >= 2 && raw[0] == '\r' && raw[1] == '\n' {
		raw = raw[2:]
	}
	return len(raw) >= 4 && hasPrefixFold(string(raw[:4]), "SIP/")
}
