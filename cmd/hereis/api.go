package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"hereis"
	"hereis/admin"
	"hereis/messages"
)

// api is a node as its admin API wants it.
type api struct{ node *hereis.Node }

// Where implements admin.Node.
func (a api) Where(ctx context.Context, text string) (*messages.Whereabouts, error) {
	aor, err := a.node.ParseAoR(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	w, err := a.node.Where(ctx, aor)
	return w, apiError(err)
}

// Members implements admin.Node.
func (a api) Members() []admin.Member {
	var all []admin.Member
	for _, m := range a.node.Members() {
		v := admin.Member{
			Name: m.Name, State: admin.MemberState(m.State), Incarnation: m.Incarnation,
			Region: m.Region, Zone: m.Zone, Gossip: m.Gossip, Stream: m.Stream, Remote: m.Remote,
			Version: m.Version, FailedMS: m.FailedMS, Self: m.Name == a.node.Name(),
		}
		if v.Self {
			v.State, v.Version = admin.MemberLive, hereis.Version()
			if m.Draining {
				v.State = admin.MemberDraining
			}
		}
		if hello := a.node.Hello(m.Name); hello != nil {
			v.SIP, v.Admin = hello.GetSip(), hello.GetAdmin()
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(x, y admin.Member) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Send implements admin.Node.
func (a api) Send(ctx context.Context, to string, question proto.Message) ([]admin.Reply, error) {
	address, err := a.address(to)
	if err != nil {
		return nil, err
	}
	var replies []admin.Reply
	for _, r := range hereis.AskAll[proto.Message](ctx, a.node, address, question) {
		reply := admin.Reply{Node: r.Node, Answer: r.Answer, Err: apiError(r.Err)}
		// Asked for any message, AskAll takes a failure for an answer too.
		if f, failed := r.Answer.(*messages.Failure); failed && r.Err == nil {
			reply.Answer, reply.Err = nil, failureError(f.GetCode(), errors.New(failureText(f)))
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

func (a api) address(to string) (hereis.To, error) {
	if to == "all" {
		return hereis.Everybody(), nil
	}
	// A node's name has none of these (hereis.Config.Name).
	if strings.ContainsAny(to, "@:") {
		aor, err := a.node.ParseAoR(to)
		if err != nil {
			return hereis.To{}, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		return hereis.ToUser(aor), nil
	}
	for _, m := range a.node.Members() {
		if m.Name == to {
			return hereis.ToNode(to), nil
		}
	}
	return hereis.To{}, fmt.Errorf("%w: there is no node %s", admin.ErrNotFound, to)
}

// Watch implements admin.Node.
func (a api) Watch(ctx context.Context, q admin.WatchQuery) (admin.Watcher, error) {
	pattern, err := a.pattern(q.Pattern)
	if err != nil {
		return nil, err
	}
	w, err := a.node.Watch(ctx, pattern, hereis.WatchOptions{From: q.From, Snapshot: q.Snapshot, Damp: q.Damp})
	if err != nil {
		return nil, apiError(err)
	}
	return watcher{w}, nil
}

// watcher is a hereis.Watcher as the admin API wants it.
type watcher struct{ *hereis.Watcher }

// Next implements admin.Watcher.
func (w watcher) Next(ctx context.Context) (*admin.UserEvent, error) {
	e, err := w.Watcher.Next(ctx)
	if err != nil {
		return nil, err
	}
	basic, notes := hereis.PresenceOf(e)
	return &admin.UserEvent{
		ID: e.ID, Kind: string(e.Kind), AoR: e.AoR, Online: e.Online, Complete: e.Complete,
		Reason: string(e.Reason), Device: e.Device, Devices: e.Devices, MS: e.MS,
		Basic: basic, Notes: notes, Published: e.Published,
	}, nil
}

// pattern makes a pattern of ours out of what people write. A domain may be
// given by any of its names.
func (a api) pattern(text string) (string, error) {
	if text == "*" {
		return text, nil
	}
	domain, isDomain := strings.CutPrefix(text, "@")
	if isDomain {
		text = "anybody@" + domain
	}
	aor, err := a.node.ParseAoR(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	if isDomain {
		_, host, _ := strings.Cut(string(aor), "@")
		return "@" + host, nil
	}
	return string(aor), nil
}

// List implements admin.Node.
func (a api) List(ctx context.Context, q admin.ListQuery, each func(*messages.Record, int64) error) (end admin.ListEnd, err error) {
	pattern, err := a.pattern(q.Pattern)
	if err != nil {
		return end, err
	}
	listed, err := a.node.List(ctx, hereis.Query{Pattern: pattern, After: q.Cursor, Limit: q.Limit}, each)
	if err != nil {
		return end, apiError(err)
	}
	end.Cursor, end.Settled = listed.Next, listed.Settled
	for _, m := range listed.Missing {
		end.Missing = append(end.Missing, admin.Reply{Node: m.Node, Err: m.Err})
	}
	return end, nil
}

// Count implements admin.Node.
func (a api) Count(ctx context.Context, pattern string) ([]admin.NodeCount, error) {
	pattern, err := a.pattern(pattern)
	if err != nil {
		return nil, err
	}
	var counts []admin.NodeCount
	for _, c := range a.node.Count(ctx, pattern) {
		counts = append(counts, admin.NodeCount(c))
	}
	slices.SortFunc(counts, func(x, y admin.NodeCount) int { return strings.Compare(x.Node, y.Node) })
	return counts, nil
}

// Watchers implements admin.Node.
func (a api) Watchers(ctx context.Context, text string, limit int) (string, []admin.NodeWatchers, error) {
	aor, err := a.node.ParseAoR(text)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	var nodes []admin.NodeWatchers
	for _, w := range a.node.Watchers(ctx, aor, limit) {
		nodes = append(nodes, admin.NodeWatchers(w))
	}
	return string(aor), nodes, nil
}

// Remove implements admin.Node.
func (a api) Remove(ctx context.Context, text, binding string) (*messages.Removed, error) {
	aor, err := a.node.ParseAoR(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	removed, err := a.node.Remove(ctx, aor, binding)
	return removed, apiError(err)
}

// PlanCall implements admin.Node.
func (a api) PlanCall(ctx context.Context, text string) (*admin.CallPlan, error) {
	aor, err := a.node.ParseAoR(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	p, err := a.node.PlanCall(ctx, aor)
	if err != nil {
		return nil, apiError(err)
	}
	return &admin.CallPlan{Targets: p.Targets, Final: p.Final, Status: p.Status, Reason: p.Reason}, nil
}

// Healthy implements admin.Node.
func (a api) Healthy() error { return a.node.Healthy() }

// Drain implements admin.Node.
func (a api) Drain(undo bool) error {
	if undo {
		return a.node.Undrain()
	}
	return a.node.Drain()
}

// DrainStatus implements admin.Node.
func (a api) DrainStatus() admin.Drain {
	st := a.node.DrainStatus()
	return admin.Drain{Node: a.node.Name(), Draining: st.Draining, Done: st.Done, Left: st.Left, Waiting: st.Waiting}
}

// Forget implements admin.Node.
func (a api) Forget(name string) error {
	err := a.node.Forget(name)
	if errors.Is(err, hereis.ErrNotRemembered) {
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	}
	return err
}

// Ready implements admin.Node.
func (a api) Ready() error { return a.node.Ready() }

// Info implements admin.Node.
func (a api) Info() admin.Info {
	return admin.Info{
		Name: a.node.Name(), Incarnation: a.node.Incarnation(), Version: hereis.Version(), Go: runtime.Version(),
		SIP: a.node.SIPAddrs(), Domains: a.node.Domains(),
	}
}

// Stats implements admin.Node.
func (a api) Stats() map[string]float64 { return a.node.Stats() }

// apiError gives an error of the node the status that it stands for.
func apiError(err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return failureError(hereis.Code(err), err)
}

func failureError(code messages.FailureCode, err error) error {
	switch code {
	case messages.FailureCode_FAILURE_CODE_NOT_FOUND:
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	case messages.FailureCode_FAILURE_CODE_BAD_REQUEST:
		return fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	case messages.FailureCode_FAILURE_CODE_UNAVAILABLE, messages.FailureCode_FAILURE_CODE_RETRY,
		messages.FailureCode_FAILURE_CODE_TOO_LATE, messages.FailureCode_FAILURE_CODE_OVERLOADED:
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	return err
}

func failureText(f *messages.Failure) string {
	text := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(f.GetCode().String(), "FAILURE_CODE_"), "_", " "))
	if f.GetDetail() != "" {
		text += ": " + f.GetDetail()
	}
	return text
}
