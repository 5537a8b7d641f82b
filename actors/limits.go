package actors

import (
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"hereis/messages"
)

// Policy says what happens to a new binding of a user who has as many as allowed.
type Policy string

const (
	// Reject refuses the REGISTER.
	Reject Policy = "reject"
	// ReplaceOldest removes the binding that was refreshed longest ago.
	ReplaceOldest Policy = "replace-oldest"
)

// Limits is what the registrar grants. Intervals are whole seconds.
type Limits struct {
	// DefaultExpires is granted to a Contact that asks for nothing (RFC 3261 10.3 step 7).
	DefaultExpires time.Duration
	// MinExpires: an interval below it, and below an hour, is answered 423.
	MinExpires time.Duration
	// MaxExpires is granted at most; it is also how long removals are
	// remembered, and must be the same at every node (rule 4).
	MaxExpires time.Duration
	// Jitter is the largest fraction, 0 to 0.5, by which a granted interval is
	// shortened, so that a million devices do not come back at once.
	Jitter float64
	// MaxBindings is how many live bindings a user may have.
	MaxBindings int
	// Policy is what happens beyond MaxBindings.
	Policy Policy
	// DefaultPublish, MinPublish and MaxPublish are the same for a PUBLISH (RFC
	// 3903 6, step 4); MaxPublish is how long an ended publication is remembered.
	DefaultPublish, MinPublish, MaxPublish time.Duration
	// MaxPublications is how many live publications a user may have, of all event packages.
	MaxPublications int
	// MaxSubscribe is the longest subscription: no node's interest in a user
	// lives for longer without being renewed.
	MaxSubscribe time.Duration
	// MaxMessages is how many messages are stored for a user who is offline;
	// MessageTTL is how long at most.
	MaxMessages int
	MessageTTL  time.Duration
	// Known tells whether the credential source has a user (rule 15); nil if
	// there is no such source. It must not block.
	Known func(aor AoR) bool
}

// DefaultLimits is an hour, between a minute and two hours, for 16 devices.
func DefaultLimits() Limits {
	return Limits{
		DefaultExpires: time.Hour,
		MinExpires:     time.Minute,
		MaxExpires:     2 * time.Hour,
		MaxBindings:    16,
		Policy:         Reject,

		DefaultPublish:  time.Hour,
		MinPublish:      time.Minute,
		MaxPublish:      2 * time.Hour,
		MaxPublications: 8,
		MaxSubscribe:    2 * time.Hour,

		MaxMessages: 20,
		MessageTTL:  24 * time.Hour,
	}
}

// Validate names the first field that makes no sense.
func (l Limits) Validate() error {
	switch {
	case l.MinExpires < time.Second:
		return fmt.Errorf("limits: MinExpires %v: below a second", l.MinExpires)
	case l.DefaultExpires < l.MinExpires:
		return fmt.Errorf("limits: DefaultExpires %v: below MinExpires %v", l.DefaultExpires, l.MinExpires)
	case l.MaxExpires < l.DefaultExpires:
		return fmt.Errorf("limits: MaxExpires %v: below DefaultExpires %v", l.MaxExpires, l.DefaultExpires)
	case l.MaxExpires > math.MaxUint32*time.Second:
		return fmt.Errorf("limits: MaxExpires %v: above 2^32-1 s", l.MaxExpires)
	case math.IsNaN(l.Jitter) || l.Jitter < 0 || l.Jitter > 0.5:
		return fmt.Errorf("limits: Jitter %v: not between 0 and 0.5", l.Jitter)
	case l.MaxBindings < 1:
		return fmt.Errorf("limits: MaxBindings %d: below 1", l.MaxBindings)
	case l.MinPublish < time.Second:
		return fmt.Errorf("limits: MinPublish %v: below a second", l.MinPublish)
	case l.DefaultPublish < l.MinPublish:
		return fmt.Errorf("limits: DefaultPublish %v: below MinPublish %v", l.DefaultPublish, l.MinPublish)
	case l.MaxPublish < l.DefaultPublish || l.MaxPublish > math.MaxUint32*time.Second:
		return fmt.Errorf("limits: MaxPublish %v: not between DefaultPublish %v and 2^32-1 s", l.MaxPublish, l.DefaultPublish)
	case l.MaxPublications < 1:
		return fmt.Errorf("limits: MaxPublications %d: below 1", l.MaxPublications)
	case l.MaxSubscribe < time.Second || l.MaxSubscribe > math.MaxUint32*time.Second:
		return fmt.Errorf("limits: MaxSubscribe %v: not between 1 s and 2^32-1 s", l.MaxSubscribe)
	case l.MaxMessages < 1:
		return fmt.Errorf("limits: MaxMessages %d: below 1", l.MaxMessages)
	case l.MessageTTL < time.Minute:
		return fmt.Errorf("limits: MessageTTL %v: below a minute", l.MessageTTL)
	case l.Policy != Reject && l.Policy != ReplaceOldest:
		return fmt.Errorf("limits: Policy %q: neither %q nor %q", l.Policy, Reject, ReplaceOldest)
	}
	return nil
}

// maxShown bounds the targets of a user: a partition may leave more bindings
// than the limit allows, and all are shown, up to this (rule 8).
func (l *Limits) maxShown() int { return 4 * l.MaxBindings }

// maxKeys bounds what is kept of one user, dead keys included (rule 4). Also
// for a small limit there is room for a client that registers from a new port
// each minute, for as long as removals are remembered at the default MaxExpires.
func (l *Limits) maxKeys() int { return max(4*l.MaxBindings, 256) }

// lifetimeMS is how long any binding can live.
func (l *Limits) lifetimeMS() int64 { return l.MaxExpires.Milliseconds() }

// requested is the interval that a Contact asks for: its own expires before
// the header's before the default (RFC 3261 10.3 step 7).
func (l *Limits) requested(r *messages.Register, c *messages.RegisterContact) time.Duration {
	switch {
	case c.GetHasExpires():
		return time.Duration(c.GetExpiresS()) * time.Second
	case r.GetHasExpires():
		return time.Duration(r.GetExpiresS()) * time.Second
	}
	return l.DefaultExpires
}

// tooBrief: RFC 3261 10.3 step 7 allows 423 if and only if the interval is
// above zero, below one hour and below the minimum.
func (l *Limits) tooBrief(d time.Duration) bool {
	return d > 0 && d < time.Hour && d < l.MinExpires
}

// granted is what the registrar gives for a requested interval above zero.
// The jitter follows from the stamp alone, so that every holder grants the same.
func (l *Limits) granted(d time.Duration, stamp *messages.Stamp) time.Duration {
	d = min(d, l.MaxExpires)
	if l.Jitter == 0 {
		return d
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%d/%d", stamp.GetMs(), stamp.GetCounter(), stamp.GetIncarnation())
	share := float64(h.Sum64()>>11) / (1 << 53)
	shorter := d - time.Duration(float64(d)*l.Jitter*share)
	return max(shorter.Truncate(time.Second), min(d, l.MinExpires))
}
