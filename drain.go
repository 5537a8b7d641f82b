package hereis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hereis/cluster"
)

// ErrNotRemembered is the answer of Forget to a name that no failed member has.
var ErrNotRemembered = errors.New("no failed member of that name is remembered")

// drainLook is how often a drain that is waited for is looked at.
const drainLook = 20 * time.Millisecond

// farewell is how long a node that stops waits for its watchers to have heard of it.
const farewell = 2 * time.Second

// Drain makes the node hold nothing for others any more, and take no new
// registrations and calls: 503 with Retry-After. It goes on as the edge of its
// own flows and passes on what runs through it. It returns when the other
// members have been told; DrainStatus says when they have all that it held.
//
// Its subscriptions end, so that their watchers come again to another node, if
// there is one.
func (n *Node) Drain() error {
	n.duty.drained.Store(true)
	n.sip.DeactivateSubscriptions(n.hasPeers())
	return n.goOnDuty()
}

// Undrain takes Drain back.
func (n *Node) Undrain() error {
	n.duty.drained.Store(false)
	n.sip.DeactivateSubscriptions(false)
	return n.goOnDuty()
}

// duty is why a node would take nothing new.
type duty struct {
	// mu makes telling the others one at a time; the last word is the right one.
	mu sync.Mutex
	// drained: somebody wants it so. clockOff: see judgeClock.
	drained, clockOff atomic.Bool
}

// goOnDuty takes new things, or not any more, and tells the others.
func (n *Node) goOnDuty() error {
	n.duty.mu.Lock()
	defer n.duty.mu.Unlock()
	off := n.duty.drained.Load() || n.duty.clockOff.Load()
	n.sip.SetDraining(off)
	return n.gossip.SetDraining(off)
}

// hasPeers tells whether another node could take over what this one serves.
func (n *Node) hasPeers() bool {
	return slices.ContainsFunc(n.cluster.Members(), func(m cluster.MemberStatus) bool {
		return m.Name != n.Name() && m.FailedMS == 0 && !m.Draining
	})
}

// DrainStatus tells how far a drain has come; the node may be stopped without
// loss when it is Done.
func (n *Node) DrainStatus() cluster.DrainStatus { return n.cluster.DrainStatus() }

// Drained waits until a drain is done, or returns ctx's error.
func (n *Node) Drained(ctx context.Context) error {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		st := n.DrainStatus()
		if st.Done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d records are left, and members %q: %w", st.Left, st.Waiting, ctx.Err())
		case <-tick.C:
		}
	}
}

// Forget drops a failed member at every node: its users are unknown now and no
// more unreachable, and nobody dials it (CONSISTENCY rules 15, 19). It may come
// back all the same. The error is ErrNotRemembered.
func (n *Node) Forget(name string) error {
	if !n.gossip.Forget(name) {
		return fmt.Errorf("%w: %q", ErrNotRemembered, name)
	}
	n.log.Info("member forgotten", "node", name)
	return nil
}

// drainToStop is the drain of a node that is told to stop. A node that cannot
// hand over in time stops all the same: the others have their copies of all
// but what they have not acknowledged, and the disk has the rest.
func (n *Node) drainToStop(ctx context.Context) error {
	began := time.Now()
	err := n.Drain()
	switch {
	case errors.Is(err, cluster.ErrStopped):
		return nil // the membership has ended: that is why this node stops
	case err != nil:
		n.log.Warn("the others could not be told of the drain", "err", err)
	}
	told, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if err := n.sip.SubscriptionsTold(told); err != nil {
		n.log.Warn("not every watcher has been told to come again elsewhere", "err", err)
	}
	if err := n.Drained(ctx); err != nil {
		n.log.Warn("not everything was handed over", "took", time.Since(began), "err", err)
		return nil
	}
	n.log.Info("drained", "took", time.Since(began))
	return nil
}

// untilDone is the run of a part that does something only when it stops.
func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
