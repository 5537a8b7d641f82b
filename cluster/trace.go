package cluster

import (
	"log/slog"

	"hereis/messages"
)

// What one request does is found by its Call-ID in the logs of all nodes, at
// Debug: the front end logs the request and its answer, the node that decides
// logs the question (logAnswer), and the edge and both holders what they have
// taken in of it (logChange). The callers look at Core.debug first, so that it costs nothing otherwise.

// traced is a question that knows the request it stands for.
type traced interface{ GetCallId() string }

// logAnswer logs what was asked and what the grain said.
func (c *Core) logAnswer(rq *request, a *Answer) {
	attrs := make([]any, 0, 14)
	attrs = append(attrs, slog.String("kind", messages.TypeName(rq.msg)), slog.String("aor", rq.aor), slog.String("node", rq.asker))
	if m, ok := rq.msg.(traced); ok {
		attrs = append(attrs, slog.String("call_id", m.GetCallId()))
	}
	if m, ok := rq.msg.(interface{ GetCseq() uint32 }); ok {
		attrs = append(attrs, slog.Uint64("cseq", uint64(m.GetCseq())))
	}
	if f, failed := a.Reply.(*messages.Failure); failed {
		attrs = append(attrs, slog.String("status", f.GetCode().String()))
	}
	c.parts.Log.Debug("question answered", append(attrs, slog.Bool("stand_in", rq.standIn))...)
}

// logChange logs what a record has taken in, a line for each lease and the floor.
func (c *Core) logChange(aor string, in *messages.Record, o origin) {
	from := o.from
	if from == "" {
		from = c.cfg.Name
	}
	for _, l := range in.Leases {
		c.parts.Log.Debug("lease taken in", "aor", aor, "call_id", l.CallId, "cseq", l.Cseq, "edge", l.Edge, "dead", l.Dead, "node", from)
	}
	if f := in.Floor; f != nil {
		c.parts.Log.Debug("floor taken in", "aor", aor, "call_id", f.CallId, "cseq", f.Cseq, "edge", f.Edge, "node", from)
	}
}
