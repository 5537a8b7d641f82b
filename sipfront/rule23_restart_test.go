package sipfront

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/messages"
)

// A node that comes back asks the owner of a user for the state; one that has
// not settled, as the node itself may be, knows nothing yet. Watchers who have
// been shown more are not told that there is nothing (rule 23).
func TestRule23_AnUnsettledOwnersWordIsNotShownAfterARestart(t *testing.T) {
	for _, settles := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			disk := &memDisk{subs: map[uint64]*messages.Subscription{}}
			p := newPresence(t, nil, disk, nil)
			p.publish("one", "Expires: 3600")
			p.subscribe(watcher1, "s1")
			p.got(watcher1)
			p.owner.mu.Lock()
			known := p.owner.recs
			p.owner.recs, p.owner.unsettled = map[string]*messages.Record{}, true
			p.owner.mu.Unlock()

			again := newPresenceWith(t, p.owner, disk, nil, nil)
			again.wait(2 * time.Second)
			if got := again.got(watcher1); got != "" {
				t.Errorf("shown before the owner has settled: %s", got)
			}
			if settles {
				p.owner.mu.Lock()
				p.owner.recs, p.owner.unsettled = known, false
				p.owner.mu.Unlock()
			}
			again.wait(20 * time.Second)
			want := "| 0" // the owner's word, for want of a better one
			if settles {
				want = "| one"
			}
			if got := again.got(watcher1); !strings.HasPrefix(got, "NOTIFY active;") || !strings.HasSuffix(got, want) {
				t.Errorf("settles=%v: got %q, want the state %q", settles, got, want)
			}
		})
	}
}
