package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"hereis/messages"
)

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

func TestRidersGoWithTheNextSendOrSoon(t *testing.T) {
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.RideDelay, c.Heartbeat = time.Hour, time.Hour; c.Timeout = time.Minute })
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute })
	introduce(a, b)
	eventually(t, "up", func() bool { return a.up("b") && b.up("a") })
	// What a stream begins with, ping and pong, may take riders along.
	riders := 0
	eventually(t, "a rider that waits", func() bool {
		a.Ride("b", note(riders))
		riders++
		time.Sleep(50 * time.Millisecond)
		return len(b.envelopes()) < riders
	})
	a.Send("b", note(riders))
	eventually(t, "all", func() bool { return len(b.envelopes()) == riders+1 })
	for i, env := range b.envelopes() {
		if env.Id != uint64(i) {
			t.Fatalf("number %d is %d", i, env.Id)
		}
	}

	c := startStreams(t, "c", 1, func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute })
	introduce(c, b)
	eventually(t, "up", func() bool { return c.up("b") })
	c.Ride("b", note(0))
	eventually(t, "the rider after its delay", func() bool { return len(b.envelopes()) == riders+2 })
}

func TestRule22_FullQueueIsToldAndCounted(t *testing.T) {
	a := startStreams(t, "a", 1, func(c *StreamConfig) { c.QueueBytes = 64 << 10; c.Timeout = 30 * time.Second })
	block := make(chan struct{})
	b := startStreams(t, "b", 1, func(c *StreamConfig) { c.Timeout = 30 * time.Second })
	b.failing(func(*messages.Envelope) { <-block })
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
	b.failing(func(env *messages.Envelope) {
		if env.Id == 13 {
			panic("thirteen")
		}
	})
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

// What is said while the reader has more frames at hand leaves when it has been
// through them, all of it.
func TestAnswersToWhatCameTogetherLeaveTogether(t *testing.T) {
	quiet := func(c *StreamConfig) { c.Heartbeat = time.Hour; c.Timeout = time.Minute }
	a, b := startStreams(t, "a", 1, quiet), startStreams(t, "b", 1, quiet)
	const many = 500
	begin := make(chan struct{})
	b.failing(func(env *messages.Envelope) {
		if env.Id == 0 {
			<-begin // the rest has come when the first is answered
		}
		b.Send("a", note(int(env.Id)))
	})
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
