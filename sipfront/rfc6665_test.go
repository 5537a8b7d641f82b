package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/messages"
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
