package actors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Cluster is what Client needs of the node that it runs in.
type Cluster interface {
	// Ask puts a question to the user grain of an AoR and returns its reply,
	// which may be a Failure. It takes its deadline from ctx.
	Ask(ctx context.Context, aor string, msg proto.Message) (proto.Message, error)
	// AskAsync is Ask with a continuation, which is called once, perhaps before
	// AskAsync returns, and must not wait. deadlineMS is node time.
	AskAsync(aor string, msg proto.Message, deadlineMS int64, done func(proto.Message, error))
	// AtOnce puts a REGISTER to its user if nobody else has to be asked or told on
	// its account. then is called once it is kept as durably as configured, perhaps
	// before AtOnce returns, and must not wait: with when that was done and when the
	// binding expires, in node time, or why it could not be kept. r has room for a
	// stamp, may not be changed until then, and is not kept beyond. False: nothing
	// has been done.
	AtOnce(r *messages.Register, then func(nowMS, expiresMS int64, err error)) bool
	// LookupAsync is AskAsync for a Locate. What may lack something goes to part, if
	// that is not nil, and done is called with the word of an owner who knows all,
	// unless forget is called before that.
	LookupAsync(aor string, m *messages.Locate, deadlineMS int64, part func(reply proto.Message, forget func()), done func(proto.Message, error))
	// KeepAsync is Keep with a continuation, likewise.
	KeepAsync(rec *messages.Record, done func(error))
	// Keep stores this edge's leases as durably as configured, then returns.
	Keep(ctx context.Context, rec *messages.Record) error
	// KeepErr is why Keep cannot work now, or nil.
	KeepErr() error
	// NewStamp makes a stamp at this node's clock.
	NewStamp() *messages.Stamp
	// RaiseClock puts this node's clock above a node time in ms (rule 1).
	RaiseClock(ms int64)
	// NowMS is the node time.
	NowMS() int64
	// Incarnation and Name are this node's.
	Incarnation() uint64
	Name() string
}

// Client asks users typed questions on behalf of this node, the edge. It is
// safe for concurrent use. Its errors are those of errors.go, or whatever the
// cluster returns if it got no answer.
type Client struct{ cluster Cluster }

// NewClient makes a Client of a node.
func NewClient(c Cluster) *Client { return &Client{cluster: c} }

// Register puts a REGISTER to its user and returns when this edge has stored
// what it must before it may send the 200 (rules 1, 5, 7). It fills r's edge,
// incarnation, stamp and age; a stamp that r has already, from when the request
// arrived, is used, and r.AgeMs must then say how long ago that was.
func (c *Client) Register(ctx context.Context, r *messages.Register) (*messages.Registered, error) {
	type answer struct {
		res *messages.Registered
		err error
	}
	var deadlineMS int64
	if t, ok := ctx.Deadline(); ok {
		deadlineMS = c.cluster.NowMS() + time.Until(t).Milliseconds()
	}
	got := make(chan answer, 1)
	c.RegisterThen(r, deadlineMS, func(res *messages.Registered, err error) { got <- answer{res, err} })
	select {
	case a := <-got:
		return a.res, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// RegisterThen is Register with a continuation, which is called once, perhaps
// before RegisterThen returns, and must not wait. deadlineMS is node time; 0 is
// the cluster's own patience.
func (c *Client) RegisterThen(r *messages.Register, deadlineMS int64, done func(*messages.Registered, error)) {
	if err := c.cluster.KeepErr(); err != nil {
		done(nil, fmt.Errorf("%w: %v", ErrDisk, err))
		return
	}
	reg := &registration{c: c, r: r, deadlineMS: deadlineMS, done: done, arrivedMS: c.cluster.NowMS() - r.GetAgeMs()}
	r.Edge, r.Incarnation = c.cluster.Name(), c.cluster.Incarnation()
	if r.Stamp == nil {
		r.Stamp = c.cluster.NewStamp()
	}
	c.cluster.AskAsync(r.Aor, r, deadlineMS, reg.answered)
}

// AtOnce is RegisterThen for a REGISTER that does no more than renew the one
// binding of a user, or make the first one, where the user's state is here alone.
// then is called once the binding is kept, perhaps before AtOnce returns, and must
// not wait: with when that was done and when the binding expires, in node time, or an
// error as RegisterThen's. r, which has room for a stamp, may not be changed until
// then, and is not kept beyond. False: nothing has been done, and the REGISTER is one
// for RegisterThen.
func (c *Client) AtOnce(r *messages.Register, then func(nowMS, expiresMS int64, err error)) bool {
	if c.cluster.KeepErr() != nil {
		return false
	}
	r.Edge, r.Incarnation = c.cluster.Name(), c.cluster.Incarnation()
	return c.cluster.AtOnce(r, then)
}

// registration is one REGISTER on its way.
type registration struct {
	c                     *Client
	r                     *messages.Register
	deadlineMS, arrivedMS int64
	// again: it has been stamped once more.
	again bool
	done  func(*messages.Registered, error)
}

func (g *registration) answered(reply proto.Message, err error) {
	res, err := typed[*messages.Registered](reply, err)
	if behind := (ClockBehindError{}); !g.again && errors.As(err, &behind) {
		g.c.cluster.RaiseClock(behind.StampMS)
		// A message is never changed once sent: the first may still be on its way.
		again := proto.CloneOf(g.r)
		again.Stamp = g.c.cluster.NewStamp()
		again.AgeMs = g.c.cluster.NowMS() - g.arrivedMS
		g.again, g.r = true, again
		g.c.cluster.AskAsync(again.Aor, again, g.deadlineMS, g.answered)
		return
	}
	if err != nil || res.GetWrites().Empty() {
		g.done(res, err)
		return
	}
	g.c.cluster.KeepAsync(res.Writes, func(err error) {
		if err != nil {
			g.done(nil, fmt.Errorf("%w: %v", ErrDisk, err))
			return
		}
		g.done(res, nil)
	})
}

// Remove ends bindings of a user at an operator's word: the one that binding
// names (a key, or a Contact), or all of them if it is empty. It returns when
// the removal is stored here and copied (rule 5). ErrNotFound: there is none.
func (c *Client) Remove(ctx context.Context, aor AoR, binding string) (*messages.Removed, error) {
	if err := c.cluster.KeepErr(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDisk, err)
	}
	askedMS, stamp := c.cluster.NowMS(), c.cluster.NewStamp()
	r := &messages.Remove{
		Aor: string(aor), Binding: binding, Stamp: stamp,
		CallId: operatorCallID + fmt.Sprintf("%d.%d.%x", stamp.GetMs(), stamp.GetCounter(), stamp.GetIncarnation()),
		Edge:   c.cluster.Name(), Incarnation: c.cluster.Incarnation(),
	}
	res, err := call[*messages.Removed](ctx, c, r.Aor, r)
	if behind := (ClockBehindError{}); errors.As(err, &behind) {
		c.cluster.RaiseClock(behind.StampMS)
		again := proto.CloneOf(r)
		again.Stamp, again.AgeMs = c.cluster.NewStamp(), c.cluster.NowMS()-askedMS
		res, err = call[*messages.Removed](ctx, c, again.Aor, again)
	}
	if err != nil {
		return nil, err
	}
	if err := c.keep(ctx, res.GetWrites()); err != nil {
		return nil, err
	}
	return res, nil
}

// Publish puts a PUBLISH to its user and returns when this edge has stored what
// it must before it may send the 200. It fills in what Register fills in.
func (c *Client) Publish(ctx context.Context, p *messages.Publish) (*messages.Published, error) {
	if err := c.cluster.KeepErr(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDisk, err)
	}
	p.Edge, p.Incarnation = c.cluster.Name(), c.cluster.Incarnation()
	if p.Stamp == nil {
		p.Stamp = c.cluster.NewStamp()
	}
	res, err := call[*messages.Published](ctx, c, p.Aor, p)
	if err != nil {
		return nil, err
	}
	if err := c.keep(ctx, res.GetWrites()); err != nil {
		return nil, err
	}
	return res, nil
}

// Subscribe asks for the state of a user, and tells what this node wants to be
// told of from now on, if m.Interest is not nil. It fills in what Register fills in.
func (c *Client) Subscribe(ctx context.Context, m *messages.Subscribe) (*messages.Subscribed, error) {
	askedMS := c.cluster.NowMS() - m.GetAgeMs()
	m.Edge, m.Incarnation, m.Stamp = c.cluster.Name(), c.cluster.Incarnation(), c.cluster.NewStamp()
	res, err := call[*messages.Subscribed](ctx, c, m.Aor, m)
	if behind := (ClockBehindError{}); errors.As(err, &behind) {
		c.cluster.RaiseClock(behind.StampMS)
		again := proto.CloneOf(m)
		again.Stamp, again.AgeMs = c.cluster.NewStamp(), c.cluster.NowMS()-askedMS
		res, err = call[*messages.Subscribed](ctx, c, again.Aor, again)
	}
	if err != nil {
		return nil, err
	}
	if err := c.keep(ctx, res.GetWrites()); err != nil {
		return nil, err
	}
	return res, nil
}

// StoreMessage has a message kept for a user, and returns when it is stored here
// and copied, with its key; nil: a repeat of it is stored at another node. It
// fills in what Register fills in.
func (c *Client) StoreMessage(ctx context.Context, m *messages.StoreMessage) (key []byte, err error) {
	if err := c.cluster.KeepErr(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDisk, err)
	}
	m.Edge, m.Incarnation = c.cluster.Name(), c.cluster.Incarnation()
	if m.Stamp == nil {
		m.Stamp = c.cluster.NewStamp()
	}
	res, err := call[*messages.MessageStored](ctx, c, m.Aor, m)
	if err != nil {
		return nil, err
	}
	if leases := res.GetWrites().GetLeases(); len(leases) > 0 {
		key = leases[0].Key
	}
	return key, c.keep(ctx, res.GetWrites())
}

// DropMessages ends messages of this node that have been delivered or given up.
func (c *Client) DropMessages(ctx context.Context, aor AoR, keys ...[]byte) error {
	m := &messages.DropMessages{
		Aor: string(aor), Keys: keys, Edge: c.cluster.Name(), Incarnation: c.cluster.Incarnation(), Stamp: c.cluster.NewStamp(),
	}
	res, err := call[*messages.MessageStored](ctx, c, m.Aor, m)
	if err != nil {
		return err
	}
	return c.keep(ctx, res.GetWrites())
}

// keep stores what a holder has accepted from this edge.
func (c *Client) keep(ctx context.Context, writes *messages.Record) error {
	if writes.Empty() {
		return nil
	}
	if err := c.cluster.Keep(ctx, writes); err != nil {
		return fmt.Errorf("%w: %v", ErrDisk, err)
	}
	return nil
}

// Locate asks where a user can be called (WHEREIS). No way to call them is an
// error: ErrNotFound, ErrUnavailable or ErrRetry (rule 15).
func (c *Client) Locate(ctx context.Context, aor AoR) (*messages.Located, error) {
	return call[*messages.Located](ctx, c, string(aor), &messages.Locate{Aor: string(aor)})
}

// LocateThen is Locate with a continuation, which is called once, perhaps before
// LocateThen returns, and must not wait. deadlineMS is node time; callID, which
// may be empty, is that of the request that it is asked for, for the logs of the
// nodes that answer. It decides nothing.
//
// part, which may be nil, takes what the owner's stand-in knows, or an owner that
// does not know all, perhaps more than once; it must not wait either. It says by
// forget, then or later, that nobody needs the rest: done may not be called then.
func (c *Client) LocateThen(aor AoR, callID string, deadlineMS int64, part func(res *messages.Located, forget func()), done func(*messages.Located, error)) {
	m := &messages.Locate{Aor: string(aor), CallId: strings.ToValidUTF8(callID, "?")}
	var taken func(proto.Message, func())
	if part != nil {
		taken = func(reply proto.Message, forget func()) {
			if res, err := typed[*messages.Located](reply, nil); err == nil {
				part(res, forget)
			}
		}
	}
	c.cluster.LookupAsync(m.Aor, m, deadlineMS, taken, func(reply proto.Message, err error) {
		done(typed[*messages.Located](reply, err))
	})
}

// RelocateThen is LocateThen for who has tried what the first answer named: whoever
// answers this time has asked all that may know more.
func (c *Client) RelocateThen(aor AoR, callID string, deadlineMS int64, done func(*messages.Located, error)) {
	m := &messages.Locate{Aor: string(aor), CallId: strings.ToValidUTF8(callID, "?"), Full: true}
	c.cluster.LookupAsync(m.Aor, m, deadlineMS, nil, func(reply proto.Message, err error) {
		done(typed[*messages.Located](reply, err))
	})
}

// Where asks for all that is known of a user, for people.
func (c *Client) Where(ctx context.Context, aor AoR) (*messages.Whereabouts, error) {
	return call[*messages.Whereabouts](ctx, c, string(aor), &messages.Where{Aor: string(aor)})
}

// call asks a user and checks the type of the answer.
func call[R proto.Message](ctx context.Context, c *Client, aor string, req proto.Message) (R, error) {
	return typed[R](c.cluster.Ask(ctx, aor, req))
}

// typed turns a Failure into its error, and checks the type of everything else.
func typed[R proto.Message](reply proto.Message, err error) (R, error) {
	var zero R
	if err != nil {
		return zero, err
	}
	switch reply := reply.(type) {
	case R:
		return reply, nil
	case *messages.Failure:
		return zero, FromFailure(reply)
	}
	return zero, fmt.Errorf("%w: unexpected answer %T", ErrInternal, reply)
}
