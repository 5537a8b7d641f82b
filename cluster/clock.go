package cluster

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ClockConfig says how node time is kept (rule 9). The zero value of every
// number is replaced by its default.
type ClockConfig struct {
	// OnWake is told, from Run, that the process did not run for that long:
	// the ticker or the boot-time clock has a gap (rule 16).
	OnWake func(gap time.Duration)
	// Gap is the shortest gap that counts as one; it should be the probe
	// timeout of the membership (default 500 ms).
	Gap time.Duration
	// Tick is the time between looks at the clocks (default 100 ms).
	Tick time.Duration
	// Window is how long after its making a clock may still step, forward
	// only, to what its first peers say (default 10 s). Settled ends it.
	Window time.Duration

	source clockSource
}

// clockSource is where the time comes from; a test has its own.
type clockSource struct {
	// now reads the wall clock, ns since 1970, which may jump, and the
	// monotonic one, ns, which stands still while the machine sleeps.
	now  func() (wall, mono int64)
	boot func() int64 // ns; does not stand still
}

const (
	slewPPM = 500
	// slewDeadband is the offset, in ns, that is left alone: offsets are
	// measured in milliseconds.
	slewDeadband = int64(time.Millisecond)
	// stepLeast is the least offset that an initial step is taken for.
	stepLeast = 20 * time.Millisecond
	// jumpLeast is the least difference between wall and monotonic clock, in
	// ns, that has its cause looked for.
	jumpLeast = int64(250 * time.Millisecond)
	// stepPatience is how long, in ns, the first peer heard of waits for the word
	// of a second: the clock of the first may be the one that is off.
	stepPatience = int64(300 * time.Millisecond)
	// offsetLife is how long a measured offset counts.
	offsetLife = 10 * time.Second
)

// Clock is the node time: the wall clock at start, then the monotonic one,
// slewed by at most 500 ppm towards the median of what peers have. It never
// goes back and never follows a jump of the wall clock.
type Clock struct {
	cfg ClockConfig
	src clockSource
	log *slog.Logger
	// line is how node time follows from the monotonic clock; replaced, never changed.
	line atomic.Pointer[clockLine]
	// drift is the wall clock minus the monotonic one, in ns, as last explained.
	drift atomic.Int64
	// woke carries gaps to Run; one slot, as gaps that follow each other add nothing.
	woke         chan time.Duration
	settled      atomic.Bool
	jumps        atomic.Uint64
	wakes        atomic.Uint64
	steps, moves atomic.Uint64

	mu      sync.Mutex // guards what follows, and the replacement of line
	bootGap int64      // boot minus monotonic clock, in ns, as last seen
	made    int64      // monotonic ns
	heard   int64      // monotonic ns of the first offset, 0 for none yet
	offsets map[string]peerOffset
}

type clockLine struct {
	mono, node int64 // a point of the line, ns
	ppm        int64 // rate, as deviation from 1
	until      int64 // mono ns at which the rate ends
}

func (l *clockLine) at(mono int64) int64 {
	run := mono - l.mono
	slewed := min(mono, l.until) - l.mono
	return l.node + run + max(slewed, 0)/1000*l.ppm/1000
}

type peerOffset struct {
	offset time.Duration
	at     int64 // monotonic ns
}

// NewClock starts node time at the wall clock.
func NewClock(cfg ClockConfig, log *slog.Logger) *Clock {
	cfg.Gap = orDefault(cfg.Gap, 500*time.Millisecond)
	cfg.Tick = orDefault(cfg.Tick, 100*time.Millisecond)
	cfg.Window = orDefault(cfg.Window, 10*time.Second)
	if cfg.source.now == nil {
		cfg.source = systemClocks()
	}
	c := &Clock{cfg: cfg, src: cfg.source, log: log, woke: make(chan time.Duration, 1), offsets: map[string]peerOffset{}}
	wall, mono := c.src.now()
	c.made = mono
	c.bootGap = c.src.boot() - mono
	c.drift.Store(wall - mono)
	c.line.Store(&clockLine{mono: mono, node: wall, until: mono})
	return c
}

// NowMS is the node time in milliseconds since 1970. It is cheap: it reads the
// wall and the monotonic clock, and looks further only if they disagree, so
// that time slept is in the very first reading after it.
func (c *Clock) NowMS() int64 { return c.nowNS() / int64(time.Millisecond) }

func (c *Clock) nowNS() int64 {
	wall, mono := c.src.now()
	if d := wall - mono - c.drift.Load(); d > jumpLeast || d < -jumpLeast {
		c.explain()
		_, mono = c.src.now()
	}
	return c.line.Load().at(mono)
}

// explain finds out why wall and monotonic clock disagree: the machine slept,
// which node time must follow, or the wall clock was set, which it must not.
func (c *Clock) explain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.src.now()
	change := wall - mono - c.drift.Load()
	slept := c.takeSleep(mono)
	c.drift.Add(change)
	if jump := change - slept; jump > jumpLeast || jump < -jumpLeast {
		c.jumps.Add(1)
		c.log.Warn("the wall clock jumped; node time does not follow", "jump", time.Duration(jump))
	}
}

// takeSleep adds to node time what the boot-time clock ran on while the
// monotonic one stood still. The caller holds mu.
func (c *Clock) takeSleep(mono int64) int64 {
	gap := c.src.boot() - mono
	slept := gap - c.bootGap
	if slept < int64(10*time.Millisecond) {
		return 0
	}
	c.bootGap = gap
	c.move(mono, slept)
	if slept >= int64(c.cfg.Gap) {
		c.wake(time.Duration(slept))
	}
	return slept
}

// move starts a new line, by ns further on, without slewing.
func (c *Clock) move(mono, by int64) {
	c.moves.Add(1)
	c.line.Store(&clockLine{mono: mono, node: c.line.Load().at(mono) + by, until: mono})
}

func (c *Clock) wake(gap time.Duration) {
	c.wakes.Add(1)
	select {
	case c.woke <- gap:
	default:
	}
}

// Raise makes node time at least ms: the edge's clock was behind (rules 1, 9).
func (c *Clock) Raise(ms int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, mono := c.src.now()
	if by := ms*int64(time.Millisecond) - c.line.Load().at(mono); by > 0 {
		c.move(mono, by)
	}
}

// Settled says that this node counts as part of its cluster now: its clock
// steps no more, it slews.
func (c *Clock) Settled() { c.settled.Store(true) }

// Moves counts how often node time has been set further on. What was measured
// before is worth nothing after it.
func (c *Clock) Moves() uint64 { return c.moves.Load() }

// Observe takes a measured offset, the peer's node time minus ours. moves is
// what Moves said before the measurement: one that a step has overtaken would
// have the same step taken twice.
func (c *Clock) Observe(peer string, moves uint64, offset, rtt time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if moves != c.moves.Load() {
		return
	}
	_, mono := c.src.now()
	c.offsets[peer] = peerOffset{offset: offset, at: mono}
	if c.heard == 0 {
		c.heard = mono
	}
	c.adjust(mono, rtt)
}

// Forget drops what a peer's clock said.
func (c *Clock) Forget(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.offsets, peer)
}

// adjust steps or slews to the median of all clocks. Of an even number it takes
// the mean of the middle two: two nodes meet half-way. The caller holds mu.
func (c *Clock) adjust(mono int64, rtt time.Duration) {
	var all []time.Duration
	for peer, o := range c.offsets {
		if mono-o.at > int64(offsetLife) {
			delete(c.offsets, peer)
			continue
		}
		all = append(all, o.offset)
	}
	if len(all) == 0 {
		return
	}
	if step := c.agreed(all, mono); step > stepLeast+rtt && !c.settled.Load() && mono-c.made < int64(c.cfg.Window) {
		c.steps.Add(1)
		c.log.Info("node time steps to that of the peers", "step", step)
		c.move(mono, int64(step))
		clear(c.offsets) // measured against the time before the step
		return
	}
	target := int64(median(append(all, 0)))
	line := &clockLine{mono: mono, node: c.line.Load().at(mono), ppm: slewPPM, until: mono}
	switch {
	case target < -slewDeadband:
		line.ppm = -slewPPM
		target = -target
	case target <= slewDeadband:
		target = 0
	}
	line.until += min(target*(1_000_000/slewPPM), int64(offsetLife))
	c.line.Store(line)
}

// agreed is the offset that a first step may be taken for: that of the only
// peer, or what most of all clocks have, this one too. mu is held.
func (c *Clock) agreed(peers []time.Duration, mono int64) time.Duration {
	if len(peers) > 1 {
		return majority(peers)
	}
	if mono-c.heard < stepPatience {
		return 0
	}
	return peers[0]
}

// majority is the median of the offsets of peers and our own, 0. If two are in
// the middle it is the lesser one: half of all clocks are no reason to distrust ours.
func majority(peers []time.Duration) time.Duration {
	d := append(slices.Clone(peers), 0)
	slices.Sort(d)
	a, b := d[(len(d)-1)/2], d[len(d)/2]
	if a.Abs() < b.Abs() {
		return a
	}
	return b
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	n := len(d)
	if n%2 == 1 {
		return d[n/2]
	}
	return (d[n/2-1] + d[n/2]) / 2
}

// Run looks for gaps and calls OnWake until ctx ends.
func (c *Clock) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Tick)
	defer tick.Stop()
	_, last := c.src.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			last = c.look(last)
		case gap := <-c.woke:
			c.log.Warn("this node did not run for a while", "gap", gap)
			if c.cfg.OnWake != nil {
				c.cfg.OnWake(gap)
			}
		}
	}
}

// look is one tick: it returns the monotonic time that the next one compares to.
func (c *Clock) look(last int64) int64 {
	c.nowNS()
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.src.now()
	c.takeSleep(mono)
	// Slow corrections of the wall clock are no jumps, however far they add up.
	if d := wall - mono - c.drift.Load(); d < jumpLeast && d > -jumpLeast {
		c.drift.Add(d)
	}
	if gap := mono - last - int64(c.cfg.Tick); gap > int64(c.cfg.Gap) {
		c.wake(time.Duration(gap))
	}
	return mono
}

// ClockStats counts since start.
type ClockStats struct {
	// Jumps of the wall clock, none of which was followed; Wakes after gaps;
	// initial Steps.
	Jumps, Wakes, Steps uint64
	// Offset is the median of the peers' node time minus ours.
	Offset time.Duration
	// Skew is by how much the node time of most members differs from ours.
	Skew time.Duration
}

// Stats reads the counters.
func (c *Clock) Stats() ClockStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := ClockStats{Jumps: c.jumps.Load(), Wakes: c.wakes.Load(), Steps: c.steps.Load()}
	var all []time.Duration
	for _, o := range c.offsets {
		all = append(all, o.offset)
	}
	if len(all) > 0 {
		st.Offset = median(all)
		st.Skew = majority(all)
	}
	return st
}
