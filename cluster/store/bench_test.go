package store

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hereis/messages"
)

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkPut is what a stored record costs when so many come together, Badger's
// share included where records come again (users: how many there are).
func BenchmarkPut(b *testing.B) {
	for _, level := range []Level{Memory, Async, Sync} {
		for _, company := range []int{1, 8, 32, 128} {
			for _, users := range []int{20_000, 400_000, 1 << 30} {
				b.Run(fmt.Sprintf("store=%s/group=%d/users=%d", level, company, users), func(b *testing.B) {
					benchmarkPut(b, level, company, users)
				})
			}
		}
	}
}

func benchmarkPut(b *testing.B, level Level, company, users int) {
	s, err := Open(Config{Dir: b.TempDir(), Level: level}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	recs := make([]*messages.Record, 1000)
	for i := range recs {
		recs[i] = record(i)
	}
	var wg sync.WaitGroup
	done := func(error) { wg.Done() }
	i := 0
	b.ReportAllocs()
	began := processorTime()
	for b.Loop() {
		wg.Add(company)
		for range company {
			rec := recs[i%len(recs)]
			rec.Aor = fmt.Sprintf("sip:user%07d@example.com", i%users)
			s.Put(rec, done)
			i++
		}
		wg.Wait()
	}
	b.ReportMetric(float64((processorTime()-began).Nanoseconds())/1e3/float64(i), "cpu-us/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(i), "us/record")
	b.ReportMetric(float64(i)/float64(s.Stats().Groups), "records/group")
}
