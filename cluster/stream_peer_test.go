package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hereis/messages"
)

func TestSimultaneousDialsLeaveOneConnection(t *testing.T) {
	for round := range 10 {
		a, b := startStreams(t, "a", 1, nil), startStreams(t, "b", 1, nil)
		introduce(b, a)
		// As if the larger name had dialled first.
		p := (*b.peers.Load())["a"]
		go func() { _ = b.dial(t.Context(), p, a.member) }()
		eventually(t, "both use the same connection", func() bool {
			pa, pb := (*a.peers.Load())["b"].conn.Load(), p.conn.Load()
			return a.up("b") && b.up("a") && pa != nil && pb != nil && pa.dialled != pb.dialled &&
				pa.nc.LocalAddr().String() == pb.nc.RemoteAddr().String()
		})
		for i := range 100 {
			if !a.Send("b", note(i)) || !b.Send("a", note(i)) {
				t.Fatalf("round %d: not sent", round)
			}
		}
		eventually(t, "all arrived", func() bool { return len(a.envelopes()) == 100 && len(b.envelopes()) == 100 })
		if up := a.told(); len(up) != 1 {
			t.Fatalf("round %d: got %v, want one PeerUp", round, up)
		}
		a.stop()
		b.stop()
	}
}

func TestRestartedPeerReplacesItsOldStream(t *testing.T) {
	a, b := startStreams(t, "a", 1, nil), startStreams(t, "b", 1, nil)
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") })
	b.stop()
	b2 := startStreams(t, "b", 2, nil)
	introduce(a, b2)
	eventually(t, "the new one", func() bool { return slices.Contains(a.told(), "up b 2") })
	want := []string{"up b 1", "down b", "up b 2"}
	if got := a.told(); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if !a.Send("b", note(1)) {
		t.Fatal("not sent")
	}
	eventually(t, "arrived", func() bool { return len(b2.envelopes()) == 1 })
}

func TestSilentPeerIsDown(t *testing.T) {
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.Timeout = 300 * time.Millisecond })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // says hello and nothing more
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			env, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, &messages.Hello{Name: "b", Incarnation: 1})
			out, _ := appendFrame(append([]byte(streamMagic), streamVersion, 0), env, maxHello)
			_, _ = nc.Write(out)
		}
	}()
	a.SetMembers([]Member{{Name: "b", Incarnation: 1, Stream: ln.Addr().String()}})
	eventually(t, "up", func() bool { return slices.Contains(a.told(), "up b 1") })
	eventually(t, "down", func() bool { return slices.Contains(a.told(), "down b") })
}

func TestStreamsMeasureOffset(t *testing.T) {
	clocks := systemClocks()
	ahead := NewClock(ClockConfig{source: clockSource{
		now: func() (int64, int64) {
			wall, mono := clocks.now()
			return wall + int64(time.Hour), mono
		},
		boot: clocks.boot,
	}}, slog.New(slog.DiscardHandler))
	ahead.Settled()
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Clock = ahead })
	a := startStreams(t, "a", 1, nil)
	introduce(a, b)
	eventually(t, "an offset of an hour", func() bool {
		ps := a.Stats().Peers
		return len(ps) == 1 && ps[0].Offset > 59*time.Minute && ps[0].Offset < 61*time.Minute
	})
	// Rule 9: a deadline is the sender's time, corrected by the offset.
	env := note(1)
	env.DeadlineMs = ahead.NowMS() + 1000
	b.Send("a", env)
	eventually(t, "arrived", func() bool { return len(a.envelopes()) == 1 })
	left := a.envelopes()[0].DeadlineMs - time.Now().UnixMilli()
	if left < 500 || left > 1500 {
		t.Errorf("got %d ms left of the deadline, want about 1000", left)
	}
}

func TestWithoutASecretOnLoopbackOnly(t *testing.T) {
	cfg := StreamConfig{Self: &messages.Hello{Name: "a", Incarnation: 1}, Listen: "0.0.0.0:0"}
	insecure, err := InsecureKeys("hereis")
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []*Keys{nil, insecure} {
		cfg.Keys = keys
		if _, err := NewStreams(cfg, &inbox{}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInsecure) {
			t.Errorf("got %v, want ErrInsecure", err)
		}
	}
	cfg.Keys = testKeys(t)
	if _, err := NewStreams(cfg, &inbox{}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

func TestOtherSecretIsKeptOut(t *testing.T) {
	other, err := DeriveKeys([]byte("another secret altogether"))
	if err != nil {
		t.Fatal(err)
	}
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.Keys = testKeys(t) })
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Keys = other })
	plain := startStreams(t, "p", 1, nil)
	introduce(a, b, plain)
	eventually(t, "refusals", func() bool { return a.Stats().Refused+b.Stats().Refused+plain.Stats().Refused >= 3 })
	if got := append(append(a.told(), b.told()...), plain.told()...); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
}

// A node cannot say Hello in the name of another: the certificate has to agree.
func TestHelloMustMatchCertificate(t *testing.T) {
	keys := testKeys(t)
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.Keys = keys })
	liar := startStreams(t, "b", 1, func(c *StreamConfig) { c.Keys = keys })
	liar.cfg.Self.Name = "c" // its certificate says b
	liar.SetMembers([]Member{a.member})
	eventually(t, "refused", func() bool { return a.Stats().Refused > 0 })
	if len(a.told()) != 0 {
		t.Fatalf("got %v", a.told())
	}
}

func TestMemberThatLeftIsDisconnected(t *testing.T) {
	a, b := startStreams(t, "a", 1, nil), startStreams(t, "b", 1, nil)
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") && b.up("a") })
	b.SetMembers(nil)
	a.SetMembers(nil)
	eventually(t, "down", func() bool { return !a.up("b") && !b.up("a") })
	a.SetMembers([]Member{b.member})
	eventually(t, "up again", func() bool { return a.up("b") && b.up("a") })
}

// oneWay is a relay before addr whose forward way can be cut, so that nothing
// tells: what comes is read and lost.
func oneWay(t *testing.T, addr string) (at string, cut func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var lost atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() {
		stop()
		ln.Close()
		wg.Wait()
	})
	carry := func(to, from net.Conn, loses bool) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if loses && lost.Load() {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			context.AfterFunc(ctx, func() { in.Close() })
			context.AfterFunc(ctx, func() { out.Close() })
			wg.Go(func() { carry(out, in, true) })
			wg.Go(func() { carry(in, out, false) })
		}
	})
	return ln.Addr().String(), func() { lost.Store(true) }
}

// What a sends to b is lost, and nothing else: a hears b's pings, and knows
// long before its stream is given up that b does not hear it.
func TestStreamsKnowWhoDoesNotAnswer(t *testing.T) {
	patient := func(c *StreamConfig) { c.Timeout = 5 * time.Minute }
	a, b := startStreams(t, "a", 1, patient), startStreams(t, "b", 2, patient)
	at, cut := oneWay(t, b.member.Stream)
	b.member.Stream = at
	a.SetMembers([]Member{a.member, b.member})
	eventually(t, "both up", func() bool { return a.up("b") && b.up("a") })
	eventually(t, "a ping is answered", func() bool { return !a.Silent("b") && a.Stats().ReceivedFrames > 0 })
	cut()
	eventually(t, "b is silent", func() bool { return a.Silent("b") })
	if !a.up("b") || a.Silent("nobody") {
		t.Error("the stream was given up, or a stranger is silent")
	}
}
