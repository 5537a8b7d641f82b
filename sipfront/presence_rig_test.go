package sipfront

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

const (
	watcher1 = "192.0.2.20:5060"
	watcher2 = "192.0.2.21:5060"
	device1  = "192.0.2.30:5060"
)

// memOwner is the owner of all users: the real logic without a cluster. What it
// tells goes to the nodes that listen, unless deaf.
type memOwner struct {
	user *actors.User
	zone *memCluster

	mu      sync.Mutex
	recs    map[string]*messages.Record
	counter uint32
	nodes   map[string]*Server
	deaf    bool
	// down: no question is answered; unsettled: it does not know all yet.
	down, unsettled bool
	// questions that were asked, and changes that were told.
	asked, told int
}

func newOwner(zone *memCluster) *memOwner {
	return &memOwner{
		user: actors.New(actors.DefaultLimits()), zone: zone,
		recs: map[string]*messages.Record{}, nodes: map[string]*Server{},
	}
}

func (m *memOwner) stamp() *messages.Stamp {
	m.counter++
	return &messages.Stamp{Ms: m.zone.NowMS(), Counter: m.counter, Incarnation: 1}
}

// ask lets the user's logic answer, merges what it writes and tells who must know.
func (m *memOwner) ask(aor string, msg proto.Message) proto.Message {
	rec := m.recs[aor]
	if rec == nil {
		rec = &messages.Record{Aor: aor}
	}
	now := m.zone.NowMS()
	a := m.user.Answer(&actors.Question{
		Message: msg, Record: rec, NowMS: now, Settled: !m.unsettled,
		LiveEdge: func(string) bool { return true }, NewStamp: m.stamp,
	})
	if a.Writes.Empty() {
		return a.Reply
	}
	next := rec.Clone()
	next.Merge(a.Writes)
	m.recs[aor] = next
	changed, nodes := m.user.Tell(rec, next, now)
	if changed == nil || m.deaf {
		return a.Reply
	}
	for _, name := range nodes {
		if s := m.nodes[name]; s != nil {
			m.told++
			go s.StateChanged(changed)
		}
	}
	return a.Reply
}

func memAsk[R proto.Message](m *memOwner, aor string, msg proto.Message) (R, error) {
	var zero R
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.down {
		return zero, actors.ErrRetry
	}
	switch res := m.ask(aor, msg).(type) {
	case R:
		return res, nil
	case *messages.Failure:
		return zero, actors.FromFailure(res)
	default:
		return zero, fmt.Errorf("answer %T", res)
	}
}

// memPresentities are the users as one node sees them.
type memPresentities struct {
	*memOwner
	node string
}

func (m memPresentities) Publish(_ context.Context, p *messages.Publish) (*messages.Published, error) {
	p.Edge, p.Incarnation = m.node, 1
	m.mu.Lock()
	p.Stamp = m.stamp()
	m.mu.Unlock()
	return memAsk[*messages.Published](m.memOwner, p.Aor, p)
}

func (m memPresentities) Subscribe(_ context.Context, q *messages.Subscribe) (*messages.Subscribed, error) {
	q.Edge, q.Incarnation = m.node, 1
	m.mu.Lock()
	q.Stamp = m.stamp()
	m.mu.Unlock()
	return memAsk[*messages.Subscribed](m.memOwner, q.Aor, q)
}

// register makes a binding of bob's, or removes it.
func (m *memOwner) register(contact string, expires uint32, cseq uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ask("sip:bob@example.com", &messages.Register{
		Aor: "sip:bob@example.com", CallId: "reg", Cseq: cseq, Stamp: m.stamp(), Edge: "n9", Incarnation: 1,
		Contacts: []*messages.RegisterContact{{Uri: contact, Q: 1000, ExpiresS: expires, HasExpires: true}},
	})
}

// memDisk keeps subscriptions; what is put is done by another goroutine.
type memDisk struct {
	mu   sync.Mutex
	subs map[uint64]*messages.Subscription
	err  error
}

func (d *memDisk) PutSubscription(sub *messages.Subscription, done func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.subs[sub.Id] = proto.CloneOf(sub)
	}
	err := d.err
	go done(err)
}

func (d *memDisk) DropSubscription(id uint64, done func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.subs, id)
	go done(nil)
}

func (d *memDisk) LoadSubscriptions(f func(*messages.Subscription) error) error {
	d.mu.Lock()
	subs := slices.Collect(maps.Values(d.subs))
	d.mu.Unlock()
	for _, s := range subs {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

func (d *memDisk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.subs)
}

// presenceRig is a node that serves presence, and its phones.
type presenceRig struct {
	*rig
	owner *memOwner
	disk  *memDisk
	// inbox has what each phone was sent and has not looked at; silent phones answer no NOTIFY.
	inbox  map[string][]string
	status map[string]string
	cseq   int
}

// noteText is a package for tests: its document is the last publication, or how
// many devices there are.
type notePackage struct{ composed *int }

func (notePackage) Name() string                           { return "note" }
func (notePackage) NotifyTypes() []string                  { return []string{"text/note"} }
func (notePackage) PublishTypes() []string                 { return []string{"text/note"} }
func (notePackage) Check(mediaType string, b []byte) error { return checkNote(mediaType, b) }
func (notePackage) Uniform()                               {}
func (notePackage) Changed(told, now *event.State) bool    { return noteOf(told) != noteOf(now) }

func (p notePackage) Compose(c *event.Composition) (event.Document, error) {
	if p.composed != nil {
		*p.composed++
	}
	return event.Document{MediaType: "text/note", Body: []byte(noteOf(c.State))}, nil
}

func checkNote(mediaType string, b []byte) error {
	switch {
	case mediaType != "text/note":
		return event.ErrMediaType
	case strings.Contains(string(b), "broken"):
		return event.ErrDocument
	}
	return nil
}

func noteOf(s *event.State) string {
	if n := len(s.Publications); n > 0 {
		return string(s.Publications[n-1].Body)
	}
	return strconv.Itoa(len(s.Devices))
}

// inPresence runs f with a node that serves presence, in a bubble of time.
func inPresence(t *testing.T, f func(t *testing.T, p *presenceRig), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, newPresence(t, nil, &memDisk{subs: map[uint64]*messages.Subscription{}}, nil, change...))
	})
}

func newPresence(t testing.TB, owner *memOwner, disk *memDisk, composed *int, change ...func(*Config)) *presenceRig {
	return newPresenceWith(t, owner, disk, composed, nil, change...)
}

// newPresenceWith is newPresence with rules of its own.
func newPresenceWith(t testing.TB, owner *memOwner, disk *memDisk, composed *int, auth Authorizer, change ...func(*Config)) *presenceRig {
	p := &presenceRig{owner: owner, disk: disk, inbox: map[string][]string{}, status: map[string]string{}}
	p.rig = newNodeWith(t, "n1", addr1, func(r *rig, parts *Parts) {
		if p.owner == nil {
			p.owner = newOwner(r.zone)
		}
		parts.Presentities, parts.Subscriptions = memPresentities{p.owner, "n1"}, disk
		parts.Packages, parts.Authorizer = append(event.Packages(), notePackage{composed}), auth
	}, change...)
	p.owner.mu.Lock()
	p.owner.nodes["n1"] = p.srv
	p.owner.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	if err := p.srv.LoadSubscriptions(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		p.srv.watch.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// pump lets time pass that timers of the notifier need, and phones answer.
func (p *presenceRig) pump() {
	for {
		synctest.Wait()
		sent := p.take()
		if len(sent) == 0 {
			return
		}
		for _, m := range sent {
			raw := string(m.raw)
			p.inbox[m.to] = append(p.inbox[m.to], raw)
			status := p.status[m.to]
			if strings.HasPrefix(raw, "NOTIFY ") && status != "silent" {
				if status == "" {
					status = "200 OK"
				}
				p.respond(m.to, m.network, raw, status)
			}
		}
	}
}

func (p *presenceRig) respond(from, network, raw, status string) {
	_, headers, _, err := splitMessage(raw)
	if err != nil {
		p.t.Fatalf("%v: %q", err, raw)
	}
	b := "SIP/2.0 " + strings.ReplaceAll(status, "|", "\n") + "\n"
	for _, h := range headers {
		switch h.name {
		case "Via", "From", "To", "Call-ID", "CSeq":
			b += h.name + ": " + h.value + "\n"
		}
	}
	p.recvOver(network, from, b+"Content-Length: 0\n\n")
}

// wait lets d pass, with phones that answer at once.
func (p *presenceRig) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(notifierTick, time.Until(end)))
		p.pump()
	}
}

// got returns what a phone was sent since the last call: of each message what counts here.
func (p *presenceRig) got(phone string) string {
	p.pump()
	time.Sleep(notifierTick)
	p.pump()
	var lines []string
	for _, raw := range p.inbox[phone] {
		start, headers, body, _ := splitMessage(raw)
		line, _, _ := strings.Cut(start, " sip")
		line = strings.TrimPrefix(line, "SIP/2.0 ")
		for _, h := range headers {
			switch h.name {
			case "Subscription-State", "Expires", "Min-Expires", "Allow-Events", "Retry-After":
				line += " " + h.value
			}
		}
		if body != "" {
			line += " | " + body
		}
		lines = append(lines, line)
	}
	p.inbox[phone] = nil
	return strings.Join(lines, "\n")
}

func (p *presenceRig) expect(phone, want string) {
	p.t.Helper()
	if got := p.got(phone); got != want {
		p.t.Errorf("%s got:\n%s\nwant:\n%s", phone, got, want)
	}
}

// send sends a request from a phone; lines replace or add header fields.
func (p *presenceRig) send(phone, method, target, callID, body string, lines ...string) {
	p.t.Helper()
	p.sendOver("udp", phone, method, target, callID, body, lines...)
}

func (p *presenceRig) sendOver(network, phone, method, target, callID, body string, lines ...string) {
	p.t.Helper()
	p.cseq++
	set := map[string]string{
		"Via":          fmt.Sprintf("SIP/2.0/%s %s;branch=z9hG4bKp%d", strings.ToUpper(network), phone, p.cseq),
		"Max-Forwards": "70",
		"From":         "<sip:alice@example.com>;tag=w",
		"To":           "<sip:bob@example.com>",
		"Call-ID":      callID,
		"CSeq":         fmt.Sprintf("%d %s", p.cseq, method),
		"Contact":      "<sip:alice@" + phone + ">",
	}
	order := []string{"Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact"}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		if _, have := set[name]; !have {
			order = append(order, name)
		}
		set[name] = value
	}
	msg := method + " " + target + " SIP/2.0\n"
	for _, name := range order {
		if set[name] != "" {
			msg += name + ": " + set[name] + "\n"
		}
	}
	p.recvOver(network, phone, fmt.Sprintf("%sContent-Length: %d\n\n%s", msg, len(body), body))
}

// subscribe begins a subscription to bob's notes.
func (p *presenceRig) subscribe(phone, callID string, lines ...string) {
	p.t.Helper()
	p.send(phone, "SUBSCRIBE", "sip:bob@example.com", callID, "", append([]string{"Event: note", "Expires: 600"}, lines...)...)
}

// again is a SUBSCRIBE in the dialog of the phone's last answer.
func (p *presenceRig) again(phone, callID string, lines ...string) {
	p.t.Helper()
	res := p.lastRes[phone]
	_, headers, _, err := splitMessage(res)
	if err != nil {
		p.t.Fatalf("no answer: %q", res)
	}
	to, target := "", ""
	for _, h := range headers {
		switch h.name {
		case "To":
			to = h.value
		case "Contact":
			target, _, _ = splitAddr(h.value)
		}
	}
	p.send(phone, "SUBSCRIBE", target, callID, "", append([]string{"Event: note", "Expires: 600", "To: " + to}, lines...)...)
}

// publish publishes a note of bob's.
func (p *presenceRig) publish(text string, lines ...string) {
	p.t.Helper()
	p.send(device1, "PUBLISH", "sip:bob@example.com", "pub", text,
		append([]string{"From: <sip:bob@example.com>;tag=d", "Event: note", "Content-Type: text/note"}, lines...)...)
}

// etag is the entity-tag of the device's last answer.
func (p *presenceRig) etag() string {
	p.t.Helper()
	p.pump()
	_, headers, _, _ := splitMessage(p.lastRes[device1])
	for _, h := range headers {
		if h.name == "SIP-ETag" {
			return h.value
		}
	}
	p.t.Fatalf("no entity-tag in %q", p.lastRes[device1])
	return ""
}
