package load

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"hereis/bench/sipmsg"
)

// Presence is two scenarios: first each user's watcher subscribes (RFC 6665,
// RFC 3856), then a unit publishes (RFC 3903), waits until the watcher is told
// of it, and removes its publication. Publisher and watcher of a user share a
// socket and are at different nodes, so one clock measures the way through the cluster.

// subscribing ends a unit when both the 2xx and the first NOTIFY have come.
type subscribing struct{}

func (subscribing) ready(*endpoint) bool { return true }

// watchPrefix begins the Call-ID of a watcher's subscription; the user's name follows.
const watchPrefix = "w-"

func (s subscribing) begin(e *endpoint, u *unit) {
	u.method, u.cseq, u.dst = "SUBSCRIBE", 1, e.cfg.target(u.user+1)
	u.callID = watchPrefix + userName(u.user) + "-" + e.cfg.Run
	u.fromTag = "w" + userName(u.user)
	e.watching[u.user] = u.slot
	s.build(e, u)
	e.send(u, time.Now())
}

func (subscribing) build(e *endpoint, u *unit) {
	presentity := e.aor(u.user)
	u.authUser, u.authURI = userName(e.caller(u.user)), presentity
	u.req.Request("SUBSCRIBE", presentity)
	e.common(u, &u.req, "SUBSCRIBE", e.aor(e.caller(u.user)), presentity, "")
	u.req.Header("Contact", "<", e.contact(userName(u.user)), ">")
	u.req.Header("Event", "presence")
	u.req.Header("Accept", pidfType)
	u.req.Int("Expires", uint64(e.cfg.Expires), "")
	u.req.End("", "")
}

func (subscribing) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	e.record("subscribe", u, now)
	expires, err := strconv.ParseUint(string(m.Get("Expires")), 10, 32)
	switch {
	case m.Status/100 != 2:
		e.unwatch(u)
		e.end(u, false, code(m.Status))
	case err != nil || expires == 0 || expires > uint64(e.cfg.Expires): // RFC 6665 4.2.1.1
		e.unwatch(u)
		e.end(u, false, "invalid: 2xx to SUBSCRIBE without an Expires up to ours")
	default:
		u.answered = m.Status
		e.watched(u)
	}
}

func (subscribing) held(*endpoint, *unit, time.Time) {}

func (e *endpoint) unwatch(u *unit) { delete(e.watching, u.user) }

// watched ends what waits for both an answer and a NOTIFY once both are there.
func (e *endpoint) watched(u *unit) {
	switch {
	case u.answered == 0 || u.waiting:
	case !u.notified: // the answer came first; timer F is how long a NOTIFY may take
		e.after(u, u.sent.Add(e.cfg.Timeout))
	default:
		e.unwatch(u)
		e.work.scenario.held(e, u, time.Now())
		if u.busy && e.work.isSubscribing() {
			e.end(u, true, code(u.answered))
		}
	}
}

func (w *work) isSubscribing() bool { _, ok := w.scenario.(subscribing); return ok }

// publishing is PUBLISH, NOTIFY, and PUBLISH that removes.
type publishing struct{}

const (
	stepPublish = iota
	stepRemove
)

const pidfType = "application/pidf+xml"

func (publishing) ready(*endpoint) bool { return true }

func (p publishing) begin(e *endpoint, u *unit) {
	e.dialog(u)
	u.method, u.cseq, u.dst = "PUBLISH", 1, e.cfg.target(u.user)
	e.watching[u.user] = u.slot
	p.build(e, u)
	e.send(u, time.Now())
}

func (publishing) build(e *endpoint, u *unit) {
	aor := e.aor(u.user)
	u.authUser, u.authURI = userName(u.user), aor
	u.req.Request("PUBLISH", aor)
	e.common(u, &u.req, "PUBLISH", aor, aor, "")
	u.req.Header("Event", "presence")
	if u.step == stepRemove {
		u.req.Header("SIP-If-Match", u.etag)
		u.req.Int("Expires", 0, "")
		u.req.End("", "")
		return
	}
	u.req.Int("Expires", uint64(e.cfg.Expires), "")
	u.req.End(pidfType, pidf(aor, e.token(u)))
}

// token marks a publication, so that a NOTIFY of it is known from that of another.
func (e *endpoint) token(u *unit) string {
	return "bench-" + e.cfg.Run + "-" + strconv.FormatUint(u.user, 10) + "-" + strconv.FormatUint(u.nth, 10) + "-end"
}

// pidf is a presence document (RFC 3863) of one open tuple.
func pidf(aor, token string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\r\n" +
		`<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="` + aor + `">` +
		`<tuple id="t1"><status><basic>open</basic></status><note>` + token + `</note></tuple></presence>` + "\r\n"
}

func (p publishing) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	if m.Status != 200 {
		e.unwatch(u)
		e.end(u, false, code(m.Status))
		return
	}
	etag := string(m.Get("SIP-ETag"))
	if u.step == stepRemove {
		e.phase.record("unpublish", now.Sub(u.sent))
		e.end(u, true, "200")
		return
	}
	e.record("publish", u, now)
	if expires, err := strconv.ParseUint(string(m.Get("Expires")), 10, 32); etag == "" || err != nil || expires == 0 {
		e.unwatch(u)
		e.end(u, false, "invalid: 200 to PUBLISH without SIP-ETag and Expires") // RFC 3903 11.3
		return
	}
	u.etag, u.answered = etag, m.Status
	e.watched(u)
}

// held removes the publication when its NOTIFY has come.
func (p publishing) held(e *endpoint, u *unit, now time.Time) {
	u.step, u.method, u.auth = stepRemove, "PUBLISH", ""
	u.cseq++
	u.tx++
	p.build(e, u)
	e.send(u, now)
}

// notify takes in a NOTIFY at the watcher's side.
func (e *endpoint) notify(m *sipmsg.Message) (status int, reason string) {
	e.phase.Notified++
	callID := string(m.Get("Call-ID"))
	rest, ok := strings.CutPrefix(callID, watchPrefix+"u")
	id, _, _ := strings.Cut(rest, "-")
	user, err := strconv.ParseUint(id, 10, 64)
	if !ok || err != nil || !strings.HasSuffix(callID, "-"+e.cfg.Run) {
		return 481, "Subscription Does Not Exist"
	}
	if wrong := e.checkNotify(m, user); wrong != "" {
		e.phase.Codes["invalid: "+wrong]++
		return 400, "Bad Request"
	}
	slot, watching := e.watching[user]
	if !watching {
		return 200, "OK"
	}
	u := &e.units[slot]
	if !u.busy || u.user != user || u.notified {
		return 200, "OK"
	}
	if !e.work.isSubscribing() {
		if !bytes.Contains(m.Body, []byte(e.token(u))) {
			return 200, "OK" // of an earlier state
		}
		e.record("notify", u, time.Now())
	}
	u.notified = true
	e.watched(u)
	return 200, "OK"
}

// checkNotify says what is wrong with a NOTIFY of a user, or nothing (RFC 6665 4.1.3, RFC 3856 6.6).
func (e *endpoint) checkNotify(m *sipmsg.Message, user uint64) string {
	state, _, _ := bytes.Cut(m.Get("Subscription-State"), []byte{';'})
	toTag, _ := sipmsg.Param(m.Get("To"), "tag")
	event, _, _ := bytes.Cut(m.Get("Event"), []byte{';'})
	switch {
	case string(bytes.TrimSpace(event)) != "presence":
		return "NOTIFY of another event"
	case len(state) == 0:
		return "NOTIFY without Subscription-State"
	case string(toTag) != "w"+userName(user):
		return "NOTIFY outside of its dialog"
	case len(m.Body) > 0 && !bytes.HasPrefix(m.Get("Content-Type"), []byte(pidfType)):
		return "NOTIFY with another Content-Type"
	case len(m.Body) > 0 && !bytes.Contains(m.Body, []byte(userName(user)+"@"+e.cfg.Domain+`"`)):
		return "NOTIFY of another entity"
	}
	return ""
}
