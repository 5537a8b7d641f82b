package cluster_test

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// What a simulation asks its nodes.

// ask asks through a node and returns the answer when it comes.
func (w *world) ask(n *simNode, aor string, msg proto.Message) proto.Message {
	w.t.Helper()
	var got proto.Message
	n.core.Ask(w.now+n.skew, aor, msg, 0, func(reply proto.Message, err error) {
		if err != nil {
			reply = &messages.Failure{Detail: err.Error()}
		}
		got = reply
	})
	for end := w.now + 3000; got == nil && w.now < end; {
		w.run(5)
	}
	if got == nil {
		w.t.Fatalf("%s: no answer to %s at all", n.name, messages.TypeName(msg))
	}
	return got
}

func (w *world) locate(n *simNode, aor string) ([]*messages.Target, messages.FailureCode) {
	w.t.Helper()
	switch r := w.ask(n, aor, &messages.Locate{Aor: aor}).(type) {
	case *messages.Located:
		return r.Targets, 0
	case *messages.Failure:
		return nil, r.Code
	default:
		w.t.Fatalf("answer %T", r)
		return nil, 0
	}
}

// owner and backup of an AoR as n sees it.
func (w *world) holders(n *simNode, aor string) (owner, backup *simNode) {
	w.t.Helper()
	r, ok := w.ask(n, aor, &messages.Where{Aor: aor}).(*messages.Whereabouts)
	if !ok {
		w.t.Fatalf("where %s: failed", aor)
	}
	return w.node(r.Owner), w.node(r.Backup)
}

// aorWith finds an AoR whose owner and backup are as ok wants.
func (w *world) aorWith(ok func(owner, backup *simNode) bool) string {
	w.t.Helper()
	for i := range 1000 {
		aor := fmt.Sprintf("sip:u%d@example.com", i)
		if ok(w.holders(w.nodes[0], aor)) {
			return aor
		}
	}
	w.t.Fatal("no such AoR")
	return ""
}
