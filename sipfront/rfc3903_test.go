package sipfront

import (
	"strings"
	"testing"
	"time"

	"hereis/sipfront/event"
)

func TestRFC3903_6_PublishOnTheWire(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.publish("one", "Expires: 600")
		first := p.etag()
		p.expect(device1, "200 OK 600")
		p.publish("", "Content-Type: ", "SIP-If-Match: "+first)
		second := p.etag()
		p.expect(device1, "200 OK 3600")
		if first == second {
			t.Error("a refresh keeps the entity-tag")
		}
		p.publish("two", "SIP-If-Match: "+first)
		p.expect(device1, "412 Conditional Request Failed")
		p.publish("two", "SIP-If-Match: "+second)
		third := p.etag()
		p.expect(device1, "200 OK 3600")
		p.publish("", "Content-Type: ", "Expires: 0", "SIP-If-Match: "+third)
		p.expect(device1, "200 OK 0")
		p.publish("", "Content-Type: ", "SIP-If-Match: "+third)
		p.expect(device1, "412 Conditional Request Failed")
	})
}

func TestRFC3903_6_WhatIsRefusedChangesNothing(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.subscribe(watcher1, "s1")
		p.got(watcher1)
		p.wait(2 * time.Second)
		for _, c := range []struct {
			body, want string
			lines      []string
		}{
			{"x", "423 Interval Too Brief 60", []string{"Expires: 59"}},
			{"x", "415 Unsupported Media Type", []string{"Content-Type: text/plain"}},
			{"x", "415 Unsupported Media Type", []string{"Content-Type: "}},
			{"broken", "400 Bad Document", nil},
			{"", "400 Bad Request", nil},
			{"x", "400 Bad Request", []string{"Expires: 0"}},
			{strings.Repeat("x", 4097), "413 Request Entity Too Large", nil},
			{"x", "412 Conditional Request Failed", []string{"SIP-If-Match: nosuch"}},
			{"x", "400 Bad Request", []string{"SIP-If-Match: a, b"}},
			{"x", "420 Bad Extension", []string{"Require: x-unheard-of"}},
		} {
			p.publish(c.body, c.lines...)
			if got := p.got(device1); got != c.want {
				t.Errorf("%v: %s, want %s", c.lines, got, c.want)
			}
		}
		p.send(device1, "PUBLISH", "sip:example.com", "pub", "x", "Event: note", "Content-Type: text/note")
		p.expect(device1, "404 Not Found")
		p.expect(watcher1, "")
	})
}

func TestRFC3903_4_PIDFIsChecked(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		for body, want := range map[string]string{
			"<presence": "400 Bad Document",
			`<!DOCTYPE x [<!ENTITY a "b">]><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@example.com">&a;</presence>`: "400 Bad Document",
			strings.Repeat("<a>", 1000): "400 Bad Document",
			`<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@example.com"></presence>`: "200 OK 3600",
		} {
			p.publish(body, "Event: presence", "Content-Type: application/pidf+xml; charset=utf-8")
			if got := p.got(device1); got != want {
				t.Errorf("%.40s: %s, want %s", body, got, want)
			}
		}
	})
}

// With credentials asked for, users publish for themselves and watch under
// their own names; who says nothing of themselves watches nobody.
func TestRFC3903_14_1_OnlyTheUserPublishes(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		p.guarded()
		p.srv.watch.auth = policy(event.Authenticated)
		p.publish("x")
		p.expect(device1, "401 Unauthorized")
		bob := newUA().challenged(t, p.lastRes[device1])
		bob.user, bob.password = "bob", "builder"
		p.publish("x", bob.header("Authorization", "PUBLISH", "sip:bob@example.com"))
		p.expect(device1, "200 OK 3600")
		p.subscribe(watcher1, "s1")
		p.expect(watcher1, "401 Unauthorized")
		alice := newUA().challenged(t, p.lastRes[watcher1])
		p.subscribe(watcher1, "s1", alice.header("Authorization", "SUBSCRIBE", "sip:bob@example.com"))
		if got := p.got(watcher1); !strings.HasPrefix(got, "200 OK 600\nNOTIFY active") {
			t.Errorf("alice with her password: %s", got)
		}
		p.send(device1, "PUBLISH", "sip:bob@example.com", "pub", "x", "Event: note", "Content-Type: text/note",
			alice.header("Authorization", "PUBLISH", "sip:bob@example.com"))
		p.expect(device1, "403 Credentials Of Another User")
		// A refresh is not for whoever knows the dialog.
		p.again(watcher1, "s1")
		p.expect(watcher1, "401 Unauthorized")
		for i, from := range []string{"<sip:anonymous@anonymous.invalid>;tag=w", "<sip:carol@elsewhere.example>;tag=w"} {
			p.subscribe(watcher1, "s2"+string(rune('a'+i)), "From: "+from)
			p.expect(watcher1, "403 Forbidden")
		}
	})
}
