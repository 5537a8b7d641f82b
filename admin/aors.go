package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"hereis/messages"
)

// User is a line of /v1/aors: a user who is online.
type User struct {
	AoR      string  `json:"aor"`
	Bindings []Lease `json:"bindings"`
}

// UserLine is any line of /v1/aors: a User, or, once and last, End. A list
// without it was cut off.
type UserLine struct {
	User
	End *UsersEnd `json:"end,omitempty"`
}

// UsersEnd is the last line of a list.
type UsersEnd struct {
	// Users is how many lines there were.
	Users int `json:"users"`
	// Cursor is where to go on; empty: that was all.
	Cursor string `json:"cursor,omitempty"`
	// Partial: nodes are Missing, or the members have just changed.
	Partial bool          `json:"partial"`
	Missing []MissingNode `json:"missing,omitempty"`
	// Error ended the list.
	Error string `json:"error,omitempty"`
}

// MissingNode did not answer.
type MissingNode struct {
	Node  string `json:"node"`
	Error string `json:"error"`
}

// Count is the answer of /v1/count: users online and their bindings.
type Count struct {
	Users    uint64 `json:"users"`
	Bindings uint64 `json:"bindings"`
	// Partial: a node did not answer.
	Partial bool        `json:"partial"`
	Nodes   []CountNode `json:"nodes"`
}

// CountNode is the share of one node, as owner.
type CountNode struct {
	Node     string `json:"node"`
	Users    uint64 `json:"users"`
	Bindings uint64 `json:"bindings"`
	Error    string `json:"error,omitempty"`
}

// Show is the answer of GET /v1/aor/AOR.
type Show struct {
	Where *Where `json:"where"`
	Call  Call   `json:"call"`
}

// Call is what an INVITE to the user would do now.
type Call struct {
	// Status and Reason are the answer, if there is no target.
	Status int    `json:"status,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Final: the targets are all; otherwise more may be found while they ring.
	Final   bool     `json:"final"`
	Targets []Target `json:"targets"`
}

// Target is one place that an INVITE would go to.
type Target struct {
	// Step: targets of one step ring at the same time, one step after the other
	// has ended. Device: those of one device are alternatives, tried in turn.
	Step    int     `json:"step"`
	Device  int     `json:"device"`
	Contact string  `json:"contact"`
	Q       float64 `json:"q"`
	Edge    string  `json:"edge"`
	// Way is "flow" (by the device's flow at Edge) or "contact" (the Contact is called).
	Way        string   `json:"way"`
	EdgeLive   bool     `json:"edge_live"`
	Transport  string   `json:"transport,omitempty"`
	Remote     string   `json:"remote,omitempty"`
	Path       []string `json:"path,omitempty"`
	InstanceID string   `json:"instance_id,omitempty"`
	RegID      uint32   `json:"reg_id,omitempty"`
}

// Removed is the answer of DELETE /v1/aor/AOR.
type Removed struct {
	AoR string `json:"aor"`
	// Removed are the bindings that were live; none: the device registered again meanwhile.
	Removed []Lease `json:"removed"`
	// Copied: another holder has the removal too.
	Copied bool `json:"copied"`
}

// listAoRs streams users as lines of JSON (application/x-ndjson), a page of the
// nodes' at a time, so that neither end holds them all.
func (s *Server) listAoRs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if q.Get("limit") != "" && (err != nil || limit < 0) {
		s.fail(w, fmt.Errorf("%w: limit %q is no number", ErrBadRequest, q.Get("limit")))
		return
	}
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		s.fail(w, fmt.Errorf("%w: %d streams already", ErrUnavailable, maxWatchers))
		return
	}
	l := &lister{server: s, w: w, live: s.liveNodes()}
	query := ListQuery{Pattern: pattern(q.Get("pattern")), Cursor: q.Get("cursor"), Limit: limit}
	end, err := s.node.List(r.Context(), query, l.user)
	switch {
	case err != nil && l.stream == nil:
		s.fail(w, err)
		return
	case err != nil:
		l.last(UsersEnd{Users: l.count, Partial: true, Error: err.Error()})
		return
	}
	last := UsersEnd{Users: l.count, Cursor: end.Cursor, Partial: !end.Settled || len(end.Missing) > 0}
	for _, m := range end.Missing {
		last.Missing = append(last.Missing, MissingNode{Node: m.Node, Error: m.Err.Error()})
	}
	l.last(last)
}

// lister writes the lines of one list.
type lister struct {
	server *Server
	w      http.ResponseWriter
	stream *stream
	live   []string
	count  int
	buf    []byte
}

// listBuffer is how much is gathered before it is written.
const listBuffer = 64 << 10

func (l *lister) user(rec *messages.Record, nowMS int64) error {
	l.count++
	return l.line(newUser(rec, nowMS, l.live))
}

func (l *lister) line(v any) error {
	if l.stream == nil {
		l.stream = newStream(l.w, false)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.buf = append(append(l.buf, body...), '\n')
	if len(l.buf) < listBuffer {
		return nil
	}
	return l.write()
}

func (l *lister) write() error {
	err := l.stream.flush(string(l.buf))
	l.buf = l.buf[:0]
	return err
}

// last ends the list; a client that does not read has its own error.
func (l *lister) last(end UsersEnd) {
	if l.line(struct {
		End UsersEnd `json:"end"`
	}{end}) == nil {
		_ = l.write()
	}
}

func (s *Server) liveNodes() (names []string) {
	for _, m := range s.node.Members() {
		if m.State != MemberFailed {
			names = append(names, m.Name)
		}
	}
	return names
}

// newUser shows the bindings that count, and those that wait for their edge.
func newUser(rec *messages.Record, nowMS int64, live []string) *User {
	u := &User{AoR: rec.GetAor(), Bindings: []Lease{}}
	w := &messages.Whereabouts{Record: rec, NowMs: nowMS, View: live}
	for _, l := range rec.GetLeases() {
		if l.GetKind() > messages.LeaseKind_LEASE_KIND_BINDING || !rec.Alive(l, nowMS) {
			continue
		}
		view := newLease(l, nowMS)
		view.State = leaseState(l, w, nil)
		u.Bindings = append(u.Bindings, view)
	}
	return u
}

func (s *Server) countAoRs(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	counts, err := s.node.Count(ctx, pattern(r.URL.Query().Get("pattern")))
	if err != nil {
		s.fail(w, err)
		return
	}
	answer := Count{Nodes: []CountNode{}}
	for _, c := range counts {
		node := CountNode{Node: c.Node, Users: c.Users, Bindings: c.Bindings}
		if c.Err != nil {
			node.Error, answer.Partial = c.Err.Error(), true
		}
		answer.Users += c.Users
		answer.Bindings += c.Bindings
		answer.Nodes = append(answer.Nodes, node)
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) showAoR(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	aor := r.PathValue("aor")
	known, err := s.node.Where(ctx, aor)
	if err != nil {
		s.fail(w, err)
		return
	}
	plan, err := s.node.PlanCall(ctx, aor)
	if err != nil {
		s.fail(w, err)
		return
	}
	answer := Show{Where: NewWhere(known, s.node.Members()), Call: newCall(plan)}
	status := http.StatusOK
	if answer.Where.Nothing() {
		status = http.StatusNotFound
	}
	writeJSON(w, status, answer)
}

// newCall numbers the steps and devices of a call: best q first, the flows of
// one instance with its best one (RFC 3261 16.6, RFC 5626 5.3).
func newCall(p *CallPlan) Call {
	c := Call{Status: p.Status, Reason: p.Reason, Final: p.Final, Targets: []Target{}}
	devices := map[string]int{}
	var best []uint32
	for _, t := range p.Targets {
		device, known := devices[t.GetInstanceId()]
		if !known || t.GetInstanceId() == "" || t.GetRegId() == 0 {
			best = append(best, t.GetQ())
			device = len(best)
			if t.GetInstanceId() != "" && t.GetRegId() != 0 {
				devices[t.GetInstanceId()] = device
			}
		}
		way := "contact"
		if t.GetFlowBound() {
			way = "flow"
		}
		c.Targets = append(c.Targets, Target{
			Device: device, Contact: t.GetContact(), Q: float64(t.GetQ()) / 1000, Edge: t.GetEdge(), Way: way, EdgeLive: t.GetEdgeLive(),
			Transport: t.GetTransport(), Remote: t.GetRemote(), Path: t.GetPath(), InstanceID: t.GetInstanceId(), RegID: t.GetRegId(),
		})
	}
	steps := slices.Clone(best)
	slices.SortFunc(steps, func(a, b uint32) int { return int(b) - int(a) })
	steps = slices.Compact(steps)
	for i := range c.Targets {
		c.Targets[i].Step = 1 + slices.Index(steps, best[c.Targets[i].Device-1])
	}
	slices.SortStableFunc(c.Targets, func(a, b Target) int { return a.Step - b.Step })
	return c
}

// removeAoR removes one binding (?binding=KEY or CONTACT) or all of them.
func (s *Server) removeAoR(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	aor, binding := r.PathValue("aor"), r.URL.Query().Get("binding")
	if r.URL.Query().Has("binding") && binding == "" {
		// An empty variable in somebody's script must not remove everything.
		s.fail(w, fmt.Errorf("%w: binding is empty", ErrBadRequest))
		return
	}
	removed, err := s.node.Remove(ctx, aor, binding)
	switch {
	case errors.Is(err, ErrNotFound):
		writeError(w, http.StatusNotFound, "there is no such binding of "+aor)
		return
	case err != nil:
		s.fail(w, err)
		return
	}
	s.log.Info("bindings removed by an operator", "aor", aor, "count", len(removed.GetRemoved()))
	answer := Removed{AoR: aor, Removed: []Lease{}, Copied: removed.GetCopied()}
	for _, l := range removed.GetRemoved() {
		view := newLease(l, removed.GetNowMs())
		view.State = LeaseRemoved
		answer.Removed = append(answer.Removed, view)
	}
	writeJSON(w, http.StatusOK, answer)
}
