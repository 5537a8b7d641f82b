package cluster

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fakeClocks are the three clocks of a machine, moved by hand.
type fakeClocks struct {
	mu               sync.Mutex
	wall, mono, boot int64
}

func newFakeClocks() *fakeClocks {
	return &fakeClocks{wall: 1_700_000_000_000_000_000, mono: 5, boot: 5}
}

func (f *fakeClocks) source() clockSource {
	return clockSource{
		now: func() (wall, mono int64) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.wall, f.mono
		},
		boot: func() int64 {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.boot
		},
	}
}

func (f *fakeClocks) run(d time.Duration) { f.move(d, d, d) }

func (f *fakeClocks) move(wall, mono, boot time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall += int64(wall)
	f.mono += int64(mono)
	f.boot += int64(boot)
}

func newTestClock(f *fakeClocks, cfg ClockConfig) *Clock {
	cfg.source = f.source()
	return NewClock(cfg, slog.New(slog.DiscardHandler))
}

func TestRule9_WallClockJumpIsCountedAndNotFollowed(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		f := newFakeClocks()
		c := newTestClock(f, ClockConfig{})
		start := c.NowMS()
		f.run(time.Second)
		f.move(jump, 0, 0)
		if got := c.NowMS() - start; got != 1000 {
			t.Errorf("jump %v: got %d ms, want 1000", jump, got)
		}
		f.run(time.Second)
		if got := c.NowMS() - start; got != 2000 {
			t.Errorf("jump %v: got %d ms, want 2000", jump, got)
		}
		if st := c.Stats(); st.Jumps != 1 || st.Wakes != 0 {
			t.Errorf("got %+v, want one jump", st)
		}
	}
}

func TestRule9_SleepIsInTheFirstReadingAfterIt(t *testing.T) {
	f := newFakeClocks()
	c := newTestClock(f, ClockConfig{})
	start := c.NowMS()
	f.move(time.Minute, 0, time.Minute) // the machine sleeps
	if got := c.NowMS() - start; got != 60_000 {
		t.Errorf("got %d ms, want 60000", got)
	}
	if st := c.Stats(); st.Wakes != 1 || st.Jumps != 0 {
		t.Errorf("got %+v, want one wake", st)
	}
}

func TestRule9_SlewIsAtMost500PPM(t *testing.T) {
	f := newFakeClocks()
	c := newTestClock(f, ClockConfig{})
	c.Settled()
	start := c.NowMS()
	c.Observe("b", c.Moves(), time.Second, time.Millisecond)
	c.Observe("c", c.Moves(), time.Second, time.Millisecond)
	f.run(10 * time.Second)
	if got := c.NowMS() - start; got != 10_005 {
		t.Errorf("forward: got %d ms in 10 s, want 10005", got)
	}
	start = c.NowMS()
	c.Observe("b", c.Moves(), -time.Second, time.Millisecond)
	c.Observe("c", c.Moves(), -time.Second, time.Millisecond)
	f.run(10 * time.Second)
	if got := c.NowMS() - start; got != 9_995 {
		t.Errorf("backward: got %d ms in 10 s, want 9995", got)
	}
	start = c.NowMS()
	f.run(10 * time.Second) // nobody says anything any more
	if got := c.NowMS() - start; got != 10_000 {
		t.Errorf("alone: got %d ms in 10 s, want 10000", got)
	}
}

// TestRule9_AStepIsTakenOnce: the words of two peers cross the step that the first of them led to.
func TestRule9_AStepIsTakenOnce(t *testing.T) {
	f := newFakeClocks()
	c := newTestClock(f, ClockConfig{})
	start, before := c.NowMS(), c.Moves()
	c.Observe("b", before, time.Hour, time.Millisecond)
	f.run(600 * time.Millisecond)
	c.Observe("c", before, time.Hour, time.Millisecond)
	c.Observe("b", before, time.Hour, time.Millisecond)
	c.Observe("c", before, time.Hour, time.Millisecond)
	if got := c.NowMS() - start; got != 3_600_600 {
		t.Errorf("got %d ms further, want one step of an hour", got)
	}
}

func TestRule9_FirstStepIsForwardOnlyAndBeforeSettled(t *testing.T) {
	step := func(offset time.Duration, prepare func(*fakeClocks, *Clock)) int64 {
		f := newFakeClocks()
		c := newTestClock(f, ClockConfig{})
		if prepare != nil {
			prepare(f, c)
		}
		start := c.NowMS()
		c.Observe("b", c.Moves(), offset, time.Millisecond)
		if got := c.NowMS() - start; got != 0 {
			t.Errorf("at the first word of one peer: got %d ms", got)
		}
		f.run(500 * time.Millisecond)
		c.Observe("b", c.Moves(), offset, time.Millisecond)
		return c.NowMS() - start - 500
	}
	if got := step(time.Hour, nil); got != 3_600_000 {
		t.Errorf("forward: got %d ms", got)
	}
	if got := step(-time.Hour, nil); got != -1 && got != 0 { // it slews
		t.Errorf("backward: got %d ms", got)
	}
	if got := step(10*time.Millisecond, nil); got != 0 {
		t.Errorf("little: got %d ms", got)
	}
	if got := step(time.Hour, func(_ *fakeClocks, c *Clock) { c.Settled() }); got > 1 {
		t.Errorf("settled: got %d ms", got)
	}
	if got := step(time.Hour, func(f *fakeClocks, _ *Clock) { f.run(time.Minute) }); got > 1 {
		t.Errorf("late: got %d ms", got)
	}
}

// Of several clocks that start together one is an hour ahead: the others do not follow it.
func TestRule9_OneClockAheadLeadsNobodyAstray(t *testing.T) {
	for _, first := range []string{"good", "ahead"} {
		f := newFakeClocks()
		c := newTestClock(f, ClockConfig{})
		start, ran := c.NowMS(), int64(0)
		words := map[string]time.Duration{"good": 0, "ahead": time.Hour}
		second := map[string]string{"good": "ahead", "ahead": "good"}[first]
		for range 10 {
			c.Observe(first, c.Moves(), words[first], time.Millisecond)
			f.run(100 * time.Millisecond)
			c.Observe(second, c.Moves(), words[second], time.Millisecond)
			f.run(400 * time.Millisecond)
			ran += 500
		}
		if got := c.NowMS() - start - ran; got > 10 || got < -10 {
			t.Errorf("%s first: it stepped by %d ms", first, got)
		}
		if got := c.Stats().Skew; got != 0 {
			t.Errorf("%s first: it is off by %v, it thinks", first, got)
		}
	}
	f := newFakeClocks()
	c := newTestClock(f, ClockConfig{})
	c.Observe("a", c.Moves(), -time.Hour, time.Millisecond)
	c.Observe("b", c.Moves(), -time.Hour, time.Millisecond)
	if got := c.Stats().Skew; got != -time.Hour {
		t.Errorf("an hour ahead of two: skew %v", got)
	}
}

// Two nodes whose clocks differ come together.
func TestRule9_TwoClocksMeet(t *testing.T) {
	fa, fb := newFakeClocks(), newFakeClocks()
	fb.wall += int64(60 * time.Millisecond)
	a, b := newTestClock(fa, ClockConfig{}), newTestClock(fb, ClockConfig{})
	a.Settled()
	b.Settled()
	for range 600 {
		fa.run(500 * time.Millisecond)
		fb.run(500 * time.Millisecond)
		d := time.Duration(b.NowMS()-a.NowMS()) * time.Millisecond
		a.Observe("b", a.Moves(), d, time.Millisecond)
		b.Observe("a", b.Moves(), -d, time.Millisecond)
	}
	if d := b.NowMS() - a.NowMS(); d > 5 || d < -5 {
		t.Errorf("got %d ms apart after five minutes", d)
	}
}

// Whatever happens to the machine's clocks, node time never goes back.
func TestRule9_NodeTimeNeverGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFakeClocks()
		c := newTestClock(f, ClockConfig{})
		last := c.nowNS()
		ms := rapid.IntRange(0, 5000)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			d := time.Duration(ms.Draw(t, "ms")) * time.Millisecond
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				f.run(d)
			case 1:
				f.move(time.Duration(rapid.IntRange(-5000, 5000).Draw(t, "jump"))*time.Millisecond, 0, 0)
			case 2:
				f.move(d, 0, d)
			case 3:
				c.Observe("b", c.Moves(), time.Duration(rapid.IntRange(-9000, 9000).Draw(t, "offset"))*time.Millisecond, time.Millisecond)
			case 4:
				c.Raise(last/int64(time.Millisecond) + int64(ms.Draw(t, "raise")) - 2500)
			case 5:
				c.look(c.line.Load().mono)
			}
			now := c.nowNS()
			if now < last {
				t.Fatalf("went back by %v", time.Duration(last-now))
			}
			last = now
		}
	})
}

func TestRule16_GapInTheTickerWakes(t *testing.T) {
	f := newFakeClocks()
	woke := make(chan time.Duration, 1)
	c := newTestClock(f, ClockConfig{Tick: time.Millisecond, Gap: 250 * time.Millisecond, OnWake: func(d time.Duration) {
		select {
		case woke <- d:
		default:
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	// The process stands still while all clocks go on, between two ticks of its own.
	deadline := time.After(10 * time.Second)
	for {
		f.run(time.Second)
		select {
		case gap := <-woke:
			if gap < 250*time.Millisecond {
				t.Errorf("got a gap of %v", gap)
			}
			return
		case <-deadline:
			t.Fatal("no wake")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestRaise(t *testing.T) {
	f := newFakeClocks()
	c := newTestClock(f, ClockConfig{})
	now := c.NowMS()
	c.Raise(now + 500)
	c.Raise(now - 500)
	if got := c.NowMS(); got != now+500 {
		t.Errorf("got %d, want %d", got, now+500)
	}
}

func BenchmarkNowMS(b *testing.B) {
	c := NewClock(ClockConfig{}, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		c.NowMS()
	}
}
