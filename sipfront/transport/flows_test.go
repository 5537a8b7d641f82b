package transport

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"hereis/messages"
)

// A shard of the table forgets the flow that was named least recently, and its
// ids lead to the right addresses, also where slots are used again.
func TestFlowTableAgainstAList(t *testing.T) {
	const most = 5
	evicted := 0
	table := newFlowTable(most*flowShards, func() { evicted++ })
	l := &udpListener{addr: netip.MustParseAddrPort("127.0.0.1:5060")}
	socket := &udpSocket{l: l}
	r := rand.New(rand.NewPCG(1, 2))
	type known struct {
		remote netip.AddrPort
		id     flowKey
	}
	recent := make(map[*flowShard][]known) // the newest last
	var gone []known
	next := uint64(0)
	for range 20_000 {
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(4))}), uint16(1+r.IntN(250)))
		f := &udpFlow{socket: socket, remote: remote}
		id := table.pin(f, func(bool) *messages.FlowID { next++; return &messages.FlowID{Incarnation: 7, Counter: next} })
		at := table.ids[(id.counter^id.incarnation)%flowShards].pinned[id]
		s := &table.shards[at.shard]
		list := recent[s]
		if i := slices.IndexFunc(list, func(k known) bool { return k.remote == remote }); i >= 0 {
			if list[i].id != id {
				t.Fatalf("%v has id %v, want %v", remote, id, list[i].id)
			}
			list = slices.Delete(list, i, i+1)
		} else if len(list) == most {
			gone = append(gone, list[0])
			list = list[1:]
		}
		recent[s] = append(list, known{remote, id})
	}
	total := 0
	for _, list := range recent {
		total += len(list)
		for _, k := range list {
			f, ok := table.byID(k.id.message())
			if !ok || f.Remote() != k.remote || keyOf(f.ID()) != k.id {
				t.Fatalf("id %v leads to %v %v, want %v", k.id, f, ok, k.remote)
			}
		}
	}
	for _, k := range gone {
		if _, ok := table.byID(k.id.message()); ok {
			t.Fatalf("id %v of an evicted flow leads somewhere", k.id)
		}
	}
	if table.len() != total || evicted != len(gone) || evicted == 0 {
		t.Errorf("got %d flows and %d evicted, want %d and %d", table.len(), evicted, total, len(gone))
	}
}

func BenchmarkFlowAtRest(b *testing.B) {
	const flows = 1 << 18
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	socket := &udpSocket{l: &udpListener{addr: netip.MustParseAddrPort("127.0.0.1:5060")}}
	for b.Loop() {
		before := heap()
		table := newFlowTable(8*flows, func() {})
		for i := range uint64(flows) {
			remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 5060)
			table.pin(&udpFlow{socket: socket, remote: remote}, func(bool) *messages.FlowID { return &messages.FlowID{Incarnation: 1, Counter: i + 1} })
		}
		b.ReportMetric(float64(heap()-before)/flows, "B/flow")
		runtime.KeepAlive(table)
	}
}
