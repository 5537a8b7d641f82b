package sipfront

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// publisher writes down what is published, and forgets it when it is told to.
type publisher struct {
	mu  sync.Mutex
	log []string
	// tags has the entity-tag of each publication.
	tags map[string]string
	// fail, if not nil, is the error of each; lost: it is that of one that was made.
	fail error
	lost bool
}

func (p *publisher) Publish(_ context.Context, m *messages.Publish) (*messages.Published, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil && !p.lost {
		return nil, p.fail
	}
	if m.IfMatch != "" && m.IfMatch != p.tags[m.Id] {
		return nil, actors.ErrConditionFailed
	}
	what := "gone"
	if m.ExpiresS > 0 {
		if err := (event.DialogInfo{}).Check(m.ContentType, m.Body); err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(string(m.Body), "<state>")
		what, _, _ = strings.Cut(rest, "<")
	}
	p.log = append(p.log, m.Aor[len("sip:"):len("sip:")+1]+" "+what)
	p.tags[m.Id] = m.EntityTag
	if p.fail != nil {
		return nil, p.fail
	}
	return &messages.Published{EntityTag: m.EntityTag, ExpiresS: m.ExpiresS}, nil
}

func (p *publisher) Subscribe(context.Context, *messages.Subscribe) (*messages.Subscribed, error) {
	return nil, actors.ErrUnavailable
}

// failing makes each publication fail from now on; with lost it is made all the same.
func (p *publisher) failing(err error, lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.lost = err, lost
}

// of is what was published of one user since the last look.
func (p *publisher) of(initial string) string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var got, rest []string
	for _, l := range p.log {
		if what, ok := strings.CutPrefix(l, initial+" "); ok {
			got = append(got, what)
		} else {
			rest = append(rest, l)
		}
	}
	p.log = rest
	return strings.Join(got, " ")
}

// inCalls runs f with a node that tells of calls, in a bubble.
func inCalls(t *testing.T, f func(t *testing.T, r *rig, p *publisher), change ...func(*Config)) {
	t.Helper()
	inCallsTold(t, nil, f, change...)
}

// inCallsTold is inCalls with a way to tell other nodes.
func inCallsTold(t *testing.T, tell func(context.Context, string, *messages.DialogEnded) error,
	f func(t *testing.T, r *rig, p *publisher), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &publisher{tags: map[string]string{}}
		change := append([]func(*Config){func(c *Config) { c.DialogEvents = true }}, change...)
		r := newNodeWith(t, "n1", "192.0.2.1:5060", func(_ *rig, parts *Parts) {
			parts.Presentities, parts.Packages, parts.EndDialog = p, nil, tell
			parts.Subscriptions = &memDisk{subs: map[uint64]*messages.Subscription{}}
		}, change...)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.srv.dialogs.run(ctx) })
		f(t, r, p)
		cancel()
		running.Wait()
	})
}

func aCall(callID string) (*request, *plan) {
	return &request{asked: asked{method: "INVITE", callID: callID}, fromTag: "a", from: "<sip:alice@example.com>", to: "<sip:bob@example.com>"},
		&plan{way: wayUser, aor: "sip:bob@example.com"}
}

func response(status int, tag string) reply {
	return reply{status: status, raw: []byte("SIP/2.0 200 X\r\nTo: <sip:bob@example.com>;tag=" + tag + "\r\n\r\n")}
}

// answeredCall is a call of alice to bob that he has taken, on the wire.
func answeredCall(t *testing.T, r *rig, p *publisher, callID string) {
	t.Helper()
	r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, t)
	r.peers["bob"] = "192.0.2.20:5060"
	r.recv(alice, invite("INVITE", "sip:bob@example.com", callID))
	synctest.Wait()
	r.take()
	r.answer("bob", "180", "")
	synctest.Wait()
	r.answer("bob", "200", "")
	synctest.Wait()
	r.take()
	if a, b := p.of("a"), p.of("b"); !strings.HasSuffix(a, "confirmed") || !strings.HasSuffix(b, "confirmed") {
		t.Errorf("alice %q, bob %q", a, b)
	}
}
