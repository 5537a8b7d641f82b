package sipfront

import (
	"context"
	"errors"
	"strings"
	"time"

	"hereis/actors"
	"hereis/messages"
)

// A BYE need not come by the node that its INVITE did: nodes share a name in
// Record-Route, and go round one that is silent. Then the node that sees it
// answered tells those whose tokens stand in its Route, one of which follows the
// call, until they have heard it.

// farewellLife is for how long a node is told that does not answer. It is not
// shorter than what a node that has died leaves behind.
const farewellLife = dialogExpires * time.Second

// leaving is a BYE on its way through this node.
type leaving struct {
	m *messages.DialogEnded
	// nodes hold the dialog, this one apart.
	nodes []string
}

// farewell is the word that a dialog has ended on its way to a node.
type farewell struct {
	d     *dialogEvents
	m     *messages.DialogEnded
	node  string
	until time.Time
	fails int
	piece
}

// leave takes in a request that comes by; nil if it is no BYE.
func (d *dialogEvents) leave(r *request, p *plan) *leaving {
	if d == nil || r.method != "BYE" || r.fromTag == "" || r.toTag == "" {
		return nil
	}
	l := &leaving{m: &messages.DialogEnded{
		CallId: strings.Clone(r.callID), FromTag: strings.Clone(r.fromTag), ToTag: strings.Clone(r.toTag),
	}}
	if r.msg != nil && r.msg.Flow != nil && d.s.parts.Cluster.IsNode(r.msg.Flow.Remote()) {
		return l // the node that it entered by tells the others
	}
	if p.token != nil && p.token.kind == tokenDialog {
		d.pass(l, p.token.edge)
	}
	for _, route := range r.routes {
		if t, ok := d.s.dialogToken(&plan{}, route, r); ok {
			d.pass(l, t.edge)
		}
	}
	return l
}

// pass notes a node that a dialog leads by.
func (d *dialogEvents) pass(l *leaving, node string) {
	if node == d.s.parts.Cluster.Self() {
		return
	}
	for _, have := range l.nodes {
		if have == node {
			return
		}
	}
	l.nodes = append(l.nodes, node)
}

// left says how a BYE was answered.
func (d *dialogEvents) left(l *leaving, status int) {
	if l == nil || !endsDialog(status) || d.over(l.m.CallId, l.m.FromTag, l.m.ToTag) || d.s.parts.EndDialog == nil {
		return
	}
	for _, node := range l.nodes {
		d.mu.Lock()
		room := d.leaving < d.s.cfg.MaxDialogs
		if room {
			d.leaving++
		}
		d.mu.Unlock()
		if !room {
			d.s.count.dialogsRefused.Add(1)
			continue
		}
		f := &farewell{d: d, m: l.m, node: node, until: time.Now().Add(farewellLife)}
		f.piece = newPiece(f.say)
		d.farewells.push(&f.piece)
	}
}

// endsDialog tells whether a final answer to a BYE means that its dialog is over:
// it has been taken in; the other side knows of no dialog, or says nothing (RFC
// 3261 15.1.1); or there is no way to it any more.
func endsDialog(status int) bool {
	return status >= 200 && status < 300 || status == 481 || status == 408 || status == 480 || status == 430
}

// say tells the node, and returns when to try again.
func (f *farewell) say(ctx context.Context) time.Time {
	d := f.d
	ctx, cancel := context.WithTimeout(ctx, d.s.cfg.LookupTimeout)
	err := d.s.parts.EndDialog(ctx, f.node, f.m)
	cancel()
	now := time.Now()
	if err != nil && !errors.Is(err, actors.ErrUnknownType) && now.Before(f.until) {
		f.fails++
		return now.Add(backoff(f.fails))
	}
	if err != nil {
		d.s.count.dialogsFailed.Add(1)
	}
	d.mu.Lock()
	d.leaving--
	d.mu.Unlock()
	return time.Time{}
}

// DialogEnded takes in that a dialog has ended at another node.
func (s *Server) DialogEnded(m *messages.DialogEnded) {
	if s.dialogs != nil {
		s.dialogs.over(m.GetCallId(), m.GetFromTag(), m.GetToTag())
	}
}
