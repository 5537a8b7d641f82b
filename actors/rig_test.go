package actors

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

const testAoR = "sip:alice@example.com"

// startMS is the node time at which every test begins.
const startMS = 1_700_000_000_000

// replica is one holder of one user: the part of a cluster's grain shard that
// the state needs.
type replica struct {
	user     *User
	rec      *messages.Record
	now      int64
	accepted map[string]int64
	floorMS  int64

	standIn, unsettled, failedMember bool
	// dead names edges that are not in the view; inc has the others' incarnations.
	dead map[string]bool
	inc  map[string]uint64
	// id is the incarnation in this holder's own stamps.
	id      uint64
	counter uint32
}

func newReplica(limits Limits) *replica {
	if err := limits.Validate(); err != nil {
		panic(err)
	}
	return &replica{
		user:     New(limits),
		rec:      &messages.Record{Aor: testAoR},
		now:      startMS,
		accepted: make(map[string]int64),
		dead:     make(map[string]bool),
		inc:      make(map[string]uint64),
		id:       1000,
	}
}

func (p *replica) newStamp() *messages.Stamp {
	ms := max(p.now, p.rec.GetFloor().GetStamp().GetMs())
	for _, l := range p.rec.Leases {
		ms = max(ms, l.GetStamp().GetMs())
	}
	p.counter++
	return &messages.Stamp{Ms: ms + 1, Counter: p.counter, Incarnation: p.id}
}

func (p *replica) question(msg proto.Message) *Question {
	return &Question{
		Message: msg, Record: p.rec, NowMS: p.now,
		StandIn: p.standIn, Settled: !p.unsettled, FailedMember: p.failedMember,
		LiveEdge:        func(node string) bool { return !p.dead[node] },
		EdgeIncarnation: func(node string) uint64 { return p.inc[node] },
		AcceptedMS: func(key []byte) int64 {
			if key == nil {
				return p.floorMS
			}
			return p.accepted[string(key)]
		},
		NewStamp: p.newStamp,
	}
}

// ask answers a message and merges what it writes, as a holder does. The
// record before is left as it was: Answer may not change it.
func (p *replica) ask(msg proto.Message) *Answer {
	before := proto.CloneOf(p.rec)
	a := p.user.Answer(p.question(msg))
	if !proto.Equal(before, p.rec) {
		panic("Answer has changed the record")
	}
	if a.Writes == nil {
		return a
	}
	next := p.rec.Clone()
	next.Merge(a.Writes)
	p.rec = next
	for _, l := range a.Writes.Leases {
		p.accepted[string(l.Key)] = p.now
	}
	if a.Writes.Floor != nil {
		p.floorMS = p.now
	}
	return a
}

// copyFrom merges all that another replica has, as the repair loop would.
func (p *replica) copyFrom(o *replica) {
	next := p.rec.Clone()
	next.Merge(o.rec)
	p.rec = next
}

// request makes a REGISTER as an edge would at node time ms. Contacts are
// "URI|expires=60|q=0.5|instance=urn:x|reg=1", or "*".
func request(ms int64, edge, callID string, cseq uint32, contacts ...string) *messages.Register {
	r := &messages.Register{
		Aor: testAoR, CallId: callID, Cseq: cseq,
		Stamp: &messages.Stamp{Ms: ms, Counter: cseq, Incarnation: edgeIncarnation(edge)},
		Edge:  edge, Incarnation: 1,
		Flow:      &messages.FlowID{Incarnation: 1, Counter: 1},
		Transport: "udp", Remote: "198.51.100.1:5060",
	}
	for _, text := range contacts {
		if text == "*" {
			r.Star = true
			continue
		}
		fields := strings.Split(text, "|")
		c := &messages.RegisterContact{Uri: fields[0], Q: 1000}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			switch name {
			case "expires":
				n, err := strconv.ParseUint(value, 10, 32)
				if err != nil {
					n = math.MaxUint32
				}
				c.ExpiresS, c.HasExpires = uint32(n), true
			case "q":
				q, _ := strconv.ParseFloat(value, 64)
				c.Q = uint32(q*1000 + 0.5)
			case "instance":
				c.InstanceId = value
			case "reg":
				n, _ := strconv.Atoi(value)
				c.RegId = uint32(n)
			default:
				c.Params = append(c.Params, f)
			}
		}
		r.Contacts = append(r.Contacts, c)
	}
	return r
}

// edgeIncarnation keeps apart the stamps that two edges make in one millisecond.
func edgeIncarnation(edge string) (inc uint64) {
	for _, c := range edge {
		inc = inc<<8 | uint64(c)
	}
	return inc
}

// register asks with a request of this moment.
func (p *replica) register(edge, callID string, cseq uint32, contacts ...string) *Answer {
	return p.ask(request(p.now, edge, callID, cseq, contacts...))
}

func expires(r *messages.Register, s uint32) *messages.Register {
	r.ExpiresS, r.HasExpires = s, true
	return r
}

func (p *replica) advance(d time.Duration) { p.now += d.Milliseconds() }

// locate gives the contacts of the targets, or the failure's code.
func (p *replica) locate() string { return showLocated(p.ask(&messages.Locate{Aor: testAoR})) }

func showLocated(a *Answer) string {
	res, ok := a.Reply.(*messages.Located)
	if !ok {
		return showFailure(a)
	}
	var contacts []string
	for _, t := range res.Targets {
		contacts = append(contacts, t.Contact)
	}
	return strings.Join(contacts, " ")
}

func showFailure(a *Answer) string {
	f, ok := a.Reply.(*messages.Failure)
	if !ok {
		return fmt.Sprintf("%T", a.Reply)
	}
	s := strings.TrimPrefix(f.Code.String(), "FAILURE_CODE_")
	if f.MinExpiresS > 0 {
		s += fmt.Sprintf(" min=%d", f.MinExpiresS)
	}
	if f.RetryAfterS > 0 {
		s += fmt.Sprintf(" retry=%d", f.RetryAfterS)
	}
	if f.StampMs > 0 {
		s += fmt.Sprintf(" stamp=%s", showMS(f.StampMs))
	}
	return s
}

func showMS(ms int64) string { return (time.Duration(ms-startMS) * time.Millisecond).String() }

// show gives the bindings of a 200 as "URI;left@edge", or the failure's code.
func show(a *Answer) string {
	res, ok := a.Reply.(*messages.Registered)
	if !ok {
		return showFailure(a)
	}
	var out []string
	for _, l := range res.Bindings {
		out = append(out, fmt.Sprintf("%s;%d@%s", decode(l).Contact, (l.ExpiresMs-res.NowMs)/1000, l.Edge))
	}
	return strings.Join(out, " ")
}

func decode(l *messages.Lease) *messages.Binding {
	b := new(messages.Binding)
	if err := proto.Unmarshal(l.Payload, b); err != nil {
		panic(err)
	}
	return b
}

// equalRecords compares merged states, in which order means nothing.
func equalRecords(a, b *messages.Record) bool {
	return proto.Equal(sorted(a), sorted(b))
}

func sorted(r *messages.Record) *messages.Record {
	r = r.Clone()
	slices.SortFunc(r.Leases, func(a, b *messages.Lease) int { return bytes.Compare(a.Key, b.Key) })
	return r
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
