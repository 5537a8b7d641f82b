package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hereis/messages"
)

// inbox is a Receiver that remembers what it was told.
type inbox struct {
	mu     sync.Mutex
	events []string // "up n1 5", "down n1"
	got    []*messages.Envelope
	fail   func(env *messages.Envelope) // may panic
}

func (b *inbox) Receive(from string, env *messages.Envelope) {
	if b.fail != nil {
		b.fail(env)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if env.From != from {
		panic("from " + env.From)
	}
	b.got = append(b.got, env)
}

func (b *inbox) PeerUp(h *messages.Hello) { b.event(fmt.Sprintf("up %s %d", h.Name, h.Incarnation)) }
func (b *inbox) PeerDown(name string)     { b.event("down " + name) }

func (b *inbox) event(e string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *inbox) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events)
}

func (b *inbox) envelopes() []*messages.Envelope {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) up(name string) bool {
	up := false
	for _, e := range b.told() {
		if strings.HasPrefix(e, "up "+name+" ") {
			up = true
		}
		if e == "down "+name {
			up = false
		}
	}
	return up
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// streamNode is Streams that run, and their Receiver.
type streamNode struct {
	*Streams
	*inbox
	member Member
	stop   func()
}

func startStreams(t *testing.T, name string, incarnation uint64, change func(*StreamConfig)) *streamNode {
	t.Helper()
	cfg := StreamConfig{
		Self:   &messages.Hello{Name: name, Incarnation: incarnation},
		Listen: "127.0.0.1:0", Heartbeat: 50 * time.Millisecond, Timeout: 2 * time.Second, RedialMax: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	b := &inbox{}
	s, err := NewStreams(cfg, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return &streamNode{s, b, Member{Name: name, Incarnation: incarnation, Stream: s.Addr()}, stop}
}

func introduce(nodes ...*streamNode) {
	var all []Member
	for _, n := range nodes {
		all = append(all, n.member)
	}
	for _, n := range nodes {
		n.SetMembers(all)
	}
}

func note(i int) *messages.Envelope {
	return &messages.Envelope{Kind: messages.EnvelopeKind_ENVELOPE_KIND_EVENT, Type: "hereis.Locate", Id: uint64(i), Payload: []byte("x")}
}

func testKeys(t *testing.T) *Keys {
	t.Helper()
	k, err := DeriveKeys([]byte("a secret of the test's own"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestStreamsCarryBothWaysInOrder(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			withKeys := func(c *StreamConfig) {
				if secure {
					c.Keys = testKeys(t)
				}
			}
			a, b := startStreams(t, "a", 1, withKeys), startStreams(t, "b", 2, withKeys)
			introduce(a, b)
			eventually(t, "both up", func() bool { return a.up("b") && b.up("a") })
			const n = 5000
			var wg sync.WaitGroup
			for _, pair := range [][2]*streamNode{{a, b}, {b, a}} {
				wg.Go(func() {
					for i := range n {
						for !pair[0].Send(pair[1].member.Name, note(i)) {
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
			wg.Wait()
			for _, x := range []*streamNode{a, b} {
				eventually(t, "all arrived", func() bool { return len(x.envelopes()) == n })
				for i, env := range x.envelopes() {
					if env.Id != uint64(i) {
						t.Fatalf("got %d at %d", env.Id, i)
					}
				}
			}
			st := a.Stats()
			if st.Writes >= st.SentFrames/2 {
				t.Errorf("%d writes for %d frames: nothing was batched", st.Writes, st.SentFrames)
			}
		})
	}
}

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

func TestRidersGoWithTheNextSendOrSoon(t *testing.T) {
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.RideDelay, c.Heartbeat = time.Hour, time.Hour; c.Timeout = time.Minute })
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute })
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") && b.up("a") })
	a.Ride("b", note(0))
	time.Sleep(50 * time.Millisecond)
	if got := len(b.envelopes()); got != 0 {
		t.Fatalf("got %d: the rider did not wait", got)
	}
	a.Send("b", note(1))
	eventually(t, "both", func() bool { return len(b.envelopes()) == 2 })
	if got := b.envelopes(); got[0].Id != 0 || got[1].Id != 1 {
		t.Fatalf("got %d before %d", got[0].Id, got[1].Id)
	}

	c := startStreams(t, "c", 1, func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute })
	introduce(c, b)
	eventually(t, "up", func() bool { return c.up("b") })
	c.Ride("b", note(2))
	eventually(t, "the rider after its delay", func() bool { return len(b.envelopes()) == 3 })
}

func TestRule22_FullQueueIsToldAndCounted(t *testing.T) {
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.QueueBytes = 64 << 10; c.Timeout = 30 * time.Second })
	block := make(chan struct{})
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Timeout = 30 * time.Second })
	b.fail = func(*messages.Envelope) { <-block }
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") })
	big := note(1)
	big.Payload = make([]byte, 16<<10)
	eventually(t, "a refusal", func() bool { return !a.Send("b", big) })
	if st := a.Stats(); st.Dropped == 0 || st.Peers[0].Dropped == 0 {
		t.Errorf("not counted: %+v", st)
	}
	close(block)
	if a.Send("nobody", note(1)) {
		t.Error("sent to nobody")
	}
}

func TestFrameOverTheLimit(t *testing.T) {
	a := startStreams(t, "a", 1, nil)
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.MaxFrame = 64 << 10 })
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") && b.up("a") })
	big := note(1)
	big.Payload = make([]byte, 128<<10)
	if b.Send("a", big) {
		t.Error("sent more than its own limit")
	}
	fits := note(2)
	fits.Payload = make([]byte, 60<<10)
	b.Send("a", fits)
	eventually(t, "a large frame", func() bool { return len(a.envelopes()) == 1 && len(a.envelopes()[0].Payload) == 60<<10 })
	a.Send("b", big)
	eventually(t, "b ends the stream", func() bool { return slices.Contains(b.told(), "down a") })
	eventually(t, "and it comes back", func() bool { return b.up("a") && a.up("b") })
	if st := b.Stats(); st.Garbage != 1 {
		t.Errorf("got garbage %d, want 1", st.Garbage)
	}
}

func TestRule20_PanicEndsThatPeersStreamOnly(t *testing.T) {
	a, b, c := startStreams(t, "a", 1, nil), startStreams(t, "b", 1, nil), startStreams(t, "c", 1, nil)
	b.fail = func(env *messages.Envelope) {
		if env.Id == 13 {
			panic("thirteen")
		}
	}
	introduce(a, b, c)
	eventually(t, "up", func() bool { return b.up("a") && b.up("c") && a.up("b") && c.up("b") })
	a.Send("b", note(13))
	eventually(t, "down and up again", func() bool { return slices.Contains(b.told(), "down a") && b.up("a") && a.up("b") })
	a.Send("b", note(14))
	c.Send("b", note(15))
	eventually(t, "both go on", func() bool { return len(b.envelopes()) == 2 })
	if slices.Contains(b.told(), "down c") {
		t.Error("c's stream ended too")
	}
	if st := b.Stats(); st.Panics != 1 {
		t.Errorf("got panics %d, want 1", st.Panics)
	}
}

func TestGarbageEndsTheConnectionOnly(t *testing.T) {
	a, b := startStreams(t, "a", 1, nil), startStreams(t, "b", 1, nil)
	introduce(a, b)
	eventually(t, "up", func() bool { return b.up("a") })
	hello := func(name string) []byte {
		env, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, &messages.Hello{Name: name, Incarnation: 9})
		out, _ := appendFrame(append([]byte(streamMagic), streamVersion, 0), env, maxHello)
		return out
	}
	for name, bytes := range map[string][]byte{
		"http":          []byte("GET / HTTP/1.1\r\n\r\n"),
		"version":       append([]byte(streamMagic), 99, 0, 0, 0, 0, 0),
		"no hello":      append([]byte(streamMagic), streamVersion, 0, 0, 0, 0, 2, 0xff, 0xff),
		"own name":      hello("b"),
		"huge frame":    binary.BigEndian.AppendUint32(hello("x1"), 1<<31),
		"not protobuf":  append(hello("x2"), 0, 0, 0, 3, 0xff, 0xff, 0xff),
		"second hello":  append(hello("x3"), hello("x3")[preambleSize:]...),
		"stale member":  hello("a"),
		"hello cut off": hello("x4")[:20],
	} {
		t.Run(name, func(t *testing.T) {
			if name == "stale member" {
				m := a.member
				m.Incarnation = 10
				b.SetMembers([]Member{m})
				defer b.SetMembers([]Member{a.member})
			}
			nc, err := net.Dial("tcp", b.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if name == "hello cut off" {
				nc.(*net.TCPConn).CloseWrite()
			}
			_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 4096)
			for {
				_, err := nc.Read(buf)
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					t.Fatal("the connection was kept")
				}
				if err != nil {
					return
				}
			}
		})
	}
	eventually(t, "a's stream works", func() bool { return a.Send("b", note(1)) })
	eventually(t, "and carries", func() bool { return len(b.envelopes()) == 1 })
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

func BenchmarkStreamSend(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%v", secure), func(b *testing.B) {
			var keys *Keys
			if secure {
				keys, _ = DeriveKeys([]byte("a secret of the benchmark"))
			}
			run := func(name string, recv Receiver) *Streams {
				s, err := NewStreams(StreamConfig{Self: &messages.Hello{Name: name, Incarnation: 1}, Listen: "127.0.0.1:0", Keys: keys}, recv, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Listen(); err != nil {
					b.Fatal(err)
				}
				go s.Run(b.Context())
				return s
			}
			in := &inbox{}
			x, y := run("x", &inbox{}), run("y", in)
			x.SetMembers([]Member{{Name: "y", Incarnation: 1, Stream: y.Addr()}})
			for !in.up("x") {
				time.Sleep(time.Millisecond)
			}
			env := note(1)
			env.Aor, env.Payload = "sip:alice@example.com", make([]byte, 300)
			b.ReportAllocs()
			for b.Loop() {
				for !x.Send("y", env) {
					time.Sleep(100 * time.Microsecond)
				}
			}
			st := x.Stats()
			b.ReportMetric(float64(st.SentFrames)/float64(max(st.Writes, 1)), "frames/write")
		})
	}
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

// What is said while the reader has more frames at hand leaves when it has been
// through them, all of it.
func TestAnswersToWhatCameTogetherLeaveTogether(t *testing.T) {
	quiet := func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute }
	a, b := startStreams(t, "a", 1, quiet), startStreams(t, "b", 1, quiet)
	const many = 500
	begin := make(chan struct{})
	b.fail = func(env *messages.Envelope) {
		if env.Id == 0 {
			<-begin // the rest has come when the first is answered
		}
		b.Send("a", note(int(env.Id)))
	}
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") && b.up("a") })
	before := b.Stats().Writes
	for i := range many {
		if !a.Send("b", note(i)) {
			t.Fatal("not sent")
		}
	}
	close(begin)
	eventually(t, "all answers", func() bool { return len(a.envelopes()) == many })
	for i, env := range a.envelopes() {
		if env.Id != uint64(i) {
			t.Fatalf("answer %d came as number %d", env.Id, i)
		}
	}
	// Each single one: 500. Those that the reader had not at hand may leave alone.
	if writes := b.Stats().Writes - before; writes > many/2 {
		t.Errorf("%d answers left by %d writes", many, writes)
	}
}
