package sipfront

import (
	"strings"
	"testing"
	"time"

	"hereis/sipfront/event"
)

// verdicts is an Authorizer that a test sets.
type verdicts struct{ v event.Verdict }

func (v *verdicts) Authorize(event.Watching) event.Verdict { return v.v }

func TestRFC3856_6_6_Authorization(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		who := &verdicts{event.Block}
		p.srv.watch.auth = who
		p.owner.register("sip:bob@192.0.2.77", 3600, 1)
		p.subscribe(watcher1, "s1")
		p.expect(watcher1, "403 Forbidden")
		who.v = event.Confirm
		p.subscribe(watcher1, "s2")
		p.expect(watcher1, "200 OK 600\nNOTIFY pending;expires=600")
		p.wait(2 * time.Second)
		p.publish("secret")
		p.expect(watcher1, "")
		who.v = event.PoliteBlock
		p.srv.Reauthorize()
		if got := p.got(watcher1); !strings.HasPrefix(got, "NOTIFY active") || !strings.HasSuffix(got, "| 0") {
			t.Errorf("blocked politely: %s", got)
		}
		p.wait(2 * time.Second)
		who.v = event.Allow
		p.srv.Reauthorize()
		if got := p.got(watcher1); !strings.HasPrefix(got, "NOTIFY active") || !strings.HasSuffix(got, "| secret") {
			t.Errorf("allowed: %s", got)
		}
		who.v = event.Block
		p.srv.Reauthorize()
		p.expect(watcher1, "NOTIFY terminated;reason=rejected")
	})
}

func TestRFC3857_4_7_WatchersAreWatched(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.srv.watch.auth = &verdicts{event.Allow}
		p.send(device1, "SUBSCRIBE", "sip:bob@example.com", "w", "", "From: <sip:bob@example.com>;tag=d", "Event: presence.winfo")
		if got := p.got(device1); !strings.Contains(got, "watcherinfo") || strings.Contains(got, "sip:alice") {
			t.Errorf("without watchers: %s", got)
		}
		p.wait(2 * time.Second)
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "s1", "", "Event: presence")
		p.wait(time.Second)
		if got := p.got(device1); !strings.Contains(got, `status="active"`) || !strings.Contains(got, "sip:alice@example.com") {
			t.Errorf("with one watcher: %s", got)
		}
		p.wait(2 * time.Second)
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "s1", "")
		p.got(watcher1)
	})
}

// A registered device that has published nothing is open.
func TestRFC3856_RegistrationIsPresence(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "s1", "", "Event: presence")
		if got := p.got(watcher1); !strings.Contains(got, ">closed<") {
			t.Errorf("nobody there: %s", got)
		}
		p.wait(2 * time.Second)
		p.owner.register("sip:bob@192.0.2.77", 3600, 1)
		if got := p.got(watcher1); !strings.Contains(got, ">open<") {
			t.Errorf("registered: %s", got)
		}
		p.wait(2 * time.Second)
		p.owner.register("sip:bob@192.0.2.77", 0, 2)
		if got := p.got(watcher1); !strings.Contains(got, ">closed<") || strings.Contains(got, ">open<") {
			t.Errorf("gone: %s", got)
		}
	})
}
