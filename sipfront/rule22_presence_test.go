package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/messages"
	"hereis/sipfront/event"
)

// What a hostile or unlucky watcher can do to others, or to a node's memory
// (CONSISTENCY rule 22), and who sees what when rules change at a bad moment.

// A watcher who is blocked while the node is down is shown nothing when it is
// back, and the subscription ends.
func TestRFC3856_6_6_BlockedWhileTheNodeWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &memDisk{subs: map[uint64]*messages.Subscription{}}
		p := newPresence(t, nil, disk, nil)
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		again := newPresenceWith(t, p.owner, disk, nil, &verdicts{event.Block})
		p.publish("secret")
		p.pump()
		got := again.got(watcher1)
		if got != "NOTIFY terminated;reason=rejected" || strings.Contains(got, "secret") {
			t.Errorf("after the restart: %s", got)
		}
		if disk.count() != 0 {
			t.Error("it is on disk still")
		}
	})
}

// turning is an Authorizer whose rules change after the first question.
type turning struct{ asked int }

func (v *turning) Authorize(event.Watching) event.Verdict {
	if v.asked++; v.asked == 1 {
		return event.Allow
	}
	return event.Block
}

// Rules that change between the look at a SUBSCRIBE and its acceptance count.
func TestRFC3856_6_6_RulesChangeDuringASubscribe(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.srv.watch.auth = &turning{}
		p.subscribe(watcher1, "s1")
		p.expect(watcher1, "403 Forbidden")
	})
}

// A SUBSCRIBE that is refused leaves nothing behind, whoever it was for.
func TestRule22_RefusedSubscribesLeaveNothing(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.srv.DeactivateSubscriptions(true)
		for i := range 50 {
			p.send(watcher1, "SUBSCRIBE", fmt.Sprintf("sip:user%d@example.com", i), fmt.Sprint("s", i), "", "Event: note")
		}
		p.got(watcher1)
		if subs, users, _ := p.srv.watch.counts(); subs != 0 || users != 0 {
			t.Errorf("%d subscriptions, %d users", subs, users)
		}
	})
}

// Subscriptions that are over are not held until they would have expired: neither
// they nor their users, whatever interval and rate (RFC 6446) they asked for.
func TestRule22_EndedSubscriptionsAreForgotten(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.publish("x", "Expires: 3600")
		p.pump()
		for i := range 3 * minStale {
			id := fmt.Sprint("s", i)
			p.subscribe(watcher1, id, "Expires: 7200", "Event: note;min-interval=2000000000")
			p.pump()
			p.again(watcher1, id, "Expires: 0")
			p.pump()
			p.inbox[watcher1] = nil
			if i%64 == 0 {
				time.Sleep(40 * time.Second) // the transactions end
			}
		}
		p.wait(time.Second)
		p.srv.watch.mu.Lock()
		defer p.srv.watch.mu.Unlock()
		if n := len(p.srv.watch.timers); n > 2*minStale {
			t.Errorf("%d timers of no subscription", n)
		}
	})
}

// A refresh makes no list of what was none, and no list larger than there is room for.
func TestRFC5367_4_ARefreshBringsNoListToWhatWasNone(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		list := func(members ...string) string {
			body := `<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list>`
			for _, m := range members {
				body += `<entry uri="sip:` + m + `@example.com"/>`
			}
			return body + "</list></resource-lists>"
		}
		lines := []string{"Event: note", "Supported: eventlist", "Require: recipient-list-subscribe", "Content-Type: application/resource-lists+xml"}
		within := func(id, body string) {
			to, target := "", ""
			_, headers, _, _ := splitMessage(p.lastRes[watcher1])
			for _, h := range headers {
				switch h.name {
				case "To":
					to = h.value
				case "Contact":
					target, _, _ = splitAddr(h.value)
				}
			}
			p.send(watcher1, "SUBSCRIBE", target, id, body, append([]string{"To: " + to}, lines...)...)
		}
		p.subscribe(watcher1, "single")
		p.got(watcher1)
		within("single", list("carol"))
		p.expect(watcher1, "400 Bad Request")
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "list", list("carol"), lines...)
		if got := p.got(watcher1); !strings.HasPrefix(got, "200 OK") {
			t.Fatalf("a list: %s", got)
		}
		within("list", list("carol", "dave", "erin", "frank"))
		if got := p.got(watcher1); !strings.HasPrefix(got, "503 ") {
			t.Errorf("more members than there is room for: %s", got)
		}
		if subs, _, _ := p.srv.watch.counts(); subs != 3 {
			t.Errorf("%d subscriptions", subs)
		}
	}, func(c *Config) { c.MaxSubscriptions = 5 })
}

// A fetch (RFC 6665 4.4.3) counts as long as its NOTIFY has no answer.
func TestRule22_FetchesAreBounded(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.status[watcher1] = "silent"
		p.subscribe(watcher1, "f1", "Expires: 0")
		if got := p.got(watcher1); !strings.HasPrefix(got, "200 OK") {
			t.Errorf("first: %s", got)
		}
		p.subscribe(watcher2, "f2", "Expires: 0")
		p.expect(watcher2, "503 Service Unavailable 2")
		p.wait(40 * time.Second)
		p.subscribe(watcher2, "f3", "Expires: 0")
		if got := p.got(watcher2); !strings.HasPrefix(got, "200 OK") {
			t.Errorf("when the first is over: %s", got)
		}
		if n := p.srv.watch.fetches; n != 0 {
			t.Errorf("%d fetches", n)
		}
	}, func(c *Config) { c.MaxSubscriptions = 1 })
}

// Watchers of one user who have all gone silent do not keep those of another waiting.
func TestRule22_SilentWatchersOfOneUserBlockNobodyElse(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		const many = 200
		for i := range many {
			p.subscribe(watcher1, fmt.Sprint("s", i))
			p.pump()
		}
		p.send(watcher2, "SUBSCRIBE", "sip:carol@example.com", "c", "", "Event: note", "Expires: 600")
		p.wait(40 * time.Second)
		p.inbox[watcher1], p.inbox[watcher2] = nil, nil
		p.status[watcher1] = "silent"
		p.publish("news of bob")
		p.wait(time.Second)
		if n := len(p.inbox[watcher1]); n == 0 || n > 128 {
			t.Errorf("%d NOTIFYs to silent watchers", n)
		}
		p.send(device1, "PUBLISH", "sip:carol@example.com", "pub", "news of carol", "From: <sip:carol@example.com>;tag=d", "Event: note", "Content-Type: text/note")
		if got := bodies(p.got(watcher2)); got != "news of carol" {
			t.Errorf("carol's watcher: %q", got)
		}
		p.wait(10 * time.Minute)
		if subs, _, inflight := p.srv.watch.counts(); subs != 1 && subs != 0 || inflight != 0 {
			t.Errorf("%d subscriptions, %d NOTIFYs under way", subs, inflight)
		}
	}, func(c *Config) { c.MaxNotifies = 128 })
}

// TestRFC3680_5_1_Deactivated: what ends by an operator's word, or with its
// connection, is to be registered again, and watchers hear that; what a device
// ends itself is not.
func TestRFC3680_5_1_Deactivated(t *testing.T) {
	lease := func(key string, change func(l *messages.Lease)) *messages.Lease {
		l := &messages.Lease{
			Key: []byte(key), Kind: messages.LeaseKind_LEASE_KIND_BINDING, Edge: "n1", CallId: "device", ExpiresMs: 100_000,
			Stamp: &messages.Stamp{Ms: 1000}, Flow: &messages.FlowID{Incarnation: 1, Counter: uint64(len(key)), Stream: true},
		}
		change(l)
		return l
	}
	same := func(*messages.Lease) {}
	dead := func(callID string) func(*messages.Lease) {
		return func(l *messages.Lease) { l.Dead, l.CallId = true, callID }
	}
	byStar := &messages.Floor{Stamp: &messages.Stamp{Ms: 2000}, CallId: "device"}
	byOperator := &messages.Floor{Stamp: &messages.Stamp{Ms: 2000}, CallId: "operator-1"}
	cut := []*messages.Ended{{Edge: "n1", Flow: &messages.FlowID{Incarnation: 1, Counter: 1, Stream: true}}}
	for name, c := range map[string]struct {
		rec  *messages.Record
		want bool
	}{
		"alive":             {&messages.Record{Leases: []*messages.Lease{lease("a", same)}}, false},
		"by the device":     {&messages.Record{Leases: []*messages.Lease{lease("a", dead("device"))}}, false},
		"kicked":            {&messages.Record{Leases: []*messages.Lease{lease("a", dead("operator-7"))}}, true},
		"by Contact: *":     {&messages.Record{Leases: []*messages.Lease{lease("a", same)}, Floor: byStar}, false},
		"all by operator":   {&messages.Record{Leases: []*messages.Lease{lease("a", same)}, Floor: byOperator}, true},
		"newer than floor":  {&messages.Record{Leases: []*messages.Lease{lease("a", func(l *messages.Lease) { l.Stamp.Ms = 3000 })}, Floor: byOperator}, false},
		"connection lost":   {&messages.Record{Leases: []*messages.Lease{lease("a", same)}, Ended: cut}, true},
		"other connection":  {&messages.Record{Leases: []*messages.Lease{lease("bb", same)}, Ended: cut}, false},
		"a publication end": {&messages.Record{Leases: []*messages.Lease{lease("a", func(l *messages.Lease) { l.Kind, l.Dead, l.CallId = 2, true, "operator-1" })}}, false},
	} {
		if got := len(stateOf("reg", c.rec, 5000).Removed) == 1; got != c.want {
			t.Errorf("%s: deactivated %v", name, got)
		}
		if stateOf("presence", c.rec, 5000).Removed != nil {
			t.Errorf("%s: another package is told", name)
		}
	}
	before := &event.State{AoR: "sip:a@example.com", NowMS: 1000, Devices: []event.Device{{ID: "i1", Contact: "sip:a@192.0.2.1", ExpiresMS: 100_000}}}
	now := &event.State{AoR: before.AoR, NowMS: 5000, Removed: map[string]bool{"i1": true}}
	doc, err := event.Reg{}.Compose(&event.Composition{State: now, Told: before, Version: 1})
	if err != nil || !strings.Contains(string(doc.Body), `state="terminated" event="deactivated"`) {
		t.Errorf("%v %s", err, doc.Body)
	}
}

// TestRFC4662_5_ProbationPasses: a member of a list who had too many watchers is
// tried again with each refresh.
func TestRFC4662_5_ProbationPasses(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		single := func(expires string) {
			p.send(watcher2, "SUBSCRIBE", "sip:carol@example.com", "one", "", "Event: note", "Expires: "+expires)
		}
		single("60")
		p.got(watcher2)
		lines := []string{"Event: note", "Supported: eventlist", "Require: recipient-list-subscribe", "Content-Type: application/resource-lists+xml"}
		body := `<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list><entry uri="sip:carol@example.com"/></list></resource-lists>`
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "list", body, lines...)
		if got := p.got(watcher1); !strings.Contains(got, `reason="probation"`) {
			t.Errorf("with too many watchers: %s", got)
		}
		p.wait(70 * time.Second) // the other one expires
		p.again(watcher1, "list", "Supported: eventlist")
		p.wait(2 * time.Second)
		if got := p.got(watcher1); !strings.Contains(got, `state="active"`) {
			t.Errorf("with room: %s", got)
		}
	}, func(c *Config) { c.MaxWatchers = 1 })
}
