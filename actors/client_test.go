package actors

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// fakeCluster answers with a replica and records what the edge keeps.
type fakeCluster struct {
	holder        *replica
	clock         int64 // this edge's node time
	raised        int64
	asked         []proto.Message
	kept          []*messages.Record
	askErr        error
	keepErr, disk error
	reply         proto.Message
	// part is said before the rest of a lookup, which may be forgotten.
	part      proto.Message
	forgotten bool
}

func (f *fakeCluster) Ask(_ context.Context, _ string, msg proto.Message) (proto.Message, error) {
	f.asked = append(f.asked, proto.Clone(msg))
	if f.askErr != nil {
		return nil, f.askErr
	}
	if f.reply != nil {
		return f.reply, nil
	}
	return f.holder.ask(msg).Reply, nil
}

func (f *fakeCluster) Keep(_ context.Context, rec *messages.Record) error {
	if f.keepErr == nil {
		f.kept = append(f.kept, rec)
	}
	return f.keepErr
}

func (f *fakeCluster) AskAsync(aor string, msg proto.Message, _ int64, done func(proto.Message, error)) {
	done(f.Ask(context.Background(), aor, msg))
}

func (f *fakeCluster) LookupAsync(aor string, m *messages.Locate, _ int64, part func(proto.Message, func()), done func(proto.Message, error)) {
	if f.part != nil && part != nil {
		part(f.part, func() { f.forgotten = true })
	}
	if !f.forgotten {
		done(f.Ask(context.Background(), aor, m))
	}
}

func (f *fakeCluster) KeepAsync(rec *messages.Record, done func(error)) {
	done(f.Keep(context.Background(), rec))
}

func (f *fakeCluster) AtOnce(*messages.Register, func(nowMS, expiresMS int64, err error)) bool {
	return false
}

func (f *fakeCluster) KeepErr() error { return f.disk }
func (f *fakeCluster) NewStamp() *messages.Stamp {
	return &messages.Stamp{Ms: f.NowMS(), Counter: uint32(len(f.asked)), Incarnation: f.Incarnation()}
}
func (f *fakeCluster) RaiseClock(ms int64) { f.raised = ms + 1 }
func (f *fakeCluster) NowMS() int64        { return max(f.clock, f.raised) }
func (f *fakeCluster) Incarnation() uint64 { return 77 }
func (f *fakeCluster) Name() string        { return "edge" }

func newFake() *fakeCluster {
	return &fakeCluster{holder: newReplica(DefaultLimits()), clock: startMS}
}

func unstamped(callID string, cseq uint32, contacts ...string) *messages.Register {
	r := request(0, "", callID, cseq, contacts...)
	r.Stamp, r.Incarnation = nil, 0
	return r
}

func TestClient_RegisterKeepsBeforeItReturns(t *testing.T) {
	f := newFake()
	c := NewClient(f)
	res, err := c.Register(t.Context(), unstamped("c", 1, contactA))
	if err != nil || len(res.Bindings) != 1 || len(f.kept) != 1 || len(f.kept[0].Leases) != 1 {
		t.Fatalf("got %v, %v, kept %v", res, err, f.kept)
	}
	if l := res.Bindings[0]; l.Edge != "edge" || l.Vouch != 77 || l.Stamp.Incarnation != 77 {
		t.Errorf("lease %v", l)
	}
	if _, err := c.Register(t.Context(), unstamped("c", 2)); err != nil || len(f.kept) != 1 {
		t.Errorf("a query keeps %v, %v", f.kept, err)
	}
	located, err := c.Locate(t.Context(), testAoR)
	if err != nil || len(located.Targets) != 1 || !located.Final {
		t.Errorf("located %v, %v", located, err)
	}
	where, err := c.Where(t.Context(), testAoR)
	if err != nil || len(where.Record.Leases) != 1 {
		t.Errorf("where %v, %v", where, err)
	}
}

func TestRule1_ClockBehindIsRaisedAndTriedOnce(t *testing.T) {
	f := newFake()
	f.holder.register("other", "x", 1, contactA)
	f.holder.now += 500
	f.clock -= 1000
	res, err := NewClient(f).Register(t.Context(), unstamped("c", 1, contactA))
	if err != nil || len(res.Bindings) != 1 || res.Bindings[0].Edge != "edge" || len(f.asked) != 2 {
		t.Fatalf("got %v, %v after %d questions", res, err, len(f.asked))
	}
	first, second := f.asked[0].(*messages.Register), f.asked[1].(*messages.Register)
	if first.Stamp.Compare(second.Stamp) >= 0 || second.AgeMs <= 0 || len(f.kept) != 1 {
		t.Errorf("first %v, second %v, kept %v", first, second, f.kept)
	}
	f = newFake()
	f.reply = ToFailure(ClockBehindError{StampMS: 5})
	if _, err := NewClient(f).Register(t.Context(), unstamped("c", 1, contactA)); !errors.Is(err, ErrClockBehind) || len(f.asked) != 2 {
		t.Errorf("got %v after %d questions", err, len(f.asked))
	}
}

func TestRule7_AFailingDiskRefusesBeforeAsking(t *testing.T) {
	f := newFake()
	f.disk = errors.New("no space")
	if _, err := NewClient(f).Register(t.Context(), unstamped("c", 1, contactA)); !errors.Is(err, ErrDisk) || len(f.asked) != 0 {
		t.Errorf("got %v after %d questions", err, len(f.asked))
	}
	f = newFake()
	f.keepErr = errors.New("no space")
	if _, err := NewClient(f).Register(t.Context(), unstamped("c", 1, contactA)); !errors.Is(err, ErrDisk) {
		t.Errorf("got %v", err)
	}
}

func TestClient_Errors(t *testing.T) {
	f := newFake()
	c := NewClient(f)
	if _, err := c.Locate(t.Context(), testAoR); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown user: %v", err)
	}
	f.reply = &messages.Pong{}
	if _, err := c.Locate(t.Context(), testAoR); !errors.Is(err, ErrInternal) {
		t.Errorf("wrong answer: %v", err)
	}
	f.askErr = context.DeadlineExceeded
	if _, err := c.Where(t.Context(), testAoR); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
}

// An answer that grows: who takes a part hears it before the rest, or does
// without that; who does not has one answer.
func TestLocateThenInParts(t *testing.T) {
	f := newFake()
	c := NewClient(f)
	f.part = &messages.Located{Targets: []*messages.Target{{Contact: "sip:part@192.0.2.1"}}}
	f.reply = &messages.Located{Targets: []*messages.Target{{Contact: "sip:all@192.0.2.1"}}, Final: true}
	var heard []string
	hear := func(res *messages.Located, err error) {
		if err != nil {
			t.Error(err)
		}
		heard = append(heard, res.Targets[0].Contact)
	}
	c.LocateThen(testAoR, "", 0, func(res *messages.Located, _ func()) { hear(res, nil) }, hear)
	c.LocateThen(testAoR, "", 0, nil, hear)
	c.LocateThen(testAoR, "", 0, func(res *messages.Located, forget func()) { hear(res, nil); forget() }, hear)
	if want := []string{"sip:part@192.0.2.1", "sip:all@192.0.2.1", "sip:all@192.0.2.1", "sip:part@192.0.2.1"}; !slices.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}
