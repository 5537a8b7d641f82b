package sipfront

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/messages"
	"hereis/sipfront/event"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// instant is a transaction layer whose every request is answered 200 at once.
type instant struct{ sent *atomic.Int64 }

func (i instant) RequestRaw(req transaction.Outgoing, _ transport.Flow, f transaction.Responses) (clientTx, error) {
	i.sent.Add(1)
	f(&transport.Message{Response: sip.NewResponse(200, "OK")}, nil)
	return nil, nil
}

// watcherOf is one of many subscriptions to a user's presence.
func watcherOf(i int, aor string) *messages.Subscription {
	now := int64(1_793_491_200_000)
	return &messages.Subscription{
		Id: uint64(i), Aor: aor, Event: "presence", MediaType: "application/pidf+xml",
		Watcher: fmt.Sprintf("sip:watcher%d@example.com", i), CallId: fmt.Sprintf("%032x@192.0.2.20", i),
		LocalTag: fmt.Sprintf("h%013d", i), RemoteTag: fmt.Sprintf("%010x", i),
		Local: "<" + aor + ">", Remote: fmt.Sprintf("<sip:watcher%d@example.com>;tag=%010x", i, i),
		Target: fmt.Sprintf("sip:watcher%d@192.0.2.20:5060", i), RemoteCseq: 1, Reserved: 1 << 30,
		SinceMs: now, ExpiresMs: now + 100*3_600_000, Transport: "udp",
		FlowLocal: addr1, FlowRemote: watcher1, Contact: "<sip:ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF@" + addr1 + ">",
	}
}

func (p *presenceRig) attachMany(n int, aor func(i int) string) {
	w := p.srv.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		w.attach(&subscription{p: watcherOf(i, aor(i)), pkg: event.Presence{}, verdict: event.Allow, accepted: true})
	}
}

// BenchmarkNotify is a change of a user with many watchers at this node: one
// document, and a NOTIFY for each, transactions and sockets apart.
func BenchmarkNotify(b *testing.B) {
	for _, watchers := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			p := newPresence(b, nil, &memDisk{subs: map[uint64]*messages.Subscription{}}, nil, func(c *Config) { c.NotifyInterval = 0 })
			var sent atomic.Int64
			p.srv.layer = instant{&sent}
			const aor = "sip:bob@example.com"
			p.attachMany(watchers, func(int) string { return aor })
			p.srv.watch.mu.Lock()
			u := p.srv.watch.user(aor)
			u.Answered(&messages.Subscribe{Interest: &messages.Interest{}}, p.srv.watch.interest(u, p.zone.NowMS()), "", &messages.Subscribed{Settled: true})
			p.srv.watch.mu.Unlock()
			b.ReportAllocs()
			changes := uint32(0)
			for b.Loop() {
				changes++
				want := sent.Load() + int64(watchers)
				now := p.zone.NowMS()
				l := &messages.Lease{
					Key: []byte("sip:bob@192.0.2.77"), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "n9",
					Stamp: &messages.Stamp{Ms: now, Counter: changes}, ExpiresMs: now + 3_600_000,
					Payload: mustMarshal(&messages.Binding{Contact: fmt.Sprintf("sip:bob@192.0.2.77:%d", 1024+changes%10000), Q: 1000}),
				}
				w := p.srv.watch
				w.mu.Lock()
				u.Rec.Merge(&messages.Record{Leases: []*messages.Lease{l}})
				w.changed(u)
				w.mu.Unlock()
				for sent.Load() < want {
					w.send()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent.Load()), "ns/NOTIFY")
		})
	}
}

// TestMemoryOfASubscription holds the ceiling that 100,000 subscriptions rest on.
func TestMemoryOfASubscription(t *testing.T) {
	p := newPresence(t, nil, &memDisk{subs: map[uint64]*messages.Subscription{}}, nil)
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	p.attachMany(n, func(i int) string { return fmt.Sprintf("sip:user%d@example.com", i/10) })
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d bytes for each of %d subscriptions to %d users, taken in within %v", each, n, n/10, took)
	if each > 4096 {
		t.Errorf("%d bytes for each subscription", each)
	}
}
