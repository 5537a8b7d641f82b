package cluster_test

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// wires carry Envelopes between the nodes of one process as streams do, as
// frames of bytes, but without the system: each pair's are delivered together.
type wires struct {
	now    int64
	nodes  []*wiredNode
	frames int
	bytes  int
}

type wiredNode struct {
	w    *wires
	name string
	inc  uint64
	core *cluster.Core
	// to has what is sent to each of the others, by their names; due: it must not wait.
	to  map[string]*wire
	due bool
}

// wire is one way between two nodes: frames to be delivered, and room for those that come meanwhile.
type wire struct{ frames, spare []byte }

func (n *wiredNode) Send(to string, env *messages.Envelope) bool {
	n.due = true
	return n.Ride(to, env)
}

func (n *wiredNode) Ride(to string, env *messages.Envelope) bool {
	way := n.to[to]
	frames, err := cluster.AppendFrame(way.frames, env, 4<<20)
	if err != nil {
		return false
	}
	way.frames = frames
	n.w.frames++
	return true
}

func newWires(tb testing.TB, n int) *wires {
	w := &wires{now: startMS}
	user := actors.New(actors.DefaultLimits())
	var members []cluster.Member
	for i := range n {
		members = append(members, cluster.Member{Name: fmt.Sprintf("n%d", i+1), Incarnation: uint64(w.now)<<8 + uint64(i)})
	}
	for _, m := range members {
		wn := &wiredNode{w: w, name: m.Name, inc: m.Incarnation, to: make(map[string]*wire)}
		for _, o := range members {
			wn.to[o.Name] = &wire{}
		}
		cfg := cluster.DefaultConfig()
		cfg.Name, cfg.Incarnation = m.Name, m.Incarnation
		core, err := cluster.NewCore(cfg, cluster.Parts{
			Network: wn, Store: &disk{none: true}, Grains: grains{user}, Flows: &openFlows{},
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Rand: func() uint64 { return 7 },
		})
		if err != nil {
			tb.Fatal(err)
		}
		wn.core = core
		w.nodes = append(w.nodes, wn)
	}
	for _, n := range w.nodes {
		n.core.Members(w.now, members)
		for _, m := range members {
			if m.Name != n.name {
				n.core.PeerUp(w.now, &messages.Hello{Name: m.Name, Incarnation: m.Incarnation})
			}
		}
	}
	for range 1000 {
		w.tick(tb)
	}
	for _, n := range w.nodes {
		if !n.core.Settled() {
			tb.Fatal("not settled")
		}
	}
	return w
}

// tick lets 10 ms pass; what rides is delivered too.
func (w *wires) tick(tb testing.TB) {
	w.now += 10
	for _, n := range w.nodes {
		n.core.Tick(w.now)
		n.due = true
	}
	w.deliver(tb)
}

// deliver delivers until nobody has anything in a hurry.
func (w *wires) deliver(tb testing.TB) {
	for again := true; again; {
		again = false
		for _, n := range w.nodes {
			if !n.due {
				continue
			}
			again, n.due = true, false
			for _, o := range w.nodes {
				w.bytes += n.to[o.name].deliver(tb, n.name, o, w.now)
			}
		}
	}
}

func (way *wire) deliver(tb testing.TB, from string, to *wiredNode, now int64) (bytes int) {
	frames := way.frames
	way.frames, way.spare = way.spare[:0], nil
	for rest := frames; len(rest) > 0; {
		env, next, err := cluster.ReadFrame(rest)
		if err != nil {
			tb.Fatal(err)
		}
		rest = next
		to.core.Receive(now, from, env)
	}
	way.spare = frames[:0]
	return len(frames)
}

// BenchmarkBetween is what a REGISTER costs all nodes of a cluster together,
// without SIP, sockets and disk: the question, the copies, the acknowledgements.
func BenchmarkBetween(b *testing.B) {
	for _, nodes := range []int{3, 8} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			w := newWires(b, nodes)
			payload := &messages.Register{CallId: "f81d4fae7dec11d0a76500a0c91e6bf6@192.0.2.10", Transport: "udp",
				Local: "192.0.2.1:5060", Remote: "192.0.2.10:5060", UserAgent: "bench",
				Contacts: []*messages.RegisterContact{{Uri: "sip:dev@192.0.2.10:5060", ExpiresS: 3600, HasExpires: true}}}
			answered, kept := 0, 0
			register := func(i int) {
				n := w.nodes[i%nodes]
				r := proto.CloneOf(payload)
				r.Aor = fmt.Sprintf("sip:user%d@example.com", i)
				r.Edge, r.Incarnation, r.Cseq, r.Stamp = n.name, n.inc, 1, n.core.NewStamp(w.now)
				r.Flow = &messages.FlowID{Incarnation: n.inc, Counter: uint64(i)}
				n.core.Ask(w.now, r.Aor, r, 0, func(m proto.Message, err error) {
					res, ok := m.(*messages.Registered)
					if !ok {
						b.Fatal(m, err)
					}
					answered++
					n.core.Keep(w.now, res.Writes, func(error) { kept++ })
				})
			}
			w.frames, w.bytes = 0, 0
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				register(i)
				i++
				if i%16 == 0 {
					w.deliver(b)
				}
				if i%128 == 0 {
					w.tick(b)
				}
			}
			b.StopTimer()
			for range 50 {
				w.tick(b)
			}
			if answered != i || kept != i {
				b.Fatalf("%d of %d answered, %d kept", answered, i, kept)
			}
			b.ReportMetric(float64(w.frames)/float64(i), "messages/op")
			b.ReportMetric(float64(w.bytes)/float64(i), "bytes/op")
		})
	}
}
