package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/messages"
)

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
		miss("by reminder")
		asked := p.remind()
		if got := bodies(p.got(watcher1)); got != "by reminder" || asked() != 1 {
			t.Errorf("by the sum of a node that has come to own the user: %s, asked %d times", got, asked())
		}
		asked = p.remind()
		p.expect(watcher1, "")
		if asked() != 0 {
			t.Error("a sum that agrees is asked about")
		}
		miss("four")
		p.again(watcher1, "s1")
		if got := bodies(p.got(watcher1)); !strings.HasSuffix(got, "four") {
			t.Errorf("by a refresh: %s", got)
		}
	})
}

// remind sends what a node sends that has come to own the user. It returns how
// often the owner has been asked since.
func (p *presenceRig) remind() (asked func() int) {
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	before := p.owner.asked
	msg, nodes := p.owner.user.Remind(nil, p.owner.recs[string(bobAoR)], p.zone.NowMS())
	for _, name := range nodes {
		go p.owner.nodes[name].StateChanged(msg)
	}
	return func() int {
		p.owner.mu.Lock()
		defer p.owner.mu.Unlock()
		return p.owner.asked - before
	}
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
