package cluster_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"hereis/cluster"
	"hereis/cluster/store"
	"hereis/messages"
)

// nowhere is a Network on which everything is lost.
type nowhere struct{}

func (nowhere) Send(string, *messages.Envelope) bool { return false }
func (nowhere) Ride(string, *messages.Envelope) bool { return false }

// loadedRecord is what an edge has of one user.
func loadedRecord(i int, now int64) *messages.Record {
	aor := fmt.Sprintf("sip:u%d@example.com", i)
	flow := &messages.FlowID{Incarnation: 6, Counter: uint64(i + 1)}
	return &messages.Record{Aor: aor, Leases: []*messages.Lease{{
		Key: []byte(fmt.Sprintf("sip:u%d@192.0.2.1:5060", i)), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "n1", Flow: flow,
		Stamp: &messages.Stamp{Ms: now - 1000, Counter: uint32(i), Incarnation: 6}, Vouch: 6,
		CallId: fmt.Sprintf("u%d-abcdefgh", i), Cseq: 1024, ExpiresMs: now + 3_600_000, LifetimeMs: 7_200_000, Payload: make([]byte, 120),
	}}}
}

// old is a Store with records of a former life.
type old []*messages.Record

func (old) Put(_ *messages.Record, done func(error)) { done(nil) }
func (old) Keeps() bool                              { return true }
func (old) Err() error                               { return nil }
func (o old) Load(f func(*messages.Record) error) (err error) {
	for _, rec := range o {
		err = errors.Join(err, f(rec))
	}
	return err
}

// What is loaded goes to rest as it comes: a node with a million users does not
// have all of them unpacked for a while when it starts.
func TestWhatIsLoadedIsAtRest(t *testing.T) {
	const now = int64(1_900_000_000_000)
	var disk old
	for i := range 20_000 {
		disk = append(disk, loadedRecord(i, now))
	}
	core := loadCore(t, disk, now)
	if got, most := core.Awake(), 2000; got > most {
		t.Errorf("%d of %d are awake, want at most %d", got, len(disk), most)
	}
}

// loadCore is a node that has loaded what a store has.
func loadCore(t testing.TB, disk cluster.Store, now int64) *cluster.Core {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Name, cfg.Incarnation = "n1", 7
	core, err := cluster.NewCore(cfg, cluster.Parts{
		Network: nowhere{}, Store: disk, Grains: grains{}, Flows: &openFlows{open: map[uint64]bool{}},
		Log: slog.New(slog.DiscardHandler), Rand: rand.Uint64,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Load(now); err != nil {
		t.Fatal(err)
	}
	return core
}

// BenchmarkLoad is what a node does at its start for each user of its own.
func BenchmarkLoad(b *testing.B) {
	const users, now = 200_000, int64(1_900_000_000_000)
	dir := b.TempDir()
	disk, err := store.Open(store.Config{Dir: dir, Level: store.Async}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	slots := make(chan error, 1024) // Puts that wait at a time
	for i := range users {
		if i >= cap(slots) {
			<-slots
		}
		disk.Put(loadedRecord(i, now), func(err error) { slots <- err })
	}
	for range cap(slots) {
		<-slots
	}
	if err := disk.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		disk, err := store.Open(store.Config{Dir: dir, Level: store.Async}, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		loadCore(b, disk, now)
		if err := disk.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/users, "ns/user")
}
