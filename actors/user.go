package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"google.golang.org/protobuf/proto"
)

// UserKind is the name of the user grain's kind.
const UserKind = "user"

// Asker is the door to the users on this node: the owner's gate, or the way to it.
type Asker interface {
	// AskThen puts msg to the user of an AoR and returns at once; done is
	// called once with the reply or the error, from any goroutine.
	AskThen(aor string, msg proto.Message, done func(reply proto.Message, err error))
}

// NewUserKind makes proto.actor's kind of the user grain, for those who reach
// users by its own cluster.Request. The grain is a doorman: state is behind the
// gate, where hedges and copies find it too, so that an activation at the wrong
// node, or two of them, do no harm (rule 21).
func NewUserKind(asker Asker) *pcluster.Kind {
	return pcluster.NewKind(UserKind, actor.PropsFromProducer(func() actor.Actor {
		return &userGrain{asker: asker}
	}))
}

// userGrain is one activation.
type userGrain struct {
	asker Asker
	aor   string
}

// Receive is called by proto.actor, one message at a time.
func (u *userGrain) Receive(ac actor.Context) {
	switch msg := ac.Message().(type) {
	case *pcluster.ClusterInit:
		u.aor = msg.Identity.GetIdentity()
	case actor.SystemMessage, actor.AutoReceiveMessage:
		// Started, Stopping and their kind: there is nothing to load or save.
	case proto.Message:
		u.asker.AskThen(u.aor, msg, replyTo(ac))
	default:
		if ac.Sender() != nil {
			ac.Respond(ToFailure(fmt.Errorf("%w: %T", ErrUnknownType, msg)))
		}
	}
}

// replyTo answers the sender of the current message, later and without the
// actor: nothing of it is touched outside Receive.
func replyTo(ac actor.Context) func(proto.Message, error) {
	root, sender := ac.ActorSystem().Root, ac.Sender()
	return func(reply proto.Message, err error) {
		if err != nil {
			reply = ToFailure(err)
		}
		if sender != nil && reply != nil {
			root.Send(sender, reply)
		}
	}
}
