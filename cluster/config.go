package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config is what a node's cluster part is told. DefaultConfig has the limits;
// Name and Incarnation must be set.
type Config struct {
	// Name is the stable name of this node; placement hashes it (rule 18).
	Name string
	// Incarnation is above any that this node has used before.
	Incarnation uint64
	// Region and Zone are shown to people.
	Region, Zone string

	// AskTimeout is how long an Ask without deadline waits for its answer.
	AskTimeout time.Duration
	// HedgeDelay is how long a Locate waits for the owner before it asks the
	// backup too, until round trips have been measured; then it is 4 mean
	// round trips, within HedgeMin and HedgeMax.
	HedgeDelay, HedgeMin, HedgeMax time.Duration
	// FailOver is how long other questions wait for the owner before the
	// backup is asked to stand in.
	FailOver time.Duration
	// CopyWait is how long a reply waits for the acknowledgement of the other
	// holder or of a former edge (rule 5); then it is counted and sent.
	CopyWait time.Duration
	// PullWait is how long each of the two steps of completing a record may take (rule 11).
	PullWait time.Duration

	// MaxInFlight is how many unanswered requests one peer may owe this node (rule 22).
	MaxInFlight int
	// MaxParked is how many requests may wait at this node's gate for copies or pulls.
	MaxParked int
	// MaxBroadcasts is how many AoRs may at one time be asked for at all members (rule 11).
	MaxBroadcasts int
	// MaxHandlers is how many user message handlers may run at one time.
	MaxHandlers int
	// MaxUsers is of how many AoRs, about, this node may hold something when it takes
	// in another as owner or stand-in; copies are always taken.
	MaxUsers int
	// MaxUnstored is of how many AoRs this node remembers that a write of them failed,
	// to write them again. Above it, it says for the rest of its life that there are some.
	MaxUnstored int
	// MaxDead is how many dead keys of one AoR are kept; above it the oldest
	// acknowledged one goes (rule 4: 4 x the binding limit).
	MaxDead int

	// BulkBytes is the size of a message of the repair loop, and BulkWindow
	// how many of them may be unacknowledged at one peer (rule 22).
	BulkBytes, BulkWindow int
	// DigestEvery is the period of comparing what is shared with each peer (rule 10).
	DigestEvery time.Duration

	// MaxWatches is how many followers, and how many patterns of one peer, are kept.
	MaxWatches int
	// SnapshotLimit is the most records that one Snapshotted carries.
	SnapshotLimit int
}

// DefaultConfig has a defined value for every limit.
func DefaultConfig() Config {
	return Config{
		AskTimeout: 2 * time.Second,
		HedgeDelay: 30 * time.Millisecond, HedgeMin: 15 * time.Millisecond, HedgeMax: 100 * time.Millisecond,
		FailOver:    400 * time.Millisecond,
		CopyWait:    250 * time.Millisecond,
		PullWait:    150 * time.Millisecond,
		MaxInFlight: 4096, MaxParked: 65536, MaxBroadcasts: 256, MaxHandlers: 256, MaxUsers: 10_000_000, MaxUnstored: 1 << 20, MaxDead: 40,
		BulkBytes: 6 << 10, BulkWindow: 40, DigestEvery: 30 * time.Second,
		MaxWatches: 4096, SnapshotLimit: 1000,
	}
}

// Validate names the first field that cannot be.
func (c *Config) Validate() error {
	if c.Name == "" {
		return errors.New("cluster: Name is empty")
	}
	if c.Incarnation == 0 {
		return errors.New("cluster: Incarnation is 0")
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"AskTimeout", int64(c.AskTimeout)}, {"HedgeDelay", int64(c.HedgeDelay)},
		{"HedgeMin", int64(c.HedgeMin)}, {"HedgeMax", int64(c.HedgeMax)},
		{"FailOver", int64(c.FailOver)}, {"CopyWait", int64(c.CopyWait)}, {"PullWait", int64(c.PullWait)},
		{"MaxInFlight", int64(c.MaxInFlight)}, {"MaxParked", int64(c.MaxParked)},
		{"MaxBroadcasts", int64(c.MaxBroadcasts)}, {"MaxHandlers", int64(c.MaxHandlers)},
		{"MaxUsers", int64(c.MaxUsers)}, {"MaxUnstored", int64(c.MaxUnstored)}, {"MaxDead", int64(c.MaxDead)}, {"BulkBytes", int64(c.BulkBytes)}, {"BulkWindow", int64(c.BulkWindow)},
		{"DigestEvery", int64(c.DigestEvery)},
		{"MaxWatches", int64(c.MaxWatches)}, {"SnapshotLimit", int64(c.SnapshotLimit)},
	} {
		if f.n <= 0 {
			return fmt.Errorf("cluster: %s is not positive", f.name)
		}
	}
	return nil
}

// Parts are what a node's cluster part works with; all must be set.
type Parts struct {
	Network Network
	Store   Store
	Grains  Grains
	Flows   Flows
	Clock   NodeTime
	Log     *slog.Logger
	// Observe is told how long each question that a caller waits for took until
	// its answer, by the full name of its type; nil if nobody wants to know. It must not wait.
	Observe func(kind string, took time.Duration)
	// Rand returns 64 random bits; it is called from many goroutines.
	Rand func() uint64
}

// NodeTime tells node time in milliseconds (rule 9).
type NodeTime interface{ NowMS() int64 }

func millis(d time.Duration) int64 { return d.Milliseconds() }
