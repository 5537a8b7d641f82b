package cluster_test

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
)

// publisher is a UA that publishes its user's state (RFC 3903), one request at
// a time. An instance is one publication, from its first PUBLISH to its end.
type publisher struct {
	aor, id  string
	cseq     uint32
	instance int
	// tag and body are those of the last acknowledged request, until when it expires, in node time.
	tag, body string
	until     int64
	// state is what it may believe: 1 published, 0 not, -1 unknown.
	state int
	// open is the request without an answer, which may be repeated.
	open *messages.Publish
	busy bool
	// restMS is when it may act again.
	restMS int64
	log    []string
}

// name is of the present instance.
func (p *publisher) name() string { return fmt.Sprintf("%s/%d", p.id, p.instance) }

// next makes a request of the publisher's: for expires 0 a removal, else an
// initial one or a change, or a refresh, of what is there.
func (p *publisher) next(expires uint32, refresh bool) *messages.Publish {
	p.cseq++
	if p.state != 1 {
		p.instance++
		p.tag, p.state = "", 0
	}
	m := &messages.Publish{
		Aor: p.aor, Event: watchEvent, CallId: p.id, Cseq: p.cseq, IfMatch: p.tag, From: p.name(),
		ContentType: "text/plain", Body: fmt.Appendf(nil, "%s.%d", p.name(), p.cseq), ExpiresS: expires, HasExpires: true,
	}
	if p.state == 1 && (refresh || expires == 0) {
		m.ContentType, m.Body = "", nil
	}
	return m
}

// publish sends a request through an edge, as the edge's client does, and calls
// done with whether it got a 200.
func (w *world) publish(p *publisher, n *simNode, m *messages.Publish, done func(ok bool, f *messages.Failure)) {
	core := n.core
	m = proto.CloneOf(m)
	m.EntityTag = fmt.Sprintf("%x", w.rng.Uint64())
	m.Id = actors.PublicationID(m.CallId, m.Cseq)
	m.Edge, m.Incarnation, m.Stamp = n.name, n.inc, core.NewStamp(w.now+n.skew)
	p.open, p.state = m, -1
	finish := func(res *messages.Published, f *messages.Failure) {
		ok := res != nil && core == n.core && n.up && p.open != nil && p.open.Cseq == m.Cseq
		if ok {
			p.open, p.tag, p.state = nil, res.EntityTag, 1
			// A repeat is answered with what is left of the first one's time.
			p.until = res.NowMs + int64(res.ExpiresS)*1000
			if len(m.Body) > 0 {
				p.body = string(m.Body)
			}
			if m.ExpiresS == 0 {
				p.state = 0
			}
		}
		p.log = append(p.log, fmt.Sprintf("%d: cseq %d if-match %q body %q expires %d at %s stamp %v: ok %v tag %s %v",
			w.now-startMS, m.Cseq, m.IfMatch, m.Body, m.ExpiresS, n.name, m.Stamp, ok, res.GetEntityTag(), f))
		done(ok, f)
	}
	core.Ask(w.now+n.skew, p.aor, m, 0, func(reply proto.Message, _ error) {
		switch reply := reply.(type) {
		case *messages.Published:
			core.Keep(w.now+n.skew, reply.Writes, func(err error) {
				if err == nil {
					finish(reply, nil)
				}
			})
		case *messages.Failure:
			finish(nil, reply)
		}
	})
}
