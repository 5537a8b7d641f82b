package cluster

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// reachGrace is how long an address of the join list may fail before that
	// is worth a line: nodes that start together find each other later than at once.
	reachGrace = 5 * time.Second
	// reachAgain is how often the line is repeated while this node is alone.
	reachAgain = 5 * time.Minute
	// knockAgain is how often it is said that strangers knock.
	knockAgain = time.Minute
)

// reach remembers which addresses of the join list do not let this node in, and
// tells people: a node that found nobody works, alone, which is what the first
// node of a cluster should do and what one with a wrong secret should not do unseen.
type reach struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[unreachedKey]*unreached
	knocks  uint64
	knocked time.Time // when it was last said
}

// unreachedKey is an entry of the join list and one of its addresses, which is
// empty for a name that has none.
type unreachedKey struct{ host, addr string }

type unreached struct {
	since, said time.Time
	last, why   string // the last reason, and the one that was said
}

func newReach(log *slog.Logger) *reach {
	return &reach{log: log, failing: map[unreachedKey]*unreached{}}
}

// resolved drops what failed at addresses that host has no more, and notes a
// name without any.
func (r *reach) resolved(host string, addrs []string, alone bool, now time.Time) {
	r.mu.Lock()
	for k := range r.failing {
		if k.host == host && (k.addr != "" || len(addrs) > 0) && !slices.Contains(addrs, k.addr) {
			delete(r.failing, k)
		}
	}
	r.mu.Unlock()
	if len(addrs) == 0 {
		r.tried(host, "", "the name has no address that can be used", alone, now)
	}
}

// tried notes how an attempt to join ended; why is empty if it succeeded.
func (r *reach) tried(host, addr, why string, alone bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := unreachedKey{host, addr}
	u := r.failing[k]
	if why == "" {
		if u != nil && !u.said.IsZero() {
			r.log.Info("joined after all", "join", host, "addr", addr, "after", now.Sub(u.since).Round(time.Second))
		}
		delete(r.failing, k)
		return
	}
	if u == nil {
		u = &unreached{since: now}
		r.failing[k] = u
	}
	u.last = why
	again := why != u.why || alone && now.Sub(u.said) >= reachAgain
	if now.Sub(u.since) >= reachGrace && (u.said.IsZero() || again) {
		u.said, u.why = now, why
		r.log.Warn("cannot join", "join", host, "addr", addr, "err", why, "alone", alone)
	}
}

// stranger notes a message from a node that has not our secret.
func (r *reach) stranger(said string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.knocks++
	if now.Sub(r.knocked) >= knockAgain {
		r.knocked = now
		r.log.Warn("a node with another secret, or none, tries to talk to this one", "err", said, "so_far", r.knocks)
	}
}

// numbers are the addresses that have failed for a while and are not among the
// live ones, and the messages of strangers.
func (r *reach) numbers(live map[string]bool, now time.Time) (unreachable int, strangers uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, u := range r.failing {
		if !live[k.addr] && now.Sub(u.since) >= reachGrace {
			unreachable++
		}
	}
	return unreachable, r.knocks
}

// trouble is ErrAlone with what has failed for a while, or nil.
func (r *reach) trouble(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at []string
	for k, u := range r.failing {
		if now.Sub(u.since) >= reachGrace {
			at = append(at, cmp.Or(k.addr, k.host)+": "+u.last)
		}
	}
	if at == nil {
		return nil
	}
	slices.Sort(at)
	return fmt.Errorf("%w %s", ErrAlone, strings.Join(at, "; "))
}

// whyNot is the reason in memberlist's error for one address.
func whyNot(err error, addr string) string {
	if err == nil {
		return ""
	}
	_, why, ok := strings.Cut(err.Error(), "failed to join "+addr+": ")
	if !ok {
		why = err.Error()
	}
	why = strings.TrimSpace(why)
	if foreignSecret(why) {
		why += ": its secret is not ours"
	}
	return why
}

// foreignSecret says whether memberlist speaks of a key that does not fit. It
// has no error values for that.
func foreignSecret(said string) bool {
	return strings.Contains(said, "could decrypt") || strings.Contains(said, "is encrypted and encryption is not configured") ||
		strings.Contains(said, "encryption is configured but remote state is not encrypted")
}
