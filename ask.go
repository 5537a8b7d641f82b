package hereis

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// ErrManyReplies is the error of Ask to a region or to everybody: use AskAll.
var ErrManyReplies = errors.New("this address has many repliers: use AskAll")

// To says who is asked. Make one with ToNode, ToUser, ToRegion or Everybody.
type To struct {
	node, region string
	user         actors.AoR
	everybody    bool
}

// ToNode addresses one node by its stable name.
func ToNode(name string) To { return To{node: name} }

// ToUser addresses the grain of one user: the question is handled at the AoR's owner.
func ToUser(aor actors.AoR) To { return To{user: aor} }

// ToRegion addresses every live node of a region.
func ToRegion(region string) To { return To{region: region} }

// Everybody addresses every live node, the asking one included.
func Everybody() To { return To{everybody: true} }

// Asked is what a handler can learn about the question that it is answering.
type Asked struct {
	// From is the stable name of the node that asked.
	From string
	// AoR is the user whose grain was asked; empty if a node was.
	AoR actors.AoR
}

type askedKey struct{}

// AskedFrom tells a handler who asked whom. Outside a handler it is zero.
func AskedFrom(ctx context.Context) Asked {
	a, _ := ctx.Value(askedKey{}).(Asked)
	return a
}

// Handle makes f the answer of this node to questions of type Q. It is called
// before Run, once per type, and may run many times at once. Delivery is at
// least once: f must be safe to repeat. An error of f reaches the asker as
// actors.ErrInternal with its text as detail; a panic likewise.
func Handle[Q, A proto.Message](n *Node, f func(ctx context.Context, question Q) (A, error)) {
	var q Q
	name := messages.TypeName(q)
	n.cluster.Handle(name, func(ctx context.Context, from, aor string, msg proto.Message) (proto.Message, error) {
		question, ok := msg.(Q)
		if !ok {
			return nil, fmt.Errorf("%s: unexpected message %T", name, msg)
		}
		return f(context.WithValue(ctx, askedKey{}, Asked{From: from, AoR: actors.AoR(aor)}), question)
	})
}

// Ask sends a question to one node or to one user's grain and waits for the
// answer until ctx ends (2 s if it has no deadline). Errors are the sentinels
// of package actors, or ErrManyReplies.
func Ask[A proto.Message](ctx context.Context, n *Node, to To, question proto.Message) (A, error) {
	var zero A
	var answer proto.Message
	var err error
	switch {
	case to.node != "":
		answer, err = n.cluster.AskNode(ctx, to.node, question)
	case to.user != "":
		answer, err = n.cluster.Ask(ctx, string(to.user), question)
	default:
		return zero, ErrManyReplies
	}
	return typed[A](answer, err)
}

// Reply is the answer of one node among many.
type Reply[A proto.Message] struct {
	Node   string
	Answer A
	// Err is set if this node did not answer, or answered with a failure.
	Err error
}

// AskAll sends a question to everybody, to a region or to one address, and
// collects the replies until ctx ends (2 s if it has no deadline): one Reply
// for every node asked, so that a partial result can be told from a full one.
func AskAll[A proto.Message](ctx context.Context, n *Node, to To, question proto.Message) []Reply[A] {
	if to.node != "" || to.user != "" {
		answer, err := Ask[A](ctx, n, to, question)
		return []Reply[A]{{Node: to.node, Answer: answer, Err: err}}
	}
	results := n.cluster.AskAll(ctx, question, func(m cluster.Member) bool {
		return to.everybody || m.Region == to.region
	})
	replies := make([]Reply[A], len(results))
	for i, r := range results {
		answer, err := typed[A](r.Reply, r.Err)
		replies[i] = Reply[A]{Node: r.Node, Answer: answer, Err: err}
	}
	return replies
}

// typed turns an answer into the type that the asker expects.
func typed[A proto.Message](answer proto.Message, err error) (A, error) {
	var zero A
	if err != nil {
		return zero, err
	}
	switch answer := answer.(type) {
	case A:
		return answer, nil
	case *messages.Failure:
		return zero, actors.FromFailure(answer)
	}
	return zero, fmt.Errorf("unexpected answer %T", answer)
}
