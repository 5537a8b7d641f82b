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

func TestRFC6665_4_2_1_EverySubscribeIsFollowedByANotify(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.expect(watcher1, "200 OK 600\nNOTIFY active;expires=600 | 0")
		// A refresh brings the whole state, though nothing has changed.
		p.wait(10 * time.Second)
		p.again(watcher1, "s1")
		p.expect(watcher1, "200 OK 600\nNOTIFY active;expires=600 | 0")
		p.again(watcher1, "s1", "Expires: 0")
		p.expect(watcher1, "200 OK 0\nNOTIFY terminated;reason=timeout | 0")
		p.again(watcher1, "s1")
		p.expect(watcher1, "481 Subscription Does Not Exist")
		if n, u, _ := p.srv.watch.counts(); n != 0 || u != 0 || p.disk.count() != 0 {
			t.Errorf("%d subscriptions, %d users, %d on disk are left", n, u, p.disk.count())
		}
	})
}

func TestRFC6665_4_4_3_FetchIsToldOnce(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1", "Expires: 0")
		p.expect(watcher1, "200 OK 0\nNOTIFY terminated;reason=timeout | 0")
		p.publish("away")
		p.expect(watcher1, "")
		if n, u, _ := p.srv.watch.counts(); n != 0 || u != 0 || p.disk.count() != 0 {
			t.Errorf("%d subscriptions, %d users, %d on disk are left", n, u, p.disk.count())
		}
	})
}

func TestRFC6665_4_2_2_ChangesAreToldInOrder(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		p.wait(2 * time.Second)
		p.publish("one")
		p.expect(watcher1, "NOTIFY active;expires=598 | one")
		p.wait(2 * time.Second)
		p.publish("two", "SIP-If-Match: "+p.etag())
		p.expect(watcher1, "NOTIFY active;expires=596 | two")
		// A publication is composed away when it expires.
		p.publish("", "Content-Type: ", "SIP-If-Match: "+p.etag(), "Expires: 60")
		p.expect(watcher1, "")
		p.wait(62 * time.Second)
		if got := p.got(watcher1); !strings.HasSuffix(got, "| 0") {
			t.Errorf("after the publication: %s", got)
		}
	})
}

func TestRFC6665_4_1_3_SubscriptionsExpire(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1", "Expires: 60")
		p.got(watcher1)
		p.wait(59 * time.Second)
		p.expect(watcher1, "")
		p.wait(2 * time.Second)
		p.expect(watcher1, "NOTIFY terminated;reason=timeout | 0")
	})
}

func TestRFC6665_7_2_BadEvent(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		const allowed = "dialog, message-summary, note, presence, presence.winfo, reg"
		for i, lines := range [][]string{{"Event: "}, {"Event: note, presence"}} {
			p.subscribe(watcher1, fmt.Sprint("s", i), lines...)
			p.expect(watcher1, "489 Bad Event "+allowed)
		}
		p.send(watcher1, "SUBSCRIBE", "sip:example.com", "s3", "", "Event: unheard-of")
		p.expect(watcher1, "489 Bad Event "+allowed)
		// What is not served here is for bob's devices: there are none.
		p.subscribe(watcher1, "s4", "Event: unheard-of")
		p.expect(watcher1, "404 Not Found")
		p.publish("x", "Event: presence.winfo")
		p.expect(device1, "489 Bad Event "+allowed)
	})
}

func TestRFC6665_4_2_1_1_WhatIsRefused(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		for i, c := range []struct{ line, want string }{
			{"Expires: 59", "423 Interval Too Brief 60"},
			{"Contact: ", "400 Bad Contact"},
			{"Contact: <sip:a@192.0.2.9>, <sip:b@192.0.2.9>", "400 Bad Contact"},
			{"Contact: <tel:123>", "400 Bad Contact"},
			{"Accept: application/pidf+xml", "406 Not Acceptable"},
			{"Accept: text/note;q=0", "406 Not Acceptable"},
			{"Event: note;min-interval=x", "400 Bad Request"},
			{"Require: nothing-we-know", "420 Bad Extension"},
			{"To: <sip:bob@example.com>;tag=none", "481 Subscription Does Not Exist"},
		} {
			p.subscribe(watcher1, fmt.Sprint("s", i), c.line)
			if got := p.got(watcher1); got != c.want {
				t.Errorf("%s: %s, want %s", c.line, got, c.want)
			}
		}
		p.subscribe(watcher1, "long", "Expires: 999999", "Accept: text/*")
		p.expect(watcher1, "200 OK 7200\nNOTIFY active;expires=7200 | 0")
	})
}

func TestRFC6665_4_2_2_WhatANotifyIsAnswered(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.subscribe(watcher2, "s2")
		p.got(watcher1)
		p.got(watcher2)
		p.wait(2 * time.Second)
		p.status[watcher1] = "481 Subscription Does Not Exist"
		p.status[watcher2] = "503 Busy|Retry-After: 7"
		p.publish("one")
		p.expect(watcher1, "NOTIFY active;expires=598 | one")
		p.expect(watcher2, "NOTIFY active;expires=598 | one")
		if n, _, _ := p.srv.watch.counts(); n != 1 {
			t.Errorf("%d subscriptions after a 481", n)
		}
		p.wait(5 * time.Second)
		p.expect(watcher2, "")
		delete(p.status, watcher2)
		p.wait(3 * time.Second)
		if got := p.got(watcher2); !strings.HasSuffix(got, "| one") {
			t.Errorf("after Retry-After: %q", got)
		}
		p.status[watcher2] = "silent"
		p.publish("two")
		p.wait(40 * time.Second)
		if n, _, _ := p.srv.watch.counts(); n != 0 || p.disk.count() != 0 {
			t.Errorf("%d subscriptions after silence, %d on disk", n, p.disk.count())
		}
	})
}

func TestRFC6446_5_BurstsAreToldAtTheirEnds(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.subscribe(watcher2, "s2", "Event: note;min-interval=10")
		p.got(watcher1)
		p.got(watcher2)
		p.wait(10 * time.Second)
		p.publish("n0")
		tag := p.etag()
		for i := range 9 {
			p.publish(fmt.Sprint("n", i+1), "SIP-If-Match: "+tag)
			tag = p.etag()
		}
		p.wait(5 * time.Second)
		if got := bodies(p.got(watcher1)); got != "n0 n9" {
			t.Errorf("within the default interval: %s", got)
		}
		if got := bodies(p.got(watcher2)); got != "n0" {
			t.Errorf("within an interval of 10 s: %s", got)
		}
		p.wait(6 * time.Second)
		if got := bodies(p.got(watcher2)); got != "n9" {
			t.Errorf("after an interval of 10 s: %s", got)
		}
	})
}

// bodies are those of what got shows.
func bodies(got string) string {
	var list []string
	for _, line := range strings.Split(got, "\n") {
		if _, body, ok := strings.Cut(line, " | "); ok {
			list = append(list, body)
		}
	}
	return strings.Join(list, " ")
}

// A dialog has one subscription for each event (RFC 6665 4.4.1): here two with
// ids of their own.
func TestRFC6665_4_1_EventIDsAreKeptApart(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1", "Event: note;id=a")
		p.got(watcher1)
		p.again(watcher1, "s1", "Event: note;id=b")
		p.expect(watcher1, "481 Subscription Does Not Exist")
	})
}

// The dialog's SUBSCRIBE is known by our Contact at whichever node it comes in.
func TestSubscribeInDialogFindsItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPresence(t, nil, &memDisk{subs: map[uint64]*messages.Subscription{}}, nil)
		n2 := newNode(t, "n2", addr2)
		m := &mesh{t: t, nodes: map[string]*rig{addr1: p.rig, addr2: n2}, inbox: map[string][]string{}, dead: map[string]bool{}}
		for _, n := range m.nodes {
			n.zone.nodes["n1"], n.zone.nodes["n2"] = n2.cfg.Addresses[0].Addr, n2.cfg.Addresses[0].Addr
			n.zone.nodes["n1"] = p.cfg.Addresses[0].Addr
		}
		p.subscribe(watcher1, "s1")
		m.pump()
		time.Sleep(notifierTick)
		m.pump()
		_, headers, _, err := splitMessage(p.lastRes[watcher1])
		if err != nil {
			t.Fatal(err)
		}
		msg := "SUBSCRIBE {target} SIP/2.0\nVia: SIP/2.0/UDP " + watcher1 + ";branch=z9hG4bKx\nMax-Forwards: 70\n" +
			"From: <sip:alice@example.com>;tag=w\nTo: {to}\nCall-ID: s1\nCSeq: 99 SUBSCRIBE\nContact: <sip:alice@" + watcher1 + ">\n" +
			"Event: note\nExpires: 300\nContent-Length: 0\n\n"
		for _, h := range headers {
			switch h.name {
			case "To":
				msg = strings.Replace(msg, "{to}", h.value, 1)
			case "Contact":
				target, _, _ := splitAddr(h.value)
				msg = strings.Replace(msg, "{target}", target, 1)
			}
		}
		n2.recv(watcher1, msg)
		m.pump()
		if res := n2.lastRes[watcher1]; !strings.HasPrefix(res, "SIP/2.0 200") || !strings.Contains(res, "Expires: 300") {
			t.Errorf("by way of n2: %s", res)
		}
		// Without n1 nobody knows of the subscription.
		n2.zone.mu.Lock()
		n2.zone.down = map[string]bool{"n1": true}
		n2.zone.mu.Unlock()
		n2.recv(watcher1, strings.Replace(strings.Replace(msg, "CSeq: 99", "CSeq: 100", 1), "z9hG4bKx", "z9hG4bKy", 1))
		m.pump()
		if res := n2.lastRes[watcher1]; !strings.HasPrefix(res, "SIP/2.0 481") {
			t.Errorf("without n1: %s", res)
		}
	})
}

func TestRFC6665_4_1_2_TheOrderOfSubscribes(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1", "CSeq: 10 SUBSCRIBE")
		p.got(watcher1)
		p.again(watcher1, "s1", "CSeq: 10 SUBSCRIBE")
		p.expect(watcher1, "500 CSeq Out Of Order")
	})
}

// What a connection alone leads to ends with it; the others are called.
func TestFlowBoundSubscriptionEndsWithItsFlow(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.sendOver("tcp", "192.0.2.50:40000", "SUBSCRIBE", "sip:bob@example.com", "s1", "",
			"Event: note", "Via: SIP/2.0/TCP 10.1.1.1:5060;branch=z9hG4bKnat", "Contact: <sip:alice@10.1.1.1>")
		p.expect("192.0.2.50:40000", "200 OK 3600\nNOTIFY active;expires=3600 | 0")
		f := p.net.stream(p.net.flows["tcp 192.0.2.50:40000"].remote)
		p.srv.FlowClosed(f.ID())
		if n, _, _ := p.srv.watch.counts(); n != 0 || p.disk.count() != 0 {
			t.Errorf("%d subscriptions after the end of the flow, %d on disk", n, p.disk.count())
		}
	})
}

func TestDrainSendsWatchersElsewhere(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		p.srv.DeactivateSubscriptions(true)
		p.expect(watcher1, "NOTIFY terminated;reason=deactivated")
		if err := p.srv.SubscriptionsTold(t.Context()); err != nil {
			t.Error(err)
		}
		p.srv.SetDraining(true)
		p.subscribe(watcher1, "s2")
		if got := p.got(watcher1); !strings.HasPrefix(got, "503 ") {
			t.Errorf("a new one: %s", got)
		}
	})
}

// A document that is the same for all is composed once.
func TestComposedOnceForAllWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		composed := 0
		p := newPresence(t, nil, &memDisk{subs: map[uint64]*messages.Subscription{}}, &composed)
		for i := range 50 {
			p.subscribe(fmt.Sprintf("192.0.2.%d:5060", 100+i), fmt.Sprint("s", i))
		}
		p.pump()
		p.wait(2 * time.Second)
		composed = 0
		told := p.owner.told
		p.publish("one")
		p.wait(time.Second)
		for i := range 50 {
			if got := bodies(p.got(fmt.Sprintf("192.0.2.%d:5060", 100+i))); !strings.HasSuffix(got, "one") {
				t.Errorf("watcher %d: %s", i, got)
			}
		}
		if composed != 1 || p.owner.told-told != 1 {
			t.Errorf("composed %d times, told %d times for 50 watchers", composed, p.owner.told-told)
		}
	})
}

// A user with many watchers, who answer slowly, holds up nobody else's.
func TestManyWatchersOfOneUserDelayNobodyElse(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		for i := range 500 {
			p.subscribe(watcher1, fmt.Sprint("s", i))
		}
		p.send(watcher2, "SUBSCRIBE", "sip:carol@example.com", "c", "", "Event: note")
		p.got(watcher1)
		p.got(watcher2)
		p.wait(2 * time.Second)
		p.publish("one")
		p.send(device1, "PUBLISH", "sip:carol@example.com", "pubc", "hers", "From: <sip:carol@example.com>;tag=d", "Event: note", "Content-Type: text/note")
		synctest.Wait()
		// Nobody has answered yet: of bob's watchers a few turns, and carol's one.
		first := 0
		for range 3 {
			for _, m := range p.take() {
				if m.to == watcher2 {
					first++
				}
				if strings.HasPrefix(string(m.raw), "NOTIFY") {
					p.respond(m.to, m.network, string(m.raw), "200 OK")
				}
			}
			time.Sleep(notifierTick)
			synctest.Wait()
		}
		if first != 1 {
			t.Errorf("carol's watcher was told %d times in the first turns", first)
		}
		p.pump()
	}, func(c *Config) { c.MaxNotifies = 100 })
}

func TestLimitsOfSubscriptions(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.subscribe(watcher1, "s2")
		p.got(watcher1)
		p.subscribe(watcher1, "s3")
		p.expect(watcher1, "403 Too Many Watchers")
		p.send(watcher1, "SUBSCRIBE", "sip:carol@example.com", "c1", "", "Event: note")
		p.got(watcher1)
		p.send(watcher1, "SUBSCRIBE", "sip:carol@example.com", "c2", "", "Event: note")
		p.expect(watcher1, "503 Service Unavailable 2")
	}, func(c *Config) { c.MaxWatchers, c.MaxSubscriptions = 2, 3 })
}

// After a crash the node goes on from its disk: CSeqs above all that it sent,
// and the state that nobody has told since (rule 23).
func TestSubscriptionsSurviveACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &memDisk{subs: map[uint64]*messages.Subscription{}}
		p := newPresence(t, nil, disk, nil)
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		tag := ""
		for i := range 400 {
			if tag != "" {
				p.publish(fmt.Sprint(i), "SIP-If-Match: "+tag)
			} else {
				p.publish(fmt.Sprint(i))
			}
			tag = p.etag()
			p.wait(1100 * time.Millisecond)
		}
		last := cseqOf(t, p.lastReq[watcher1])
		if last < 390 {
			t.Fatalf("CSeq %d after 400 changes", last)
		}
		p.owner.mu.Lock()
		delete(p.owner.nodes, "n1")
		p.owner.mu.Unlock()
		p.publish("while it was away", "SIP-If-Match: "+tag)
		p.pump()
		again := newPresence(t, p.owner, disk, nil)
		if got := again.got(watcher1); !strings.HasSuffix(got, "| while it was away") {
			t.Errorf("after the crash: %s", got)
		}
		if cseq := cseqOf(t, again.lastReq[watcher1]); cseq <= last {
			t.Errorf("CSeq %d after a crash, %d before", cseq, last)
		}
	})
}

func cseqOf(t *testing.T, raw string) int {
	t.Helper()
	_, headers, _, err := splitMessage(raw)
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	for _, h := range headers {
		if h.name == "CSeq" {
			var n int
			fmt.Sscan(h.value, &n)
			return n
		}
	}
	return 0
}

// A change that was not told is found by the next one, by a refresh, and by
// asking when the connection or the owner has changed.
func TestMissedChangesAreFound(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		miss := func(text string) {
			p.wait(2 * time.Second)
			p.owner.mu.Lock()
			p.owner.deaf = true
			p.owner.mu.Unlock()
			p.publish(text)
			p.expect(watcher1, "")
			p.owner.mu.Lock()
			p.owner.deaf = false
			p.owner.mu.Unlock()
		}
		miss("one")
		p.owner.register("sip:bob@192.0.2.77", 3600, 1)
		if got := bodies(p.got(watcher1)); !strings.HasSuffix(got, "one") {
			t.Errorf("by the next change: %s", got)
		}
		miss("two")
		p.srv.PeerBack("")
		if got := bodies(p.got(watcher1)); got != "two" {
			t.Errorf("by a connection that is back: %s", got)
		}
		miss("three")
		p.srv.StateLost()
		if got := bodies(p.got(watcher1)); got != "three" {
			t.Errorf("by the word that something is lost: %s", got)
		}
		miss("four")
		p.again(watcher1, "s1")
		if got := bodies(p.got(watcher1)); !strings.HasSuffix(got, "four") {
			t.Errorf("by a refresh: %s", got)
		}
	})
}

func TestOwnerThatDoesNotAnswer(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.owner.down = true
		p.subscribe(watcher1, "s1")
		p.expect(watcher1, "503 Service Unavailable 2")
		if n, _, _ := p.srv.watch.counts(); n != 0 || p.disk.count() != 0 {
			t.Errorf("%d subscriptions, %d on disk", n, p.disk.count())
		}
		p.owner.mu.Lock()
		p.owner.down = false
		p.owner.mu.Unlock()
		p.subscribe(watcher1, "s2")
		p.got(watcher1)
		p.wait(2 * time.Second)
		p.owner.mu.Lock()
		p.owner.down = true
		p.owner.mu.Unlock()
		p.srv.StateLost()
		p.wait(3 * time.Second)
		p.owner.mu.Lock()
		p.owner.deaf, p.owner.down = true, false
		p.owner.mu.Unlock()
		p.publish("one")
		p.wait(40 * time.Second)
		if got := bodies(p.got(watcher1)); got != "one" {
			t.Errorf("after the owner is back: %q", got)
		}
	})
}

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
