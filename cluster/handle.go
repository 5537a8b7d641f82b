package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Handler answers one type of message. from is the node that asked; aor is
// empty for a message to the node itself.
type Handler func(ctx context.Context, from, aor string, msg proto.Message) (proto.Message, error)

// Handle registers the handler of a message type by its full protobuf name. A
// message with an AoR is executed at the owner, any other where it is sent to.
// Handlers run in goroutines of their own, at most MaxHandlers at a time; a
// panic or an error is answered with FAILURE_CODE_INTERNAL, unless the error
// is a *FailureError. It is called before Run.
func (n *Node) Handle(typeName string, h Handler) { n.core.handlers[typeName] = h }

// Hearer takes an event, a message that has no answer. It is called by the
// goroutine that has read it, or that has made the change that it tells of,
// with no lock held, and must not block.
type Hearer func(from string, msg proto.Message)

// HandleEvent registers who takes events of a type, by its full protobuf name;
// there may be several. It is called before Run.
func (n *Node) HandleEvent(typeName string, h Hearer) {
	n.core.hearers[typeName] = append(n.core.hearers[typeName], h)
}

// startHandler runs h for rq and lets it reply. False: too many are running.
func (n *Node) startHandler(h Handler, rq *request) bool {
	select {
	case n.running <- struct{}{}:
	default:
		return false
	}
	n.handlers.Go(func() {
		defer func() { <-n.running }()
		rq.reply(n.runHandler(h, rq))
	})
	return true
}

func (n *Node) runHandler(h Handler, rq *request) (reply proto.Message) {
	defer func() {
		if r := recover(); r != nil {
			n.core.stats.Panics.Add(1)
			n.parts.Log.Error("handler panicked", "kind", messages.TypeName(rq.msg), "err", fmt.Sprint(r))
			reply = fail(messages.FailureCode_FAILURE_CODE_INTERNAL, "handler panicked")
		}
	}()
	ctx, cancel := context.WithTimeout(n.ctx, time.Duration(rq.deadline-n.parts.Clock.NowMS())*time.Millisecond)
	defer cancel()
	reply, err := h(ctx, rq.asker, rq.aor, rq.msg)
	if err != nil {
		if fe, ok := err.(*FailureError); ok {
			return fe.Failure
		}
		return fail(messages.FailureCode_FAILURE_CODE_INTERNAL, err.Error())
	}
	if reply == nil {
		return fail(messages.FailureCode_FAILURE_CODE_INTERNAL, "handler returned nothing")
	}
	return reply
}
