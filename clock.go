package hereis

import (
	"context"
	"errors"
	"time"

	"hereis/messages"
)

// ErrClock is in the answer of Ready when this node's clock differs from that
// of most members by more than the bound of rule 9.
var ErrClock = errors.New("the clock of this node is off")

const (
	clockLook = 500 * time.Millisecond
	// clockSettles is how long a node must have been settled before its time
	// steps no more: its peers' clocks are known by then.
	clockSettles = 2 * time.Second
	skewBound    = messages.SkewBoundMS * time.Millisecond
)

// watchClock ends the time in which node time may still step to what the first
// peers say, and takes this node off duty for as long as its clock is off.
func (n *Node) watchClock(ctx context.Context) error {
	t := time.NewTicker(clockLook)
	defer t.Stop()
	var settled time.Duration
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if !n.cluster.Settled() {
			settled = 0
		} else if settled += clockLook; settled == clockSettles {
			n.clock.Settled()
		}
		n.judgeClock()
	}
}

// judgeClock takes the node off duty when its clock is further from those of
// most members than the bound, and on again when it is within half of that. A
// node off duty holds nothing and takes nothing new (as in a drain): with a
// clock of its own it would take bindings for expired that are not, and all
// stamps that it makes ahead of the others' are refused anyway.
func (n *Node) judgeClock() {
	skew := n.clock.Stats().Skew.Abs()
	switch off := n.duty.clockOff.Load(); {
	case !off && skew > skewBound:
		n.duty.clockOff.Store(true)
		n.log.Error("the clock of this node is off: it holds nothing and takes nothing new until it is right and the node restarted", "skew", n.clock.Stats().Skew)
	case off && skew < skewBound/2:
		n.duty.clockOff.Store(false)
		n.log.Info("the clock of this node is right again")
	default:
		return
	}
	if err := n.goOnDuty(); err != nil {
		n.log.Warn("the others could not be told", "err", err)
	}
}
